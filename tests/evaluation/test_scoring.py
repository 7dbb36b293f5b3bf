import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf

from audiotag.data.records.manifest import read_manifest, write_manifest
from audiotag.data.records.writing import write_records
from audiotag.data.sources import find_clips
from audiotag.errors import DataError
from audiotag.evaluation.measures import evaluate
from audiotag.evaluation.scoring import out_of_fold_predictions, score_test_clips
from audiotag.runs.models import with_predict_options

# Out-of-fold predictions


@pytest.fixture
def run_copy(run, tmp_path):
    """A copy of the run that the test may damage."""
    return dataclasses.replace(run, folder=Path(shutil.copytree(run.folder, tmp_path / "copy")))


def test_out_of_fold_scores_must_be_of_exactly_the_held_out_clips(run_copy):
    path = run_copy.stage_files(0, "curated").oof_scores()
    table = pd.read_csv(path)
    folds = pd.read_csv(run_copy.folds_file)
    trained = folds["name"][folds["fold"] == 1].iloc[0]
    pd.concat([table, table.tail(1).assign(name=trained)]).to_csv(path, index=False)
    with pytest.raises(DataError, match=rf"scores of clips that its model trained on: {trained}\. Retrain the fold\."):
        out_of_fold_predictions(run_copy)
    table.iloc[1:].to_csv(path, index=False)
    with pytest.raises(DataError, match=rf"has no scores of held-out clips: {table['name'][0]}\. Retrain the fold\."):
        out_of_fold_predictions(run_copy)
    table.loc[0, run_copy.vocabulary[2]] = np.nan
    table.to_csv(path, index=False)
    clips, logits = out_of_fold_predictions(run_copy)
    with pytest.raises(DataError, match=rf"scores of 1 clips are NaN: {table['name'][0]}\."):
        evaluate(clips, logits, run_copy.vocabulary)


def test_out_of_fold_clips_are_scored_again_if_fit_wrote_other_scores(run):
    clips, written = out_of_fold_predictions(run)
    assert (clips["split"] == "fold 0").all() and set(clips["usage"]) <= {"", "Public", "Private"}
    _, logits = out_of_fold_predictions(dataclasses.replace(run, experiment=run.experiment), "curated")
    np.testing.assert_array_equal(logits, written)
    changed = with_predict_options(run, ["predict.overlap=0.75"])
    for other_clips, other_logits in (out_of_fold_predictions(changed), out_of_fold_predictions(run, "noisy")):
        assert other_clips.equals(clips)
        assert 1e-3 < np.abs(other_logits - written).max() < 20
    changed = with_predict_options(run, ["predict.num_windows=3"])  # only of random windows
    np.testing.assert_allclose(out_of_fold_predictions(changed)[1], written, atol=1e-5)


# Test clips


def test_the_test_clips_are_scored_and_no_others(run):
    clips, scores = score_test_clips(run)
    assert (clips["subset"] == "test").all() and scores.shape == (20, 14)
    assert np.isfinite(scores).all()
    overall, classes = evaluate(clips, scores, run.vocabulary)
    assert set(overall["split"]) == {"all", "Public", "Private"}
    assert classes["clips"].sum() == clips["labels"].str.split(",").str.len().sum()


def test_another_stage_gives_other_scores(run):
    assert np.abs(score_test_clips(run, stage="noisy")[1] - score_test_clips(run)[1]).max() > 0.01


def test_moved_records_give_the_same_scores(run, records, tmp_path):
    moved = shutil.copytree(records, tmp_path / "moved")
    np.testing.assert_array_equal(score_test_clips(run, records=moved)[1], score_test_clips(run)[1])


def test_records_with_other_classes_or_another_sample_rate_are_refused(run, records, tmp_path):
    copy = shutil.copytree(records, tmp_path / "records")
    manifest = read_manifest(copy)
    write_manifest(dataclasses.replace(manifest, vocabulary=manifest.vocabulary[1:]))
    with pytest.raises(DataError, match=r"records: has other classes than .*tiny was trained for\."):
        score_test_clips(run, records=copy)
    write_manifest(dataclasses.replace(manifest, options=manifest.options | {"sample_rate": 8000}))
    with pytest.raises(DataError, match=r"records: 8000 Hz; .*tiny was trained at 16000 Hz\."):
        score_test_clips(run, records=copy)


def test_a_shard_of_test_clips_that_was_rewritten_is_refused(run, records, tmp_path):
    """The checksums of its records and its size are right; only its SHA-256 is not that of the manifest."""
    altered = Path(shutil.copytree(records, tmp_path / "altered"))
    shard = next(shard for shard in read_manifest(altered).shards if shard.subset == "test")
    path = altered / shard.file
    serialized = [record.numpy() for record in tf.data.TFRecordDataset(str(path))]
    with tf.io.TFRecordWriter(str(path)) as writer:
        for record in serialized:
            writer.write(record[:-1000] + bytes(1000))
    assert path.stat().st_size == shard.bytes
    with pytest.raises(DataError, match=rf"{shard.file}: damaged: its SHA-256 is not the manifest's"):
        score_test_clips(run, records=altered)


def test_records_without_test_clips_are_refused(run, demo, tmp_path):
    source = find_clips(demo)
    source = dataclasses.replace(source, clips=source.clips[source.clips["subset"] == "curated"])
    write_records(source, tmp_path / "records", sample_rate=16_000, workers=0)
    with pytest.raises(DataError, match=r"records: has no test clips\."):
        score_test_clips(run, records=tmp_path / "records")
