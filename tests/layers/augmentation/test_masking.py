import keras
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.stats import binomtest, chisquare

from audiotag.layers import Bars, FrequencyMask, TimeMask

ERROR_RATE = 1e-3  # the share of seeds with which a true layer fails a test; the seeds are fixed

# Each mask, the shape of a spectrogram or picture, and the axis it hides from.
CASES = [
    (TimeMask, (50, 16), 1),
    (TimeMask, (16, 50, 3), 2),
    (FrequencyMask, (16, 50), 2),
    (FrequencyMask, (50, 16, 3), 1),
]
every_case = pytest.mark.parametrize(("mask", "shape", "axis"), CASES)


def hidden(mask, shape, axis, batch=1, **options):
    """Which places along `axis` each clip lost: [B, S], after a look that whole stretches went and nothing else."""
    ones = np.ones((batch, *shape), "float32")
    masked = np.asarray(mask(**{"seed": 0} | options)(ones, training=True))
    lost = np.moveaxis(masked != 1, axis, 1).reshape(batch, shape[axis - 1], -1)
    assert_array_equal(lost.all(axis=2), lost.any(axis=2))
    return lost.all(axis=2)


@every_case
def test_widths_and_starts_are_uniform(mask, shape, axis):
    size, max_width = shape[axis - 1], 8
    lost = hidden(mask, shape, axis, batch=10_000, max_width=max_width)
    width = lost.sum(axis=1)
    assert chisquare(np.bincount(width, minlength=max_width + 1)).pvalue > ERROR_RATE
    start = lost.argmax(axis=1)
    assert_array_equal([row[s : s + w].all() for row, s, w in zip(lost, start, width)], True)  # one stretch, unbroken
    for w in (1, 4, max_width):
        starts = np.bincount(start[width == w])
        assert len(starts) == size - w + 1  # both ends are reached
        assert chisquare(starts).pvalue > ERROR_RATE


@every_case
def test_a_mask_as_wide_as_the_axis_may_hide_everything(mask, shape, axis):
    lost = hidden(mask, shape, axis, batch=2000, max_width=shape[axis - 1])
    assert lost.all(axis=1).any() and not lost.any(axis=1).all()


@every_case
def test_every_mask_is_thrown_on_its_own(mask, shape, axis):
    one = hidden(mask, shape, axis, batch=10_000, max_width=8).sum(axis=1).mean()
    three = hidden(mask, shape, axis, batch=10_000, max_width=8, count=3).sum(axis=1).mean()
    # A place stays in sight when three throws miss it; near the ends throws miss more often, so this is not exact.
    assert abs(one - 4) < 0.15
    assert abs(three - 50 * (1 - (1 - 4 / 50) ** 3)) < 0.4


@every_case
@pytest.mark.parametrize(("share", "widest"), [(0.15, 7), (0.2, 10), (0.58, 29), (1.0, 50)])
def test_a_share_is_rounded_down_to_whole_places(mask, shape, axis, share, widest):
    widths = hidden(mask, shape, axis, batch=10_000, max_share=share).sum(axis=1)
    assert chisquare(np.bincount(widths, minlength=widest + 1)).pvalue > ERROR_RATE
    assert widths.max() == widest


def test_a_share_loses_no_place_to_rounding():
    _, width = TimeMask(max_share=0.21, seed=1)._throw(5000, 300)  # in float32 the product is 62.999996
    assert np.max(width) == 63


def test_the_number_of_masks_is_uniform_from_the_fewest_to_the_most():
    for fewest in (0, 1, 2):
        mask = TimeMask(max_width=10**6, count=3, min_count=fewest, seed=1)  # so wide that none has no width
        _, width = mask._throw(10_000, 10**6)
        number = (np.asarray(width) > 0).sum(axis=(1, 2))
        assert chisquare(np.bincount(number, minlength=4)[fewest:]).pvalue > ERROR_RATE
        assert number.min() == fewest


