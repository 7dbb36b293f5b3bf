import numpy as np
from examples import WAVEFORM
from numpy.testing import assert_array_equal
from scipy.stats import chisquare

from audiotag.layers import TimeRoll

EXAMPLES = [(TimeRoll, {"probability": 0.9, "seed": 3}, WAVEFORM)]

ERROR_RATE = 1e-3  # the fraction of seeds with which a correct layer fails a test; the seeds are fixed


def rolls(clips=1000, length=50, calls=10, **options):
    """The shift of each of 10,000 clips; checks that nothing else changed."""
    roll, ramp = TimeRoll(seed=1, **options), np.tile(np.arange(length, dtype="float32"), (clips, 1))
    rolled = np.concatenate([roll(ramp, training=True) for _ in range(calls)])
    shift = rolled.argmin(axis=1)
    assert_array_equal(rolled, (np.arange(length) - shift[:, None]) % length)
    return shift


def test_shifts_are_uniform_over_the_clip():
    shifts = np.bincount(rolls(), minlength=50)
    assert len(shifts) == 50 and shifts.sum() == 10_000
    assert chisquare(shifts).pvalue > ERROR_RATE


def test_the_roll_is_circular():
    waveform = np.random.default_rng(0).standard_normal((20, 30)).astype("float32")
    rolled = np.asarray(TimeRoll(seed=1)(waveform, training=True))
    for clip, shifted in zip(waveform, rolled):
        assert any(np.array_equal(np.roll(clip, shift), shifted) for shift in range(30))


def test_a_clip_that_is_not_selected_is_unchanged():
    shift = rolls(probability=0.5)
    expected = np.full(50, 0.5 / 50)
    expected[0] += 0.5
    assert chisquare(np.bincount(shift, minlength=50), 10_000 * expected).pvalue > ERROR_RATE


def test_a_clip_of_one_sample_is_unchanged():
    assert_array_equal(TimeRoll()(np.full((3, 1), 7.0, "float32"), training=True), np.full((3, 1), 7.0))
