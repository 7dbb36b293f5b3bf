import csv
import functools
import os
import shutil
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
from click.testing import CliRunner

import audiotag
from audiotag.cli import main
from audiotag.data import synthetic
from audiotag.data.records.manifest import read_manifest
from audiotag.inference.audio_files import score_files
from audiotag.serving.saved_model import load_listener


def call(*arguments):
    """What a command prints; it must end well."""
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert result.exit_code == 0, (result.output, result.exception)
    return result.output


def mistake(*arguments):
    """The lines with which a command refuses; there must be no traceback."""
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert result.exit_code == 1
    assert isinstance(result.exception, SystemExit), result.exception
    lines = result.output.splitlines()
    start = next(index for index, line in enumerate(lines) if line.startswith("Error: "))
    return "\n".join(lines[start:])


@pytest.fixture
def own_run(run, tmp_path):
    """A copy of the run, to write into."""
    return shutil.copytree(run.folder, tmp_path / "own")


def read(path):
    with open(path, newline="") as file:
        return list(csv.reader(file))


# What the commands do


def test_the_version_is_that_of_the_package():
    assert call("--version") == f"audiotag, version {audiotag.__version__}\n"


def test_it_is_a_module_too():
    command = [sys.executable, "-m", "audiotag", "--version"]
    assert "version" in subprocess.run(command, check=True, capture_output=True, text=True).stdout


def test_make_demo_and_make_records_say_what_they_made(tmp_path, monkeypatch):
    small = functools.partial(synthetic.make_demo, curated=14, noisy=4, test=4)
    monkeypatch.setattr(synthetic, "make_demo", small)
    assert call("make-demo", tmp_path / "demo", "--seed", 3).startswith("14 curated, 4 noisy (")
    out = tmp_path / "records"
    done = call("make-records", tmp_path / "demo", "--out", out, "--sample-rate", 16_000, "--workers", 1)
    assert done.splitlines()[-1] == f"14 curated, 4 noisy, 4 test clips of 14 classes: {out}"
    assert (out / "manifest.json").is_file()
    assert call("check-records", out).splitlines()[-1] == f"{out}: whole; every byte is as make-records wrote it."
    again = call("make-records", tmp_path / "demo", "--out", out, "--sample-rate", 16_000, "--workers", 1)
    assert again.splitlines() == done.splitlines()[-1:]


def test_make_records_trims_and_sets_the_peak(demo, tmp_path):
    words = ["--sample-rate", 8_000, "--workers", 1, "--trim", "loudest", "--trim-db", 40, "--peak-db", -3]
    call("make-records", demo, "--out", tmp_path / "out", *words)
    options = read_manifest(tmp_path / "out").options
    assert (options["trim"], options["trim_db"], options["peak_db"]) == ("loudest", 40.0, -3.0)
    clips = pd.read_csv(tmp_path / "out" / "clips.csv")
    np.testing.assert_allclose(clips["peak"], 10 ** (-3 / 20), atol=1e-5)
    assert mistake("make-records", demo, "--out", tmp_path / "out", "--trim", "silence") == (
        "Error: trim 'silence': expected loudest or level; leave it out to cut nothing off."
    )


