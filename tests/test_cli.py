import csv
import functools
import gc
import importlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
from click.testing import CliRunner

import audiotag
from audiotag.cli import import_tensorflow, main
from audiotag.config.loading import dump
from audiotag.data import synthetic
from audiotag.data.records.manifest import read_manifest
from audiotag.data.sources import LAYOUTS
from audiotag.inference.audio_files import score_files
from audiotag.serving.saved_model import load_predictor


def call(*arguments):
    """The output of a command that must succeed."""
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert result.exit_code == 0, (result.output, result.exception)
    return result.output


def error_of(*arguments):
    """The error message of a command that must fail without a traceback."""
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


# Results


def test_version_prints_the_version_of_the_package():
    assert call("--version") == f"audiotag, version {audiotag.__version__}\n"


def test_it_runs_as_a_module():
    command = [sys.executable, "-m", "audiotag", "--version"]
    assert "version" in subprocess.run(command, check=True, capture_output=True, text=True).stdout


def test_make_demo_and_make_records_print_the_number_of_clips(tmp_path, monkeypatch):
    small = functools.partial(synthetic.make_demo, curated=14, noisy=4, test=4)
    monkeypatch.setattr(synthetic, "make_demo", small)
    assert call("make-demo", tmp_path / "demo", "--seed", 3).startswith("14 curated, 4 noisy (")
    out = tmp_path / "records"
    output = call("make-records", tmp_path / "demo", "--out", out, "--sample-rate", 16_000, "--workers", 1)
    assert output.splitlines()[-1] == f"14 curated, 4 noisy, 4 test clips of 14 classes: {out}"
    assert (out / "manifest.json").is_file()
    assert call("check-records", out).splitlines()[-1] == f"{out}: complete; every byte is as make-records wrote it."
    again = call("make-records", tmp_path / "demo", "--out", out, "--sample-rate", 16_000, "--workers", 1)
    assert again.splitlines() == output.splitlines()[-1:]


def test_the_help_of_make_records_lists_every_layout():
    assert f"One of auto, {', '.join(LAYOUTS)}." in " ".join(call("make-records", "--help").split())


def test_make_records_trims_and_sets_the_peak(demo, tmp_path):
    options = ["--sample-rate", 8_000, "--workers", 1, "--trim", "relative", "--trim-db", 40, "--peak-db", -3]
    call("make-records", demo, "--out", tmp_path / "out", *options)
    written = read_manifest(tmp_path / "out").options
    assert (written["trim"], written["trim_db"], written["peak_db"]) == ("relative", 40.0, -3.0)
    clips = pd.read_csv(tmp_path / "out" / "clips.csv")
    np.testing.assert_allclose(clips["peak"], 10 ** (-3 / 20), atol=1e-5)
    assert error_of("make-records", demo, "--out", tmp_path / "out", "--trim", "silence") == (
        "Error: trim 'silence': expected relative or absolute; leave it out to keep the silence."
    )


