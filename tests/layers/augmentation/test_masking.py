import keras
import numpy as np
import pytest
from examples import IMAGE
from numpy.testing import assert_allclose, assert_array_equal
from scipy.stats import binomtest, chisquare

from audiotag.layers import BarErasing, FrequencyMask, TimeMask

WIDTH = {
    "max_width": 12,
    "max_fraction": None,
    "count": 2,
    "min_count": None,
    "fill": -1.0,
    "probability": 1.0,
    "seed": 3,
}
FRACTION = WIDTH | {"max_width": None, "max_fraction": 0.3, "min_count": 1, "fill": "minimum", "probability": 0.9}
EXAMPLES = [
    (TimeMask, WIDTH, (None, None, 24)),
    (TimeMask, FRACTION, IMAGE),
    (FrequencyMask, WIDTH, (None, None, 24)),
    (FrequencyMask, FRACTION | {"fill": "mean"}, IMAGE),
    (
        BarErasing,
        {"min_count": 1, "max_count": 3, "min_length": 2, "max_length": 9, "fill": 0.5, "probability": 0.9, "seed": 3},
        IMAGE,
    ),
]

ERROR_RATE = 1e-3  # the fraction of seeds with which a correct layer fails a test; the seeds are fixed

# Each mask, the shape of a spectrogram or an image, and the axis that it masks.
CASES = [
    (TimeMask, (50, 16), 1),
    (TimeMask, (16, 50, 3), 2),
    (FrequencyMask, (16, 50), 2),
    (FrequencyMask, (50, 16, 3), 1),
]
every_case = pytest.mark.parametrize(("mask", "shape", "axis"), CASES)


def masked_positions(mask, shape, axis, batch=1, **options):
    """Which positions along `axis` each clip lost: [B, size]; checks that the other axes are masked completely."""
    ones = np.ones((batch, *shape), "float32")
    outputs = np.asarray(mask(**{"seed": 0} | options)(ones, training=True))
    masked = np.moveaxis(outputs != 1, axis, 1).reshape(batch, shape[axis - 1], -1)
    assert_array_equal(masked.all(axis=2), masked.any(axis=2))
    return masked.all(axis=2)


@every_case
def test_widths_and_starts_are_uniform(mask, shape, axis):
    size, max_width = shape[axis - 1], 8
    masked = masked_positions(mask, shape, axis, batch=10_000, max_width=max_width)
    width = masked.sum(axis=1)
    assert chisquare(np.bincount(width, minlength=max_width + 1)).pvalue > ERROR_RATE
    start = masked.argmax(axis=1)
    assert_array_equal([row[s : s + w].all() for row, s, w in zip(masked, start, width)], True)  # without gaps
    for w in (1, 4, max_width):
        starts = np.bincount(start[width == w])
        assert len(starts) == size - w + 1  # both ends are reached
        assert chisquare(starts).pvalue > ERROR_RATE


@every_case
def test_a_mask_as_wide_as_the_axis_may_mask_everything(mask, shape, axis):
    masked = masked_positions(mask, shape, axis, batch=2000, max_width=shape[axis - 1])
    assert masked.all(axis=1).any() and not masked.any(axis=1).all()


@every_case
def test_every_mask_is_drawn_independently(mask, shape, axis):
    one = masked_positions(mask, shape, axis, batch=10_000, max_width=8).sum(axis=1).mean()
    three = masked_positions(mask, shape, axis, batch=10_000, max_width=8, count=3).sum(axis=1).mean()
    # A position remains if three masks miss it; masks miss the ends more often, so this is not exact.
    assert abs(one - 4) < 0.15
    assert abs(three - 50 * (1 - (1 - 4 / 50) ** 3)) < 0.4


@every_case
@pytest.mark.parametrize(("fraction", "max_width"), [(0.15, 7), (0.2, 10), (0.58, 29), (1.0, 50)])
def test_a_fraction_is_rounded_down(mask, shape, axis, fraction, max_width):
    widths = masked_positions(mask, shape, axis, batch=10_000, max_fraction=fraction).sum(axis=1)
    assert chisquare(np.bincount(widths, minlength=max_width + 1)).pvalue > ERROR_RATE
    assert widths.max() == max_width


def test_a_fraction_is_not_affected_by_float32_rounding():
    _, width = TimeMask(max_fraction=0.21, seed=1)._draw_parameters(5000, 300)  # in float32 the product is 62.999996
    assert np.max(width) == 63


def test_the_number_of_masks_is_uniform_from_min_count_to_count():
    for min_count in (0, 1, 2):
        mask = TimeMask(max_width=10**6, count=3, min_count=min_count, seed=1)  # so wide that no width is 0
        _, width = mask._draw_parameters(10_000, 10**6)
        number = (np.asarray(width) > 0).sum(axis=(1, 2))
        assert chisquare(np.bincount(number, minlength=4)[min_count:]).pvalue > ERROR_RATE
        assert number.min() == min_count