@every_case
def test_a_clip_is_masked_with_a_probability(mask, shape, axis):
    lost = hidden(mask, shape, axis, batch=10_000, max_share=0.2, probability=0.5).any(axis=1)
    assert binomtest(int(lost.sum()), 10_000, 0.5 * 10 / 11).pvalue > ERROR_RATE  # a width of 0 masks nothing


@every_case
def test_the_rest_is_untouched_and_the_hidden_is_filled(mask, shape, axis):
    noise = np.random.default_rng(0).standard_normal((4, *shape)).astype("float32")
    masked = np.asarray(mask(max_width=20, count=2, fill=-7.5, seed=1)(noise, training=True))
    assert (masked == -7.5).any()
    assert_array_equal(masked[masked != -7.5], noise[masked != -7.5])


@every_case
@pytest.mark.parametrize(("fill", "measure"), [("mean", np.mean), ("minimum", np.min)])
def test_the_hidden_is_filled_with_what_each_clip_has(mask, shape, axis, fill, measure):
    noise = np.random.default_rng(0).standard_normal((4, *shape)) + np.arange(4).reshape(-1, *[1] * len(shape))
    noise = noise.astype("float32")
    masked = np.asarray(mask(max_width=50, count=3, fill=fill, seed=1)(noise, training=True))
    for clip, before in zip(masked, noise):
        assert (clip != before).any()
        assert_allclose(clip[clip != before], measure(before), atol=1e-6)


@every_case
def test_a_clip_shorter_than_the_mask_is_hidden_at_most_whole(mask, shape, axis):
    layer = mask(max_width=40, seed=0)
    layer.build((None, *[None if place == axis else size for place, size in enumerate(shape, start=1)]))
    short = np.ones([64, *[10 if place == axis else size for place, size in enumerate(shape, start=1)]], "float32")
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
def test_a_size_below_one_is_refused(mask):
    with pytest.raises(ValueError, match="max_width must be at least 1. Received: max_width=0"):
        mask(max_width=0)
    with pytest.raises(ValueError, match="count must be at least 1. Received: count=0"):
        mask(max_width=4, count=0)


@pytest.mark.parametrize("mask", [TimeMask, FrequencyMask])
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "Expected either max_width, in places, or max_share, as a share of them all. Received: max_width=None, "),
        ({"max_width": 3, "max_share": 0.1}, "Received: max_width=3, max_share=0.1"),
        ({"max_share": 0.0}, "max_share must be above 0 and at most 1. Received: max_share=0.0"),
        ({"max_share": 1.1}, "max_share must be above 0 and at most 1. Received: max_share=1.1"),
        ({"max_width": 3, "count": 2, "min_count": 3}, "min_count must be from 0 to count=2, or None. Received: "),
        ({"max_width": 3, "fill": "median"}, "fill must be a number, 'mean' or 'minimum'. Received: fill='median'"),
    ],
)
def test_options_that_make_no_mask_are_refused(mask, options, message):
    with pytest.raises(ValueError) as error:
        mask(**options)
    assert message in str(error.value)


def test_a_share_of_less_than_one_place_is_refused():
    with pytest.raises(ValueError, match="max_share must be at least 1 / 20, the size of axis 2 of the input of shape"):
        TimeMask(max_share=0.04).build((None, 64, 20, 1))
    TimeMask(max_share=0.05).build((None, 64, 20, 1))


def barred(monkeypatch, height, width, length, *centres):
    """Which pixels bars of a length about known centres (row, column) hide."""
    bars = Bars(probability=1.0, max_count=len(centres), max_length=9)
    number, length = (keras.ops.full((1, 1, 1), value, "int32") for value in (len(centres), length))
    rows, columns = (keras.ops.reshape(centre, (1, -1, 1)) for centre in np.transpose(centres).astype("int32"))
    monkeypatch.setattr(bars, "_throw", lambda batch, height, width: (number, length, rows, columns))
    seen = np.asarray(bars(np.ones((1, height, width, 2), "float32"), training=True))[0]
    assert_array_equal(seen[..., 0], seen[..., 1])
    return seen[..., 0] == 0


