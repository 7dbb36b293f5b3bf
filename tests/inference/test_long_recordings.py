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
from audiotag.inference.long_recordings import ahead, predict_windows, seconds_of, windows_of
from audiotag.inference.predictor import Predictor, pool_windows
from audiotag.serving.saved_model import load_predictor

AUDIO_CONFIG = {"sample_rate": 16_000, "trim": None, "trim_db": 60.0, "peak_db": None}
PEAK = Predictor(lambda windows: windows.max(axis=1, keepdims=True), AUDIO_CONFIG, ("loud",), 16_000, 8_000, "max")


def windows_by_hand(sound, n, hop):
    """(start, window) of a plain loop over a complete sound."""
    found, start = [], 0
    while start + n < len(sound):
        found.append((start, sound[start : start + n].tolist()))
        start += hop
    return [*found, (max(len(sound) - n, 0), sound[-n:].tolist())]


@pytest.mark.parametrize("length", [1, 5, 15, 16, 17, 31, 32, 33, 100])
@pytest.mark.parametrize("hop", [3, 8, 16])
def test_windows_do_not_depend_on_the_size_of_blocks(length, hop):
    sound = np.arange(length, dtype="float32")
    expected = windows_by_hand(sound, 16, hop)
    for block in (1, 2, 7, 16, 33, 1000):
        blocks = np.split(sound, range(block, length, block))
        assert [(start, window.tolist()) for start, window in windows_of(blocks, 16, hop)] == expected


def test_an_error_in_what_is_read_ahead_comes_in_its_place():
    def numbers():
        yield 1
        raise DataError("broken")

    items = ahead(numbers())
    assert next(items) == 1
    with pytest.raises(DataError, match="^broken$"):
        next(items)


def test_windows_have_the_times_and_logits_of_their_samples(run, tmp_path):
    predictor = load_predictor(run.folder)
    sound = 0.3 * np.random.default_rng(0).standard_normal(22_050 * 7).astype("float32")
    sf.write(tmp_path / "noise.wav", sound, 22_050, subtype="FLOAT")
    starts, ends, logits = predict_windows(predictor, tmp_path / "noise.wav")
    assert starts[:3].tolist() == [0, 0.5, 1] and ends[-1] == 7
    waveform = read_waveform(tmp_path / "noise.wav", sample_rate=16_000)
    expected = predictor.logits(waveform[None, 24_000:40_000])[0]
    np.testing.assert_allclose(logits[3], expected, atol=1e-2)


def test_a_window_that_ends_in_silence_is_scored_as_in_a_clip(run, tmp_path):
    predictor, sound = load_predictor(run.folder), np.zeros(16_000 * 3, "float32")
    sound[: 16_000 // 4] = 0.3 * np.random.default_rng(0).standard_normal(16_000 // 4)
    sound[-100:] = 0.3
    sf.write(tmp_path / "bang.wav", sound, 16_000, subtype="FLOAT")
    pooled = pool_windows(predict_windows(predictor, tmp_path / "bang.wav")[2], predictor.pool)
    np.testing.assert_allclose(pooled, predictor.logits(sound[None])[0], atol=1e-3)


def test_memory_does_not_grow_with_the_recording(tmp_path):
    peaks = {}
    for minutes in (3, 16):  # three minutes fill the batches that are read ahead
        with sf.SoundFile(tmp_path / f"{minutes}.wav", "w", 16_000, 1) as file:
            for _ in range(minutes):
                file.write(np.zeros(60 * 16_000, "float32"))
        tracemalloc.start()
        predict_windows(PEAK, tmp_path / f"{minutes}.wav")
        peaks[minutes] = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peaks[16] < 1.2 * peaks[3] and peaks[16] < 40e6


def test_the_length_of_an_unreadable_file_is_0(tmp_path):
    (tmp_path / "text.wav").write_text("no sound at all")
    for path in ("/dev/zero", tmp_path / "nowhere.wav", tmp_path / "text.wav", tmp_path):
        assert seconds_of(path) == 0
    sf.write(tmp_path / "second.wav", np.zeros(8_000), 8_000)
    assert seconds_of(tmp_path / "second.wav") == 1


def test_an_invalid_recording_is_refused_as_a_clip_is(tmp_path):
    (tmp_path / "text.wav").write_text("no sound")
    os.mkfifo(tmp_path / "pipe.wav")
    sf.write(tmp_path / "empty.wav", np.zeros(0, "float32"), 16_000)
    sf.write(tmp_path / "nan.wav", np.full(100, np.nan, "float32"), 16_000, subtype="FLOAT")
    (tmp_path / "other.mp3").write_bytes((tmp_path / "nan.wav").read_bytes())
    for name, message in {
        "text.wav": "audiotag cannot decode it: it begins with b'no sound'",
        "nowhere.wav": "cannot be read: No such file or directory",
        "pipe.wav": "cannot be read: a device or a pipe",
        "empty.wav": "a header but no samples",
        "nan.wav": "100 samples after 0 s are NaN or infinite",
        "other.mp3": "the name says .mp3, but the content is WAV",
    }.items():
        for read in (functools.partial(predict_windows, PEAK), functools.partial(read_waveform, sample_rate=16_000)):
            with pytest.raises(DataError, match=f"{name}: {message}"):
                read(tmp_path / name)


def test_a_recording_may_be_longer_than_a_clip(tmp_path):
    samples, path = MOST_SAMPLES + 1, tmp_path / "long.wav"
    sf.write(path, np.zeros(0, "int16"), 384_000)
    with open(path, "r+b") as file:
        file.seek(40)
        file.write(struct.pack("<I", 2 * samples))
        file.truncate(44 + 2 * samples)
    assert predict_windows(PEAK, path)[1][-1] == pytest.approx(samples / 384_000, abs=1e-3)
    with pytest.raises(DataError, match="long.wav: too long: 67108865 samples at 384000 Hz"):
        read_waveform(path, sample_rate=16_000)