@every_case
def test_a_clip_is_masked_with_a_probability(mask, shape, axis):
    masked = masked_positions(mask, shape, axis, batch=10_000, max_fraction=0.2, probability=0.5).any(axis=1)
    assert binomtest(int(masked.sum()), 10_000, 0.5 * 10 / 11).pvalue > ERROR_RATE  # a width of 0 masks nothing


@every_case
def test_masked_values_are_filled_and_the_rest_is_unchanged(mask, shape, axis):
    noise = np.random.default_rng(0).standard_normal((4, *shape)).astype("float32")
    masked = np.asarray(mask(max_width=20, count=2, fill=-7.5, seed=1)(noise, training=True))
    assert (masked == -7.5).any()
    assert_array_equal(masked[masked != -7.5], noise[masked != -7.5])


@every_case
@pytest.mark.parametrize(("fill", "statistic"), [("mean", np.mean), ("minimum", np.min)])
def test_the_fill_value_is_computed_per_clip(mask, shape, axis, fill, statistic):
    noise = np.random.default_rng(0).standard_normal((4, *shape)) + np.arange(4).reshape(-1, *[1] * len(shape))
    noise = noise.astype("float32")
    masked = np.asarray(mask(max_width=50, count=3, fill=fill, seed=1)(noise, training=True))
    for clip, before in zip(masked, noise):
        assert (clip != before).any()
        assert_allclose(clip[clip != before], statistic(before), atol=1e-6)


@every_case
def test_a_clip_shorter_than_the_mask_is_masked_at_most_completely(mask, shape, axis):
    layer = mask(max_width=40, seed=0)
    layer.build((None, *[None if index == axis else size for index, size in enumerate(shape, start=1)]))
    short = np.ones([64, *[10 if index == axis else size for index, size in enumerate(shape, start=1)]], "float32")
    masked = np.asarray(layer(short, training=True))
    assert masked.shape == short.shape
    assert 0 < masked.mean() < 0.5


@pytest.mark.parametrize(
    ("mask", "shape", "message"),
    [
        (TimeMask, (None, 20, 64), "max_width must be at most 20, the size of axis 1 of the input of shape"),
        (TimeMask, (None, 64, 20, 1), "max_width must be at most 20, the size of axis 2 of the input of shape"),
        (FrequencyMask, (None, 64, 20), "max_width must be at most 20, the size of axis 2 of the input of shape"),
        (FrequencyMask, (None, 20, 64, 1), "max_width must be at most 20, the size of axis 1 of the input of shape"),
    ],
)
def test_a_mask_wider_than_its_axis_is_refused(mask, shape, message):
    with pytest.raises(ValueError) as error:
        mask(max_width=21).build(shape)
    assert message in str(error.value)
    assert "Received: max_width=21" in str(error.value)
    mask(max_width=20).build(shape)


@pytest.mark.parametrize("mask", [TimeMask, FrequencyMask])
def test_a_width_or_count_below_one_is_refused(mask):
    with pytest.raises(ValueError, match="max_width must be at least 1. Received: max_width=0"):
        mask(max_width=0)
    with pytest.raises(ValueError, match="count must be at least 1. Received: count=0"):
        mask(max_width=4, count=0)


@pytest.mark.parametrize("mask", [TimeMask, FrequencyMask])
@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {},
            "Expected either max_width, in frames or bands, or max_fraction, as a fraction of all of them. "
            "Received: max_width=None, max_fraction=None",
        ),
        ({"max_width": 3, "max_fraction": 0.1}, "Received: max_width=3, max_fraction=0.1"),
        ({"max_fraction": 0.0}, "max_fraction must be above 0 and at most 1. Received: max_fraction=0.0"),
        ({"max_fraction": 1.1}, "max_fraction must be above 0 and at most 1. Received: max_fraction=1.1"),
        ({"max_width": 3, "count": 2, "min_count": 3}, "min_count must be from 0 to count=2, or None. Received: "),
        ({"max_width": 3, "fill": "median"}, "fill must be a number, 'mean' or 'minimum'. Received: fill='median'"),
    ],
)
def test_invalid_mask_options_are_refused(mask, options, message):
    with pytest.raises(ValueError) as error:
        mask(**options)
    assert message in str(error.value)


def test_a_fraction_of_less_than_one_frame_is_refused():
    with pytest.raises(
        ValueError, match="max_fraction must be at least 1 / 20, the size of axis 2 of the input of shape"
    ):
        TimeMask(max_fraction=0.04).build((None, 64, 20, 1))
    TimeMask(max_fraction=0.05).build((None, 64, 20, 1))


