import dataclasses
import functools
import os
import struct
import tracemalloc

import numpy as np
import pytest
import soundfile as sf

from audiotag.data.audio.decoding import read_waveform
from audiotag.data.audio.headers import MOST_SAMPLES
from audiotag.errors import DataError
from audiotag.inference import audio_files, long_recordings
from audiotag.inference.audio_files import score_files, score_timelines
from audiotag.inference.long_recordings import events, hear_windows, windows_of
from audiotag.inference.predictor import Listener, pool_windows
from audiotag.serving.saved_model import load_listener

HEARING = {"sample_rate": 16_000, "trim": None, "trim_db": 60.0, "peak_db": None}


def loudness(windows):
    """A listener's answer: is a window loud in its first, or second, half?"""
    halves = np.stack(np.array_split(np.abs(windows), 2, axis=1), axis=1).max(axis=2)  # [B, 2]
    return (100 * (halves - 0.5)).astype("float32")


LOUD = Listener(loudness, HEARING, ("first", "second"), 16_000, 8_000, "max")


def windows_by_hand(sound, n, hop):
    """(start, window) of a plain loop over a whole sound."""
    found, start = [], 0
    while start + n < len(sound):
        found.append((start, sound[start : start + n].tolist()))
        start += hop
    return [*found, (max(len(sound) - n, 0), sound[-n:].tolist())]


@pytest.mark.parametrize("length", [1, 5, 15, 16, 17, 31, 32, 33, 100])
@pytest.mark.parametrize("hop", [3, 8, 16])
def test_windows_are_the_same_however_the_sound_is_cut_into_blocks(length, hop):
    sound = np.arange(length, dtype="float32")
    expected = windows_by_hand(sound, 16, hop)
    for block in (1, 2, 7, 16, 33, 1000):
        blocks = np.split(sound, range(block, length, block))
        assert [(start, window.tolist()) for start, window in windows_of(blocks, 16, hop)] == expected


def test_a_bang_is_heard_when_it_is(tmp_path):
    sound = np.zeros(44_100 * 20, "float32")
    sound[44_100 * 12 : 44_100 * 12 + 2_000] = 0.9
    sf.write(tmp_path / "bang.wav", np.stack([sound, sound], axis=1), 44_100)
    logits, table = score_timelines(LOUD, [tmp_path / "bang.wav"], threshold=0.5)
    assert (logits > 0).all()
    assert table.columns.tolist() == ["fname", "start", "end", "class", "probability"]
    assert table["class"].tolist() == ["second", "first"]
    assert table["start"].tolist() == [11.5, 12.0] and table["end"].tolist() == [12.5, 13.0]


def test_windows_that_touch_are_one_event_and_thresholds_divide():
    starts, ends = np.arange(5) * 1.0, np.arange(5) + 2.0
    probabilities = np.array([[0.9, 0.1], [0.6, 0.1], [0.1, 0.55], [0.1, 0.1], [0.8, 0.1]])
    assert events(starts, ends, probabilities, "ab").values.tolist() == [
        [0.0, 3.0, "a", 0.9], [2.0, 4.0, "b", 0.55], [4.0, 6.0, "a", 0.8],
    ]  # fmt: skip
    assert len(events(starts, ends, probabilities, "ab", threshold=0.7)) == 2
    assert events(starts, ends, probabilities, "ab", threshold=0.95).empty


def test_a_long_recording_gets_the_answer_of_a_short_one(run, tmp_path, monkeypatch):
    listener = load_listener(run.folder)
    sound = 0.3 * np.random.default_rng(0).standard_normal(22_050 * 7).astype("float32")
    sf.write(tmp_path / "noise.wav", sound, 22_050, subtype="FLOAT")
    for changed in (listener, dataclasses.replace(listener, hearing=listener.hearing | {"peak_db": -6.0})):
        monkeypatch.setattr(audio_files, "LONG_SECONDS", 600)
        expected = score_files(changed, [tmp_path / "noise.wav"])
        monkeypatch.setattr(audio_files, "LONG_SECONDS", 5)
        np.testing.assert_allclose(score_files(changed, [tmp_path / "noise.wav"]), expected, atol=1e-2)
    starts, ends, logits = hear_windows(listener, tmp_path / "noise.wav")
    assert starts[:3].tolist() == [0, 0.5, 1] and ends[-1] == 7
    waveform = read_waveform(tmp_path / "noise.wav", sample_rate=16_000)
    expected = listener.logits(waveform[None, 24_000:40_000])[0]
    np.testing.assert_allclose(logits[3], expected, atol=1e-2)


