import numpy as np
from numpy.testing import assert_array_equal
from scipy.stats import chisquare

from audiotag.layers import TimeRoll

ERROR_RATE = 1e-3  # the share of seeds with which a true layer fails a test; the seeds are fixed


def rolls(clips=1000, length=50, calls=10, **options):
    """How far each clip was rolled, after a look that it was, and that nothing else happened."""
    roll, ramp = TimeRoll(seed=1, **options), np.tile(np.arange(length, dtype="float32"), (clips, 1))
    rolled = np.concatenate([roll(ramp, training=True) for _ in range(calls)])
    shift = rolled.argmin(axis=1)
    assert_array_equal(rolled, (np.arange(length) - shift[:, None]) % length)
    return shift


def test_shifts_are_uniform_over_the_clip():
    shifts = np.bincount(rolls(), minlength=50)
    assert len(shifts) == 50 and shifts.sum() == 10_000
    assert chisquare(shifts).pvalue > ERROR_RATE


def test_what_is_cut_off_at_the_end_comes_back_at_the_beginning():
    waveform = np.random.default_rng(0).standard_normal((20, 30)).astype("float32")
    rolled = np.asarray(TimeRoll(seed=1)(waveform, training=True))
    for clip, turned in zip(waveform, rolled):
        assert any(np.array_equal(np.roll(clip, shift), turned) for shift in range(30))


def test_a_clip_that_is_not_rolled_stays():
    shift = rolls(probability=0.5)
    expected = np.full(50, 0.5 / 50)
    expected[0] += 0.5
    assert chisquare(np.bincount(shift, minlength=50), 10_000 * expected).pvalue > ERROR_RATE


def test_a_clip_of_one_sample_stays():
    assert_array_equal(TimeRoll()(np.full((3, 1), 7.0, "float32"), training=True), np.full((3, 1), 7.0))
