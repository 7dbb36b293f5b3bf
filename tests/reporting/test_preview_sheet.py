import json
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest
import soundfile as sf
from click.testing import CliRunner

from audiotag.cli import main
from audiotag.data.clips import read_clips
from audiotag.errors import DataError
from audiotag.reporting.preview_sheet import _as_text, _labels, _labels_of, draw_preview

MIXED = 'augment=[{"name": "mixup"}, {"name": "flips_as_classes"}]'


def test_a_sheet_has_a_row_per_clip_and_a_column_per_step(tiny, wavs, tmp_path):
    draw_preview(tiny(MIXED), wavs[:2], tmp_path / "two.png", versions=1)
    draw_preview(tiny(MIXED), wavs[:3], tmp_path / "three.png", versions=4)
    two, three = (matplotlib.image.imread(tmp_path / f"{name}.png") for name in ("two", "three"))
    assert three.shape[0] == pytest.approx(1.5 * two.shape[0], abs=2)
    assert two.shape[1] == pytest.approx(4 * 2.4 * 110, abs=2)  # waveform, log_mel, standardize, one version
    assert three.shape[1] == pytest.approx(7 * 2.4 * 110, abs=2)
    assert np.ptp(three[:, :, :3]) > 0.9  # something is drawn


def test_trimmed_clips_are_shown_complete_before_and_after(tiny, wavs, tmp_path, monkeypatch):
    recording, rate = sf.read(wavs[0])
    padded = np.concatenate([np.zeros(2 * rate), recording, np.zeros(rate)])
    path = tmp_path / wavs[0].name
    sf.write(path, padded, rate)
    options = {"trim": "relative", "trim_db": 60.0, "peak_db": None, "sample_rate": rate}
    labels = lambda experiment, paths: (("Bark",), ["Bark"], dict(options))
    monkeypatch.setattr("audiotag.reporting.preview_sheet._labels", labels)
    shown = []
    monkeypatch.setattr("audiotag.reporting.preview_sheet._draw", lambda axis, values, rate: shown.append(values.shape))
    draw_preview(tiny("augment=[]"), [path], tmp_path / "sheet.png", versions=0)
    (before, bands), (after, _) = shown[:2]
    step = tiny().frontend.frame_step
    assert before == pytest.approx(len(padded) / step, abs=3) and bands == shown[3][1]
    assert after <= (len(recording) + 4096) / step + 1 and after < before - 2.5 * rate / step


def test_the_labels_are_those_of_the_records(tiny, wavs, records):
    vocabulary, labels, audio_config = _labels(tiny(), [*wavs, wavs[0].with_name("unknown.wav")])
    clips = read_clips(records / "clips.csv").set_index("name")
    assert labels == [*clips.loc[[path.name for path in wavs], "labels"], "unknown"]
    assert vocabulary[-1] == "unknown" and audio_config["sample_rate"] == 16_000


def test_the_longest_suffix_of_a_path_names_the_clip():
    labels_by_name = {"dog/1.wav": "Bark", "cat/1.wav": "Meow", "1.wav": "Rain"}
    for path, labels in (("a/dog/1.wav", "Bark"), ("cat/1.wav", "Meow"), ("b/1.wav", "Rain"), ("2.wav", "")):
        assert _labels_of(Path(path), labels_by_name) == labels


def test_labels_grouped_by_subset_have_the_same_texts(tiny, wavs, tmp_path, monkeypatch):
    texts = []
    record = lambda *args: texts.append(_as_text(*args)) or texts[-1]
    monkeypatch.setattr("audiotag.reporting.preview_sheet._as_text", record)
    for head in ("false", "true"):
        draw_preview(tiny("augment=[]", f"noisy_head={head}"), wavs[:2], tmp_path / "sheet.png", versions=1)
    assert texts[0] == texts[1] and all(texts[0])


def test_labels_become_texts_with_their_weights():
    labels = np.array([[1, 0, 0, 0, 0, 0, 0, 0], [0, 0.3, 0, 0, 0, 0, 0.7, 0], [0, 0, 0, 0, 0, 0, 0, 0]])
    assert _as_text(labels, ("Bark", "Rain")) == ["Bark", "0.70 Bark (both)\n+ 0.30 Rain", ""]
    assert _as_text(labels[:1, :2], ("Bark", "Rain")) == ["Bark"]


def test_the_command_draws_and_prints_the_path(tiny_file, wavs, tmp_path):
    done = CliRunner().invoke(main, ["preview", str(tiny_file), str(wavs[0]), "--out", str(tmp_path / "sheet.png")])
    assert done.exit_code == 0, done.output
    assert done.output == f"1 clips: {tmp_path / 'sheet.png'}\n"
    assert matplotlib.image.imread(tmp_path / "sheet.png").size


def test_without_records_the_sample_rate_must_be_given(tiny, wavs, tmp_path):
    without_records = tiny(f"records={json.dumps(str(tmp_path / 'nothing'))}")
    with pytest.raises(
        DataError, match="nothing: no records, so the sample rate is unknown. Give it with --sample-rate."
    ):
        draw_preview(without_records, wavs[:1], tmp_path / "sheet.png")
    draw_preview(without_records, wavs[:1], tmp_path / "sheet.png", versions=0, sample_rate=16_000)
    assert matplotlib.image.imread(tmp_path / "sheet.png").size