def test_a_window_that_ends_in_silence_is_heard_as_in_a_clip(run, tmp_path):
    listener, sound = load_listener(run.folder), np.zeros(16_000 * 3, "float32")
    sound[: 16_000 // 4] = 0.3 * np.random.default_rng(0).standard_normal(16_000 // 4)
    sound[-100:] = 0.3
    sf.write(tmp_path / "bang.wav", sound, 16_000, subtype="FLOAT")
    heard = pool_windows(hear_windows(listener, tmp_path / "bang.wav")[2], listener.pool)
    np.testing.assert_allclose(heard, listener.logits(sound[None])[0], atol=1e-3)


def test_memory_does_not_grow_with_the_recording(tmp_path):
    peaks = {}
    for minutes in (1, 16):
        with sf.SoundFile(tmp_path / f"{minutes}.wav", "w", 16_000, 1) as file:
            for _ in range(minutes):
                file.write(np.zeros(60 * 16_000, "float32"))
        tracemalloc.start()
        hear_windows(LOUD, tmp_path / f"{minutes}.wav")
        peaks[minutes] = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peaks[16] < 1.2 * peaks[1] and peaks[16] < 40e6


def test_what_is_no_file_or_no_sound_has_no_length(tmp_path):
    (tmp_path / "text.wav").write_text("no sound at all")
    for path in ("/dev/zero", tmp_path / "nowhere.wav", tmp_path / "text.wav", tmp_path):
        assert long_recordings.seconds_of(path) == 0
    sf.write(tmp_path / "second.wav", np.zeros(8_000), 8_000)
    assert long_recordings.seconds_of(tmp_path / "second.wav") == 1


def test_a_recording_that_is_long_and_small_is_heard_window_by_window(tmp_path):
    sound = np.zeros(11 * 60 * 4_000)
    sound[8_000:16_000] = 0.9
    sf.write(tmp_path / "night.flac", sound, 4_000)
    assert (tmp_path / "night.flac").stat().st_size < 40_000
    listener = dataclasses.replace(LOUD, hearing=HEARING | {"sample_rate": 4_000})
    assert (score_files(listener, [tmp_path / "night.flac"]) > 30).all()  # in one piece, its second half were silent


READERS = [score_files, functools.partial(score_timelines, threshold=0.5)]


@pytest.mark.parametrize("read", READERS)
def test_a_recording_too_short_for_the_rate_is_refused_either_way(tmp_path, read):
    sf.write(tmp_path / "short.wav", np.zeros(5), 384_000)
    with pytest.raises(DataError, match="short.wav: too short: 5 samples at 384000 Hz leave none at 16000 Hz. Take it"):
        read(LOUD, [tmp_path / "short.wav"])


@pytest.mark.parametrize("read", READERS)
def test_what_is_louder_than_full_scale_is_heard_as_its_record_would_be(tmp_path, read):
    heard = []

    def logits(windows):
        heard.append(windows)
        return np.zeros((len(windows), 2), "float32")

    sound = 0.9 * np.sin(np.arange(16_000, dtype="float32"))
    for name, factor in (("over", 3), ("far", 1e30)):
        sf.write(tmp_path / f"{name}.wav", factor * sound, 16_000, subtype="FLOAT")
        read(dataclasses.replace(LOUD, logits=logits), [tmp_path / f"{name}.wav"])
        np.testing.assert_array_equal(heard.pop()[0], np.clip(factor * sound, -1, 1))
    sf.write(tmp_path / "beyond.wav", 1e38 * np.sign(sound), 16_000, subtype="FLOAT")
    changed = dataclasses.replace(LOUD, logits=logits, hearing=HEARING | {"peak_db": -6.0})
    read(changed, [tmp_path / "beyond.wav"])
    assert np.abs(heard.pop()).max() == pytest.approx(10 ** (-6 / 20))


@pytest.mark.parametrize("read", READERS)
@pytest.mark.parametrize("answer", [np.nan, np.inf])
def test_an_answer_that_is_no_number_is_refused_and_the_file_named(tmp_path, read, answer):
    sf.write(tmp_path / "fine.wav", np.zeros(40_000), 16_000)
    broken = dataclasses.replace(LOUD, logits=lambda windows: np.array([[0, 0]] * (len(windows) - 1) + [[0, answer]]))
    with pytest.raises(DataError, match="fine.wav: the model answers NaN or infinity. Leave the file out; if it answe"):
        read(broken, [tmp_path / "fine.wav"])


def test_what_is_no_sound_is_refused_as_a_clip_is(tmp_path):
    (tmp_path / "text.wav").write_text("no sound")
    os.mkfifo(tmp_path / "pipe.wav")
    sf.write(tmp_path / "empty.wav", np.zeros(0, "float32"), 16_000)
    sf.write(tmp_path / "nan.wav", np.full(100, np.nan, "float32"), 16_000, subtype="FLOAT")
    sf.write(tmp_path / "packed.wav", np.zeros(1_000, "float32"), 16_000, subtype="MS_ADPCM")
    (tmp_path / "other.mp3").write_bytes((tmp_path / "nan.wav").read_bytes())
    for name, message in {
        "text.wav": "audiotag cannot decode it: it begins with b'no sound'",
        "nowhere.wav": "cannot be read: No such file or directory",
        "pipe.wav": "cannot be read: a device or a pipe",
        "empty.wav": "a header but no samples",
        "nan.wav": "100 samples after 0 s are NaN or infinite",
        "packed.wav": "WAV encoding 2 with 4 bits",
        "other.mp3": "the name says .mp3, but the content is WAV",
    }.items():
        for read in (functools.partial(hear_windows, LOUD), functools.partial(read_waveform, sample_rate=16_000)):
            with pytest.raises(DataError, match=f"{name}: {message}"):
                read(tmp_path / name)


def test_a_recording_may_be_longer_than_a_clip(tmp_path):
    samples, path = MOST_SAMPLES + 1, tmp_path / "long.wav"
    sf.write(path, np.zeros(0, "int16"), 384_000)
    with open(path, "r+b") as file:
        file.seek(40)
        file.write(struct.pack("<I", 2 * samples))
        file.truncate(44 + 2 * samples)
    assert hear_windows(LOUD, path)[1][-1] == pytest.approx(samples / 384_000, abs=1e-3)
    with pytest.raises(DataError, match="long.wav: too long: 67108865 samples at 384000 Hz"):
        read_waveform(path, sample_rate=16_000)
