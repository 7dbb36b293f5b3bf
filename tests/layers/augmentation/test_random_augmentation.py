import keras
import numpy as np
import pytest
from numpy.testing import assert_array_equal
from scipy.stats import binomtest, chisquare

from audiotag.layers import (
    BarErasing,
    BrightnessContrast,
    ConcatMix,
    FilterAugment,
    FlipsAsClasses,
    FrequencyMask,
    Gain,
    LowPass,
    MixUp,
    RandomAugmentation,
    RandomCrop,
    RandomResizedCrop,
    TimeMask,
    TimeRoll,
    WhiteNoise,
    Zoom,
)

ERROR_RATE = 1e-3  # the fraction of seeds with which a correct layer fails a test; the seeds are fixed

IMAGE, WAVEFORM = (8, 8, 1), (256,)
# Each augmentation with a probability, options with which every selected clip changes, and the shape of a clip.
AUGMENTATIONS = [
    (TimeMask, {"max_width": 8, "count": 20}, IMAGE),
    (FrequencyMask, {"max_fraction": 1.0, "count": 20}, IMAGE),
    (BarErasing, {"max_length": 8}, IMAGE),
    (Zoom, {}, IMAGE),
    (BrightnessContrast, {}, IMAGE),
    (FilterAugment, {}, IMAGE),
    (RandomResizedCrop, {}, IMAGE),
    (Gain, {}, WAVEFORM),
    (TimeRoll, {}, WAVEFORM),
    (WhiteNoise, {}, WAVEFORM),
    (LowPass, {}, WAVEFORM),
]
every_augmentation = pytest.mark.parametrize(("layer", "options", "shape"), AUGMENTATIONS)
DEFAULTS = {
    TimeMask: 1,
    FrequencyMask: 1,
    BarErasing: 0.75,
    Zoom: 0.75,
    BrightnessContrast: 0.75,
    RandomResizedCrop: 0.33,
}


def noise(*shape, seed=0):
    return np.random.default_rng(seed).uniform(0, 1, shape).astype("float32")