@pytest.mark.parametrize(
    ("length", "rows", "columns"),
    [
        (4, [2, 3, 4, 5], [8, 9, 10, 11]),
        (5, [1, 2, 3, 4, 5], [7, 8, 9, 10, 11]),
        (7, [0, 1, 2, 3, 4, 5, 6], [6, 7, 8, 9, 10, 11]),
        (10, [0, 1, 2, 3, 4, 5, 6, 7, 8], [5, 6, 7, 8, 9, 10, 11]),  # both are cut
    ],
)
def test_a_bar_is_a_full_row_and_a_full_column_about_its_centre(monkeypatch, length, rows, columns):
    expected = np.zeros((9, 12), bool)
    expected[rows] = True
    expected[:, columns] = True
    assert_array_equal(barred(monkeypatch, 9, 12, length, (4, 10)), expected)


def test_bars_add_up(monkeypatch):
    both = barred(monkeypatch, 40, 50, 5, (10, 10), (12, 30))
    assert_array_equal(both, barred(monkeypatch, 40, 50, 5, (10, 10)) | barred(monkeypatch, 40, 50, 5, (12, 30)))


def test_what_is_barred_is_what_was_thrown():
    thrown = [np.asarray(throw).reshape(500, -1) for throw in Bars(seed=1)._throw(500, 60, 80)]
    barred = np.asarray(Bars(probability=1.0, seed=1)(np.ones((500, 60, 80, 1), "float32"), training=True)) == 0
    for number, length, rows, columns, seen in zip(*thrown, barred[..., 0]):
        expected = np.zeros((60, 80), bool)
        for row, column in zip(rows[: number[0]], columns[: number[0]]):
            expected[max(0, int(np.floor(row - length[0] / 2))) : int(np.floor(row + length[0] / 2))] = True
            expected[:, max(0, int(np.floor(column - length[0] / 2))) : int(np.floor(column + length[0] / 2))] = True
        assert_array_equal(seen, expected)


def test_numbers_lengths_and_centres_of_bars_are_uniform():
    number, length, row, column = (np.asarray(throw) for throw in Bars(seed=1)._throw(10_000, 60, 80))
    assert number.shape == length.shape == (10_000, 1, 1)  # one length for all the bars of a picture
    for throw, low, high in ((number, 1, 4), (length, 5, 20), (row, 0, 59), (column, 0, 79)):
        counts = np.bincount(throw.reshape(-1))
        assert len(counts) == high + 1 and not counts[:low].any()
        assert chisquare(counts[low:]).pvalue > ERROR_RATE
    assert row.shape == column.shape == (10_000, 4, 1)
    assert abs(np.corrcoef(np.hstack([row, column])[..., 0].T) - np.eye(8)).max() < 0.05  # every centre for itself


def test_bars_leave_the_rest_and_fill_the_hidden():
    noise = np.random.default_rng(0).uniform(1, 2, (20, 64, 64, 3)).astype("float32")
    for fill, value in ((0.0, np.zeros(20)), (-3, np.full(20, -3)), ("minimum", noise.min(axis=(1, 2, 3)))):
        seen = np.asarray(Bars(fill=fill, probability=1.0, seed=1)(noise, training=True))
        for clip, before, filled in zip(seen, noise, value):
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
def test_options_that_make_no_bars_are_refused(options, message):
    with pytest.raises(ValueError) as error:
        Bars(**options)
    assert message in str(error.value)


def test_bars_thicker_than_the_picture_are_refused():
    with pytest.raises(ValueError, match=r"max_length must be at most 16, the .* Received: max_length=20"):
        Bars()(np.ones((1, 16, 40, 1), "float32"))
