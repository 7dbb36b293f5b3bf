import dataclasses
import shutil

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import label_ranking_average_precision_score

from audiotag.data.layouts import find_clips
from audiotag.data.manifest import read_manifest, write_manifest
from audiotag.data.records import write_records
from audiotag.errors import DataError
from audiotag.inference.evaluate import evaluate, score_test_clips

VOCABULARY = ("Bark", "Meow", "Purr", "Siren")


def labelled_clips(count=60, seed=0):
    """A table of clips with one to three labels each, and scores with ties."""
    rng = np.random.default_rng(seed)
    labels = [",".join(rng.choice(VOCABULARY, rng.integers(1, 4), replace=False)) for _ in range(count)]
    usage = rng.choice(["Public", "Private"], count)
    clips = pd.DataFrame({"name": [f"{i}.wav" for i in range(count)], "labels": labels, "usage": usage})
    return clips, rng.integers(0, 10, (count, 4)) / 10


def by_sklearn(clips, scores):
    truth = np.array([[label in labels.split(",") for label in VOCABULARY] for labels in clips["labels"]], int)
    return label_ranking_average_precision_score(truth, scores, sample_weight=truth.sum(axis=1))


def test_lwlrap_is_scikit_learns_overall_and_for_each_part_of_the_leaderboard():
    clips, scores = labelled_clips()
    overall, _ = evaluate(clips, scores, VOCABULARY)
    assert overall.columns.tolist() == ["part", "clips", "lwlrap", "chance", "top_1"]
    assert overall["part"].tolist() == ["all", "Public", "Private"]
    for row in overall.itertuples():
        of_part = np.full(60, True) if row.part == "all" else (clips["usage"] == row.part).to_numpy()
        assert row.clips == of_part.sum()
        assert row.lwlrap == pytest.approx(by_sklearn(clips[of_part], scores[of_part]), abs=1e-9)


def test_without_parts_there_is_one_row():
    clips, scores = labelled_clips()
    overall, _ = evaluate(clips.assign(usage=""), scores, VOCABULARY)
    assert overall["part"].tolist() == ["all"]


def test_chance_is_what_scores_without_sense_get():
    clips, _ = labelled_clips(2000)
    overall, _ = evaluate(clips, np.random.default_rng(5).random((2000, 4)), VOCABULARY)
    assert overall["lwlrap"][0] == pytest.approx(overall["chance"][0], abs=0.03)


def test_the_rows_of_the_classes_agree_with_a_plain_loop():
    clips, scores = labelled_clips()
    overall, classes = evaluate(clips, scores, VOCABULARY)
    assert classes["class"].tolist() == list(VOCABULARY)
    for label, row in zip(VOCABULARY, classes.itertuples()):
        precisions = []
        for labels, score in zip(clips["labels"], scores):
            if label in labels.split(","):
                above = [name for name, s in zip(VOCABULARY, score) if s >= score[VOCABULARY.index(label)]]
                precisions.append(sum(name in labels.split(",") for name in above) / len(above))
        assert row.clips == len(precisions)
        assert row.lwlrap == pytest.approx(np.mean(precisions), abs=1e-9)
    assert np.average(classes["lwlrap"], weights=classes["clips"]) == pytest.approx(overall["lwlrap"][0], abs=1e-9)


def test_clips_without_labels_cannot_be_measured():
    clips, scores = labelled_clips()
    with pytest.raises(
        DataError, match="The test clips have no labels, so there is nothing to compare with. See: audiotag su"
    ):
        evaluate(clips.assign(labels=""), scores, VOCABULARY)


def test_the_test_clips_are_scored_and_no_others(run):
    clips, scores = score_test_clips(run)
    assert (clips["subset"] == "test").all() and scores.shape == (20, 14)
    assert np.isfinite(scores).all()
    overall, classes = evaluate(clips, scores, run.vocabulary)
    assert set(overall["part"]) == {"all", "Public", "Private"}
    assert classes["clips"].sum() == clips["labels"].str.split(",").str.len().sum()


def test_another_stage_gives_other_scores(run):
    assert np.abs(score_test_clips(run, stage="noisy")[1] - score_test_clips(run)[1]).max() > 0.01


def test_records_elsewhere_give_the_same_scores(run, records, tmp_path):
    moved = shutil.copytree(records, tmp_path / "moved")
    np.testing.assert_array_equal(score_test_clips(run, records=moved)[1], score_test_clips(run)[1])


def test_records_of_another_kind_are_refused(run, records, demo, tmp_path):
    copy = shutil.copytree(records, tmp_path / "records")
    manifest = read_manifest(copy)
    write_manifest(dataclasses.replace(manifest, vocabulary=manifest.vocabulary[1:]))
    with pytest.raises(DataError, match=r"records: has other classes than .*tiny was trained for\."):
        score_test_clips(run, records=copy)
    write_manifest(dataclasses.replace(manifest, options=manifest.options | {"sample_rate": 8000}))
    with pytest.raises(DataError, match=r"records: 8000 Hz; .*tiny was trained at 16000 Hz\."):
        score_test_clips(run, records=copy)


def test_records_without_test_clips_are_refused(run, demo, tmp_path):
    source = find_clips(demo)
    source = dataclasses.replace(source, clips=source.clips[source.clips["subset"] == "curated"])
    write_records(source, tmp_path / "records", sample_rate=16_000, workers=1)
    with pytest.raises(DataError, match=r"records: holds no test clips\."):
        score_test_clips(run, records=tmp_path / "records")
