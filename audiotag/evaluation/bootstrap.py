"""Bootstrap confidence intervals."""

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

RESAMPLES = 300


def bootstrap(
    measure: Callable[[np.ndarray], Any], num_clips: int, *, resamples: int = RESAMPLES, seed: int = 0
) -> tuple[Any, Any]:
    """The 95% interval of a measure of 0 to 1: (low, high).

    It comes from the measure's values on clips drawn with replacement. The quantiles are shifted so
    that their median is the value on the clips themselves: clips that are drawn twice inflate some
    measures, such as mAP.

    Args:
        measure: A function of the indices of clips to a number of 0 to 1, or to an array of them; NaN values
            are ignored.
        num_clips: Number of clips.
        resamples: Number of draws.
        seed: Of the draws.

    Reference: Efron, "Bootstrap Methods: Another Look at the Jackknife", 1979.

    Example:
        >>> heads = np.array([0, 1] * 50)
        >>> low, high = bootstrap(lambda rows: heads[rows].mean(), 100)
        >>> bool(0.38 < low < 0.43 and 0.57 < high < 0.62)
        True
    """
    rng = np.random.default_rng(seed)
    values = np.array([measure(rng.integers(0, num_clips, num_clips)) for _ in range(resamples)])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # all NaN gives NaN
        low, median, high = np.nanpercentile(values, [2.5, 50, 97.5], axis=0)
    shift = measure(np.arange(num_clips)) - median
    return np.clip(low + shift, 0, 1), np.clip(high + shift, 0, 1)
