import keras
import numpy as np
import pytest
from examples import IMAGE
from numpy.testing import assert_allclose, assert_array_equal
from scipy.ndimage import map_coordinates
from scipy.stats import chisquare, kstest, loguniform, spearmanr, uniform

from audiotag.layers import RandomCrop, RandomResizedCrop

EXAMPLES = [
    (RandomCrop, {"num_frames": 32, "seed": 3}, IMAGE),
    (
        RandomResizedCrop,
        {"min_area": 0.5, "max_area": 0.9, "min_ratio": 0.8, "max_ratio": 1.2, "probability": 0.9, "seed": 3},
        (None, 24, None, 2),
    ),
]

ERROR_RATE = 1e-3  # the fraction of seeds with which a correct layer fails a test; the seeds are fixed


def noise(*shape, seed=0):
    return np.random.default_rng(seed).uniform(-80, 0, shape).astype("float32")


def test_a_crop_is_a_stretch_of_the_image():
    images = noise(20, 6, 30, 2)
    cropped = np.asarray(RandomCrop(num_frames=11, seed=1)(images, training=True))
    assert cropped.shape == (20, 6, 11, 2)
    for image, crop in zip(images, cropped):
        assert any(np.array_equal(image[:, start : start + 11], crop) for start in range(20))


def test_starts_are_uniform_and_include_the_last():
    crop, columns = RandomCrop(num_frames=32, seed=1), np.tile(np.arange(40, dtype="float32"), (1000, 1))
    cropped = np.concatenate([crop(columns[:, None, :, None], training=True) for _ in range(10)])
    starts = np.bincount(cropped[:, 0, 0, 0].astype(int))
    assert len(starts) == 9 and starts.sum() == 10_000
    assert chisquare(starts).pvalue > ERROR_RATE


def test_an_image_of_exactly_that_width_is_unchanged():
    images = noise(5, 6, 11, 1)
    crop = RandomCrop(num_frames=11)
    assert_array_equal(crop(images, training=True), images)
    assert crop(keras.Input((6, 11, 1))).shape == (None, 6, 11, 1)


def test_in_a_functional_model_the_width_is_unknown_where_it_changes():
    crop = RandomCrop(num_frames=11)
    assert crop(keras.Input((6, 30, 1))).shape == (None, 6, None, 1)
    assert crop(keras.Input((6, None, 1))).shape == (None, 6, None, 1)
    assert crop.compute_output_shape((None, 6, 30, 1)) == (None, 6, 30, 1)  # at inference


def test_a_network_trains_on_crops_and_predicts_on_complete_clips():
    image = keras.Input((6, 30, 1))
    crop = RandomCrop(num_frames=11, seed=1)(image)
    size = keras.layers.Lambda(lambda x: keras.ops.sum(keras.ops.ones_like(x), axis=(1, 2, 3)), output_shape=())(crop)
    network = keras.Model(image, size)
    assert_array_equal(network(noise(2, 6, 30, 1), training=True), [66, 66])
    assert_array_equal(network(noise(2, 6, 30, 1)), [180, 180])
    assert_array_equal(network.predict(noise(2, 6, 30, 1), verbose=0), [180, 180])


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_a_crop_keeps_the_type(dtype):
    crop = RandomCrop(num_frames=4)
    for training in (False, True):
        assert keras.backend.standardize_dtype(crop(noise(1, 6, 9, 1).astype(dtype), training=training).dtype) == dtype
    assert crop(keras.Input((6, 9, 1), dtype=dtype)).dtype == dtype


def test_narrower_images_are_refused_while_training():
    crop, narrow = RandomCrop(num_frames=11), noise(2, 6, 10, 1)
    message = r"num_frames must be at most 10, the width of images of shape \(.*6, 10, 1\).*num_frames=11. Lower it"
    for call in (lambda: crop(narrow, training=True), lambda: RandomCrop(num_frames=11)(keras.Input((6, 10, 1)))):
        with pytest.raises(ValueError, match=message):
            call()
    assert_array_equal(crop(narrow), narrow)
    with pytest.raises(ValueError, match="num_frames must be at least 1. Received: num_frames=0"):
        RandomCrop(num_frames=0)


def resized_crop(image, monkeypatch, area, ratio, row, column):
    """The image after a crop with given draws; row and column are fractions of what the crop leaves over."""
    crop, draws = RandomResizedCrop(), iter([area, np.log(ratio), row, column, 0.0])
    monkeypatch.setattr(crop, "random_uniform", lambda shape, low, high: keras.ops.full(shape, next(draws)))
    return np.asarray(crop(image, training=True))


