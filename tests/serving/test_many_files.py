"""Predictions for many files, by the command: outputs, rejects, kills, memory."""

import dataclasses
import os
import time

import numpy as np
import pandas as pd
import pytest
import soundfile as sf
from click.testing import CliRunner
from scipy.special import expit
from tiers import tier

from audiotag.cli import main
from audiotag.errors import DataError
from audiotag.inference import journal
from audiotag.inference.audio_files import score_events, score_files
from audiotag.inference.predictor import Predictor
from audiotag.serving.many_files import Outputs, predict_files
from audiotag.serving.saved_model import identity, load_predictor

NUM_FILES, NUM_FOLDERS, NUM_BROKEN = tier(60, 5_000), tier(7, 300), tier(4, 20)
BROKEN = (
    lambda data: b"",
    lambda data: b"not audio",
    lambda data: data[: len(data) // 2],
    lambda data: bytes(len(data)),
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Short files of several kinds and rates in folders, some of them broken; and which are broken."""
    folder, rng = tmp_path_factory.mktemp("files") / "recordings", np.random.default_rng(0)
    broken = sorted(rng.choice(NUM_FILES, NUM_BROKEN, replace=False).tolist())
    paths = []
    for number in range(NUM_FILES):
        path = folder / f"{number % NUM_FOLDERS:03d}" / f"{number:05d}.{('wav', 'flac', 'ogg')[number % 3]}"
        path.parent.mkdir(parents=True, exist_ok=True)
        rate = (16_000, 22_050, 44_100)[number % 7 % 3]
        sf.write(path, 0.3 * rng.uniform(-1, 1, int(rate * rng.uniform(0.1, 2))), rate)
        if number in broken:
            path.write_bytes(BROKEN[broken.index(number) % 4](path.read_bytes()))
        paths.append(path)
    return folder, {str(paths[number]) for number in broken}


# Runs a command whose output and messages go into files of a folder.
COMMAND = """
import os, sys
from audiotag.cli import main
for number, name in ((1, "stdout"), (2, "stderr")):
    file = os.open(os.path.join(sys.argv[1], name), os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(file, number)
main(sys.argv[2:])
"""


@pytest.fixture
def run_predict(start, saved_model, folder, tmp_path):
    """A function that starts the command in a process of its own, which writes into a folder: a `Job`."""
    (tmp_path / "command.py").write_text(COMMAND)

    def run_predict(out):
        out.mkdir(exist_ok=True)
        command = [out, "predict", saved_model, folder[0], "--csv", out / "scores.csv", "--labels", out / "labels.csv"]
        return start(*command, script=tmp_path / "command.py")

    return run_predict


def contents(out):
    return {name: (out / name).read_bytes() for name in ("scores.csv", "labels.csv", "scores.rejects.csv", "stdout")}


def test_a_killed_command_continues_and_writes_the_same_bytes(run_predict, folder, tmp_path):
    _, broken = folder
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert run_predict(whole).wait() == 1
    assert pd.read_csv(whole / "scores.rejects.csv")["fname"].tolist() == sorted(broken)
    table = pd.read_csv(whole / "scores.csv")
    assert len(table) == NUM_FILES - NUM_BROKEN and table["fname"].is_monotonic_increasing
    last = (whole / "stderr").read_text().splitlines()[-1]
    assert last == f"Error: {NUM_BROKEN} of {NUM_FILES} files cannot be predicted: {whole / 'scores.rejects.csv'}"
    progress, done = killed / "scores.progress", 0
    for kill in range(tier(1, 5)):
        job = run_predict(killed)
        while not job.ended() and done <= (kill + 1) * NUM_FILES // 8:
            time.sleep(0.02)
            done = progress.read_bytes().count(b"\n") if progress.exists() else 0
        job.kill().wait()
        assert not (killed / "scores.csv").exists()
    assert done > NUM_FILES // 8
    assert run_predict(killed).wait() == 1
    assert contents(killed) == contents(whole)
    assert sorted(path.name for path in killed.iterdir()) == [
        *("labels.csv", "scores.csv", "scores.rejects.csv", "stderr", "stdout")
    ]


# Quickly, by a model without a network


AUDIO_CONFIG = {"sample_rate": 16_000, "trim": None, "trim_db": 60.0, "peak_db": None}


def loudness(windows):
    halves = np.stack(np.array_split(np.abs(windows), 2, axis=1), axis=1).max(axis=2)  # [B, 2]
    return (10 * (halves - 0.2)).astype("float32")


LOUD = Predictor(loudness, AUDIO_CONFIG, ("first", "second half"), 16_000, 8_000, "max", (0.9, -1.9))


@pytest.fixture
def few(tmp_path):
    """The names of three recordings in two folders; the second is broken."""
    names = [str(tmp_path / "in" / name) for name in ("a/1.wav", "a/2.wav", "b/c/3.wav")]
    for number, name in enumerate(names):
        os.makedirs(os.path.dirname(name), exist_ok=True)
        sf.write(name, np.repeat([0.1, 0.3 * (number + 1)], 16_000), 16_000)
    with open(names[1], "wb"):
        pass
    return names


def predict(names, outputs, **options):
    """What is shown, and the message about rejected files."""
    shown = []
    try:
        predict_files(LOUD, names, outputs, **{"key": {}} | options, show=lambda *each: shown.append(each))
    except DataError as error:
        return shown, str(error)
    return shown, None


def test_all_outputs_hold_what_score_files_and_score_events_give(few, tmp_path):
    out = tmp_path / "out"
    outputs = Outputs(out / "s.parquet", out / "l.csv", out / "e.parquet", out / "raven", out / "audacity")
    shown, message = predict(few, outputs)
    assert message == f"1 of 3 files cannot be predicted: {out / 's.rejects.csv'}"
    good = [few[0], few[2]]
    logits, events = score_events(LOUD, good, threshold=expit(LOUD.thresholds))
    assert [name for name, _ in shown] == good
    np.testing.assert_array_equal([row for _, row in shown], logits)
    table = pd.read_parquet(out / "s.parquet")
    assert table["fname"].tolist() == good
    np.testing.assert_array_equal(table[["first logit", "second half logit"]], logits)
    pd.testing.assert_frame_equal(pd.read_parquet(out / "e.parquet"), events)
    assert len(events) > 2
    labels = [",".join(np.array(LOUD.vocabulary)[row >= LOUD.thresholds]) for row in logits]
    assert (out / "l.csv").read_text() == f'fname,labels\n{good[0]},"{labels[0]}"\n{good[1]},"{labels[1]}"\n'
    raven = pd.read_csv(out / "raven/b/c/3.wav.selections.txt", sep="\t")
    own = events[events["fname"] == few[2]]
    assert (
        raven["Begin Time (s)"].tolist() == own["start"].tolist() and raven["Class"].tolist() == own["class"].tolist()
    )
    assert set(raven["High Freq (Hz)"]) == {8_000} and set(raven["Begin File"]) == {"3.wav"}
    lines = (out / "audacity/b/c/3.wav.labels.txt").read_text().splitlines()
    assert lines == [f"{row.start}\t{row.end}\t{row._4} {row.probability:.2f}" for row in own.itertuples()]
    assert not (out / "raven/a/2.wav.selections.txt").exists()
    assert (out / "s.rejects.csv").read_text().startswith(f'fname,reason\n{few[1]},"{few[1]}: the file is empty (0 ')
    assert not list(out.glob("*.progress*"))


def test_a_threshold_replaces_those_of_the_classes(few, tmp_path):
    tables = []
    for threshold in (None, 0.0, 1.0):
        predict(few, Outputs(labels=tmp_path / "l.csv"), threshold=threshold)
        tables.append(pd.read_csv(tmp_path / "l.csv", keep_default_na=False)["labels"].tolist())
    assert tables[1:] == [["first,second half"] * 2, [""] * 2] and tables[0] not in tables[1:]


def test_without_outputs_the_reason_of_a_rejected_file_is_the_message(few):
    assert predict(few[1:2], Outputs())[1].startswith(f"{few[1]}: the file is empty (0 bytes).")
    shown, message = predict([few[1], few[0], few[1] + "x"], Outputs())
    assert len(shown) == 1
    assert message.startswith(f"2 of 3 files cannot be predicted. The first: {few[1]}: the file is empty")


def test_rejects_of_an_earlier_call_are_removed(few, tmp_path):
    outputs = Outputs(tmp_path / "s.csv")
    predict(few, outputs)
    assert outputs.rejects.exists()
    assert predict([few[0]], outputs)[1] is None
    assert not outputs.rejects.exists()


@pytest.fixture
def interrupted(few, tmp_path):
    """Outputs whose call ended after two files."""

    def stop(name, logits):
        if name == few[2]:
            raise KeyboardInterrupt

    outputs = Outputs(tmp_path / "s.csv")
    with pytest.raises(KeyboardInterrupt):
        predict_files(LOUD, few, outputs, key={}, show=stop)
    return outputs


@pytest.mark.parametrize(
    ("change", "num_again"),
    [
        ("nothing", 0),
        ("half a line", 1),
        ("the first file", 3),
        ("the rejected file", 2),
        ("the model", 3),
        ("less", 0),
    ],
)
def test_only_what_is_missing_or_has_changed_is_predicted_again(few, interrupted, monkeypatch, change, num_again):
    path, names = interrupted.beside(".progress"), few
    if change == "half a line":
        path.write_bytes(path.read_bytes()[:-20])
    elif change in ("the first file", "the rejected file"):
        sf.write(few[0 if "first" in change else 1], np.full(500, 0.7), 16_000)
    elif change == "less":
        names = few[:1]
    asked = []
    original = journal._continued
    monkeypatch.setattr(
        journal,
        "_continued",
        lambda file, key, names, score: original(file, key, names, lambda rest: score(asked.extend(rest) or rest)),
    )
    key = {"model": "another"} if change == "the model" else {}
    predict(names, interrupted, key=key)
    assert len(asked) == num_again
    monkeypatch.undo()
    content = interrupted.scores.read_bytes()
    again = dataclasses.replace(interrupted, scores=interrupted.scores.with_name("again.csv"))
    predict(names, again)
    assert again.scores.read_bytes() == content


def test_two_commands_cannot_write_the_same_outputs(few, interrupted):
    from audiotag.files import locked

    with locked(interrupted.beside(".progress.lock"), ""):
        message = predict(few, interrupted)[1]
    assert message == (
        f"{interrupted.beside('.progress')}: another process is predicting into the same files. Wait for its end, or "
        "choose other files."
    )


def test_files_are_decoded_while_the_model_scores(few, monkeypatch):
    from audiotag.inference import audio_files

    read = []
    original = audio_files.read_waveform

    def record(path, **options):
        read.append(str(path))
        return original(path, **options)

    def logits(windows):
        deadline = time.monotonic() + 20
        while len(read) < 3 and time.monotonic() < deadline:  # the others are read before the first is scored
            time.sleep(0.01)
        return loudness(windows)

    monkeypatch.setattr(audio_files, "read_waveform", record)
    names = [few[0], few[2], few[0]]
    assert len(score_files(dataclasses.replace(LOUD, logits=logits), names)) == 3
    assert sorted(read) == sorted(names)


def test_a_name_that_is_not_utf8_is_a_rejected_file(few, tmp_path):
    name = os.fsdecode(b"h\xe9.wav")
    predict([name, few[0]], Outputs(tmp_path / "s.csv"))
    rejects = pd.read_csv(tmp_path / "s.rejects.csv")
    assert rejects["fname"].tolist() == [r"h\udce9.wav"]
    assert "has bytes that are not UTF-8. Rename the file." in rejects["reason"][0]


# The command


def test_the_command_takes_a_list_on_standard_input_and_the_thresholds_of_the_run(run, saved_model, wavs, tmp_path):
    listed = "".join(f"{path}\n" for path in wavs[:3])
    tables = []
    for number, model in enumerate((run.folder, saved_model)):
        arguments = ["predict", model, "-", "--events", tmp_path / f"{number}.csv"]
        result = CliRunner().invoke(main, list(map(str, arguments)), input=listed)
        assert result.exit_code == 0, result.output
        tables.append(pd.read_csv(tmp_path / f"{number}.csv"))
    predictor = load_predictor(saved_model)
    _, expected = score_events(predictor, wavs[:3], threshold=expit(predictor.thresholds))
    for table in tables:
        pd.testing.assert_frame_equal(table, expected, atol=1e-4)


def test_the_identity_of_a_model_changes_with_its_weights(run, saved_model, tmp_path):
    import shutil

    copy = shutil.copytree(run.folder, tmp_path / "run")
    assert identity(copy) == identity(run.folder) != identity(saved_model)
    result = next(copy.glob("fold-0/curated/result.json"))
    result.write_text(result.read_text().replace('"sha256": "', '"sha256": "0'))
    assert identity(copy) != identity(run.folder)
