import json
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest
from click.testing import CliRunner

from audiotag.cli import main
from audiotag.data.clips import read_clips
from audiotag.errors import DataError
from audiotag.reporting.preview_sheet import _in_words, _known_labels, _labels, draw_sheet

MIXED = 'augment=[{"name": "mixup"}, {"name": "flip_labels"}]'


def test_a_sheet_has_a_row_a_clip_and_a_column_a_step(tiny, wavs, tmp_path):
    draw_sheet(tiny(MIXED), wavs[:2], tmp_path / "two.png", versions=1)
    draw_sheet(tiny(MIXED), wavs[:3], tmp_path / "three.png", versions=4)
    two, three = (matplotlib.image.imread(tmp_path / f"{name}.png") for name in ("two", "three"))
    assert three.shape[0] == pytest.approx(1.5 * two.shape[0], abs=2)
    assert two.shape[1] == pytest.approx(4 * 2.4 * 110, abs=2)  # waveform, log_mel, standardise, one version
    assert three.shape[1] == pytest.approx(7 * 2.4 * 110, abs=2)
    assert np.ptp(three[:, :, :3]) > 0.9  # something is drawn


def test_labels_are_those_of_the_records(tiny, wavs, records):
    vocabulary, labels, hearing = _labels(tiny(), [*wavs, wavs[0].with_name("stranger.wav")])
    clips = read_clips(records / "clips.csv").set_index("name")
    assert labels == [*clips.loc[[path.name for path in wavs], "labels"], "stranger"]
    assert vocabulary[-1] == "stranger" and hearing["sample_rate"] == 16_000


def test_the_longest_end_of_a_path_names_the_clip():
    known = {"dog/1.wav": "Bark", "cat/1.wav": "Meow", "1.wav": "Rain"}
    for path, labels in (("a/dog/1.wav", "Bark"), ("cat/1.wav", "Meow"), ("b/1.wav", "Rain"), ("2.wav", "")):
        assert _known_labels(Path(path), known) == labels


def test_labels_kept_apart_are_read_as_others(tiny, wavs, tmp_path, monkeypatch):
    said = []
    note = lambda *args: said.append(_in_words(*args)) or said[-1]
    monkeypatch.setattr("audiotag.reporting.preview_sheet._in_words", note)
    for head in ("false", "true"):
        draw_sheet(tiny("augment=[]", f"noisy_head={head}"), wavs[:2], tmp_path / "sheet.png", versions=1)
    assert said[0] == said[1] and all(said[0])


def test_labels_are_read_as_words():
    labels = np.array([[1, 0, 0, 0, 0, 0, 0, 0], [0, 0.3, 0, 0, 0, 0, 0.7, 0], [0, 0, 0, 0, 0, 0, 0, 0]])
    assert _in_words(labels, ("Bark", "Rain")) == ["Bark", "0.70 Bark (both)\n+ 0.30 Rain", ""]
    assert _in_words(labels[:1, :2], ("Bark", "Rain")) == ["Bark"]


def test_the_command_draws_and_says_where(tiny_file, wavs, tmp_path):
    done = CliRunner().invoke(main, ["pictures", str(tiny_file), str(wavs[0]), "--out", str(tmp_path / "sheet.png")])
    assert done.exit_code == 0, done.output
    assert done.output == f"1 clips: {tmp_path / 'sheet.png'}\n"
    assert matplotlib.image.imread(tmp_path / "sheet.png").size


def test_without_records_the_sample_rate_must_be_told(tiny, wavs, tmp_path):
    elsewhere = tiny(f"records={json.dumps(str(tmp_path / 'nothing'))}")
    with pytest.raises(DataError, match="nothing: no records there to tell the sample rate. Give one with --sample-r"):
        draw_sheet(elsewhere, wavs[:1], tmp_path / "sheet.png")
    draw_sheet(elsewhere, wavs[:1], tmp_path / "sheet.png", versions=0, sample_rate=16_000)
    assert matplotlib.image.imread(tmp_path / "sheet.png").size
