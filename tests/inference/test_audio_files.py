import dataclasses
import functools

import numpy as np
import pytest
import soundfile as sf
from scipy.special import expit

from audiotag.data.clips import read_clips
from audiotag.data.records.manifest import read_manifest
from audiotag.data.records.writing import write_records
from audiotag.data.sources import find_clips
from audiotag.errors import DataError
from audiotag.inference import audio_files
from audiotag.inference.audio_files import score_events, score_files, top_classes
from audiotag.inference.predictor import Predictor
from audiotag.inference.records import score_records
from audiotag.runs.models import load_taggers
from audiotag.serving.saved_model import load_predictor

AUDIO_CONFIG = {"sample_rate": 16_000, "trim": None, "trim_db": 60.0, "peak_db": None}


def loudness(windows):
    """Logits that detect whether a window is loud in its first, or second, half."""
    halves = np.stack(np.array_split(np.abs(windows), 2, axis=1), axis=1).max(axis=2)  # [B, 2]
    return (100 * (halves - 0.5)).astype("float32")


LOUD = Predictor(loudness, AUDIO_CONFIG, ("first", "second"), 16_000, 8_000, "max")


# Scores of files


def test_files_get_the_scores_that_their_records_get(run, records, wavs):
    clips = read_clips(records / "clips.csv").query("subset == 'test'").reset_index(drop=True)
    scores = score_records(load_taggers(run), read_manifest(records), clips)
    logits = score_files(load_predictor(run.folder), wavs)
    assert logits.shape == (20, 14) and logits.dtype == "float64"
    rows = [clips["name"].tolist().index(path.name) for path in wavs]
    np.testing.assert_allclose(expit(logits), scores[rows], atol=1e-5)


def test_files_are_trimmed_and_scaled_as_their_records_were(run, tmp_path):
    audio = tmp_path / "dataset" / "audio"
    audio.mkdir(parents=True)
    table = ["fname,labels,subset"]
    for index in range(4):
        sound = 0.1 * np.random.default_rng(index).uniform(-1, 1, 9_000 + 1_000 * index)
        sf.write(audio / f"{index}.wav", np.concatenate([np.zeros(6_000), sound, np.zeros(9_000)]), 16_000)
        table.append(f"{index}.wav,a,{'curated' if index == 0 else 'test'}")
    (audio.parent / "labels.csv").write_text("\n".join(table) + "\n")
    options = {"sample_rate": 16_000, "trim": "absolute", "peak_db": -3.0, "workers": 0}
    manifest = write_records(find_clips(tmp_path / "dataset"), tmp_path / "records", **options)
    clips = read_clips(tmp_path / "records" / "clips.csv").query("subset == 'test'").reset_index(drop=True)
    assert (clips["trimmed_start_seconds"] > 0.3).all() and (clips["gain_db"] > 10).all()
    scores = score_records(load_taggers(run), manifest, clips)
    predictor = load_predictor(run.folder)
    paths = [audio / name for name in clips["name"]]
    logits = score_files(dataclasses.replace(predictor, audio_config=manifest.audio_config), paths)
    np.testing.assert_allclose(expit(logits), scores, atol=1e-4)
    assert np.abs(expit(score_files(predictor, paths)) - scores).max() > 1e-2


def test_a_long_recording_gets_the_same_logits_as_a_short_one(run, tmp_path, monkeypatch):
    predictor = load_predictor(run.folder)
    sound = 0.3 * np.random.default_rng(0).standard_normal(22_050 * 7).astype("float32")
    sf.write(tmp_path / "noise.wav", sound, 22_050, subtype="FLOAT")
    for changed in (predictor, dataclasses.replace(predictor, audio_config=predictor.audio_config | {"peak_db": -6.0})):
        monkeypatch.setattr(audio_files, "LONG_SECONDS", 600)
        expected = score_files(changed, [tmp_path / "noise.wav"])
        monkeypatch.setattr(audio_files, "LONG_SECONDS", 5)
        np.testing.assert_allclose(score_files(changed, [tmp_path / "noise.wav"]), expected, atol=1e-2)


