import warnings

import librosa
import numpy as np
import pytest
from examples import MEL, WAVEFORM
from numpy.testing import assert_allclose

from audiotag.layers import PcenMel
from audiotag.layers.frontends.pcen import exponential_moving_average

EXAMPLES = [
    (
        PcenMel,
        MEL
        | {"power": 2.0, "scale": 100.0, "gain": 0.9, "bias": 1.0, "root": 0.4, "time_constant_seconds": 0.1}
        | {"epsilon": 1e-5, "dtype": "float32"},
        WAVEFORM,
    ),
]


def librosa_pcen(clip, sample_rate):
    """librosa's PCEN of one clip: [T, 128]."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # clips shorter than a frame
        mel = librosa.feature.melspectrogram(y=clip, sr=sample_rate, power=1)
    return librosa.pcen(2**31 * mel, sr=sample_rate).T


@pytest.mark.parametrize("sample_rate", [16_000, 44_100])
def test_extremes_agree_with_librosa(sample_rate, extremes):
    layer = PcenMel(sample_rate=sample_rate)
    for name, clip in extremes(sample_rate).items():
        assert_allclose(layer(clip[None])[0], librosa_pcen(clip, sample_rate), rtol=1e-4, atol=1e-6, err_msg=name)


def test_real_clips_agree_with_librosa(real_clips):
    expected = [librosa_pcen(clip, 44_100) for clip in real_clips]
    assert_allclose(PcenMel(sample_rate=44_100)(real_clips), expected, rtol=1e-4, atol=1e-6)


def test_every_option_agrees_with_librosa(extremes):
    clip = extremes(16_000)["clipped sine"]
    layer = PcenMel(
        sample_rate=16_000,
        fft_length=1024,
        frame_step=160,
        power=2.0,
        scale=1e4,
        root=0.25,
        time_constant_seconds=0.06,
        epsilon=1e-3,
        gain=0.6,
        bias=10.0,
    )
    mel = librosa.feature.melspectrogram(y=clip, sr=16_000, n_fft=1024, hop_length=160)
    expected = librosa.pcen(
        1e4 * mel, sr=16_000, hop_length=160, gain=0.6, bias=10.0, power=0.25, time_constant=0.06, eps=1e-3
    ).T
    assert_allclose(layer(clip[None])[0], expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("samples", [1, 511, 512, 513, 2048, 65_023, 65_024, 65_025, 140_001])
def test_every_length_agrees_with_librosa(samples):
    """65,024 samples are 128 frames, which is one block of the mean."""
    waveforms = np.random.default_rng(samples).standard_normal((2, samples)).astype("float32")
    expected = [librosa_pcen(clip, 22_050) for clip in waveforms]
    assert_allclose(PcenMel(sample_rate=22_050)(waveforms), expected, rtol=1e-4, atol=1e-6)
    assert PcenMel(sample_rate=22_050).compute_output_shape((2, samples)) == (2, len(expected[0]), 128)


@pytest.mark.parametrize("num_frames", [1, 127, 128, 129, 257, 1000])
@pytest.mark.parametrize("weight", [1e-4, 0.05, 0.9, 1.0])
def test_the_exponential_mean_is_that_of_a_loop(num_frames, weight):
    energy = np.random.default_rng(0).random((2, num_frames, 3))
    expected, mean = [], np.ones((2, 3))
    for frame in np.moveaxis(energy, 1, 0):
        mean = (1 - weight) * mean + weight * frame
        expected.append(mean)
    assert_allclose(exponential_moving_average(energy, weight=weight), np.stack(expected, axis=1), rtol=1e-9)


def test_a_constant_tone_is_attenuated_and_an_onset_is_not():
    time = np.arange(64_000) / 16_000
    clip = 0.1 * np.sin(2 * np.pi * 440 * time)
    before = PcenMel(sample_rate=16_000)(clip[None])[0].numpy()
    assert before[60:100].max() < 0.4 * before[:2].max()
    clip[32_000:32_400] += np.random.default_rng(0).standard_normal(400)
    after = PcenMel(sample_rate=16_000)(clip[None])[0].numpy()
    assert after[60:65].max() > 3 * before[60:65].max()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scale": 0.0}, "scale must be above 0. Received: scale=0.0"),
        ({"bias": 0.0}, "bias must be above 0. Received: bias=0.0"),
        ({"root": 0.0}, "root must be above 0. Received: root=0.0"),
        ({"epsilon": 0.0}, "epsilon must be above 0. Received: epsilon=0.0"),
        ({"time_constant_seconds": 0.0}, "time_constant_seconds must be above 0. Received: time_constant_seconds=0.0"),
        ({"gain": 1.5}, "gain must be from 0 to 1. Received: gain=1.5"),
        ({"high_hz": 8001.0}, "at most 8000.0, half of sample_rate=16000. Received: high_hz=8001.0"),
    ],
)
def test_an_option_out_of_range_is_refused(options, message):
    with pytest.raises(ValueError) as error:
        PcenMel(**{"sample_rate": 16_000} | options)
    assert message in str(error.value)
