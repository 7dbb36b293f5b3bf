from collections import deque
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
from hypothesis import given, settings
from hypothesis import strategies as st
from waveforms import from_pcm

from audiotag.data.audio.decoding import to_pcm
from audiotag.data.audio.trimming import trim_absolute, trim_relative

RATE = 44_100
ESC10 = Path(__file__).parents[4] / "shared" / "data" / "esc10"
REAL = [  # silence all around a bark, after a bark, between barks, hardly any
    "001 - Dog bark/1-100032-A.ogg",
    "001 - Dog bark/1-110389-A.ogg",
    "001 - Dog bark/1-97392-A.ogg",
    "001 - Dog bark/1-30344-A.ogg",
]
TRIMS = {"relative": trim_relative, "absolute": partial(trim_absolute, sample_rate=RATE)}
both = pytest.mark.parametrize("trim", TRIMS.values(), ids=TRIMS)


def noise(samples, level=1.0, seed=0):
    return level * np.random.default_rng(seed).uniform(-1, 1, samples).astype("float32")


def clip(*segments, rate=RATE):
    """A 16-bit waveform of segments (seconds, level), each noise of that level."""
    segments = [noise(round(seconds * rate), level, seed) for seed, (seconds, level) in enumerate(segments)]
    return from_pcm(to_pcm(np.concatenate(segments)))


SILENT, HISS = (0.3, 0.0), (0.3, 0.0004)  # hiss of -73 dBFS
CLIPS = {
    "silence, sound, silence": clip(SILENT, (0.5, 0.6), SILENT),
    "hiss, sound, hiss": clip(HISS, (0.5, 0.6), HISS),
    "sound to both ends": clip((0.4, 0.5)),
    "a pause inside": clip(SILENT, (0.2, 0.6), (1.0, 0.0), (0.2, 0.3), HISS),
    "a click before and after": clip(SILENT, (0.004, 0.9), HISS, (0.3, 0.2), SILENT, (0.001, 0.9), HISS),
    "fading in and out": clip(*[(0.02, 2.0 ** -abs(step)) for step in range(-14, 14)]),
    "rising by 100 dB": np.geomspace(1e-5, 1, 2 * RATE, dtype="float32"),
    "faint": clip(HISS, (0.3, 0.01), HISS),
    "below librosa's amin": clip(SILENT, (0.3, 0.0003), SILENT),
}
every_clip = pytest.mark.parametrize("waveform", CLIPS.values(), ids=CLIPS)


@pytest.fixture(params=REAL)
def recording(request):
    """A real recording, in 16 bits."""
    if not (ESC10 / request.param).is_file():
        pytest.skip("needs ESC-10 in ../shared/data/esc10")
    waveform, rate = sf.read(ESC10 / request.param, dtype="float32")
    assert rate == RATE
    return from_pcm(to_pcm(waveform))


# SoX's rule, sample by sample


def normalized(samples):
    peak = max(map(abs, samples))
    return [sample / peak * 10 ** (-0.1 / 20) for sample in samples] if peak else samples