def test_a_long_recording_is_scored_window_by_window_however_small_its_file(tmp_path):
    sound = np.zeros(11 * 60 * 4_000)
    sound[8_000:16_000] = 0.9
    sf.write(tmp_path / "night.flac", sound, 4_000)
    assert (tmp_path / "night.flac").stat().st_size < 40_000
    predictor = dataclasses.replace(LOUD, audio_config=AUDIO_CONFIG | {"sample_rate": 4_000})
    assert (score_files(predictor, [tmp_path / "night.flac"]) > 30).all()  # as one window, its second half is silent


# Events


def test_a_bang_is_detected_at_its_time(tmp_path):
    sound = np.zeros(44_100 * 20, "float32")
    sound[44_100 * 12 : 44_100 * 12 + 2_000] = 0.9
    sf.write(tmp_path / "bang.wav", np.stack([sound, sound], axis=1), 44_100)
    logits, table = score_events(LOUD, [tmp_path / "bang.wav"], threshold=0.5)
    assert (logits > 0).all()
    assert table.columns.tolist() == ["fname", "start", "end", "class", "probability"]
    assert table["class"].tolist() == ["second", "first"]
    assert table["start"].tolist() == [11.5, 12.0] and table["end"].tolist() == [12.5, 13.0]


# Both


SCORERS = [score_files, functools.partial(score_events, threshold=0.5)]


@pytest.mark.parametrize("score", SCORERS)
def test_a_recording_too_short_for_the_sample_rate_is_refused(tmp_path, score):
    sf.write(tmp_path / "short.wav", np.zeros(5), 384_000)
    with pytest.raises(DataError, match="short.wav: too short: 5 samples at 384000 Hz leave none at 16000 Hz. Leave"):
        score(LOUD, [tmp_path / "short.wav"])


@pytest.mark.parametrize("score", SCORERS)
def test_samples_beyond_full_scale_are_clipped_as_in_records(tmp_path, score):
    received = []

    def logits(windows):
        received.append(windows)
        return np.zeros((len(windows), 2), "float32")

    sound = 0.9 * np.sin(np.arange(16_000, dtype="float32"))
    sf.write(tmp_path / "over.wav", 3 * sound, 16_000, subtype="FLOAT")
    score(dataclasses.replace(LOUD, logits=logits), [tmp_path / "over.wav"])
    np.testing.assert_array_equal(received.pop()[0], np.clip(3 * sound, -1, 1))
    sf.write(tmp_path / "far.wav", 1e30 * sound, 16_000, subtype="FLOAT")
    with pytest.raises(DataError, match="far.wav: its peak is 8.9.*e.29, and full scale is 1: .* --peak-db"):
        score(dataclasses.replace(LOUD, logits=logits), [tmp_path / "far.wav"])
    sf.write(tmp_path / "beyond.wav", 1e38 * np.sign(sound), 16_000, subtype="FLOAT")
    changed = dataclasses.replace(LOUD, logits=logits, audio_config=AUDIO_CONFIG | {"peak_db": -6.0})
    score(changed, [tmp_path / "beyond.wav"])
    assert np.abs(received.pop()).max() == pytest.approx(10 ** (-6 / 20))


@pytest.mark.parametrize("score", SCORERS)
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_file_with_nan_or_infinite_logits_is_refused_by_name(tmp_path, score, value):
    sf.write(tmp_path / "fine.wav", np.zeros(40_000), 16_000)
    broken = dataclasses.replace(LOUD, logits=lambda windows: np.array([[0, 0]] * (len(windows) - 1) + [[0, value]]))
    message = "fine.wav: the model predicts NaN or infinity. Leave the file out; if other files fail too, retrain it."
    with pytest.raises(DataError, match=message):
        score(broken, [tmp_path / "fine.wav"])


# As text


def test_the_best_classes_come_first():
    logits = np.array([[-1.0, 0.0, 40.0], [2.0, -30.0, -2.0]])
    assert top_classes(["a b.wav", "c.wav"], logits, ("Bark", "Church bell", "Meow"), 2).splitlines() == [
        "a b.wav",
        "  100.0%  Meow",
        "   50.0%  Church bell",
        "c.wav",
        "   88.1%  Bark",
        "   11.9%  Meow",
    ]
    assert len(top_classes(["a", "b"], logits, ("Bark", "Church bell", "Meow"), 99).splitlines()) == 8
