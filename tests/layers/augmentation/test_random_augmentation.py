import keras
import numpy as np
import pytest
from numpy.testing import assert_array_equal
from scipy.stats import binomtest, chisquare

from audiotag.layers import (
    Bars,
    FrequencyMask,
    Gain,
    Lighting,
    Noise,
    RandomCrop,
    RandomResizedCrop,
    TimeMask,
    TimeRoll,
    Zoom,
)

ERROR_RATE = 1e-3  # the share of seeds with which a true layer fails a test; the seeds are fixed

PICTURE, WAVEFORM = (8, 8, 1), (256,)
# Each disturbance with a probability, set so that whatever it strikes changes, and the shape of a clip.
DISTURBANCES = [
    (TimeMask, {"max_width": 8, "count": 20}, PICTURE),
    (FrequencyMask, {"max_share": 1.0, "count": 20}, PICTURE),
    (Bars, {"max_length": 8}, PICTURE),
    (Zoom, {}, PICTURE),
    (Lighting, {}, PICTURE),
    (RandomResizedCrop, {}, PICTURE),
    (Gain, {}, WAVEFORM),
    (TimeRoll, {}, WAVEFORM),
    (Noise, {}, WAVEFORM),
]
every_disturbance = pytest.mark.parametrize(("layer", "options", "shape"), DISTURBANCES)
DEFAULTS = {TimeMask: 1, FrequencyMask: 1, Bars: 0.75, Zoom: 0.75, Lighting: 0.75, RandomResizedCrop: 0.33}


def sound(*shape, seed=0):
    return np.random.default_rng(seed).uniform(0, 1, shape).astype("float32")


def share_changed(disturbance, shape, clips=10_000):
    """How many of 10,000 clips changed, over ten calls."""
    probe = sound(clips // 10, *shape)
    changed = [np.asarray(disturbance(probe, training=True)) != probe for _ in range(10)]
    return int(np.concatenate(changed).reshape(clips, -1).any(axis=1).sum())


@every_disturbance
@pytest.mark.parametrize("probability", [0.2, None])
def test_it_strikes_as_often_as_its_probability_says(layer, options, shape, probability):
    disturbance = layer(seed=1, **options, **({} if probability is None else {"probability": probability}))
    expected = disturbance.probability
    assert probability is not None or expected == DEFAULTS.get(layer, expected)
    if layer is Lighting:  # two throws
        expected = 1 - (1 - expected) ** 2
    if layer is TimeRoll:  # one of the shifts is none
        expected *= 1 - 1 / shape[0]
    count = share_changed(disturbance, shape)
    assert count == 10_000 if expected == 1 else binomtest(count, 10_000, expected).pvalue > ERROR_RATE


@every_disturbance
def test_never_and_always_are_probabilities_too(layer, options, shape):
    assert share_changed(layer(probability=0, seed=1, **options), shape) == 0
    count = share_changed(layer(probability=1, seed=1, **options), shape)
    assert count == 10_000 or layer is TimeRoll and count > 9900


def test_whole_numbers_reach_both_ends_and_no_further():
    dice = TimeRoll(seed=1)
    thrown = np.asarray(dice._integers((10_000,), 3, 9))
    assert thrown.dtype == "int32"
    assert chisquare(np.bincount(thrown, minlength=10)[3:]).pvalue > ERROR_RATE
    assert set(thrown) == set(range(3, 10))
    assert_array_equal(dice._integers((100,), 5, 5), 5)


def test_the_highest_throw_is_still_inside(monkeypatch):
    dice = TimeRoll()
    almost_one = 1 - 2.0**-24
    monkeypatch.setattr(dice, "_uniform", lambda shape, low, high: keras.ops.full(shape, almost_one))
    for high in (0, 9, 88_199, 2**20, 2**24 - 2):
        assert int(dice._integers((1,), 0, high)[0]) <= high


@every_disturbance
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_the_type_stays(layer, options, shape, dtype):
    disturbance = layer(seed=1, **options)
    clip = keras.ops.cast(sound(4, *shape), dtype)
    for training in (False, True):
        result = disturbance(clip, training=training)
        assert keras.backend.standardize_dtype(result.dtype) == dtype
        assert tuple(result.shape) == (4, *shape)
    assert disturbance(keras.Input(shape, dtype=dtype)).dtype == dtype


@every_disturbance
@pytest.mark.parametrize("policy", ["mixed_float16", "float16"])
def test_the_policy_changes_no_throw(layer, options, shape, policy):
    expected = np.asarray(layer(seed=1, **options)(sound(4, *shape), training=True))
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    keras.config.set_floatx("float16")
    try:
        halved = layer(seed=1, **options)(keras.ops.convert_to_tensor(sound(4, *shape), "float32"), training=True)
    finally:
        keras.config.set_floatx("float32")
        keras.config.set_dtype_policy(before)
    assert_array_equal(np.asarray(halved), expected)


@every_disturbance
def test_half_precision_rounds_and_does_nothing_else(layer, options, shape):
    clip = sound(4, *shape).astype("float16")
    whole = np.asarray(layer(seed=1, **options)(clip.astype("float32"), training=True))
    halved = np.asarray(layer(seed=1, **options)(clip, training=True))
    np.testing.assert_allclose(halved.astype("float32"), whole, rtol=2e-3, atol=1e-4)


@every_disturbance
@pytest.mark.parametrize("probability", [-0.1, 1.1, float("nan")])
def test_what_is_no_probability_is_refused(layer, options, shape, probability):
    with pytest.raises(ValueError, match=f"probability must be from 0 to 1. Received: probability={probability}"):
        layer(probability=probability, **options)


@pytest.mark.parametrize(("layer", "options", "shape"), [*DISTURBANCES, (RandomCrop, {"num_frames": 4}, PICTURE)])
def test_what_is_no_picture_or_no_waveform_is_refused(layer, options, shape):
    with pytest.raises(ValueError, match="expected (min_)?ndim=[234], found ndim=(2|5)"):
        layer(**options)(np.ones((2, 3) if shape is PICTURE else (2, 3, 4, 5, 6), "float32"))
