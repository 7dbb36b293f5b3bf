import librosa
import numpy as np
import pytest
from examples import MEL, WAVEFORM
from numpy.testing import assert_allclose

from audiotag.layers import PerceptualMel
from audiotag.layers.frontends.perceptual import a_weighting

EXAMPLES = [(PerceptualMel, MEL | {"silence": 1e-8, "dynamic_range_db": 60.0, "dtype": "float64"}, WAVEFORM)]


def reference(clip, padding="reflect"):
    """The first spectrogram of Dorfer and Widmer, step by step: [T, 128]."""
    window = np.sin(np.pi * np.arange(1024) / 1024) ** 2
    clip = np.pad(clip.astype("float64"), 512, mode="reflect" if padding == "reflect" else "constant")
    frames = [clip[start : start + 1024] for start in range(0, len(clip) - 1023, 192)]
    power = np.abs(np.fft.rfft(np.array(frames) * window, axis=1)) ** 2
    level = 10 * np.log10(np.maximum(power, 1e-10))
    level = np.maximum(level, level.max() - 99)
    f = np.arange(1, 513) * 31.25
    gain = 12200**2 * f**4 / (f**2 + 20.6**2) / (f**2 + 12200**2)
    gain /= np.sqrt((f**2 + 107.7**2) * (f**2 + 737.9**2))
    level += np.concatenate([[-80], np.maximum(20 * np.log10(gain) + 2, -80)])
    return level @ librosa.filters.mel(sr=32_000, n_fft=1024, n_mels=128, fmin=0, fmax=16_000, dtype=np.float64).T


@pytest.mark.parametrize("padding", ["reflect", "zeros"])
def test_extremes_agree_with_numpy(padding, extremes):
    for dtype, tolerance in (("float32", 5e-4), ("float64", 5e-5)):
        layer = PerceptualMel(padding=padding, dtype=dtype)
        for name, clip in extremes(32_000).items():
            assert_allclose(layer(clip[None])[0], reference(clip, padding), rtol=0, atol=tolerance, err_msg=name)


def test_real_clips_agree_with_numpy(real_clips):
    expected = [reference(clip) for clip in real_clips]
    assert_allclose(PerceptualMel()(real_clips), expected, rtol=0, atol=2e-4)


@pytest.mark.parametrize("samples", [1, 2, 191, 192, 511, 512, 513, 1023, 1024, 1025, 4801])
def test_every_length_agrees_with_numpy(samples):
    waveforms = np.random.default_rng(samples).standard_normal((2, samples)).astype("float32")
    expected = [reference(clip) for clip in waveforms]
    assert_allclose(PerceptualMel()(waveforms), expected, rtol=0, atol=5e-5)
    assert PerceptualMel().compute_output_shape((2, samples)) == (2, len(expected[0]), 128)


def test_3000_frames_are_18_seconds():
    assert PerceptualMel().compute_output_shape((None, 32_000 * 18 - 1)) == (None, 3000, 128)


def test_the_weighting_is_that_of_librosa_apart_from_rounded_corner_frequencies():
    hz = np.concatenate([[0.0, 0.1, 1.0], np.geomspace(5, 22_050, 200)])
    expected = librosa.A_weighting(np.maximum(hz, 1e-3))
    assert_allclose(a_weighting(hz), expected, rtol=0, atol=0.01)
    assert a_weighting(hz)[:3].tolist() == [-80, -80, -80]


def test_the_weighting_comes_after_the_floor():
    """Far below a tone at 8 kHz, bins are on the floor, and only the weighting makes a difference."""
    time = np.arange(32_000) / 32_000
    level = PerceptualMel()(np.sin(2 * np.pi * 8000 * time).astype("float32")[None])[0, 80]
    sums = librosa.filters.mel(sr=32_000, n_fft=1024, dtype=np.float64).sum(axis=1)
    floor = 20 * np.log10(256) - 99
    assert_allclose(level[0], sums[0] * (floor + a_weighting(np.array(31.25))), atol=0.02)
    assert_allclose(level[40], sums[40] * floor, atol=0.02)  # near 1 kHz the weighting is 0


def test_without_a_dynamic_range_a_silent_end_has_the_level_of_silence():
    clip = np.zeros((1, 4000), "float32")
    silence = PerceptualMel()(clip)[0, -1]
    clip[0, :100] = 1
    assert_allclose(PerceptualMel(dynamic_range_db=None)(clip)[0, -1], silence, rtol=1e-6)
    assert np.all(PerceptualMel()(clip)[0, -1] > silence + 1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"high_hz": 16_001.0}, "at most 16000.0, half of sample_rate=32000. Received: high_hz=16001.0"),
        ({"frame_step": 0}, "frame_step must be above 0. Received: frame_step=0"),
        ({"num_bands": 0}, "num_bands must be above 0. Received: num_bands=0"),
        ({"padding": "edge"}, "padding must be 'zeros' or 'reflect'. Received: padding='edge'"),
        ({"silence": 0.0}, "silence must be above 0. Received: silence=0.0"),
        ({"dynamic_range_db": 0.0}, "dynamic_range_db must be above 0. Received: dynamic_range_db=0.0"),
    ],
)
def test_an_option_out_of_range_is_refused(options, message):
    with pytest.raises(ValueError) as error:
        PerceptualMel(**options)
    assert message in str(error.value)
