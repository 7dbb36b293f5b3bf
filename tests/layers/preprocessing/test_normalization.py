import keras
import numpy as np
import pytest
import tensorflow as tf
from examples import IMAGE
from numpy.testing import assert_allclose, assert_array_equal

from audiotag.layers import DatasetStandardize, Normalize, Quantize8Bit, Standardize, ToImage
from audiotag.layers.frontends.stft import portable_operators

EXAMPLES = [
    (ToImage, {}, (None, None, 24)),
    (Standardize, {}, IMAGE),
    (Normalize, {"mean": 0.5, "std": 0.3}, IMAGE),
    (DatasetStandardize, {"per": "band"}, (None, 24, None, 2)),
    (DatasetStandardize, {"per": "cell"}, (None, 24, 30, 1)),
    (Quantize8Bit, {}, (None, 24, None, 2)),
]


def images(*shape, seed=0):
    return np.random.default_rng(seed).normal(-40, 15, shape).astype("float32")


def test_an_image_is_a_transposed_spectrogram_with_low_bands_first():
    spectrogram = images(2, 50, 64)
    image = np.asarray(ToImage()(spectrogram))
    assert image[1, 3, 7, 0] == spectrogram[1, 7, 3]
    assert_array_equal(image[..., 0], spectrogram.transpose(0, 2, 1))


def test_each_image_is_standardized_by_its_own_statistics():
    batch = images(3, 32, 40, 1) * np.array([1, 10, 0.01], "float32").reshape(3, 1, 1, 1)
    expected = [(x - x.mean()) / (x.std() + 1e-6) for x in batch.astype("float64")]
    assert_allclose(Standardize()(batch), expected, atol=1e-4)


def test_a_constant_image_becomes_zeros():
    assert_array_equal(Standardize()(np.full((1, 8, 8, 1), -100.0, "float32")), np.zeros((1, 8, 8, 1)))


def as_uint8(x):
    """The image files of S0 and S1 in NumPy."""
    z = (x - x.mean()) / (x.std() + 1e-6)
    if z.max() - z.min() <= 1e-6:
        return np.zeros(x.shape, "uint8")
    return (255 * (z - z.min()) / (z.max() - z.min())).astype("uint8")


def test_the_levels_are_those_of_the_image_files():
    batch = images(4, 32, 40, 1)
    levels = np.round(np.asarray(Quantize8Bit()(Standardize()(batch))) * 255)
    expected = np.stack([as_uint8(x) for x in batch.astype("float64")])
    assert np.abs(levels - expected).max() <= 1  # float32 rounds some values across a level's edge
    assert np.mean(levels == expected) > 0.999
    assert levels.min() == 0 and levels.max() == 255


def test_levels_are_truncated_not_rounded():
    image = np.array([0.0, 0.999, 1.0, 1.999, 254.999, 255.0], "float32").reshape(1, 1, 6, 1)
    assert_allclose(Quantize8Bit()(image)[0, 0, :, 0], np.array([0, 0, 1, 1, 254, 255]) / 255)


@pytest.mark.parametrize("spread", [0.0, 5e-7])
def test_an_image_that_is_nearly_constant_has_level_zero(spread):
    image = np.zeros((1, 4, 4, 1), "float32")
    image[0, 0, 0] = spread
    assert_array_equal(Quantize8Bit()(image), np.zeros((1, 4, 4, 1)))


@pytest.mark.parametrize("jit_compile", [False, True])
def test_the_lowest_pixel_has_the_first_level_and_the_highest_the_last(jit_compile):
    # In float32, 255 * span / span is 254.99998 for every seventh span.
    batch = images(500, 6, 5, 1)
    levels = np.asarray(tf.function(Quantize8Bit(), jit_compile=jit_compile)(batch))
    assert_array_equal(levels.min(axis=(1, 2, 3)), 0)
    assert_array_equal(levels.max(axis=(1, 2, 3)), 1)


def test_quantizing_twice_is_quantizing_once():
    levels = np.arange(256, dtype="float32").reshape(1, 16, 16, 1)
    assert_allclose(Quantize8Bit()(Quantize8Bit()(levels)), levels / 255, atol=1e-7)


