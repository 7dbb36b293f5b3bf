import warnings

import librosa
import numpy as np
import pytest
from examples import MEL, WAVEFORM
from numpy.testing import assert_allclose

from audiotag.layers import LogMel, MelSpectrogram

EXAMPLES = [
    (
        MelSpectrogram,
        MEL | {"power": 2.0, "window_length": None, "mel_scale": "slaney", "norm": None, "dtype": "float64"},
        WAVEFORM,
    ),
    (
        LogMel,
        MEL
        | {"power": 1.0, "window_length": 400, "mel_scale": "htk", "norm": None}
        | {"reference": "max", "silence": 1e-8, "dynamic_range_db": 60.0, "dtype": None},
        WAVEFORM,
    ),
]

SETTINGS = {
    "defaults": {"sample_rate": 22_050},
    "s0": {
        "sample_rate": 44_100,
        "fft_length": 2560,
        "frame_step": 694,
        "low_hz": 20.0,
        "high_hz": 22_050.0,
    },
    "reflected": {
        "sample_rate": 44_100,
        "fft_length": 2560,
        "frame_step": 694,
        "low_hz": 20.0,
        "padding": "reflect",
    },
    "relative_to_the_maximum": {
        "sample_rate": 44_100,
        "fft_length": 2560,
        "frame_step": 512,
        "low_hz": 20.0,
        "reference": "max",
    },
    "htk": {
        "sample_rate": 16_000,
        "num_bands": 64,
        "fft_length": 512,
        "frame_step": 160,
        "window_length": 400,
        "low_hz": 60.0,
        "high_hz": 7800.0,
        "power": 1.0,
        "mel_scale": "htk",
        "norm": None,
        "silence": 1e-5,
        "reference": 0.5,
        "dynamic_range_db": 60.0,
    },
}
LENGTHS = [
    1,
    200,
    399,
    1281,
    1500,
    2047,
    2048,
    2559,
    2560,
    2561,
    3000,
    4001,
    6940,
    6941,
    8192,
    10_001,
    16_000,
    22_050,
    30_011,
    44_100,
]


def librosa_decibels(clip, settings):
    """librosa's log-mel spectrogram of one clip: [T, M]."""
    options = {"num_bands": 128, "fft_length": 2048, "frame_step": 512} | settings
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # clips shorter than a frame, empty bands
        mel = librosa.feature.melspectrogram(
            y=clip,
            sr=options["sample_rate"],
            n_fft=options["fft_length"],
            hop_length=options["frame_step"],
            win_length=options.get("window_length"),
            pad_mode="reflect" if options.get("padding") == "reflect" else "constant",
            power=options.get("power", 2.0),
            n_mels=options["num_bands"],
            fmin=options.get("low_hz", 0.0),
            fmax=options.get("high_hz"),
            htk=options.get("mel_scale") == "htk",
            norm=options.get("norm", "slaney"),
        )
    reference = options.get("reference", 1.0)
    return librosa.power_to_db(
        mel,
        ref=np.max if reference == "max" else reference,
        amin=options.get("silence", 1e-10),
        top_db=options.get("dynamic_range_db", 80.0),
    ).T


def assert_agrees(settings, waveforms, expected):
    """Decibels by default within 1e-2 of the expected, 99.99 % of them within 1e-3; in float64 within 1e-4.

    Where a tone is reflected it has a kink, which raises all bands to just above the floor: there float32 errs most.
    """
    largest, most = (3e-2, 0.998) if settings.get("padding") == "reflect" else (1e-2, 0.9999)
    errors = np.abs(LogMel(**settings)(waveforms) - np.array(expected))
    assert errors.max() < largest
    assert np.mean(errors < 1e-3) >= most or np.sum(errors >= 1e-3) <= 2
    assert_allclose(LogMel(**settings, dtype="float64")(waveforms), expected, rtol=0, atol=1e-4)


def tone(hz, sample_rate, samples, level=1.0):
    return (level * np.sin(2 * np.pi * hz * np.arange(samples) / sample_rate)).astype("float32")


