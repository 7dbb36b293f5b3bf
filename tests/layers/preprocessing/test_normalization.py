import keras
import numpy as np
import pytest
import tensorflow as tf
from numpy.testing import assert_allclose, assert_array_equal

from audiotag.layers import AdaptedStandardise, EightBit, Normalise, Standardise, ToPicture


def pictures(*shape, seed=0):
    return np.random.default_rng(seed).normal(-40, 15, shape).astype("float32")


def test_a_picture_is_a_spectrogram_turned_with_low_bands_first():
    spectrogram = pictures(2, 50, 64)
    picture = np.asarray(ToPicture()(spectrogram))
    assert picture[1, 3, 7, 0] == spectrogram[1, 7, 3]
    assert_array_equal(picture[..., 0], spectrogram.transpose(0, 2, 1))


def test_each_picture_is_standardised_alone():
    batch = pictures(3, 32, 40, 1) * np.array([1, 10, 0.01], "float32").reshape(3, 1, 1, 1)
    expected = [(x - x.mean()) / (x.std() + 1e-6) for x in batch.astype("float64")]
    assert_allclose(Standardise()(batch), expected, atol=1e-4)


def test_a_constant_picture_standardises_to_zeros():
    assert_array_equal(Standardise()(np.full((1, 8, 8, 1), -100.0, "float32")), np.zeros((1, 8, 8, 1)))


def as_uint8(x):
    """The picture files of S0 and S1, worked out in NumPy."""
    z = (x - x.mean()) / (x.std() + 1e-6)
    if z.max() - z.min() <= 1e-6:
        return np.zeros(x.shape, "uint8")
    return (255 * (z - z.min()) / (z.max() - z.min())).astype("uint8")


def test_eight_bits_are_those_of_the_image_files():
    batch = pictures(4, 32, 40, 1)
    levels = np.round(np.asarray(EightBit()(Standardise()(batch))) * 255)
    expected = np.stack([as_uint8(x) for x in batch.astype("float64")])
    assert np.abs(levels - expected).max() <= 1  # float32 rounds some values across a level's edge
    assert np.mean(levels == expected) > 0.999
    assert levels.min() == 0 and levels.max() == 255


def test_levels_are_truncated_not_rounded():
    picture = np.array([0.0, 0.999, 1.0, 1.999, 254.999, 255.0], "float32").reshape(1, 1, 6, 1)
    assert_allclose(EightBit()(picture)[0, 0, :, 0], np.array([0, 0, 1, 1, 254, 255]) / 255)


@pytest.mark.parametrize("spread", [0.0, 5e-7])
def test_a_constant_picture_has_level_zero(spread):
    picture = np.zeros((1, 4, 4, 1), "float32")
    picture[0, 0, 0] = spread
    assert_array_equal(EightBit()(picture), np.zeros((1, 4, 4, 1)))


@pytest.mark.parametrize("jit_compile", [False, True])
def test_the_quietest_pixel_has_the_first_level_and_the_loudest_the_last(jit_compile):
    # In float32, 255 * span / span is 254.99998 for every seventh span.
    batch = pictures(500, 6, 5, 1)
    levels = np.asarray(tf.function(EightBit(), jit_compile=jit_compile)(batch))
    assert_array_equal(levels.min(axis=(1, 2, 3)), 0)
    assert_array_equal(levels.max(axis=(1, 2, 3)), 1)


def test_eight_bits_are_not_rounded_twice():
    once = np.arange(256, dtype="float32").reshape(1, 16, 16, 1)
    assert_allclose(EightBit()(EightBit()(once)), once / 255, atol=1e-7)


def test_fixed_numbers_scale_all_pictures_alike():
    eight_bit = np.random.default_rng(0).integers(0, 256, (2, 4, 5, 3)).astype("uint8")
    expected = (eight_bit / 255 - 0.2932) / 0.2556
    assert_allclose(Normalise()((eight_bit / 255).astype("float32")), expected, atol=1e-5)
    assert_allclose(Normalise(mean=-40, std=15)(np.full((1, 2, 2, 1), -10.0)), np.full((1, 2, 2, 1), 2.0))


SHARED = {"cell": (0,), "band": (0, 2), "picture": (0, 1, 2)}
every_share = pytest.mark.parametrize("per", SHARED)


@every_share
def test_training_clips_get_mean_0_and_deviation_1(per):
    habits = np.random.default_rng(1).normal(-40, 20, (1, 8, 12, 2))
    clips = (pictures(50, 8, 12, 2) * 0.1 + habits).astype("float32")
    layer = AdaptedStandardise(per=per)
    layer.adapt(np.split(clips, [7, 8, 40]))
    mean, std = clips.astype("float64").mean(SHARED[per]), clips.astype("float64").std(SHARED[per])
    if per == "band":
        mean, std = mean[:, None], std[:, None]
    assert_allclose(layer(clips), (clips - mean) / std, atol=1e-4)


@every_share
def test_a_small_deviation_beside_a_large_mean_is_measured(per):
    noise = np.random.default_rng(2).standard_normal((64, 4, 6, 1))
    layer = AdaptedStandardise(per=per)
    layer.adapt((1e6 + 1e-3 * noise).reshape(32, 2, 4, 6, 1))
    assert_allclose(np.squeeze(layer.std), np.squeeze(1e-3 * noise.std(SHARED[per])), rtol=1e-5)


