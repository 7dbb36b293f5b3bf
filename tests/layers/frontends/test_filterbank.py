import numpy as np
import pytest
from examples import WAVEFORM
from numpy.testing import assert_allclose

from audiotag.layers import LogFilterbank
from audiotag.layers.frontends.filterbank import octave_filters

EXAMPLES = [
    (
        LogFilterbank,
        {"sample_rate": 16_000, "bands_per_octave": 12, "fft_length": 512, "frame_step": 160, "normalize": True}
        | {"low_hz": 50.0, "high_hz": 7000.0, "dtype": "float64"},
        WAVEFORM,
    ),
]

S4 = {"sample_rate": 32_000, "fft_length": 1024, "bands_per_octave": 26, "low_hz": 20.0, "high_hz": 14_000.0}


def reference_filters():
    """The filters of Dorfer and Widmer, one at a time: [512, M]."""
    centers_hz = [440 * 2 ** (k / 26) for k in range(-200, 200)]
    centers_hz = [hz for hz in centers_hz if 20 <= hz <= 14_000]
    assert len(centers_hz) == 245
    bins_hz = np.arange(512) * 31.25
    bins = sorted({int(np.abs(bins_hz - hz).argmin()) for hz in centers_hz})
    columns = []
    for first, center, last in zip(bins, bins[1:], bins[2:]):
        column = np.zeros(512)
        column[first:center] = np.linspace(0, 1, center - first, endpoint=False)
        column[center:last] = np.linspace(1, 0, last - center, endpoint=False)
        columns.append(column / column.sum())
    return np.stack(columns, axis=1)


def reference(clip, normalize=True):
    """Their second spectrogram, one frame at a time: [T, 128]."""
    clip = clip.astype("float64")
    if normalize and clip.any():
        clip = clip / np.abs(clip).max()
    filters, window = reference_filters(), np.hanning(1024)
    spectrum = []
    for start in range(0, len(clip), 128):
        frame = np.zeros(1024)
        samples = clip[start : start + 1024]
        frame[: len(samples)] = samples
        magnitude = np.abs(np.fft.fft(frame * window)[:512])
        spectrum.append(np.log10(1 + magnitude @ filters))
    return np.array(spectrum)


def test_the_filters_are_those_of_the_reference():
    filters = octave_filters(**S4)
    assert filters.shape == (512, 128)
    assert_allclose(filters, reference_filters(), atol=1e-12)
    assert_allclose(filters.sum(axis=0), 1)


def test_a_limit_that_is_a_center_frequency_is_included():
    filters = octave_filters(**S4 | {"bands_per_octave": 1, "low_hz": 440.0, "high_hz": 3520.0})
    assert filters.shape == (512, 2)  # the triangles over 440, 880, 1760 and 3520 Hz
    assert octave_filters(**S4 | {"bands_per_octave": 1, "low_hz": 441.0, "high_hz": 3520.0}).shape == (512, 1)


@pytest.mark.parametrize("normalize", [True, False])
def test_extremes_agree_with_numpy(normalize, extremes):
    for dtype, tolerance in (("float32", 5e-6), ("float64", 1e-7)):
        layer = LogFilterbank(normalize=normalize, dtype=dtype)
        for name, clip in extremes(32_000).items():
            expected = reference(clip, normalize)
            assert_allclose(layer(clip[None])[0], expected, rtol=1e-4, atol=tolerance, err_msg=name)


def test_real_clips_agree_with_numpy(real_clips):
    assert_allclose(LogFilterbank()(real_clips), [reference(clip) for clip in real_clips], rtol=1e-4, atol=2e-6)


@pytest.mark.parametrize("samples", [1, 127, 128, 129, 1023, 1024, 1025, 4801])
def test_every_length_agrees_with_numpy(samples):
    waveforms = np.random.default_rng(samples).standard_normal((2, samples)).astype("float32")
    expected = [reference(clip) for clip in waveforms]
    assert_allclose(LogFilterbank()(waveforms), expected, rtol=1e-4, atol=1e-7)
    assert LogFilterbank().compute_output_shape((2, samples)) == (2, len(expected[0]), 128)


def test_16_bit_integers_give_the_same_as_floats(extremes):
    clip = np.round(extremes(32_000)["noise"] * 20_000).astype("int16")[None]
    assert_allclose(LogFilterbank()(clip), LogFilterbank()(clip / np.float32(32_767)), atol=1e-5)


def test_3000_frames_are_12_seconds():
    assert LogFilterbank().compute_output_shape((None, 32_000 * 12)) == (None, 3000, 128)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"high_hz": 16_001.0}, "at most 16000.0, half of sample_rate=32000. Received: high_hz=16001.0"),
        ({"sample_rate": 16_000}, "at most 8000.0, half of sample_rate=16000. Received: high_hz=14000.0"),
        ({"low_hz": 0.0}, "low_hz must be above 0. Received: low_hz=0.0"),
        ({"low_hz": 14_000.0}, "low_hz must be from 0 to below high_hz=14000.0. Received: low_hz=14000.0"),
        ({"frame_step": 0}, "frame_step must be above 0. Received: frame_step=0"),
        ({"fft_length": -8}, "fft_length must be above 0. Received: fft_length=-8"),
        ({"bands_per_octave": 0}, "bands_per_octave must be above 0. Received: bands_per_octave=0"),
        (
            {"low_hz": 440.0, "high_hz": 480.0},
            "low_hz=440.0 to high_hz=480.0 must cover at least 3 bins of an FFT of 1024 samples at 32000 Hz, 31.25 Hz "
            "apart. Received: 2. Widen the range or raise fft_length.",
        ),
    ],
)
def test_an_option_out_of_range_is_refused(options, message):
    with pytest.raises(ValueError) as error:
        LogFilterbank(**options)
    assert message in str(error.value)
