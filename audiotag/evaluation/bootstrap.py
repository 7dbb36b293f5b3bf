"""Bootstrap confidence intervals."""

import warnings

import numpy as np

RESAMPLES = 300  # for the intervals: the clips are drawn anew so often


def bootstrap(measure, num_clips, *, resamples=RESAMPLES, seed=0):
    """The interval of 95 % of a share, from what it is for clips drawn with replacement: (low, high).

    The quantiles are moved until their median is the value itself: clips that are
    drawn twice flatter some measures, such as mAP, and that shall not count.

    Args:
        measure: A function: which rows → a number of 0 to 1, or an array of them; NaN, of which they tell nothing,
            does not count.
        num_clips: How many rows there are.
        resamples: How often they are drawn.
        seed: Another seed, other draws.

    Reference: Efron, "Bootstrap Methods: Another Look at the Jackknife", 1979.

    Example:
        >>> heads = np.array([0, 1] * 50)
        >>> low, high = bootstrap(lambda rows: heads[rows].mean(), 100)
        >>> bool(0.38 < low < 0.43 and 0.57 < high < 0.62)
        True
    """
    dice = np.random.default_rng(seed)
    answers = np.array([measure(dice.integers(0, num_clips, num_clips)) for _ in range(resamples)])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of NaN alone comes NaN
        low, middle, high = np.nanpercentile(answers, [2.5, 50, 97.5], axis=0)
    shift = measure(np.arange(num_clips)) - middle
    return np.clip(low + shift, 0, 1), np.clip(high + shift, 0, 1)
