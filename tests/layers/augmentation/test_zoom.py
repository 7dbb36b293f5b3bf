import keras
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.ndimage import map_coordinates
from scipy.stats import kstest, spearmanr, uniform

from audiotag.layers import Zoom
from audiotag.layers.augmentation.zoom import bilinear

EXAMPLES = [
    (Zoom, {"min_scale": 0.9, "max_scale": 1.6, "probability": 0.9, "seed": 3}, (None, 24, None, 2)),
]

ERROR_RATE = 1e-3  # the fraction of seeds with which a correct layer fails a test; the seeds are fixed


def noise(*shape, seed=0):
    return np.random.default_rng(seed).uniform(-80, 0, shape).astype("float32")


def zoomed(image, monkeypatch, scale, row, column):
    """The image after a zoom with given draws; row and column are fractions of the axes."""
    zoom, draws = Zoom(), iter([scale, row, column, 0.0])
    monkeypatch.setattr(zoom, "random_uniform", lambda shape, low, high: keras.ops.full(shape, next(draws)))
    return np.asarray(zoom(image, training=True))


@pytest.mark.parametrize(
    ("scale", "focus", "expected"),
    [
        (2.0, 0.0, [0, 5, 10, 15, 20]),  # about the first pixel
        (2.0, 0.25, [5, 10, 15, 20, 25]),  # about the second
        (2.0, 0.5, [10, 15, 20, 25, 30]),
        (2.0, 1.0, [20, 25, 30, 35, 40]),
        (1.25, 0.5, [4, 12, 20, 28, 36]),
        (4.0, 0.75, [22.5, 25, 27.5, 30, 32.5]),
        (1.0, 0.3, [0, 10, 20, 30, 40]),
        (0.5, 0.5, [0, 0, 20, 40, 40]),  # below 1 the edges repeat
    ],
)
def test_pixels_move_away_from_the_point(monkeypatch, scale, focus, expected):
    row = np.arange(0, 50, 10, "float32")
    across = zoomed(row.reshape(1, 1, 5, 1), monkeypatch, scale, 0.9, focus)
    assert_allclose(across.reshape(-1), expected, atol=1e-4)
    down = zoomed(row.reshape(1, 5, 1, 1), monkeypatch, scale, focus, 0.9)
    assert_allclose(down.reshape(-1), expected, atol=1e-4)


@pytest.mark.parametrize(("scale", "row", "column"), [(1.5, 0.2, 0.9), (1.1, 1.0, 0.0), (1.37, 0.5, 0.123)])
def test_it_is_the_affine_map_of_fastai(monkeypatch, scale, row, column):
    image = noise(1, 20, 31, 2)
    # In fastai v1 axes run from -1 to 1, and u shows u / scale + (1 - 1 / scale) (2 p - 1).
    positions = [
        (np.linspace(-1, 1, size) / scale + (1 - 1 / scale) * (2 * p - 1) + 1) * (size - 1) / 2
        for size, p in ((20, row), (31, column))
    ]
    grid = np.meshgrid(*positions, indexing="ij")
    expected = np.stack([map_coordinates(image[0, :, :, c], grid, order=1) for c in range(2)], axis=-1)
    assert_allclose(zoomed(image, monkeypatch, scale, row, column)[0], expected, atol=1e-3)


def test_each_image_is_sampled_at_its_own_positions():
    images = noise(5, 12, 9, 3)
    rng = np.random.default_rng(1)
    rows, columns = rng.uniform(-2, 13, (5, 7)).astype("float32"), rng.uniform(-2, 10, (5, 4)).astype("float32")
    expected = [
        [map_coordinates(p[:, :, c], np.meshgrid(r, k, indexing="ij"), order=1, mode="nearest") for c in range(3)]
        for p, r, k in zip(images, rows, columns)
    ]  # [B, C, I, J]
    assert_allclose(bilinear(images, rows, columns), np.moveaxis(expected, 1, -1), atol=1e-3)


def test_scales_and_points_are_uniform_and_independent():
    rows, columns = np.meshgrid(np.arange(9), np.arange(13), indexing="ij")
    ramps = np.repeat(np.stack([rows, columns], axis=-1)[None].astype("float32"), 1000, axis=0)
    zoom = Zoom(probability=1.0, seed=1)
    zoomed_ramps = np.concatenate([zoom(ramps, training=True) for _ in range(10)]).astype("float64")
    assert len(zoomed_ramps) == 10_000
    down, across = zoomed_ramps[:, :, 0, 0], zoomed_ramps[:, 0, :, 1]
    scale = 8 / (down[:, -1] - down[:, 0])
    assert_allclose(12 / (across[:, -1] - across[:, 0]), scale, rtol=1e-4)  # both axes alike
    assert kstest(scale, uniform(1, 0.5).cdf).pvalue > ERROR_RATE
    magnified = scale > 1.02  # closer to 1 the point cannot be measured
    row, column = [edge[magnified, 0] / (1 - 1 / scale[magnified]) / size for edge, size in ((down, 8), (across, 12))]
    assert kstest(row, uniform.cdf).pvalue > ERROR_RATE
    assert kstest(column, uniform.cdf).pvalue > ERROR_RATE
    for one, other in ((row, column), (row, scale[magnified]), (column, scale[magnified])):
        assert spearmanr(one, other).pvalue > ERROR_RATE


def test_an_image_that_is_not_selected_is_unchanged():
    images = noise(200, 6, 6, 1)
    outputs = np.asarray(Zoom(seed=1)(images, training=True))
    unchanged = (outputs == images).all(axis=(1, 2, 3))
    assert 25 < unchanged.sum() < 75
    assert_array_equal((outputs == images).any(axis=(1, 2, 3)), unchanged)  # the others changed in every pixel


def test_an_image_of_one_pixel_is_unchanged():
    assert_array_equal(Zoom(probability=1.0)(np.full((3, 1, 1, 1), 7.0, "float32"), training=True), 7.0)


@pytest.mark.parametrize(("low", "high"), [(0.0, 1.5), (1.6, 1.5), (float("nan"), 1.0)])
def test_scales_out_of_order_are_refused(low, high):
    with pytest.raises(ValueError) as error:
        Zoom(min_scale=low, max_scale=high)
    assert str(error.value) == (
        f"min_scale must be above 0 and at most max_scale. Received: min_scale={low}, max_scale={high}"
    )
