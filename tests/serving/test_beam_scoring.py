"""predict on Apache Beam writes the same bytes as on one machine."""

import shutil

import pytest
from click.testing import CliRunner

from audiotag.cli import main
from audiotag.inference import audio_files
from audiotag.serving import beam_scoring

pytest.importorskip("apache_beam", reason="apache-beam is not installed")
pytestmark = pytest.mark.filterwarnings("default")  # of Beam and the packages that it imports


def predict(run, sounds, out, *options):
    out.mkdir(exist_ok=True)
    outputs = ["--csv", str(out / "scores.csv"), "--labels", str(out / "labels.csv")]
    return CliRunner().invoke(main, ["predict", str(run.folder), str(sounds), *outputs, *options])


def content_of(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_workers_write_the_same_tables_and_rejects(run, wavs, tmp_path, monkeypatch):
    sounds = tmp_path / "sounds"
    sounds.mkdir()
    for path in wavs:
        shutil.copy(path, sounds)
    (sounds / "bad.wav").write_bytes(b"no sound")
    monkeypatch.setattr(beam_scoring, "FILES_PER_ITEM", 3)
    assert predict(run, sounds, tmp_path / "here").exit_code == 1  # a file is rejected
    expected = content_of(tmp_path / "here")
    assert expected.keys() == {"scores.csv", "labels.csv", "scores.rejects.csv"}
    threads = ["--beam-option", "direct_num_workers=2", "--beam-option", "direct_running_mode=multi_threading"]
    out = tmp_path / "beam"
    with monkeypatch.context() as patch:
        read = audio_files.read_waveform
        patch.setattr(
            audio_files, "read_waveform", lambda path, **how: fail_at(wavs[-1].name, path) or read(path, **how)
        )
        failed = predict(run, sounds, out, "--beam-runner", "DirectRunner", *threads)
    assert failed.exit_code == 1 and "Beam's DirectRunner failed: " in failed.output
    assert any((out / "scores.parts").iterdir())  # what was done
    result = predict(run, sounds, out, "--beam-runner", "DirectRunner", *threads)
    assert result.exit_code == 1 and "1 of " in result.output
    assert content_of(out) == expected


def fail_at(name, path):
    if str(path).endswith(name):
        raise RuntimeError("the worker is lost")


def test_beam_needs_a_file_to_write(run, wavs):
    result = CliRunner().invoke(main, ["predict", str(run.folder), str(wavs[0]), "--beam-runner", "DirectRunner"])
    assert result.exit_code == 2 and "--beam-runner needs a file to write" in result.output