def test_make_records_names_its_folder_after_the_source(demo, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    call("make-records", demo, "--sample-rate", 8_000, "--workers", 1)
    assert (tmp_path / "tfrecords" / "demo" / "manifest.json").is_file()


def test_new_writes_an_experiment_and_names_the_next_commands(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    lines = call("new", "birds", "--template", "demo", "--records", "tfrecords/mine").splitlines()
    assert lines[0] == "Experiment: birds.json. Next:"
    assert lines[1] == "  audiotag make-records FOLDER --out tfrecords/mine --sample-rate 16000"
    assert lines[2:] == ["  audiotag fit birds.json", "  audiotag predict runs/birds/saved_model FILES..."]
    assert json.loads((tmp_path / "birds.json").read_text())["records"] == "tfrecords/mine"
    assert error_of("new", "birds") == "Error: birds.json: exists already. Choose another name, or remove the file."


def test_components_lists_all_or_explains_one():
    assert "  mixup                     Adds pairs of clips of a batch" in call("components")
    assert call("components", "zoom").startswith("zoom, in image_preprocess, augment, stages[].augment\n")
    assert error_of("components", "zom").startswith(
        "Error: there is no component 'zom'. Did you mean 'zoom'? Accepted:"
    )


def test_schema_prints_a_json_schema():
    assert set(json.loads(call("schema"))["required"]) == {"records", "window", "frontend", "model", "stages"}
    assert set(json.loads(call("schema", "sweep"))["required"]) == {"experiment", "seeds", "variations"}


def test_sweep_and_compare_print_and_write_the_same_table(tiny_file, own_run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    sweep = {"experiment": str(tiny_file), "seeds": [2019], "variations": {"as it is": {}}}
    (tmp_path / "small.json").write_text(json.dumps(sweep))
    shutil.copytree(own_run, tmp_path / "runs" / "small-sweep" / "as-it-is-2019")
    printed = call("sweep", "small.json")
    row = next(line for line in printed.splitlines() if line.startswith("as it is"))
    out = tmp_path / "comparison"
    assert row.split("(")[0].split()[-1] in call("compare", "runs/small-sweep/as-it-is-2019", "--out", out)
    for folder in (tmp_path / "runs" / "small-sweep", out):
        names = {path.name for path in folder.iterdir() if path.is_file()}
        assert names == {"table.csv", "runs.csv", "differences.csv", "table.txt", "report.html"}
    message = error_of("compare", "runs/small-sweep/as-it-is-2019", "--measure", "map")
    assert message.startswith("Error: there is no measure 'map'.")
    assert error_of("sweep", "none.json") == "Error: none.json: cannot be read: No such file or directory."


def test_advise_refuses_a_run_with_too_few_clips_for_a_curve(run):
    assert "Train on more clips first" in error_of("advise", run.folder, "--draws", 2)


def test_fit_names_the_run_after_a_shipped_experiment(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "demo").mkdir()
    found = []
    monkeypatch.setattr("audiotag.api.fit", lambda config, folder, **options: found.append((config.records, folder)))
    call("fit", "demo")
    assert found == [("tfrecords/demo", Path("runs/demo"))]


def test_fit_resumes_a_run_and_exports_it(tiny_file, own_run):
    (own_run / "saved_model" / "variables").mkdir(parents=True)  # an incomplete model
    lines = call("fit", tiny_file, "--run", own_run).splitlines()
    assert [line for line in lines if line.startswith("curated stage, fold 0: lwlrap 0.")]
    assert lines[-1] == f"SavedModel: {own_run / 'saved_model'}"
    assert (own_run / "saved_model" / "saved_model.pb").is_file()


def test_fit_prints_its_own_lines_alone(tiny, tiny_file, tmp_path):
    callbacks = [{"name": name, "patience": 3} for name in ("ReduceLROnPlateau", "EarlyStopping")]
    stage = json.loads(dump(tiny()))["stages"][0] | {"epochs": 2, "validation_freq": 2, "callbacks": callbacks}
    command = [sys.executable, "-m", "audiotag", "fit", tiny_file, "--run", tmp_path / "run"]
    command += ["--set", f"stages={json.dumps([stage])}"]
    environment = {key: value for key, value in os.environ.items() if key != "TF_CPP_MIN_LOG_LEVEL"}
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    untrained, first, last = done.stdout.splitlines()
    assert untrained.startswith("Fold 0: no clip of 1 of 14 classes is trained on")
    assert first.startswith("noisy stage, fold 0: lwlrap 0.")
    assert last == f"SavedModel: {tmp_path / 'run' / 'saved_model'}"
    assert [line.split(":")[0] for line in done.stderr.splitlines()] == [
        "noisy, fold 0 1/2",
        "noisy, fold 0 2/2",
        "noisy, fold 0, on validation clips",
    ]


def test_what_is_printed_while_tensorflow_loads_passes_but_for_its_start_up_lines(tmp_path):
    code = """
import os
from audiotag.quiet import without_startup_lines
with without_startup_lines():
    for line in ("I0000 00:00:1795 1 port.cc:153] oneDNN custom operations are on.", "F0000 1 cpu.cc] needs AVX2"):
        os.write(2, line.encode() + b"\\n")
    if {crash}:
        os.abort()
os.write(2, b"after\\n")
"""
    for crash, expected in ((False, "F0000 1 cpu.cc] needs AVX2\nafter\n"), (True, "F0000 1 cpu.cc] needs AVX2\n")):
        done = subprocess.run([sys.executable, "-c", code.format(crash=crash)], capture_output=True, text=True)
        assert (done.stderr, done.returncode != 0) == (expected, crash)
    assert subprocess.run(["sh", "-c", f"{sys.executable} -c '{code.format(crash=False)}' 2>&-"]).returncode == 1


def test_evaluate_prints_a_row_per_class_and_per_split(run, tmp_path):
    output = call("evaluate", run.folder, "--csv", tmp_path / "classes.csv", "--out", tmp_path / "tables")
    rows = read(tmp_path / "classes.csv")
    assert rows == read(tmp_path / "tables" / "classes.csv")
    assert rows[0][:6] == ["class", "clips", "lwlrap", "low", "high", "chance"]
    assert len(read(tmp_path / "tables" / "clips.csv")) == 1 + 20
    header, *overall = read(tmp_path / "tables" / "overall.csv")
    measures = {row[header.index("measure")] for row in overall}
    assert len(measures) >= 6 and len(overall) == 3 * len(measures)
    assert read(tmp_path / "tables" / "calibration.csv")[0] == ["from", "to", "predictions", "probability", "fraction"]
    assert [row[0] for row in rows[1:]] == list(run.vocabulary)
    for text in (*run.vocabulary, "all", "Public", "Private", "chance"):
        assert text in output
    assert call("evaluate", run.folder, "--stage", "noisy") != output


def test_predict_prints_the_top_classes_and_writes_all_of_them(run, saved_model, wavs, tmp_path):
    vocabulary = run.vocabulary
    expected = score_files(load_predictor(run.folder), wavs)
    for model in (run.folder, saved_model):
        output = call("predict", model, *wavs, "--top", 2, "--csv", tmp_path / "scores.csv")
        lines = [line for line in output.splitlines() if line.startswith((str(wavs[0].parent), "  "))]
        assert len(lines) == 3 * len(wavs)
        assert lines[0] == str(wavs[0])
        assert lines[1].split()[-1] == vocabulary[expected[0].argmax()]
        table = pd.read_csv(tmp_path / "scores.csv", index_col="fname")
        assert table.index.tolist() == [str(path) for path in wavs]
        np.testing.assert_allclose(table[[f"{label} logit" for label in vocabulary]], expected, atol=1e-4)


def test_predict_writes_when_each_class_is_detected(run, wavs, tmp_path):
    options = ["--set", "predict.overlap=0", "--threshold", 0.05]
    call("predict", run.folder, *wavs[:2], "--events", tmp_path / "events.csv", *options)
    rows = read(tmp_path / "events.csv")
    assert rows[0] == ["fname", "start", "end", "class", "probability"] and len(rows) > 1
    assert {row[0] for row in rows[1:]} <= {str(path) for path in wavs[:2]}
    assert all(float(row[4]) >= 0.05 and float(row[1]) < float(row[2]) for row in rows[1:])


def test_listen_prints_each_window_of_a_signal(run):
    samples = (3_000 * np.random.default_rng(0).standard_normal(40_000)).astype("<i2").tobytes()
    arguments = ["listen", str(run.folder), "--threshold", "0", "--set", "predict.overlap=0"]
    result = CliRunner().invoke(main, arguments, input=samples)
    assert result.exit_code == 0, (result.output, result.exception)
    windows = [line.split() for line in result.output.splitlines()[-3:]]
    assert [words[:2] for words in windows] == [["0.00", "1.00"], ["1.00", "2.00"], ["1.50", "2.50"]]
    assert all(set(words[2::2]) == set(run.vocabulary) for words in windows)
    result = CliRunner().invoke(main, ["listen", str(run.folder)], input=b"")
    assert result.output.startswith("Error: standard input: has no samples")


def test_embed_writes_a_row_per_clip_or_window(run, wavs, tmp_path):
    out = tmp_path / "new" / "clips.npz"
    output = call("embed", run.folder, *wavs[:2], "--out", out, "--per", "clip", "--stage", "noisy", "--fold", 0)
    assert output.endswith(f"{out}: 2 embeddings.\n")
    with np.load(out) as file:
        assert file["fname"].tolist() == [str(path) for path in wavs[:2]]
        assert file["embeddings"].shape == (2, 8)
    folder = wavs[0].parent
    assert call("embed", run.folder, folder, "--out", out, "--per", "clip").endswith(f" {len(wavs)} embeddings.\n")


def test_label_next_prints_and_writes_the_chosen_files(run, wavs, tmp_path):
    output = call("label-next", run.folder, *wavs[:4], "--top", "3", "--csv", tmp_path / "next.csv")
    table = pd.read_csv(tmp_path / "next.csv")
    assert table.columns.tolist() == ["fname", "margin", "predicted"] and len(set(table["fname"])) == 3
    assert [line.split("  ")[0] for line in output.strip().splitlines()[-3:]] == table["fname"].tolist()


def test_a_run_can_predict_with_other_settings(run, tmp_path):
    for command in (["evaluate", run.folder], ["make-submission", run.folder, "--out", tmp_path / "out.csv"]):
        assert error_of(*command, "--set", "model.name=resnet50").startswith(
            "Error: --set model.name=resnet50: only the predict settings of a trained run can change. Expected one"
        )
    call("make-submission", run.folder, "--out", tmp_path / "mean.csv")
    call("make-submission", run.folder, "--out", tmp_path / "max.csv", "--set", "predict.pool=max")
    assert read(tmp_path / "mean.csv") != read(tmp_path / "max.csv")


def test_make_submission_follows_the_template(own_run, demo, tmp_path):
    header, *rows = read(demo / "sample_submission.csv")
    template = tmp_path / "sample.csv"
    template.write_text("\n".join(",".join(row) for row in [header, *rows[::-1]]) + "\n")
    assert call("make-submission", own_run, "--template", template).splitlines()[-1] == (
        f"20 rows, 14 classes: {own_run / 'submission.csv'}"
    )
    written = read(own_run / "submission.csv")
    assert written[0] == header == ["fname", *sorted(header[1:])]
    assert [row[0] for row in written[1:]] == [row[0] for row in rows[::-1]]
    template.write_text("\n".join(["fname,label", "padding.wav,None", *(f"{row[0]},None" for row in rows)]) + "\n")
    said = call(
        "make-submission", own_run, "--template", template, "--top", 2, "--fold", 0, "--out", tmp_path / "t.csv"
    )
    more = "1 more as in the template, whose clips are not in the records"
    assert said.splitlines()[-1] == f"20 rows, 14 classes, {more}: {tmp_path / 't.csv'}"
    assert [len(row[1].split()) for row in read(tmp_path / "t.csv")[1:]] == [1] + 20 * [2]
    call("make-submission", own_run, "--out", tmp_path / "other.csv")
    assert sorted(map(tuple, read(tmp_path / "other.csv"))) == sorted(map(tuple, written))


def test_export_prints_the_folder_of_the_model(run, tmp_path):
    assert call("export", run.folder, tmp_path / "1").splitlines()[-1] == f"SavedModel: {tmp_path / '1'}"
    assert load_predictor(tmp_path / "1").vocabulary == run.vocabulary


# Errors of a user: a message and exit code 1


def test_an_error_in_an_experiment(tmp_path, tiny_file):
    assert error_of("fit", tmp_path / "nowhere.json") == (
        f"Error: {tmp_path / 'nowhere.json'}: cannot be read: No such file or directory."
    )
    assert error_of("fit", tiny_file, "--set", "model.name=convskip").startswith(
        f"Error: {tiny_file}: model: there is no component 'convskip'. Did you mean 'conv_skip'?"
    )
    assert error_of("fit", tiny_file, "--set", "stages.nosy.epochs=3").startswith(
        "Error: --set stages.nosy.epochs=3: there is no entry 'nosy'. Did you mean 'noisy'?"
    )
    assert error_of("fit", tiny_file, "--set", "records=nowhere", "--run", tmp_path / "run") == (
        "Error: nowhere: no such directory of records. Make it with: audiotag make-records SOURCE --out nowhere"
    )
    assert error_of("fit", tiny_file, "--fold", 7, "--run", tmp_path / "run") == (
        "Error: there is no fold 7. Accepted: 0 to 4."
    )
    assert error_of("fit", tiny_file, "--set", "frontend.high_hz=9000", "--run", tmp_path / "run").startswith(
        "Error: frontend log_mel: high_hz must be above 0 and at most 8000.0, half of sample_rate=16000."
    )


def test_after_ctrl_c_the_exit_code_is_130(tmp_path, monkeypatch):
    def interrupted(*args, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr("audiotag.data.synthetic.make_demo", interrupted)
    result = CliRunner().invoke(main, ["make-demo", str(tmp_path / "demo")])
    assert (result.exit_code, result.output) == (130, "")


def test_another_experiment_in_the_directory_of_a_run(tiny_file, own_run):
    assert error_of("fit", tiny_file, "--set", "seed=3", "--run", own_run) == (
        f"Error: {own_run}: was trained with another experiment: seed is now 3 and was 2019. "
        "Choose another name with --run, or retrain with --restart. To continue this run, undo the change."
    )


def test_records_with_a_missing_shard_or_a_flipped_bit(run, records, tmp_path):
    copy = shutil.copytree(records, tmp_path / "records")
    shard = max(copy.glob("*.tfrecord"))  # of test clips
    data = shard.read_bytes()
    shard.write_bytes(data[:-50] + bytes([data[-50] ^ 1]) + data[-49:])
    for command in (["check-records", copy], ["evaluate", run.folder, "--records", copy]):
        assert error_of(*command).startswith(f"Error: {shard}: damaged: its SHA-256 is not the manifest's. It holds")
        assert error_of(*command).endswith("Make the records again with --overwrite.")
    shard.unlink()
    for command in (["check-records", copy], ["evaluate", run.folder, "--records", copy]):
        assert error_of(*command).startswith(f"Error: {shard}: is missing; the manifest expects {len(data)} bytes")


def test_a_folder_that_is_not_a_run(tmp_path, wavs):
    message = f"Error: {tmp_path}: not the directory of a run: it has no data.json. Train one with: audiotag fit"
    message += " EXPERIMENT"
    for command in (["evaluate", tmp_path], ["predict", tmp_path, wavs[0]], ["make-submission", tmp_path]):
        assert error_of(*command) == message
    assert error_of("export", tmp_path, tmp_path / "saved") == message


def test_tensorflow_is_imported_while_garbage_collection_pauses(monkeypatch):
    imported = {}
    monkeypatch.delitem(sys.modules, "tensorflow")
    monkeypatch.setattr(importlib, "import_module", lambda name: imported.update({name: gc.isenabled()}))
    import_tensorflow()
    gc.unfreeze()
    assert imported.pop("tensorflow") is False and not any(imported.values())
    assert gc.isenabled()


@pytest.mark.parametrize("exists", [False, True], ids=["nowhere", "empty"])
def test_a_run_that_does_not_exist_fails_before_tensorflow_is_imported(exists, tmp_path):
    run = tmp_path / "run"
    if exists:
        run.mkdir()
    more = {"predict": ["bell.wav"], "export": ["saved_model"]}
    names = ("evaluate", "predict", "report", "label-issues", "export", "make-submission")
    commands = [[name, str(run), *more.get(name, [])] for name in names]
    code = (
        "import json, sys; from audiotag.cli import main\n"
        "for command in json.loads(sys.argv[1]):\n"
        "    try:\n"
        "        main(command)\n"
        "    except SystemExit as ending:\n"
        "        print(ending.code, 'tensorflow' in sys.modules, 'keras' in sys.modules)\n"
    )
    command = [sys.executable, "-c", code, json.dumps(commands)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert done.stdout.splitlines() == ["1 False False"] * len(names)
    found = "not the directory of a run: it has no data.json. Train one" if exists else "does not exist. Train a run"
    assert done.stderr.splitlines() == [f"Error: {run}: {found} with: audiotag fit EXPERIMENT"] * len(names)


def test_a_stage_that_does_not_exist(run):
    assert error_of("evaluate", run.folder, "--stage", "nosy") == (
        f"Error: {run.folder}: has no stage 'nosy'. Did you mean 'noisy'? Accepted: noisy, curated."
    )


def test_a_file_that_is_not_audio(saved_model, wavs, tmp_path):
    text = tmp_path / "text.wav"
    text.write_text("not audio")
    assert error_of("predict", saved_model, wavs[0], text).startswith(f"Error: {text}: audiotag cannot decode it")
    nowhere = tmp_path / "nowhere.wav"
    assert error_of("predict", saved_model, nowhere).startswith(f"Error: {nowhere}: cannot be read: No such file")


def test_a_template_of_another_competition(own_run, tmp_path):
    (tmp_path / "sample.csv").write_text("fname,Bark\n1.wav,0\n")
    line = error_of("make-submission", own_run, "--template", tmp_path / "sample.csv")
    assert line.startswith(
        f"Error: {tmp_path / 'sample.csv'}: its columns are not fname and the 14 classes in sorted or"
    )
    assert not (own_run / "submission.csv").exists()


def test_a_folder_that_exists_already(run, saved_model, demo):
    assert error_of("export", run.folder, saved_model) == (
        f"Error: {saved_model}: exists already. Choose another folder, or --overwrite."
    )
    assert error_of("make-demo", demo).startswith(f"Error: {demo}")


def test_a_path_that_cannot_be_written(run, tmp_path):
    (tmp_path / "file").write_text("")
    line = error_of("evaluate", run.folder, "--csv", tmp_path / "file" / "classes.csv")
    assert "file" in line and len(line.splitlines()) == 1


def test_the_folder_of_an_output_is_created(run, tmp_path):
    call("make-submission", run.folder, "--out", tmp_path / "some" / "where" / "submission.csv")
    assert (tmp_path / "some" / "where" / "submission.csv").is_file()


def test_the_error_of_an_unknown_combiner_names_the_file(run, tmp_path):
    line = error_of("ensemble", run.folder, "--combiner", "geometrik_mean", "--out", tmp_path / "two.json")
    assert line.startswith(
        f"Error: {tmp_path / 'two.json'}: combiner: there is no component 'geometrik_mean'. Did you mean"
    )
    assert not list(tmp_path.iterdir())


def test_a_wrong_template_fails_before_the_clips_are_scored(run, tmp_path, monkeypatch):
    monkeypatch.setattr("audiotag.ensembling.members.predict_test_clips", lambda model: pytest.fail("scored"))
    assert error_of("make-submission", run.folder, "--template", tmp_path / "no.csv").startswith(
        f"Error: {tmp_path / 'no.csv'}: "
    )


def test_parquet_without_pyarrow_fails_before_the_clips_are_scored(tmp_path, monkeypatch):
    monkeypatch.setattr("audiotag.evaluation.score_tables.can_write_parquet", lambda: False)
    for command in (["evaluate", "runs/demo"], ["predict", "runs/demo", "a.wav"]):
        line = error_of(*command, "--csv", tmp_path / "x.parquet")
        assert line.startswith(f"Error: {tmp_path / 'x.parquet'}: Parquet needs pyarrow. Install it with: pip install")


def test_a_file_name_that_is_not_utf8_fails_before_any_file_is_scored():
    line = error_of("predict", "runs/demo", "a.wav", os.fsdecode(b"h\xe9.wav"))
    assert line == r"Error: the name 'h\udce9.wav' has bytes that are not UTF-8. Rename the file."


def test_the_error_of_a_batch_too_large_for_the_memory_recommends_a_smaller_one(run, monkeypatch):
    def run_out(*arguments, **options):
        raise tf.errors.ResourceExhaustedError(None, None, f"Detected at node x\n{reason}\nHint: none")

    monkeypatch.setattr("audiotag.evaluation.scoring.score_logits", run_out)
    reason = "OOM when allocating tensor with shape[64,80] [Op:Conv2D]"
    message = f"Error: {reason}. To train with less memory, lower the stage's batch_size."
    assert error_of("evaluate", run.folder) == message
    reason = "No space left on device"
    assert isinstance(CliRunner().invoke(main, ["evaluate", str(run.folder)]).exception, tf.errors.OpError)


# Wrong usage: exit code 2


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
        (["predict", "runs/demo", "a.wav", "--top", "0"], "0 is not in the range"),
        (["export", "runs/demo"], "Missing argument 'PATH'"),
        (["check-records", __file__], "is a file"),
        (["predict", "runs/demo", "a.wav", "--csv", "b.wav"], "b.wav: expected a name that ends in .csv or .parquet."),
        (["embed", "runs/demo", "a.wav", "--out", "a.csv"], "a.csv: expected a name that ends in .npz or .parquet."),
        (["label-issues", "runs/demo", "--csv", "x.parquet"], "x.parquet: expected a name that ends in .csv."),
        (["predict", "runs/demo", "a.wav", "--csv", "x.csv", "--events", "./x.csv"], "two are the same file"),
        (["predict", "runs/demo", "a.wav", "--threshold", "nan"], "--threshold is not a number"),
        (
            ["evaluate", "x.json", "--leave-one-out", "--stage", "noisy"],
            "--leave-one-out accepts only --out-of-fold and --set",
        ),
        (
            ["evaluate", "x.json", "--leave-one-out", "--records", "x"],
            "--leave-one-out accepts only --out-of-fold and --set",
        ),
        (
            ["evaluate", "x.json", "--leave-one-out", "--csv", "/tmp/x.csv"],
            "--leave-one-out accepts only --out-of-fold and --set",
        ),
        (
            ["evaluate", "x.json", "--leave-one-out", "--out", "x"],
            "--leave-one-out accepts only --out-of-fold and --set",
        ),
    ],
)
def test_wrong_usage_shows_the_usage(arguments, message):
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 2
    assert message in result.output
    assert "Usage: " in result.output and "Try '" in result.output
