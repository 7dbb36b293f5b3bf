import numpy as np
import pytest
import tensorflow as tf
from examples import WAVEFORM
from numpy.testing import assert_allclose

from audiotag.layers import YamnetMel
from audiotag.layers.frontends.filters import mel_scale_triangles

EXAMPLES = [(YamnetMel, {"sample_rate": 16_000}, WAVEFORM)]
OWN_LENGTHS = {YamnetMel: [400, 15_600, 15_601, 23_281]}  # shorter clips all fill one patch


def published(waveform):
    """The features of one clip, as published: [N] → [T, 64], complete patches."""
    patch, hop = 15_600, 7_680
    missing = max(0, patch - len(waveform))
    missing += -(len(waveform) + missing - patch) % hop
    spectrum = tf.signal.stft(tf.pad(waveform, [[0, missing]]), 400, 160, 512)
    filters = tf.signal.linear_to_mel_weight_matrix(64, 257, 16_000.0, 125.0, 7_500.0)
    return tf.math.log(tf.matmul(tf.abs(spectrum), filters) + 0.001).numpy()


@pytest.mark.parametrize("samples", [1, 399, 400, 15_600, 15_601, 23_280, 23_281, 50_000])
def test_every_length_agrees_with_the_published_features(samples):
    waveforms = np.random.default_rng(samples).uniform(-1, 1, (2, samples)).astype("float32")
    assert_allclose(YamnetMel(sample_rate=16_000)(waveforms), [published(clip) for clip in waveforms], atol=1e-4)


def test_extremes_agree_with_the_published_features(extremes):
    for name, clip in extremes(16_000).items():
        ours = YamnetMel(sample_rate=16_000)(clip[None])[0]
        assert_allclose(ours, published(clip), atol=1e-2, err_msg=name)  # TensorFlow's FFT rounds to float32


def test_the_filters_are_those_of_tensorflow():
    for num_bands, low_hz, high_hz in ((64, 125.0, 7_500.0), (20, 20.0, 8_000.0)):
        expected = tf.signal.linear_to_mel_weight_matrix(num_bands, 257, 16_000.0, low_hz, high_hz, dtype=tf.float64)
        ours = mel_scale_triangles(
            sample_rate=16_000, fft_length=512, num_bands=num_bands, low_hz=low_hz, high_hz=high_hz
        )
        assert_allclose(ours, expected, atol=1e-9)


def test_another_sample_rate_is_refused_with_the_command_that_makes_records():
    with pytest.raises(ValueError) as error:
        YamnetMel(sample_rate=44_100)
    assert "expects 16000 samples per second. Received: sample_rate=44100." in str(error.value)
    assert "audiotag make-records DATASET --sample-rate 16000" in str(error.value)
