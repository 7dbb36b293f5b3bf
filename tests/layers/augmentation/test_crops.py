import keras
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.ndimage import map_coordinates
from scipy.stats import chisquare, kstest, loguniform, spearmanr, uniform

from audiotag.layers import RandomCrop, RandomResizedCrop

ERROR_RATE = 1e-3  # the share of seeds with which a true layer fails a test; the seeds are fixed


def noise(*shape, seed=0):
    return np.random.default_rng(seed).uniform(-80, 0, shape).astype("float32")


def test_a_crop_is_a_stretch_of_the_picture():
    pictures = noise(20, 6, 30, 2)
    seen = np.asarray(RandomCrop(num_frames=11, seed=1)(pictures, training=True))
    assert seen.shape == (20, 6, 11, 2)
    for picture, part in zip(pictures, seen):
        assert any(np.array_equal(picture[:, start : start + 11], part) for start in range(20))


def test_starts_are_uniform_and_the_last_is_one_of_them():
    crop, columns = RandomCrop(num_frames=32, seed=1), np.tile(np.arange(40, dtype="float32"), (1000, 1))
    seen = np.concatenate([crop(columns[:, None, :, None], training=True) for _ in range(10)])
    starts = np.bincount(seen[:, 0, 0, 0].astype(int))
    assert len(starts) == 9 and starts.sum() == 10_000
    assert chisquare(starts).pvalue > ERROR_RATE


def test_a_picture_of_just_that_width_is_untouched():
    pictures = noise(5, 6, 11, 1)
    crop = RandomCrop(num_frames=11)
    assert_array_equal(crop(pictures, training=True), pictures)
    assert crop(keras.Input((6, 11, 1))).shape == (None, 6, 11, 1)


def test_to_a_network_the_width_is_unknown_where_it_changes():
    crop = RandomCrop(num_frames=11)
    assert crop(keras.Input((6, 30, 1))).shape == (None, 6, None, 1)
    assert crop(keras.Input((6, None, 1))).shape == (None, 6, None, 1)
    assert crop.compute_output_shape((None, 6, 30, 1)) == (None, 6, 30, 1)  # outside training


def test_a_network_trains_on_crops_and_hears_the_whole():
    picture = keras.Input((6, 30, 1))
    crop = RandomCrop(num_frames=11, seed=1)(picture)
    seen = keras.layers.Lambda(lambda x: keras.ops.sum(keras.ops.ones_like(x), axis=(1, 2, 3)), output_shape=())(crop)
    network = keras.Model(picture, seen)
    assert_array_equal(network(noise(2, 6, 30, 1), training=True), [66, 66])
    assert_array_equal(network(noise(2, 6, 30, 1)), [180, 180])
    assert_array_equal(network.predict(noise(2, 6, 30, 1), verbose=0), [180, 180])


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_a_crop_keeps_the_type(dtype):
    crop = RandomCrop(num_frames=4)
    for training in (False, True):
        assert keras.backend.standardize_dtype(crop(noise(1, 6, 9, 1).astype(dtype), training=training).dtype) == dtype
    assert crop(keras.Input((6, 9, 1), dtype=dtype)).dtype == dtype


def test_narrower_pictures_are_refused_while_training():
    crop, narrow = RandomCrop(num_frames=11), noise(2, 6, 10, 1)
    for refused in (lambda: crop(narrow, training=True), lambda: RandomCrop(num_frames=11)(keras.Input((6, 10, 1)))):
        with pytest.raises(ValueError, match=r"num_frames must be at most 10, the width of .* shape \(.*6, 10, 1"):
            refused()
    assert_array_equal(crop(narrow), narrow)
    with pytest.raises(ValueError, match="num_frames must be at least 1. Received: num_frames=0"):
        RandomCrop(num_frames=0)


def resized_crop(picture, monkeypatch, area, ratio, row, column):
    """The picture after a crop whose throws are known; row and column are shares of what is left over."""
    crop, throws = RandomResizedCrop(), iter([area, np.log(ratio), row, column, 0.0])
    monkeypatch.setattr(crop, "_uniform", lambda shape, low, high: keras.ops.full(shape, next(throws)))
    return np.asarray(crop(picture, training=True))


