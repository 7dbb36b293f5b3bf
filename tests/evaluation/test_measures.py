import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
from sklearn.metrics import average_precision_score, f1_score, label_ranking_average_precision_score, roc_auc_score

from audiotag.data.labels import multi_hot
from audiotag.data.records.manifest import read_manifest, write_manifest
from audiotag.data.records.writing import write_records
from audiotag.data.sources.layouts import find_clips
from audiotag.errors import DataError
from audiotag.evaluation import thresholds
from audiotag.evaluation.bootstrap import bootstrap
from audiotag.evaluation.measures import evaluate, fit_thresholds, fit_thresholds_across, judge_clips
from audiotag.evaluation.scoring import held_out_answers, score_test_clips
from audiotag.metrics import lwlrap, mean_average_precision_at_k
from audiotag.runs.models import heard_as

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


def value_of(overall, measure, part="all"):
    """The row of one measure of one part."""
    (row,) = overall[(overall["measure"] == measure) & (overall["part"] == part)].itertuples()
    return row


def test_lwlrap_is_scikit_learns_overall_and_for_each_part_of_the_leaderboard():
    clips, scores = labelled_clips()
    overall, _ = evaluate(clips, scores, VOCABULARY)
    assert overall.columns.tolist() == ["part", "clips", "measure", "value", "low", "high", "chance"]
    assert overall["part"].unique().tolist() == ["all", "Public", "Private"]
    for part in ("all", "Public", "Private"):
        of_part = np.full(60, True) if part == "all" else (clips["usage"] == part).to_numpy()
        row = value_of(overall, "lwlrap", part)
        assert row.clips == of_part.sum()
        assert row.value == pytest.approx(by_sklearn(clips[of_part], scores[of_part]), abs=1e-9)


def test_every_measure_agrees_with_its_own_function():
    clips, scores = labelled_clips()
    truth = multi_hot(clips["labels"], VOCABULARY)
    overall, classes = evaluate(clips, scores, VOCABULARY, thresholds=[0.5, 0.2, 0.4, 0.7])
    expected = {
        "lwlrap": lwlrap(truth, scores),
        "MAP@3": mean_average_precision_at_k(truth, scores),
        "top_1": np.mean([truth[i, scores[i].argmax()] for i in range(60)]),
        "mAP": average_precision_score(truth, scores),
        "AUC": roc_auc_score(truth, scores),
        "F": f1_score(truth, scores >= [0.5, 0.2, 0.4, 0.7], average="macro"),
    }
    assert overall["measure"][overall["part"] == "all"].tolist() == list(expected)
    for measure, value in expected.items():
        assert value_of(overall, measure).value == pytest.approx(value, abs=1e-9), measure
    assert classes["auc"].mean() == pytest.approx(expected["AUC"], abs=1e-9)
    assert classes["average_precision"].mean() == pytest.approx(expected["mAP"], abs=1e-9)
    assert classes["f"].mean() == pytest.approx(expected["F"], abs=1e-9)


def test_without_parts_there_is_one_row_a_measure():
    clips, scores = labelled_clips()
    overall, _ = evaluate(clips.assign(usage=""), scores, VOCABULARY)
    assert overall["part"].tolist() == ["all"] * 6


def test_chance_is_what_scores_without_sense_get():
    clips, _ = labelled_clips(2000)
    overall, classes = evaluate(clips, np.random.default_rng(5).random((2000, 4)), VOCABULARY, thresholds=0.6)
    np.testing.assert_allclose(overall["value"], overall["chance"], atol=0.05)
    for column in ("lwlrap", "average_precision", "auc", "precision", "recall", "f", "accuracy"):
        chance = classes["chance" if column == "lwlrap" else f"chance_{column}"]
        np.testing.assert_allclose(classes[column], chance, atol=0.06, err_msg=column)


def test_intervals_hold_the_value_and_shrink_with_the_clips():
    widths = {}
    for count in (100, 1600):
        clips, scores = labelled_clips(count)
        overall, classes = evaluate(clips, scores, VOCABULARY)
        for table, column in ((overall, "value"), (classes, "lwlrap")):
            assert ((table["low"] <= table[column]) & (table[column] <= table["high"])).all()
        row = value_of(overall, "lwlrap")
        widths[count] = row.high - row.low
    assert widths[100] / widths[1600] == pytest.approx(4, rel=0.3)


def test_an_interval_covers_the_truth_19_times_in_20():
    covered = 0
    for seed in range(200):
        heads = np.random.default_rng(seed).random(150) < 0.7
        low, high = bootstrap(lambda rows: heads[rows].mean(), 150, seed=seed)
        covered += low <= 0.7 <= high
    assert 0.9 < covered / 200 <= 0.985


def test_what_few_clips_carry_has_no_false_interval():
    clips, scores = labelled_clips()
    clips["labels"] = ["Bark,Siren"] + ["Bark", "Meow"] * 29 + ["Bark"]
    scores[0, 3] = 1.0
    _, classes = evaluate(clips, scores, VOCABULARY)
    assert classes.loc[3, ["lwlrap", "low", "high"]].tolist() == [1, 1, 1]  # the draws without the clip tell nothing
    assert classes.loc[2, ["lwlrap", "low", "high"]].isna().all()  # nothing is known of what no clip carries