def test_fixed_numbers_scale_all_images_alike():
    pixels = np.random.default_rng(0).integers(0, 256, (2, 4, 5, 3)).astype("uint8")
    expected = (pixels / 255 - 0.2932) / 0.2556
    assert_allclose(Normalize()((pixels / 255).astype("float32")), expected, atol=1e-5)
    assert_allclose(Normalize(mean=-40, std=15)(np.full((1, 2, 2, 1), -10.0)), np.full((1, 2, 2, 1), 2.0))


REDUCED_AXES = {"cell": (0,), "band": (0, 2), "image": (0, 1, 2)}
every_per = pytest.mark.parametrize("per", REDUCED_AXES)


@every_per
def test_training_clips_get_mean_0_and_std_1(per):
    band_means = np.random.default_rng(1).normal(-40, 20, (1, 8, 12, 2))
    clips = (images(50, 8, 12, 2) * 0.1 + band_means).astype("float32")
    layer = DatasetStandardize(per=per)
    layer.adapt(np.split(clips, [7, 8, 40]))
    mean, std = clips.astype("float64").mean(REDUCED_AXES[per]), clips.astype("float64").std(REDUCED_AXES[per])
    if per == "band":
        mean, std = mean[:, None], std[:, None]
    assert_allclose(layer(clips), (clips - mean) / std, atol=1e-4)


@every_per
def test_a_std_much_smaller_than_the_mean_is_computed_accurately(per):
    noise = np.random.default_rng(2).standard_normal((64, 4, 6, 1))
    layer = DatasetStandardize(per=per)
    layer.adapt((1e6 + 1e-3 * noise).reshape(32, 2, 4, 6, 1))
    assert_allclose(np.squeeze(layer.std), np.squeeze(1e-3 * noise.std(REDUCED_AXES[per])), rtol=1e-5)


@pytest.mark.parametrize("per", ["band", "image"])
def test_every_frame_of_clips_of_different_lengths_has_the_same_weight(per):
    clips = [images(2, 8, frames, 1, seed=frames) for frames in (3, 20, 7)]
    layer = DatasetStandardize(per=per)
    layer.adapt(clips)
    together = np.concatenate([np.concatenate(list(clip), axis=1)[None] for clip in clips], axis=2)
    assert_allclose(np.squeeze(layer.mean), np.squeeze(together.mean(REDUCED_AXES[per])), rtol=1e-5)
    assert_allclose(np.squeeze(layer.std), np.squeeze(together.std(REDUCED_AXES[per])), rtol=1e-5)


@pytest.mark.parametrize("change", [0, 1.5e-6])
def test_nearly_constant_values_are_only_centered(change):
    clips = images(9, 4, 5, 1)
    clips[:, 2] = 0.1
    clips[::2, 2] += change
    layer = DatasetStandardize(per="cell")
    layer.adapt([clips])
    assert_allclose(layer(clips)[:, 2], 0, atol=1e-5)
    assert_allclose(layer(clips + 1)[:, 2], 1, atol=1e-5)


def test_before_adapt_it_is_the_identity_and_not_adapted():
    layer = DatasetStandardize()
    assert not layer.adapted
    image = images(2, 8, 5, 1)
    assert_array_equal(layer(image), image)
    assert not layer.adapted
    layer.adapt([image])
    assert layer.adapted
    assert not layer.trainable_weights


def test_adapt_replaces_earlier_statistics():
    layer, fresh = DatasetStandardize(), DatasetStandardize()
    layer.adapt([images(4, 8, 5, 1, seed=1)])
    for each in (layer, fresh):
        each.adapt(iter([tf.constant(images(2, 8, 5, 1)), images(0, 8, 5, 1), images(3, 8, 5, 1, seed=2)]))
    assert_array_equal(layer(images(2, 8, 5, 1)), fresh(images(2, 8, 5, 1)))


