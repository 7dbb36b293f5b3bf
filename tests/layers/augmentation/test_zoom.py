import keras
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.ndimage import map_coordinates
from scipy.stats import kstest, spearmanr, uniform

from audiotag.layers import Zoom
from audiotag.layers.augmentation.zoom import bilinear

ERROR_RATE = 1e-3  # the share of seeds with which a true layer fails a test; the seeds are fixed


def noise(*shape, seed=0):
    return np.random.default_rng(seed).uniform(-80, 0, shape).astype("float32")


def zoomed(picture, monkeypatch, scale, row, column):
    """The picture after a zoom whose throws are known; row and column are shares of the axes."""
    zoom, throws = Zoom(), iter([scale, row, column, 0.0])
    monkeypatch.setattr(zoom, "_uniform", lambda shape, low, high: keras.ops.full(shape, next(throws)))
    return np.asarray(zoom(picture, training=True))


@pytest.mark.parametrize(
    ("scale", "focus", "expected"),
    [
        (2.0, 0.0, [0, 5, 10, 15, 20]),  # the first pixel stays
        (2.0, 0.25, [5, 10, 15, 20, 25]),  # the second
        (2.0, 0.5, [10, 15, 20, 25, 30]),
        (2.0, 1.0, [20, 25, 30, 35, 40]),
        (1.25, 0.5, [4, 12, 20, 28, 36]),
        (4.0, 0.75, [22.5, 25, 27.5, 30, 32.5]),
        (1.0, 0.3, [0, 10, 20, 30, 40]),
        (0.5, 0.5, [0, 0, 20, 40, 40]),  # from further away the edges repeat
    ],
)
def test_the_point_stays_and_the_rest_moves_away_from_it(monkeypatch, scale, focus, expected):
    row = np.arange(0, 50, 10, "float32")
    across = zoomed(row.reshape(1, 1, 5, 1), monkeypatch, scale, 0.9, focus)
    assert_allclose(across.reshape(-1), expected, atol=1e-4)
    down = zoomed(row.reshape(1, 5, 1, 1), monkeypatch, scale, focus, 0.9)
    assert_allclose(down.reshape(-1), expected, atol=1e-4)


@pytest.mark.parametrize(("scale", "row", "column"), [(1.5, 0.2, 0.9), (1.1, 1.0, 0.0), (1.37, 0.5, 0.123)])
def test_it_is_the_affine_map_of_fastai(monkeypatch, scale, row, column):
    picture = noise(1, 20, 31, 2)
    # fastai v1: axes run from -1 to 1, and u shows u / scale + (1 - 1 / scale) (2 p - 1).
    places = [
        (np.linspace(-1, 1, size) / scale + (1 - 1 / scale) * (2 * p - 1) + 1) * (size - 1) / 2
        for size, p in ((20, row), (31, column))
    ]
    grid = np.meshgrid(*places, indexing="ij")
    expected = np.stack([map_coordinates(picture[0, :, :, c], grid, order=1) for c in range(2)], axis=-1)
    assert_allclose(zoomed(picture, monkeypatch, scale, row, column)[0], expected, atol=1e-3)


def test_each_picture_is_looked_at_in_its_own_places():
    pictures = noise(5, 12, 9, 3)
    dice = np.random.default_rng(1)
    rows, columns = dice.uniform(-2, 13, (5, 7)).astype("float32"), dice.uniform(-2, 10, (5, 4)).astype("float32")
    expected = [
        [map_coordinates(p[:, :, c], np.meshgrid(r, k, indexing="ij"), order=1, mode="nearest") for c in range(3)]
        for p, r, k in zip(pictures, rows, columns)
    ]  # [B, C, I, J]
    assert_allclose(bilinear(pictures, rows, columns), np.moveaxis(expected, 1, -1), atol=1e-3)


def test_scales_and_points_are_uniform_and_know_nothing_of_each_other():
    rows, columns = np.meshgrid(np.arange(9), np.arange(13), indexing="ij")
    ramps = np.repeat(np.stack([rows, columns], axis=-1)[None].astype("float32"), 1000, axis=0)
    zoom = Zoom(probability=1.0, seed=1)
    seen = np.concatenate([zoom(ramps, training=True) for _ in range(10)]).astype("float64")
    assert len(seen) == 10_000
    down, across = seen[:, :, 0, 0], seen[:, 0, :, 1]
    scale = 8 / (down[:, -1] - down[:, 0])
    assert_allclose(12 / (across[:, -1] - across[:, 0]), scale, rtol=1e-4)  # both axes alike
    assert kstest(scale, uniform(1, 0.5).cdf).pvalue > ERROR_RATE
    near = scale > 1.02  # a picture hardly magnified does not tell its point
    row, column = [edge[near, 0] / (1 - 1 / scale[near]) / size for edge, size in ((down, 8), (across, 12))]
    assert kstest(row, uniform.cdf).pvalue > ERROR_RATE
    assert kstest(column, uniform.cdf).pvalue > ERROR_RATE
    for one, other in ((row, column), (row, scale[near]), (column, scale[near])):
        assert spearmanr(one, other).pvalue > ERROR_RATE


def test_what_is_not_zoomed_is_untouched():
    pictures = noise(200, 6, 6, 1)
    seen = np.asarray(Zoom(seed=1)(pictures, training=True))
    untouched = (seen == pictures).all(axis=(1, 2, 3))
    assert 25 < untouched.sum() < 75
    assert_array_equal((seen == pictures).any(axis=(1, 2, 3)), untouched)  # the others changed in every pixel


def test_a_picture_of_one_pixel_stays():
    assert_array_equal(Zoom(probability=1.0)(np.full((3, 1, 1, 1), 7.0, "float32"), training=True), 7.0)


@pytest.mark.parametrize(("low", "high"), [(0.0, 1.5), (1.6, 1.5), (float("nan"), 1.0)])
def test_scales_out_of_order_are_refused(low, high):
    with pytest.raises(ValueError) as error:
        Zoom(min_scale=low, max_scale=high)
    assert str(error.value) == (
        f"min_scale must be above 0 and at most max_scale. Received: min_scale={low}, max_scale={high}"
    )
