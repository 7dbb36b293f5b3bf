import numpy as np
import pytest
from numpy.testing import assert_array_equal
from scipy.stats import chisquare

from audiotag.layers import FrequencyMask, TimeMask

# Each mask, the shape of a spectrogram or picture, and the axis it hides from.
CASES = [
    (TimeMask, (50, 64), 1),
    (TimeMask, (64, 50, 3), 2),
    (FrequencyMask, (64, 50), 2),
    (FrequencyMask, (50, 64, 3), 1),
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
    lost = hidden(mask, shape, axis, batch=6000, max_width=max_width)
    width = lost.sum(axis=1)
    assert chisquare(np.bincount(width, minlength=max_width + 1)).pvalue > 1e-3
    start = lost.argmax(axis=1)
    assert_array_equal([row[s : s + w].all() for row, s, w in zip(lost, start, width)], True)  # one stretch, unbroken
    for w in (1, 4, max_width):
        starts = np.bincount(start[width == w])
        assert len(starts) == size - w + 1  # both ends are reached
        assert chisquare(starts).pvalue > 1e-3


@every_case
def test_a_mask_as_wide_as_the_axis_may_hide_everything(mask, shape, axis):
    lost = hidden(mask, shape, axis, batch=2000, max_width=shape[axis - 1])
    assert lost.all(axis=1).any() and not lost.any(axis=1).all()


@every_case
def test_every_mask_is_thrown_on_its_own(mask, shape, axis):
    one = hidden(mask, shape, axis, batch=3000, max_width=8).sum(axis=1).mean()
    three = hidden(mask, shape, axis, batch=3000, max_width=8, count=3).sum(axis=1).mean()
    # A place stays in sight when three throws miss it; near the ends throws miss more often, so this is not exact.
    assert abs(one - 4) < 0.15
    assert abs(three - 50 * (1 - (1 - 4 / 50) ** 3)) < 0.4


@every_case
def test_the_rest_is_untouched_and_the_hidden_is_filled(mask, shape, axis):
    noise = np.random.default_rng(0).standard_normal((4, *shape)).astype("float32")
    masked = np.asarray(mask(max_width=20, count=2, fill=-7.5, seed=1)(noise, training=True))
    assert (masked == -7.5).any()
    assert_array_equal(masked[masked != -7.5], noise[masked != -7.5])


@every_case
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_the_type_stays(mask, shape, axis, dtype):
    layer = mask(max_width=20, fill=0.1)
    assert layer(np.ones((1, *shape), dtype)).dtype == dtype
    assert layer(np.ones((1, *shape), dtype), training=True).dtype == dtype


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
    with pytest.raises(ValueError, match="expected min_ndim=3, found ndim=2"):
        mask(max_width=4)(np.ones((2, 8)))
