"""Bootstrap confidence intervals."""

import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

RESAMPLES = 300
BLOCK = 50  # draws at a time: the weights of 20,000 clips are 8 MB


def bootstrap(
    measure: Callable[[np.ndarray], Any],
    num_clips: int,
    *,
    groups: ArrayLike | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> tuple[Any, Any]:
    """The 95% interval of a measure of 0 to 1: (low, high).

    It comes from the measure's values on clips drawn with replacement. A draw is a weight per clip, how often
    it was drawn, so that a measure can sort the clips once and compute many draws by matrix products. The quantiles
    are shifted so that their median is the value on the clips themselves: clips that are drawn twice inflate some
    measures, such as mAP.

    Args:
        measure: A function of weights, float64 [draws, num_clips], to the value of each draw, [draws] or
            [draws, ...]; NaN values are ignored.
        num_clips: Number of clips.
        groups: [num_clips], the recording of each clip; recordings are drawn, each with all of its clips. None draws
            clips.
        resamples: Number of draws.
        seed: Of the draws.

    Reference: Efron, "Bootstrap Methods: Another Look at the Jackknife", 1979.

    Example:
        >>> heads = np.array([0, 1] * 50)
        >>> low, high = bootstrap(lambda weights: weights @ heads / weights.sum(axis=1), 100)
        >>> bool(0.38 < low < 0.43 and 0.57 < high < 0.62)
        True
    """
    values = np.concatenate(
        [measure(weights) for weights in draws(num_clips, groups=groups, resamples=resamples, seed=seed)]
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # all NaN gives NaN
        low, median, high = np.nanpercentile(values, [2.5, 50, 97.5], axis=0)
    shift = measure(np.ones((1, num_clips)))[0] - median
    return np.clip(low + shift, 0, 1), np.clip(high + shift, 0, 1)


def draws(
    num_clips: int, *, groups: ArrayLike | None = None, resamples: int = RESAMPLES, seed: int = 0
) -> Iterator[np.ndarray]:
    """Yields the weights of all draws of `bootstrap` in blocks.

    Arguments as for `bootstrap`.

    Yields:
        float64 [at most `BLOCK`, num_clips].
    """
    rng = np.random.default_rng(seed)
    numbers = np.arange(num_clips) if groups is None else np.unique(np.asarray(groups), return_inverse=True)[1]
    num_groups = int(numbers.max(initial=-1)) + 1
    for start in range(0, resamples, BLOCK):
        rows = [rng.integers(0, num_groups, num_groups) for _ in range(min(BLOCK, resamples - start))]
        counts = np.stack([np.bincount(row, minlength=num_groups) for row in rows]).astype("float64")
        yield counts if groups is None else counts[:, numbers]