def erased(monkeypatch, height, width, length, *centers):
    """Which pixels bars of a length about given centers (row, column) erase."""
    bars = BarErasing(probability=1.0, max_count=len(centers), max_length=9)
    number, length = (keras.ops.full((1, 1, 1), value, "int32") for value in (len(centers), length))
    rows, columns = (keras.ops.reshape(center, (1, -1, 1)) for center in np.transpose(centers).astype("int32"))
    monkeypatch.setattr(bars, "_draw_parameters", lambda batch, height, width: (number, length, rows, columns))
    image = np.asarray(bars(np.ones((1, height, width, 2), "float32"), training=True))[0]
    assert_array_equal(image[..., 0], image[..., 1])
    return image[..., 0] == 0


@pytest.mark.parametrize(
    ("length", "rows", "columns"),
    [
        (4, [2, 3, 4, 5], [8, 9, 10, 11]),
        (5, [1, 2, 3, 4, 5], [7, 8, 9, 10, 11]),
        (7, [0, 1, 2, 3, 4, 5, 6], [6, 7, 8, 9, 10, 11]),
        (10, [0, 1, 2, 3, 4, 5, 6, 7, 8], [5, 6, 7, 8, 9, 10, 11]),  # both are cut at the edges
    ],
)
def test_a_cross_is_full_rows_and_full_columns_about_its_center(monkeypatch, length, rows, columns):
    expected = np.zeros((9, 12), bool)
    expected[rows] = True
    expected[:, columns] = True
    assert_array_equal(erased(monkeypatch, 9, 12, length, (4, 10)), expected)


def test_bars_add_up(monkeypatch):
    both = erased(monkeypatch, 40, 50, 5, (10, 10), (12, 30))
    assert_array_equal(both, erased(monkeypatch, 40, 50, 5, (10, 10)) | erased(monkeypatch, 40, 50, 5, (12, 30)))


def test_the_erased_pixels_follow_from_the_draws():
    draws = [np.asarray(draw).reshape(500, -1) for draw in BarErasing(seed=1)._draw_parameters(500, 60, 80)]
    images = np.asarray(BarErasing(probability=1.0, seed=1)(np.ones((500, 60, 80, 1), "float32"), training=True)) == 0
    for number, length, rows, columns, image in zip(*draws, images[..., 0]):
        expected = np.zeros((60, 80), bool)
        for row, column in zip(rows[: number[0]], columns[: number[0]]):
            expected[max(0, int(np.floor(row - length[0] / 2))) : int(np.floor(row + length[0] / 2))] = True
            expected[:, max(0, int(np.floor(column - length[0] / 2))) : int(np.floor(column + length[0] / 2))] = True
        assert_array_equal(image, expected)


def test_numbers_lengths_and_centers_of_bars_are_uniform():
    number, length, row, column = (np.asarray(draw) for draw in BarErasing(seed=1)._draw_parameters(10_000, 60, 80))
    assert number.shape == length.shape == (10_000, 1, 1)  # one length for all bars of an image
    for draw, low, high in ((number, 1, 4), (length, 5, 20), (row, 0, 59), (column, 0, 79)):
        counts = np.bincount(draw.reshape(-1))
        assert len(counts) == high + 1 and not counts[:low].any()
        assert chisquare(counts[low:]).pvalue > ERROR_RATE
    assert row.shape == column.shape == (10_000, 4, 1)
    assert abs(np.corrcoef(np.hstack([row, column])[..., 0].T) - np.eye(8)).max() < 0.05  # independent centers


def test_bars_are_filled_and_the_rest_is_unchanged():
    noise = np.random.default_rng(0).uniform(1, 2, (20, 64, 64, 3)).astype("float32")
    for fill, value in ((0.0, np.zeros(20)), (-3, np.full(20, -3)), ("minimum", noise.min(axis=(1, 2, 3)))):
        images = np.asarray(BarErasing(fill=fill, probability=1.0, seed=1)(noise, training=True))
        for clip, before, filled in zip(images, noise, value):
            assert (clip != before).any()
            assert_allclose(clip[clip != before], filled)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"min_count": 0}, "min_count must be at least 1 and at most max_count. Received: min_count=0, max_count=4"),
        ({"max_count": 0}, "min_count=1, max_count=0"),
        ({"min_length": 0}, "min_length must be at least 1 and at most max_length. Received: min_length=0"),
        ({"max_length": 4}, "min_length=5, max_length=4"),
        ({"fill": "mode"}, "fill must be a number, 'mean' or 'minimum'. Received: fill='mode'"),
    ],
)
def test_invalid_bar_options_are_refused(options, message):
    with pytest.raises(ValueError) as error:
        BarErasing(**options)
    assert message in str(error.value)


def test_bars_thicker_than_the_image_are_refused():
    with pytest.raises(
        ValueError, match=r"max_length must be at most 16, the smaller side of images .* Received: max_length=20"
    ):
        BarErasing()(np.ones((1, 16, 40, 1), "float32"))