@pytest.mark.parametrize(
    ("area", "place", "expected"),
    [
        (0.25, 0.0, [0, 2.5, 7.5, 12.5]),  # the left half: pixel 0 shows a quarter of itself, from its edge on
        (0.25, 1.0, [17.5, 22.5, 27.5, 30]),  # the right half
        (0.25, 0.5, [7.5, 12.5, 17.5, 22.5]),
        (1.0, 0.7, [0, 10, 20, 30]),
    ],
)
def test_the_edges_of_the_part_become_the_edges_of_the_picture(monkeypatch, area, place, expected):
    row = np.arange(0, 40, 10, "float32")
    across = resized_crop(row.reshape(1, 1, 4, 1), monkeypatch, area, 1.0, 0.2, place)
    assert_allclose(across.reshape(-1), expected, atol=1e-4)
    down = resized_crop(row.reshape(1, 4, 1, 1), monkeypatch, area, 1.0, place, 0.2)
    assert_allclose(down.reshape(-1), expected, atol=1e-4)


@pytest.mark.parametrize(
    ("area", "ratio", "height", "width"),
    [(0.36, 1.0, 0.6, 0.6), (0.48, 0.75, 0.8, 0.6), (0.48, 4 / 3, 0.6, 0.8), (0.9, 1.6, 0.75, 1.0)],
)
def test_area_and_ratio_make_the_part(monkeypatch, area, ratio, height, width):
    picture = noise(1, 20, 30, 2)
    top, left = 0.3 * (1 - height) * 20, 0.9 * (1 - width) * 30
    rows = top + (np.arange(20) + 0.5) * height - 0.5
    columns = left + (np.arange(30) + 0.5) * width - 0.5
    grid = np.meshgrid(rows, columns, indexing="ij")
    expected = [map_coordinates(picture[0, :, :, c], grid, order=1, mode="nearest") for c in range(2)]
    seen = resized_crop(picture, monkeypatch, area, ratio, 0.3, 0.9)
    assert_allclose(seen[0], np.moveaxis(expected, 0, -1), atol=1e-3)


def parts(**options):
    """Height, width, and place in each axis of the parts of 10,000 pictures, as shares, read off two ramps."""
    rows, columns = np.meshgrid(np.arange(12), np.arange(16), indexing="ij")
    ramps = np.repeat(np.stack([rows, columns], axis=-1)[None].astype("float32"), 1000, axis=0)
    crop = RandomResizedCrop(probability=1.0, seed=1, **options)
    seen = np.concatenate([crop(ramps, training=True) for _ in range(10)]).astype("float64")
    assert len(seen) == 10_000
    result = []
    for ramp, size in ((seen[:, :, 0, 0], 12), (seen[:, 0, :, 1], 16)):
        share = ramp[:, size // 2] - ramp[:, size // 2 - 1]  # the edges are held
        start = ramp[:, size // 2] - (size // 2 + 0.5) * share + 0.5  # in pixels, from the edge
        result += [share, start / (size * (1 - share))]
    return result


def test_areas_and_places_are_uniform_and_know_nothing_of_each_other():
    height, row, width, column = parts(min_ratio=1.0, max_ratio=1.0, min_area=0.5, max_area=0.9)
    assert_allclose(height, width, atol=1e-4)
    assert kstest(height * width, uniform(0.5, 0.4).cdf).pvalue > ERROR_RATE
    assert kstest(row, uniform.cdf).pvalue > ERROR_RATE
    assert kstest(column, uniform.cdf).pvalue > ERROR_RATE
    for one, other in ((row, column), (row, height), (column, width)):
        assert spearmanr(one, other).pvalue > ERROR_RATE


def test_ratios_are_uniform_in_their_logarithm():
    height, _, width, _ = parts(min_ratio=0.5, max_ratio=2.0, min_area=0.2, max_area=0.4)
    assert kstest(width / height, loguniform(0.5, 2.0).cdf).pvalue > ERROR_RATE
    assert kstest(height * width, uniform(0.2, 0.2).cdf).pvalue > ERROR_RATE
    assert spearmanr(width / height, height * width).pvalue > ERROR_RATE


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"min_area": 0}, "min_area must be above 0 and at most max_area, and that at most 1. Received: min_area=0, "),
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