def test_the_rows_of_the_classes_agree_with_a_plain_loop():
    clips, scores = labelled_clips()
    overall, classes = evaluate(clips, scores, VOCABULARY)
    assert classes["class"].tolist() == list(VOCABULARY)
    for label, row in zip(VOCABULARY, classes.itertuples()):
        found = []
        for labels, score in zip(clips["labels"], scores):
            if label in labels.split(","):
                above = [name for name, s in zip(VOCABULARY, score) if s >= score[VOCABULARY.index(label)]]
                found.append(sum(name in labels.split(",") for name in above) / len(above))
        assert row.clips == len(found)
        assert row.lwlrap == pytest.approx(np.mean(found), abs=1e-9)
    assert np.average(classes["lwlrap"], weights=classes["clips"]) == pytest.approx(
        value_of(overall, "lwlrap").value, abs=1e-9
    )


def test_the_worst_clips_stand_first():
    clips, scores = labelled_clips()
    table = judge_clips(clips, scores, VOCABULARY)
    assert table["lwlrap"].is_monotonic_increasing and len(table) == 60
    row = table.iloc[0]
    index = clips["name"].tolist().index(row["name"])
    assert row["lwlrap"] == pytest.approx(by_sklearn(clips.iloc[[index]], scores[[index]]))
    assert row["answer"].split()[0] == VOCABULARY[scores[index].argmax()]


def test_scores_that_are_missing_or_nan_are_refused_with_the_names():
    clips, scores = labelled_clips()
    scores[[3, 5, 7, 9], 1] = np.nan
    with pytest.raises(DataError, match=r"scores of 4 clips are NaN: 3\.wav, 5\.wav, 7\.wav and 1 more\. Did training"):
        evaluate(clips, scores, VOCABULARY)
    with pytest.raises(DataError, match=r"^59 rows of scores for 60 clips\. Expected one row a clip\.$"):
        evaluate(clips, scores[1:], VOCABULARY)


@pytest.fixture
def own_run(run, tmp_path):
    """A copy of the run, to spoil."""
    return dataclasses.replace(run, folder=Path(shutil.copytree(run.folder, tmp_path / "own")))


def test_held_out_clips_must_be_those_that_training_never_heard(own_run):
    path = own_run.stage_folder(0, "curated") / "curated_scores.csv"
    table = pd.read_csv(path)
    folds = pd.read_csv(own_run.folder / "folds.csv")
    heard = folds["name"][folds["fold"] == 1].iloc[0]
    pd.concat([table, table.tail(1).assign(name=heard)]).to_csv(path, index=False)
    with pytest.raises(DataError, match=rf"scores clips that its model was trained on: {heard}\. Train the fold anew"):
        held_out_answers(own_run)
    table.iloc[1:].to_csv(path, index=False)
    with pytest.raises(DataError, match=rf"has no scores of held-out clips: {table['name'][0]}\. Train the fold anew"):
        held_out_answers(own_run)
    table.loc[0, own_run.vocabulary[2]] = np.nan
    table.to_csv(path, index=False)
    clips, logits = held_out_answers(own_run)
    with pytest.raises(DataError, match=rf"scores of 1 clips are NaN: {table['name'][0]}\."):
        evaluate(clips, logits, own_run.vocabulary)


def test_thresholds_come_from_the_held_out_clips(run):
    judges, scores = held_out_answers(run)
    expected = thresholds.fit_thresholds(multi_hot(judges["labels"], run.vocabulary), scores)
    np.testing.assert_array_equal(fit_thresholds(judges, scores, run.vocabulary), expected)
    assert (fit_thresholds_across(judges, scores, run.vocabulary) == 0).all()  # one fold alone: nobody else could tell
    halves = judges.assign(usage=["fold 0", "fold 1"] * 4)
    across = fit_thresholds_across(halves, scores, run.vocabulary)
    odd = fit_thresholds(judges.iloc[1::2], scores[1::2], run.vocabulary)
    np.testing.assert_array_equal(across[::2], np.tile(odd, (4, 1)))


def test_held_out_clips_are_scored_anew_where_fit_wrote_something_else(run):
    clips, written = held_out_answers(run)
    again, logits = held_out_answers(dataclasses.replace(run, experiment=run.experiment), "curated")
    np.testing.assert_array_equal(logits, written)
    changed = heard_as(run, ["predict.overlap=0.75"])
    for answer in (held_out_answers(changed), held_out_answers(run, "noisy")):
        assert answer[0].equals(clips)
        assert 1e-3 < np.abs(answer[1] - written).max() < 20
    np.testing.assert_allclose(held_out_answers(heard_as(run, ["predict.count=3"]))[1], written, atol=1e-5)


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


def test_test_clips_that_are_not_those_that_were_written_are_refused(run, records, tmp_path):
    """Their checksums and sizes are right: only the manifest knows better."""
    altered = Path(shutil.copytree(records, tmp_path / "altered"))
    shard = next(shard for shard in read_manifest(altered).shards if shard.subset == "test")
    path = altered / shard.file
    sounds = [record.numpy() for record in tf.data.TFRecordDataset(str(path))]
    with tf.io.TFRecordWriter(str(path)) as writer:
        for sound in sounds:
            writer.write(sound[:-1000] + bytes(1000))
    assert path.stat().st_size == shard.bytes
    with pytest.raises(DataError, match=rf"{shard.file}: damaged: its SHA-256 is not the manifest's"):
        score_test_clips(run, records=altered)


def test_records_without_test_clips_are_refused(run, demo, tmp_path):
    source = find_clips(demo)
    source = dataclasses.replace(source, clips=source.clips[source.clips["subset"] == "curated"])
    write_records(source, tmp_path / "records", sample_rate=16_000, workers=0)
    with pytest.raises(DataError, match=r"records: holds no test clips\."):
        score_test_clips(run, records=tmp_path / "records")