def without_leading_silence(samples, rate):
    """What `silence 1 0.025 0.15%` leaves of a list of samples."""
    window = deque([0.0] * (rate // 50))
    energy, above = 0.0, 0
    for index, sample in enumerate(samples):
        window.append(sample * sample)
        energy += window[-1] - window.popleft()
        above = above + 1 if (max(energy, 0.0) / len(window)) ** 0.5 > 0.0015 else 0
        if above == int(0.025 * rate + 0.5):
            return samples[index + 1 - above :]
    return []


def trimmed_by_loop(waveform, rate):
    """(start, end) of what SoX's chain leaves; the complete clip if it leaves nothing."""
    samples = waveform.astype("float64").tolist()
    first = without_leading_silence(normalized(samples), rate)
    second = without_leading_silence(normalized(first)[::-1], rate) if first else []
    if not second:
        return 0, len(samples)
    start = len(samples) - len(first)
    return start, start + len(second)


@every_clip
def test_trim_absolute_agrees_with_a_loop_over_samples(waveform):
    assert trim_absolute(waveform, sample_rate=RATE) == trimmed_by_loop(waveform, RATE)


@pytest.mark.parametrize("rate", [4_000, 8_000, 11_025, 22_050, 48_000])
def test_trim_absolute_rounds_milliseconds_as_sox_does_at_any_rate(rate):
    min_samples = int(0.025 * rate + 0.5)
    for samples in (min_samples - 1, min_samples, rate // 7):
        beep = np.zeros(rate // 2, "float32")
        beep[100 : 100 + samples] = 0.5
        kept = trim_absolute(beep, sample_rate=rate)
        assert (
            kept == trimmed_by_loop(beep, rate) == ((100, 100 + samples) if samples >= min_samples else (0, len(beep)))
        )


def test_trim_absolute_agrees_with_a_loop_over_the_samples_of_a_recording(recording):
    assert trim_absolute(recording, sample_rate=RATE) == trimmed_by_loop(recording, RATE)


# SoX 14.4.2 itself: sox in.wav -b 32 out.wav norm -0.1 silence 1 0.025 0.15% norm -0.1 reverse silence 1 0.025 0.15%
# reverse: where its output is in its input. The samples are integers, equal on any machine.


def steps(*segments):
    """int16 [N]: segments (samples, peak), each a fixed pattern of that peak."""
    segments = [(np.arange(samples) * 7_919 % 2_001 - 1_000) * peak // 1_000 for samples, peak in segments]
    return np.concatenate(segments).astype("<i2")


@pytest.mark.parametrize(
    "rate, pcm, kept",
    [
        (44_100, steps((5_000, 30), (9_000, 9_000), (30_000, 0), (8_000, 2_000), (6_000, 12)), (543, 52_000)),
        (
            44_100,
            steps(
                *[(3_000, 0), (150, 30_000), (6_000, 30), (9_000, 5_000), (20_000, 0)],
                *[(8_000, 3_000), (4_000, 20), (60, 32_000), (3_000, 20)],
            ),
            (9_150, 46_150),
        ),
        (32_000, steps(*[(700, 2 ** min(k, 27 - k)) for k in range(28)]), (3_667, 15_920)),
        (11_025, steps((2_000, 40), (3_000, 20_000), (5_000, 50)), (2_000, 5_000)),
    ],
    ids=["hiss and a pause", "clicks in the silence", "fading in and out", "a rate that 50 does not divide"],
)
def test_trim_absolute_agrees_with_sox(rate, pcm, kept):
    assert trim_absolute(from_pcm(pcm), sample_rate=rate) == kept
    assert trimmed_by_loop(from_pcm(pcm), rate) == kept


@pytest.mark.parametrize("level, is_sound", [(0.00149, False), (0.00151, True)])
def test_trim_absolute_is_exact_after_a_minute_of_clicks(level, is_sound):
    clicks = np.zeros(60 * RATE, "float32")
    clicks[:: RATE // 20] = 1.0
    waveform = np.append(clicks, np.full(RATE, level / 10 ** (-0.1 / 20), "float32"))
    start, end = trim_absolute(waveform, sample_rate=RATE)
    assert (60 * RATE < start < 60 * RATE + RATE // 50) == is_sound
    assert end == len(waveform)


# The relative rule in float64, without librosa


def loud_frames(waveform, trim_db):
    """(start, end) of the frames, one every 512 samples, within trim_db of the loudest one."""
    squares = np.pad(np.square(waveform, dtype="float64"), 1_024)
    power = np.lib.stride_tricks.sliding_window_view(squares, 2_048)[::512].mean(axis=1)  # [T]
    level_db = 10.0 * np.log10(np.maximum(power, 1e-10))  # [T]
    loud = np.flatnonzero(level_db > level_db.max() - trim_db)
    return loud[0] * 512, min(len(waveform), (loud[-1] + 1) * 512)


@every_clip
@pytest.mark.parametrize("trim_db", [10.0, 30.0, 60.0, 100.0])
def test_trim_relative_agrees_with_the_rule(waveform, trim_db):
    assert trim_relative(waveform, trim_db=trim_db) == loud_frames(waveform, trim_db)
    assert trim_relative(waveform) == loud_frames(waveform, 60.0)


def test_trim_relative_agrees_with_the_rule_on_a_recording(recording):
    for trim_db in (20.0, 40.0, 60.0):
        assert trim_relative(recording, trim_db=trim_db) == loud_frames(recording, trim_db)


@pytest.mark.parametrize("samples", [1, 2, 511, 512, 513, 1_023, 1_024, 1_025, 2_047, 2_048, 2_049, 5_120])
def test_trim_relative_agrees_with_the_rule_on_short_clips(samples):
    first, last = np.eye(samples, dtype="float32")[[0, -1]]  # a click
    for waveform in (noise(samples), first, last):
        start, end = trim_relative(waveform)
        assert (start, end) == loud_frames(waveform, 60.0)
        assert start < end


# Both


@both
@pytest.mark.parametrize(
    "waveform",
    [
        np.zeros(1, "float32"),
        np.zeros(RATE, "float32"),
        np.ones(1, "float32"),
        np.full(RATE, 0.25, "float32"),
        noise(RATE // 60),
        noise(RATE // 45),
        noise(RATE, level=3e-8),
        noise(RATE, level=30.0),
    ],
    ids=["no sound", "silence", "one sample", "DC", "less than 20 ms", "less than 25 ms", "residue", "over full scale"],
)
def test_a_clip_without_silent_ends_is_not_trimmed(trim, waveform):
    assert trim(waveform) == (0, len(waveform))


def test_noise_below_the_threshold_is_silence_and_so_is_a_click_in_it():
    waveform = noise(RATE, level=0.001)
    waveform[20_000] = 1.0
    assert trim_absolute(waveform, sample_rate=RATE) == (0, RATE)  # nothing would be left
    start, end = trim_relative(waveform, trim_db=20.0)
    assert start <= 20_000 < end and end - start == 4 * 512


@both
def test_silence_inside_a_clip_stays(trim):
    start, end = trim(clip((1.0, 0.0), (0.2, 0.6), (2.0, 0.0), (0.2, 0.6), (1.0, 0.0)))
    assert start == pytest.approx(1.0 * RATE, abs=1_024) and end == pytest.approx(3.4 * RATE, abs=1_536)


@both
def test_the_level_of_a_recording_does_not_matter(trim):
    waveform = CLIPS["fading in and out"]
    assert trim(waveform / 4) == trim(waveform) != (0, len(waveform))


@both
@settings(deadline=None, max_examples=100)
@given(segments=st.lists(st.tuples(st.integers(1, 3_000), st.sampled_from([0.0, 1e-4, 1e-3, 0.1, 1.0])), min_size=1))
def test_a_clip_is_never_emptied(trim, segments):
    waveform = np.concatenate([noise(samples, level) for samples, level in segments])
    start, end = trim(waveform)
    assert 0 <= start < end <= len(waveform)