def test_a_layer_inside_a_network_adapts_to_its_input_and_is_saved(tmp_path):
    window = keras.Input((8, None, 1))
    doubled = keras.layers.Rescaling(2.0)(window)
    layer = DatasetStandardize(name="adapted")
    network = keras.Model(window, layer(doubled))
    before = network.predict(images(3, 8, 5, 1), verbose=0)
    assert_allclose(before, 2 * images(3, 8, 5, 1))
    layer.adapt(keras.Model(window, layer.input).predict_on_batch(images(3, 8, 5, 1, seed=seed)) for seed in range(4))
    after = network.predict(images(3, 8, 5, 1), verbose=0)
    assert np.abs(after).max() < 5
    network.save(tmp_path / "network.keras")
    loaded = keras.models.load_model(tmp_path / "network.keras")
    assert loaded.get_layer("adapted").adapted
    assert_array_equal(loaded.predict(images(3, 8, 5, 1), verbose=0), after)
    network.save_weights(tmp_path / "network.weights.h5")
    again = keras.Model.from_config(network.get_config())
    assert not again.get_layer("adapted").adapted
    again.load_weights(tmp_path / "network.weights.h5")
    assert again.get_layer("adapted").adapted
    assert_array_equal(again.predict(images(3, 8, 5, 1), verbose=0), after)


def test_a_failed_adapt_keeps_the_earlier_statistics():
    layer = DatasetStandardize(per="cell")
    layer.adapt([images(4, 8, 5, 1)])
    before = np.asarray(layer.mean)
    with pytest.raises(ValueError):
        layer.adapt([images(4, 8, 5, 1, seed=1), np.full((1, 8, 5, 1), np.nan)])
    assert_array_equal(layer.mean, before)


def adapted_to(*shapes, per="band"):
    layer = DatasetStandardize(per=per)
    layer.adapt([np.ones(shape) for shape in shapes])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Normalize(std=0), "std must be above 0. Received: std=0"),
        (
            lambda: DatasetStandardize(per="pixel"),
            "per must be 'cell', 'band' or 'image'. Received: per='pixel'",
        ),
        (
            lambda: DatasetStandardize(per="cell")(keras.Input((8, None, 1))),
            "per='cell' needs images of a fixed size. Received: an input of shape (None, 8, None, 1). Fix the size "
            "of axis 2 before this layer, or use per='image'.",
        ),
        (lambda: adapted_to(), "adapt expects at least one batch of images. Received: none."),
        (
            lambda: adapted_to((2, 8, 5, 1), (2, 8, 6, 1), (2, 9, 6, 1)),
            "adapt expects batches of shape [B, 8, T, 1]. Received: a batch of shape (2, 9, 6, 1).",
        ),
        (
            lambda: adapted_to((2, 8, 5, 1), (2, 8, 6, 1), per="cell"),
            "adapt expects batches of shape [B, 8, 5, 1]. Received: a batch of shape (2, 8, 6, 1).",
        ),
        (
            lambda: DatasetStandardize().adapt(np.ones((2, 8, 5, 1))),
            "adapt expects batches of shape [B, M, T, C]. Received: a batch of shape (8, 5, 1). Pass a single batch in "
            "a list.",
        ),
        (
            lambda: DatasetStandardize().adapt([np.ones((3, 8, 5, 1)), np.full((1, 8, 5, 1), np.inf)]),
            "adapt expects finite numbers. Received: NaN or infinity after 3 clips.",
        ),
        (lambda: Standardize()(np.ones((2, 8, 8))), "expected ndim=4, found ndim=3"),
        (lambda: ToImage()(np.ones((2, 8, 8, 1))), "expected ndim=3, found ndim=4"),
    ],
)
def test_wrong_options_and_inputs_are_refused(make, message):
    with pytest.raises(ValueError) as error:
        make()
    assert message in str(error.value)


def test_a_nearly_constant_image_is_zero_with_portable_operators():
    """Runtimes round the decibels of silence differently."""
    image = np.full((1, 8, 9, 1), -100.0, "float32")
    image[0, 3] = np.nextafter(np.float32(-100), np.float32(0))
    other = np.random.default_rng(0).standard_normal((1, 8, 9, 1)).astype("float32") - 50
    with portable_operators():
        assert not np.asarray(Standardize()(image)).any()
        portable = np.asarray(Standardize()(other))
    assert_allclose(portable, Standardize()(other), atol=1e-4)