def test_make_records_names_its_folder_after_the_source(demo, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    call("make-records", demo, "--sample-rate", 8_000, "--workers", 1)
    assert (tmp_path / "tfrecords" / "demo" / "manifest.json").is_file()


def test_fit_goes_on_with_a_run_and_exports_it(tiny_file, own_run):
    lines = call("fit", tiny_file, "--run", own_run).splitlines()
    assert [line for line in lines if line.startswith("curated stage, fold 0: lwlrap 0.")]
    assert lines[-1] == f"SavedModel: {own_run / 'saved_model'}"
    assert (own_run / "saved_model" / "saved_model.pb").is_file()


def test_evaluate_prints_a_row_a_class_and_a_row_a_part(run, tmp_path):
    output = call("evaluate", run.folder, "--csv", tmp_path / "classes.csv", "--out", tmp_path / "tables")
    rows = read(tmp_path / "classes.csv")
    assert rows == read(tmp_path / "tables" / "classes.csv")
    assert rows[0][:6] == ["class", "clips", "lwlrap", "low", "high", "chance"]
    assert len(read(tmp_path / "tables" / "clips.csv")) == 1 + 20
    assert len(read(tmp_path / "tables" / "overall.csv")) == 1 + 3 * 6
    assert read(tmp_path / "tables" / "calibration.csv")[0] == ["from", "to", "answers", "probability", "share"]
    assert [row[0] for row in rows[1:]] == list(run.vocabulary)
    for words in (*run.vocabulary, "all", "Public", "Private", "chance"):
        assert words in output
    assert call("evaluate", run.folder, "--stage", "noisy") != output


def test_predict_prints_the_best_classes_and_writes_them_all(run, saved_model, wavs, tmp_path):
    vocabulary = run.vocabulary
    expected = score_files(load_listener(run.folder), wavs)
    for model in (run.folder, saved_model):
        output = call("predict", model, *wavs, "--top", 2, "--csv", tmp_path / "scores.csv")
        lines = [line for line in output.splitlines() if line.startswith((str(wavs[0].parent), "  "))]
        assert len(lines) == 3 * len(wavs)
        assert lines[0] == str(wavs[0])
        assert lines[1].split()[-1] == vocabulary[expected[0].argmax()]
        table = pd.read_csv(tmp_path / "scores.csv", index_col="fname")
        assert table.index.tolist() == [str(path) for path in wavs]
        np.testing.assert_allclose(table[[f"{label} logit" for label in vocabulary]], expected, atol=1e-4)


def test_predict_tells_when_each_class_is_heard(run, wavs, tmp_path):
    changed = ["--set", "predict.overlap=0", "--threshold", 0.05]
    call("predict", run.folder, *wavs[:2], "--timeline", tmp_path / "timeline.csv", *changed)
    rows = read(tmp_path / "timeline.csv")
    assert rows[0] == ["fname", "start", "end", "class", "probability"] and len(rows) > 1
    assert {row[0] for row in rows[1:]} <= {str(path) for path in wavs[:2]}
    assert all(float(row[4]) >= 0.05 and float(row[1]) < float(row[2]) for row in rows[1:])


def test_a_run_may_be_heard_in_another_way(run, tmp_path):
    for command in (["evaluate", run.folder], ["submit", run.folder, "--out", tmp_path / "out.csv"]):
        assert mistake(*command, "--set", "model.name=resnet50").startswith(
            "Error: --set model.name=resnet50: a trained run changes only in how it is heard. Expected one of: predict."
        )
    call("submit", run.folder, "--out", tmp_path / "mean.csv")
    call("submit", run.folder, "--out", tmp_path / "max.csv", "--set", "predict.pool=max")
    assert read(tmp_path / "mean.csv") != read(tmp_path / "max.csv")


def test_submit_follows_the_sample(own_run, demo, tmp_path):
    sample = read(demo / "sample_submission.csv")
    header, *rows = sample
    shuffled = tmp_path / "sample.csv"
    shuffled.write_text("\n".join(",".join(row) for row in [header, *rows[::-1]]) + "\n")
    assert call("submit", own_run, "--like", shuffled).splitlines()[-1] == (
        f"20 rows, 14 classes: {own_run / 'submission.csv'}"
    )
    ours = read(own_run / "submission.csv")
    assert ours[0] == header == ["fname", *sorted(header[1:])]
    assert [row[0] for row in ours[1:]] == [row[0] for row in rows[::-1]]
    call("submit", own_run, "--out", tmp_path / "other.csv")
    assert sorted(map(tuple, read(tmp_path / "other.csv"))) == sorted(map(tuple, ours))


def test_export_says_where_it_put_the_model(run, tmp_path):
    assert call("export", run.folder, tmp_path / "1").splitlines()[-1] == f"SavedModel: {tmp_path / '1'}"
    assert load_listener(tmp_path / "1").vocabulary == run.vocabulary


# A user's mistake: one line, and 1


def test_a_mistake_in_an_experiment(tmp_path, tiny_file):
    assert mistake("fit", tmp_path / "nowhere.json") == (
        f"Error: {tmp_path / 'nowhere.json'}: cannot be read: No such file or directory."
    )
    assert mistake("fit", tiny_file, "--set", "model.name=convskip").startswith(
        f"Error: {tiny_file}: model: there is no part 'convskip'. Did you mean 'conv_skip'?"
    )
    assert mistake("fit", tiny_file, "--set", "stages.nosy.epochs=3").startswith(
        "Error: --set stages.nosy.epochs=3: there is no entry 'nosy'. Did you mean 'noisy'?"
    )
    assert mistake("fit", tiny_file, "--set", "records=nowhere", "--run", tmp_path / "run") == (
        "Error: nowhere: no such directory of records. Make it with: audiotag make-records SOURCE --out nowhere"
    )
    assert mistake("fit", tiny_file, "--fold", 7, "--run", tmp_path / "run") == (
        "Error: there is no fold 7. Accepted: 0 to 4."
    )
    assert mistake("fit", tiny_file, "--set", "frontend.high_hz=9000", "--run", tmp_path / "run").startswith(
        "Error: frontend log_mel: high_hz must be above 0 and at most 8000.0, half of sample_rate=16000."
    )


def test_another_experiment_in_the_directory_of_a_run(tiny_file, own_run):
    assert mistake("fit", tiny_file, "--set", "seed=3", "--run", own_run) == (
        f"Error: {own_run}: was trained with another experiment than this one. "
        "Give the run another name with --run, or train it anew with --restart."
    )


def test_records_that_miss_a_shard_or_have_a_flipped_bit(run, records, tmp_path):
    copy = shutil.copytree(records, tmp_path / "records")
    shard = max(copy.glob("*.tfrecord"))  # of test clips
    data = shard.read_bytes()
    shard.write_bytes(data[:-50] + bytes([data[-50] ^ 1]) + data[-49:])
    for command in (["check-records", copy], ["evaluate", run.folder, "--records", copy]):
        assert mistake(*command).startswith(f"Error: {shard}: damaged: its SHA-256 is not the manifest's. It holds")
        assert mistake(*command).endswith("Make the records anew with --overwrite.")
    shard.unlink()
    for command in (["check-records", copy], ["evaluate", run.folder, "--records", copy]):
        assert mistake(*command).startswith(f"Error: {shard}: is missing; the manifest expects {len(data)} bytes")


def test_a_folder_that_is_no_run(tmp_path, wavs):
    message = f"Error: {tmp_path}: not the directory of a run: it has no records.json. Train one with: audiotag fit"
    message += " EXPERIMENT"
    for command in (["evaluate", tmp_path], ["predict", tmp_path, wavs[0]], ["submit", tmp_path]):
        assert mistake(*command) == message
    assert mistake("export", tmp_path, tmp_path / "saved") == message


def test_a_stage_that_is_not_there(run):
    assert mistake("evaluate", run.folder, "--stage", "nosy") == (
        f"Error: {run.folder}: has no stage 'nosy'. Did you mean 'noisy'? Accepted: noisy, curated."
    )


def test_a_file_that_is_no_sound(saved_model, wavs, tmp_path):
    text = tmp_path / "text.wav"
    text.write_text("no sound")
    assert mistake("predict", saved_model, wavs[0], text).startswith(f"Error: {text}: audiotag cannot decode it")
    nowhere = tmp_path / "nowhere.wav"
    assert mistake("predict", saved_model, nowhere).startswith(f"Error: {nowhere}: cannot be read: No such file")


def test_a_sample_of_another_competition(own_run, tmp_path):
    (tmp_path / "sample.csv").write_text("fname,Bark\n1.wav,0\n")
    line = mistake("submit", own_run, "--like", tmp_path / "sample.csv")
    assert line.startswith(
        f"Error: {tmp_path / 'sample.csv'}: its columns are not fname and the 14 classes in sorted or"
    )
    assert not (own_run / "submission.csv").exists()


def test_a_folder_that_exists_already(run, saved_model, demo):
    assert mistake("export", run.folder, saved_model) == (
        f"Error: {saved_model}: exists already. Choose another folder, or --overwrite."
    )
    assert mistake("make-demo", demo).startswith(f"Error: {demo}")


def test_a_place_that_cannot_be_written_to(run, tmp_path):
    (tmp_path / "file").write_text("")
    line = mistake("evaluate", run.folder, "--csv", tmp_path / "file" / "classes.csv")
    assert "file" in line and len(line.splitlines()) == 1


def test_a_folder_for_what_is_written_is_made(run, tmp_path):
    call("submit", run.folder, "--out", tmp_path / "some" / "where" / "submission.csv")
    assert (tmp_path / "some" / "where" / "submission.csv").is_file()


def test_a_combiner_that_is_not_there_is_told_of_the_file_that_was_asked_for(run, tmp_path):
    line = mistake("ensemble", run.folder, "--combine", "geometrik", "--out", tmp_path / "two.json")
    assert line.startswith(f"Error: {tmp_path / 'two.json'}: combine: there is no part 'geometrik'. Did you mean")
    assert not list(tmp_path.iterdir())


def test_a_wrong_sample_is_told_before_the_clips_are_heard(run, tmp_path, monkeypatch):
    monkeypatch.setattr("audiotag.ensembling.members.hear_test_clips", lambda model: pytest.fail("heard"))
    assert mistake("submit", run.folder, "--like", tmp_path / "no.csv").startswith(f"Error: {tmp_path / 'no.csv'}: ")


def test_scores_as_parquet_without_pyarrow_are_refused_before_the_clips_are_heard(tmp_path, monkeypatch):
    monkeypatch.setattr("audiotag.evaluation.score_tables.can_write_parquet", lambda: False)
    for command in (["evaluate", "runs/demo"], ["predict", "runs/demo", "a.wav"]):
        line = mistake(*command, "--csv", tmp_path / "x.parquet")
        assert line.startswith(f"Error: {tmp_path / 'x.parquet'}: Parquet needs pyarrow. Install it with: pip install")


def test_a_name_that_is_not_utf8_is_refused_before_anything_is_heard():
    line = mistake("predict", "runs/demo", "a.wav", os.fsdecode(b"h\xe9.wav"))
    assert line == r"Error: the name 'h\udce9.wav' has bytes that are not UTF-8. Rename it."


def test_a_batch_beyond_the_memory_is_told_of_its_size(run, monkeypatch):
    def hear(*arguments):
        raise tf.errors.ResourceExhaustedError(None, None, f"Detected at node x\n{said}\nHint: none")

    monkeypatch.setattr("audiotag.evaluation.scoring.score_logits", hear)
    said = "OOM when allocating tensor with shape[64,80] [Op:Conv2D]"
    told = f"Error: {said}. In fit, a smaller batch_size of the stage needs less memory."
    assert mistake("evaluate", run.folder) == told
    said = "No space left on device"
    assert isinstance(CliRunner().invoke(main, ["evaluate", str(run.folder)]).exception, tf.errors.OpError)


# Wrong usage: 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["fti"], "No such command 'fti'"),
        (["fit"], "Missing argument 'EXPERIMENT'"),
        (["fit", "x.json", "--epochs", "3"], "No such option"),
        (["fit", "x.json", "--fold", "one"], "'one' is not a valid integer"),
        (["make-records", "/nowhere/at/all"], "does not exist"),
        (["make-records", ".", "--sample-rate", "1"], "1 is not in the range"),
        (["make-demo", "demo", "--seed", "-1"], "-1 is not in the range"),
        (["predict", "runs/demo"], "Missing argument 'FILES...'"),
        (["predict", "runs/demo", "."], "is a directory"),
        (["predict", "runs/demo", "a.wav", "--top", "0"], "0 is not in the range"),
        (["export", "runs/demo"], "Missing argument 'FOLDER'"),
        (["check-records", __file__], "is a file"),
        (["predict", "runs/demo", "a.wav", "--csv", "b.wav"], "b.wav: expected a name that ends in .csv or .parquet."),
        (["suspects", "runs/demo", "--csv", "x.parquet"], "x.parquet: expected a name that ends in .csv."),
        (["predict", "runs/demo", "a.wav", "--csv", "x.csv", "--timeline", "./x.csv"], "are the same file"),
        (["predict", "runs/demo", "a.wav", "--threshold", "nan"], "--threshold is no number"),
        (["evaluate", "x.json", "--members", "--stage", "noisy"], "--members goes with --held-out and --set alone"),
        (["evaluate", "x.json", "--members", "--records", "x"], "--members goes with --held-out and --set alone"),
        (["evaluate", "x.json", "--members", "--csv", "/tmp/x.csv"], "--members goes with --held-out and --set alone"),
        (["evaluate", "x.json", "--members", "--out", "x"], "--members goes with --held-out and --set alone"),
    ],
)
def test_wrong_usage_says_how_to_use_it(arguments, message):
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 2
    assert message in result.output
    assert "Usage: " in result.output and "Try '" in result.output