def num_changed(augmentation, shape, clips=10_000):
    """How many of 10,000 clips changed, over ten calls."""
    inputs = noise(clips // 10, *shape)
    changed = [np.asarray(augmentation(inputs, training=True)) != inputs for _ in range(10)]
    return int(np.concatenate(changed).reshape(clips, -1).any(axis=1).sum())


@every_augmentation
@pytest.mark.parametrize("probability", [0.2, None])
def test_clips_change_as_often_as_the_probability_says(layer, options, shape, probability):
    augmentation = layer(seed=1, **options, **({} if probability is None else {"probability": probability}))
    expected = augmentation.probability
    assert probability is not None or expected == DEFAULTS.get(layer, expected)
    if layer is BrightnessContrast:  # two draws
        expected = 1 - (1 - expected) ** 2
    if layer is TimeRoll:  # one of the shifts is 0
        expected *= 1 - 1 / shape[0]
    count = num_changed(augmentation, shape)
    assert count == 10_000 if expected == 1 else binomtest(count, 10_000, expected).pvalue > ERROR_RATE


@every_augmentation
def test_a_probability_may_be_0_or_1(layer, options, shape):
    assert num_changed(layer(probability=0, seed=1, **options), shape) == 0
    count = num_changed(layer(probability=1, seed=1, **options), shape)
    assert count == 10_000 or layer is TimeRoll and count > 9900


def test_integers_include_both_ends_and_nothing_else():
    layer = RandomAugmentation(seed=1)
    integers = np.asarray(layer.random_integers((10_000,), 3, 9))
    assert integers.dtype == "int32"
    assert chisquare(np.bincount(integers, minlength=10)[3:]).pvalue > ERROR_RATE
    assert set(integers) == set(range(3, 10))
    assert_array_equal(layer.random_integers((100,), 5, 5), 5)


def test_the_highest_draw_is_still_inside(monkeypatch):
    layer = RandomAugmentation()
    almost_one = 1 - 2.0**-24
    monkeypatch.setattr(layer, "random_uniform", lambda shape, low, high: keras.ops.full(shape, almost_one))
    for high in (0, 9, 88_199, 2**20, 2**24 - 2):
        assert int(layer.random_integers((1,), 0, high)[0]) <= high


@every_augmentation
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_the_output_has_the_type_of_the_input(layer, options, shape, dtype):
    augmentation = layer(seed=1, **options)
    clip = keras.ops.cast(noise(4, *shape), dtype)
    for training in (False, True):
        result = augmentation(clip, training=training)
        assert keras.backend.standardize_dtype(result.dtype) == dtype
        assert tuple(result.shape) == (4, *shape)
    assert augmentation(keras.Input(shape, dtype=dtype)).dtype == dtype


@every_augmentation
@pytest.mark.parametrize("policy", ["mixed_float16", "float16"])
def test_the_dtype_policy_changes_no_draw(layer, options, shape, policy):
    expected = np.asarray(layer(seed=1, **options)(noise(4, *shape), training=True))
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    keras.config.set_floatx("float16")
    try:
        halved = layer(seed=1, **options)(keras.ops.convert_to_tensor(noise(4, *shape), "float32"), training=True)
    finally:
        keras.config.set_floatx("float32")
        keras.config.set_dtype_policy(before)
    assert_array_equal(np.asarray(halved), expected)


@every_augmentation
def test_half_precision_only_rounds(layer, options, shape):
    clip = noise(4, *shape).astype("float16")
    full = np.asarray(layer(seed=1, **options)(clip.astype("float32"), training=True))
    halved = np.asarray(layer(seed=1, **options)(clip, training=True))
    np.testing.assert_allclose(halved.astype("float32"), full, rtol=2e-3, atol=1e-4)


@every_augmentation
@pytest.mark.parametrize("probability", [-0.1, 1.1, float("nan")])
def test_an_invalid_probability_is_refused(layer, options, shape, probability):
    with pytest.raises(ValueError, match=f"probability must be from 0 to 1. Received: probability={probability}"):
        layer(probability=probability, **options)


@pytest.mark.parametrize(("layer", "options", "shape"), [*AUGMENTATIONS, (RandomCrop, {"num_frames": 4}, IMAGE)])
def test_inputs_of_another_rank_are_refused(layer, options, shape):
    with pytest.raises(ValueError, match="expected (min_)?ndim=[234], found ndim=(2|5)"):
        layer(**options)(np.ones((2, 3) if shape is IMAGE else (2, 3, 4, 5, 6), "float32"))


class Negate(RandomAugmentation):
    """An augmentation of a user."""

    def get_random_transformation(self, inputs):
        return {"is_selected": self.random_selection(inputs)}

    def transform_inputs(self, inputs, transformation):
        return keras.ops.where(transformation["is_selected"], -inputs, inputs)


class NegateBoth(Negate):
    """A user's augmentation that changes labels."""

    def transform_labels(self, labels, transformation):
        return keras.ops.where(keras.ops.reshape(transformation["is_selected"], (-1, 1)), 1 - labels, labels)


@pytest.mark.parametrize("shape", [WAVEFORM, (5, 7), IMAGE])
def test_a_subclass_needs_only_a_transformation_and_its_application(shape):
    layer, clips = Negate(probability=0.3, seed=1), noise(1000, *shape)
    augmented = np.asarray(layer(clips, training=True))
    selected = (augmented == -clips).reshape(1000, -1).all(axis=1)
    assert_array_equal(augmented[~selected], clips[~selected])
    assert binomtest(int(selected.sum()), 1000, 0.3).pvalue > ERROR_RATE
    assert_array_equal(layer(clips), clips)
    assert layer(keras.Input(shape)).shape == (None, *shape)
    assert Negate.from_config(layer.get_config()).get_config() == layer.get_config()


def test_a_subclass_without_one_of_these_methods_is_refused():
    class Nothing(RandomAugmentation):
        pass

    with pytest.raises(NotImplementedError, match=r"Nothing must implement get_random_transformation\(inputs\)"):
        Nothing()(noise(2, 3), training=True)
    Nothing.get_random_transformation = lambda self, inputs: None
    with pytest.raises(NotImplementedError, match=r"Nothing must implement transform_inputs\(inputs, transformation\)"):
        Nothing()(noise(2, 3), training=True)


@every_augmentation
def test_labels_pass_beside_the_clips_and_change_no_draw(layer, options, shape):
    clips, labels = noise(4, *shape), noise(4, 3, seed=1)
    alone = layer(seed=1, **options)(clips, training=True)
    augmented, same = layer(seed=1, **options)((clips, labels), training=True)
    assert_array_equal(augmented, alone)
    assert_array_equal(same, labels)
    unchanged, same = layer(seed=1, **options)([clips, labels])
    assert_array_equal(unchanged, clips)
    assert_array_equal(same, labels)
    symbolic = layer(**options)([keras.Input(shape, dtype="float16"), keras.Input((3,))])
    assert [(tensor.shape, tensor.dtype) for tensor in symbolic] == [
        ((None, *shape), "float16"),
        ((None, 3), "float32"),
    ]
    assert layer(**options).compute_output_shape([(4, *shape), (4, 3)]) == ((4, *shape), (4, 3))


def test_clips_and_labels_share_one_transformation():
    layer, clips, labels = NegateBoth(probability=0.5, seed=1), noise(1000, 5), np.zeros((1000, 2), "float32")
    augmented, changed = map(np.asarray, layer((clips, labels), training=True))
    assert_array_equal(changed == 1, np.repeat((augmented == -clips).all(axis=1, keepdims=True), 2, axis=1))
    assert 0 < changed.mean() < 1


@pytest.mark.parametrize("layer", [MixUp, ConcatMix, FlipsAsClasses, NegateBoth])
def test_clips_without_the_labels_that_change_are_refused_while_training(layer):
    assert_array_equal(layer()(noise(4, *IMAGE)), noise(4, *IMAGE))
    with pytest.raises(ValueError) as error:
        layer()(noise(4, *IMAGE), training=True)
    assert f"{layer.__name__} changes labels too, so while training it needs them." in str(error.value)
    assert "Received: inputs of shape (4, 8, 8, 1) only. Pass a pair (inputs, labels)." in str(error.value)


def test_inputs_of_another_rank_are_refused_beside_labels_too():
    with pytest.raises(ValueError, match="expected ndim=2, found ndim=3"):
        Gain()((noise(2, 3, 4), noise(2, 3)))
    with pytest.raises(ValueError, match="max_width must be at most 8, the size of axis 2 of the input of shape"):
        TimeMask(max_width=9)((noise(2, *IMAGE), noise(2, 3)))