def signals(sample_rate, samples):
    """Noise, quiet noise, three tones, a click and digital silence: [7, N]."""
    noise = np.random.default_rng(samples).standard_normal(samples)
    click = np.zeros(samples)
    click[samples // 2] = 1.0
    tones = [tone(hz, sample_rate, samples) for hz in (110.0, 1234.56, 5000.5)]
    return np.stack([noise, 1e-4 * noise, *tones, click, np.zeros(samples)]).astype("float32")


@pytest.mark.parametrize("samples", LENGTHS)
@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_every_length_of_every_signal_agrees_with_librosa(settings, samples):
    waveforms = signals(settings["sample_rate"], samples)
    assert_agrees(settings, waveforms, [librosa_decibels(clip, settings) for clip in waveforms])


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_pure_tones_agree_with_librosa_down_to_the_floor(settings):
    rate = settings["sample_rate"]
    waveforms = [tone(hz, rate, 12_000, level) for hz in np.geomspace(40, rate / 2 - 50, 8) for level in (1.0, 0.01)]
    assert_agrees(settings, np.stack(waveforms), [librosa_decibels(clip, settings) for clip in waveforms])


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_chirps_agree_with_librosa(settings):
    rate = settings["sample_rate"]
    seconds = np.arange(rate) / rate
    ranges_hz = [(20, rate / 2), (rate / 2, 20), (400, 500), (50, 5000)]
    chirps = [np.sin(2 * np.pi * (low + (high - low) * seconds / 2) * seconds) for low, high in ranges_hz]
    waveforms = np.stack(chirps).astype("float32")
    assert_agrees(settings, waveforms, [librosa_decibels(clip, settings) for clip in waveforms])


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_extremes_agree_with_librosa(settings, extremes):
    for clip in extremes(settings["sample_rate"]).values():
        assert_agrees(settings, clip[None], [librosa_decibels(clip, settings)])


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_real_clips_agree_with_librosa(settings, real_clips):
    assert_agrees(settings, real_clips, [librosa_decibels(clip, settings) for clip in real_clips])


@pytest.mark.parametrize("power", [1.0, 2.0])
def test_mel_spectrograms_are_those_of_librosa(power, extremes):
    layer = MelSpectrogram(sample_rate=22_050, power=power)
    for name, clip in extremes(22_050).items():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # clips shorter than a frame
            expected = librosa.feature.melspectrogram(y=clip, sr=22_050, power=power).T
        assert_allclose(layer(clip[None])[0], expected, rtol=1e-3, atol=1e-6 * expected.max(), err_msg=name)


@pytest.mark.parametrize("fft_length", [63, 64, 200])
@pytest.mark.parametrize("frame_step", [1, 50, 300])
def test_odd_frames_and_steps_longer_than_frames_agree_with_librosa(fft_length, frame_step):
    settings = {"sample_rate": 8000, "num_bands": 12, "fft_length": fft_length, "frame_step": frame_step}
    settings["dtype"] = "float64"
    for samples in (299, 300, 301, 600):
        waveforms = signals(8000, samples)
        expected = [librosa_decibels(clip, settings) for clip in waveforms]
        assert_allclose(LogMel(**settings)(waveforms), expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("options", "dtype"),
    [
        ({}, "float32"),
        ({"power": 1.0, "dynamic_range_db": 50.0}, "float32"),
        ({"power": 1.0}, "float64"),
        ({"dynamic_range_db": 100.5}, "float64"),
        ({"dynamic_range_db": None}, "float64"),
        ({"power": 1.0, "dtype": "float32"}, "float32"),
        ({"dtype": "float64"}, "float64"),
    ],
)
def test_levels_more_than_100_db_below_the_maximum_are_computed_in_float64(options, dtype):
    assert LogMel(sample_rate=16_000, **options).spectrum_dtype == dtype


def test_a_clip_alone_gives_what_it_gives_in_a_batch():
    seconds = np.arange(16_000) / 16_000
    waveforms = np.sin(2 * np.pi * np.geomspace(50, 7000, 9)[:, None] * seconds).astype("float32")
    layer = LogMel(sample_rate=16_000)
    together = layer(waveforms)
    for waveform, levels in zip(waveforms, together):
        assert_allclose(layer(waveform[None])[0], levels, rtol=0, atol=1e-5)


def test_a_loud_clip_in_the_batch_changes_nothing():
    noise = np.random.default_rng(0).standard_normal((1, 16_000)).astype("float32")
    layer = LogMel(sample_rate=16_000)
    together = layer(np.concatenate([1e-4 * noise, 10 * noise]))
    assert_allclose(together[:1], layer(1e-4 * noise), atol=1e-4)


def test_silence_is_at_a_finite_floor():
    assert_allclose(
        LogMel(sample_rate=16_000)(np.zeros((1, 8000), "float32")), np.full((1, 16, 128), -100.0), atol=1e-4
    )


def test_bands_narrower_than_a_bin_are_finite():
    layer = LogMel(sample_rate=16_000, num_bands=256, fft_length=128)
    decibels = np.asarray(layer(np.random.default_rng(0).standard_normal((1, 4000))))
    assert np.isfinite(decibels).all()
    assert_allclose(decibels[..., 1], decibels.max() - 80, atol=1e-4)  # an empty band is on the floor


def test_integers_are_not_rescaled():
    waveform = np.random.default_rng(0).integers(-30_000, 30_000, (1, 8000), dtype="int16")
    layer = LogMel(sample_rate=16_000)
    assert_allclose(layer(waveform), layer(waveform.astype("float32")))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sample_rate": 0}, "sample_rate must be above 0. Received: sample_rate=0"),
        ({"num_bands": 0}, "num_bands must be above 0. Received: num_bands=0"),
        ({"fft_length": -1}, "fft_length must be above 0. Received: fft_length=-1"),
        ({"frame_step": 0}, "frame_step must be above 0. Received: frame_step=0"),
        ({"power": 0.0}, "power must be above 0. Received: power=0.0"),
        ({"silence": 0.0}, "silence must be above 0. Received: silence=0.0"),
        ({"reference": 0.0}, "reference must be above 0. Received: reference=0.0"),
        ({"dynamic_range_db": -80.0}, "dynamic_range_db must be above 0. Received: dynamic_range_db=-80.0"),
        ({"window_length": 3000}, "window_length must be 1 to fft_length=2048, or None. Received: window_length=3000"),
        ({"high_hz": 8001.0}, "at most 8000.0, half of sample_rate=16000. Received: high_hz=8001.0"),
        ({"low_hz": 4000.0, "high_hz": 4000.0}, "from 0 to below high_hz=4000.0. Received: low_hz=4000.0"),
        ({"low_hz": 8000.0}, "low_hz must be from 0 to below high_hz=8000.0. Received: low_hz=8000.0"),
        ({"low_hz": -1.0}, "low_hz must be from 0 to below high_hz=8000.0. Received: low_hz=-1.0"),
        ({"padding": "edge"}, "padding must be 'zeros' or 'reflect'. Received: padding='edge'"),
        ({"mel_scale": "bark"}, "mel_scale must be 'slaney' or 'htk'. Received: mel_scale='bark'"),
        ({"norm": "l1"}, "norm must be 'slaney' or None. Received: norm='l1'"),
        ({"dtype": "float16"}, "dtype must be 'float32', 'float64' or None. Received: dtype='float16'"),
    ],
)
def test_an_option_out_of_range_is_refused(options, message):
    with pytest.raises(ValueError) as error:
        LogMel(**{"sample_rate": 16_000} | options)
    assert message in str(error.value)


def test_a_waveform_with_channels_is_refused():
    with pytest.raises(ValueError, match="expected ndim=2, found ndim=3"):
        LogMel(sample_rate=16_000)(np.ones((1, 8000, 2), "float32"))