@pytest.mark.parametrize(
    ("area", "position", "expected"),
    [
        (0.25, 0.0, [0, 2.5, 7.5, 12.5]),  # the left half: pixel 0 shows a quarter of itself, from its edge on
        (0.25, 1.0, [17.5, 22.5, 27.5, 30]),  # the right half
        (0.25, 0.5, [7.5, 12.5, 17.5, 22.5]),
        (1.0, 0.7, [0, 10, 20, 30]),
    ],
)
def test_the_edges_of_the_crop_become_the_edges_of_the_image(monkeypatch, area, position, expected):
    row = np.arange(0, 40, 10, "float32")
    across = resized_crop(row.reshape(1, 1, 4, 1), monkeypatch, area, 1.0, 0.2, position)
    assert_allclose(across.reshape(-1), expected, atol=1e-4)
    down = resized_crop(row.reshape(1, 4, 1, 1), monkeypatch, area, 1.0, position, 0.2)
    assert_allclose(down.reshape(-1), expected, atol=1e-4)


@pytest.mark.parametrize(
    ("area", "ratio", "height", "width"),
    [(0.36, 1.0, 0.6, 0.6), (0.48, 0.75, 0.8, 0.6), (0.48, 4 / 3, 0.6, 0.8), (0.9, 1.6, 0.75, 1.0)],
)
def test_area_and_ratio_determine_the_crop(monkeypatch, area, ratio, height, width):
    image = noise(1, 20, 30, 2)
    top, left = 0.3 * (1 - height) * 20, 0.9 * (1 - width) * 30
    rows = top + (np.arange(20) + 0.5) * height - 0.5
    columns = left + (np.arange(30) + 0.5) * width - 0.5
    grid = np.meshgrid(rows, columns, indexing="ij")
    expected = [map_coordinates(image[0, :, :, c], grid, order=1, mode="nearest") for c in range(2)]
    cropped = resized_crop(image, monkeypatch, area, ratio, 0.3, 0.9)
    assert_allclose(cropped[0], np.moveaxis(expected, 0, -1), atol=1e-3)


def crops(**options):
    """Size and position along each axis of the crops of 10,000 images, as fractions, measured on two ramps."""
    rows, columns = np.meshgrid(np.arange(12), np.arange(16), indexing="ij")
    ramps = np.repeat(np.stack([rows, columns], axis=-1)[None].astype("float32"), 1000, axis=0)
    crop = RandomResizedCrop(probability=1.0, seed=1, **options)
    cropped = np.concatenate([crop(ramps, training=True) for _ in range(10)]).astype("float64")
    assert len(cropped) == 10_000
    result = []
    for ramp, size in ((cropped[:, :, 0, 0], 12), (cropped[:, 0, :, 1], 16)):
        fraction = ramp[:, size // 2] - ramp[:, size // 2 - 1]  # in the middle, as pixels outside repeat the edge
        start = ramp[:, size // 2] - (size // 2 + 0.5) * fraction + 0.5  # in pixels, from the edge
        result += [fraction, start / (size * (1 - fraction))]
    return result


def test_areas_and_positions_are_uniform_and_independent():
    height, row, width, column = crops(min_ratio=1.0, max_ratio=1.0, min_area=0.5, max_area=0.9)
    assert_allclose(height, width, atol=1e-4)
    assert kstest(height * width, uniform(0.5, 0.4).cdf).pvalue > ERROR_RATE
    assert kstest(row, uniform.cdf).pvalue > ERROR_RATE
    assert kstest(column, uniform.cdf).pvalue > ERROR_RATE
    for one, other in ((row, column), (row, height), (column, width)):
        assert spearmanr(one, other).pvalue > ERROR_RATE


def test_ratios_are_uniform_in_their_logarithm():
    height, _, width, _ = crops(min_ratio=0.5, max_ratio=2.0, min_area=0.2, max_area=0.4)
    assert kstest(width / height, loguniform(0.5, 2.0).cdf).pvalue > ERROR_RATE
    assert kstest(height * width, uniform(0.2, 0.2).cdf).pvalue > ERROR_RATE
    assert spearmanr(width / height, height * width).pvalue > ERROR_RATE


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"min_area": 0},
            "min_area must be above 0 and at most max_area, and max_area at most 1. Received: min_area=0, max_area=1.0",
        ),
        ({"max_area": 1.2}, "min_area=0.8, max_area=1.2"),
        ({"min_area": 0.9, "max_area": 0.8}, "min_area=0.9, max_area=0.8"),
        ({"min_ratio": 0}, "min_ratio must be above 0 and at most max_ratio. Received: min_ratio=0, max_ratio=1.15"),
        ({"max_ratio": 0.5}, "min_ratio=0.85, max_ratio=0.5"),
    ],
)
def test_ranges_out_of_order_are_refused(options, message):
    with pytest.raises(ValueError) as error:
        RandomResizedCrop(**options)
    assert message in str(error.value)