@pytest.mark.parametrize("per", ["band", "picture"])
def test_clips_of_different_lengths_are_measured_frame_by_frame(per):
    clips = [pictures(2, 8, frames, 1, seed=frames) for frames in (3, 20, 7)]
    layer = AdaptedStandardise(per=per)
    layer.adapt(clips)
    together = np.concatenate([np.concatenate(list(clip), axis=1)[None] for clip in clips], axis=2)
    assert_allclose(np.squeeze(layer.mean), np.squeeze(together.mean(SHARED[per])), rtol=1e-5)
    assert_allclose(np.squeeze(layer.std), np.squeeze(together.std(SHARED[per])), rtol=1e-5)


@pytest.mark.parametrize("change", [0, 1.5e-6])
def test_what_hardly_changed_is_only_centred(change):
    clips = pictures(9, 4, 5, 1)
    clips[:, 2] = 0.1
    clips[::2, 2] += change
    layer = AdaptedStandardise(per="cell")
    layer.adapt([clips])
    assert_allclose(layer(clips)[:, 2], 0, atol=1e-5)
    assert_allclose(layer(clips + 1)[:, 2], 1, atol=1e-5)


def test_until_it_is_adapted_it_changes_nothing_and_says_so():
    layer = AdaptedStandardise()
    assert not layer.adapted
    picture = pictures(2, 8, 5, 1)
    assert_array_equal(layer(picture), picture)
    assert not layer.adapted
    layer.adapt([picture])
    assert layer.adapted
    assert not layer.trainable_weights


def test_the_last_clips_count_and_those_before_are_forgotten():
    layer, fresh = AdaptedStandardise(), AdaptedStandardise()
    layer.adapt([pictures(4, 8, 5, 1, seed=1)])
    for one in (layer, fresh):
        one.adapt(iter([tf.constant(pictures(2, 8, 5, 1)), pictures(0, 8, 5, 1), pictures(3, 8, 5, 1, seed=2)]))
    assert_array_equal(layer(pictures(2, 8, 5, 1)), fresh(pictures(2, 8, 5, 1)))


def test_a_layer_inside_a_network_adapts_to_what_reaches_it_and_is_saved(tmp_path):
    window = keras.Input((8, None, 1))
    doubled = keras.layers.Rescaling(2.0)(window)
    layer = AdaptedStandardise(name="adapted")
    network = keras.Model(window, layer(doubled))
    before = network.predict(pictures(3, 8, 5, 1), verbose=0)
    assert_allclose(before, 2 * pictures(3, 8, 5, 1))
    layer.adapt(keras.Model(window, layer.input).predict_on_batch(pictures(3, 8, 5, 1, seed=seed)) for seed in range(4))
    after = network.predict(pictures(3, 8, 5, 1), verbose=0)
    assert np.abs(after).max() < 5
    network.save(tmp_path / "network.keras")
    loaded = keras.models.load_model(tmp_path / "network.keras")
    assert loaded.get_layer("adapted").adapted
    assert_array_equal(loaded.predict(pictures(3, 8, 5, 1), verbose=0), after)
    network.save_weights(tmp_path / "network.weights.h5")
    again = keras.Model.from_config(network.get_config())
    assert not again.get_layer("adapted").adapted
    again.load_weights(tmp_path / "network.weights.h5")
    assert again.get_layer("adapted").adapted
    assert_array_equal(again.predict(pictures(3, 8, 5, 1), verbose=0), after)


def test_a_failed_measurement_leaves_the_one_before():
    layer = AdaptedStandardise(per="cell")
    layer.adapt([pictures(4, 8, 5, 1)])
    before = np.asarray(layer.mean)
    with pytest.raises(ValueError):
        layer.adapt([pictures(4, 8, 5, 1, seed=1), np.full((1, 8, 5, 1), np.nan)])
    assert_array_equal(layer.mean, before)


def adapted_to(*shapes, per="band"):
    layer = AdaptedStandardise(per=per)
    layer.adapt([np.ones(shape) for shape in shapes])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Normalise(std=0), "std must be above 0. Received: std=0"),
        (
            lambda: AdaptedStandardise(per="pixel"),
            "per must be 'cell', 'band' or 'picture'. Received: per='pixel'",
        ),
        (
            lambda: AdaptedStandardise(per="cell")(keras.Input((8, None, 1))),
            "per='cell' needs pictures of a known size. Received: an input of shape (None, 8, None, 1). Fix the size "
            "of axis 2 before this layer, or use per='picture'.",
        ),
        (lambda: adapted_to(), "adapt expects at least one batch of pictures. Received: none."),
        (
            lambda: adapted_to((2, 8, 5, 1), (2, 8, 6, 1), (2, 9, 6, 1)),
            "adapt expects batches of shape [B, 8, T, 1]. Received: a batch of shape (2, 9, 6, 1).",
        ),
        (
            lambda: adapted_to((2, 8, 5, 1), (2, 8, 6, 1), per="cell"),
            "adapt expects batches of shape [B, 8, 5, 1]. Received: a batch of shape (2, 8, 6, 1).",
        ),
        (
            lambda: AdaptedStandardise().adapt(np.ones((2, 8, 5, 1))),
            "adapt expects batches of shape [B, M, T, C]. Received: a batch of shape (8, 5, 1). Pass a single batch in "
            "a list.",
        ),
        (
            lambda: AdaptedStandardise().adapt([np.ones((3, 8, 5, 1)), np.full((1, 8, 5, 1), np.inf)]),
            "adapt expects finite numbers. Received: NaN or infinity after 3 clips.",
        ),
        (lambda: Standardise()(np.ones((2, 8, 8))), "expected ndim=4, found ndim=3"),
        (lambda: ToPicture()(np.ones((2, 8, 8, 1))), "expected ndim=3, found ndim=4"),
    ],
)
def test_what_makes_no_picture_is_refused(make, message):
    with pytest.raises(ValueError) as error:
        make()
    assert message in str(error.value)
