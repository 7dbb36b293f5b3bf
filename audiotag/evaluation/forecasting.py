"""Learning curves: how a measure grows with the number of training clips.

A measure follows a power law that saturates, a - b n^-c, fitted to scores of models trained on subsets. It is fitted
again to scores on recordings drawn with replacement, of subsets drawn with replacement, so that the intervals hold
what a few validation clips and a few trainings leave open.

References: Cortes et al., "Learning Curves: Asymptotic Values and Rate of Convergence", 1993; Hestness et al., "Deep
Learning Scaling is Predictable, Empirically", 2017.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

EXPONENTS = (0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8, 1.0, 1.25, 1.5, 2.0)
HIGHEST = 1.0  # of all measures


@dataclass(frozen=True, eq=False)
class PowerLaws:
    """The curves a - b n^-c, one for each of several sets of scores.

    Args:
        a: What the scores come near to, at most 1.
        b: What they lack at `unit` clips, from 0.
        c: How fast they come near, one of `EXPONENTS`.
        unit: The number of clips that counts as n = 1.
    """

    a: np.ndarray
    b: np.ndarray
    c: np.ndarray
    unit: float

    def __call__(self, num_clips: float) -> np.ndarray:
        """The values at a number of clips."""
        return self.a - self.b * (num_clips / self.unit) ** -self.c


def fit_power_laws(num_clips: ArrayLike, scores: np.ndarray, exponents: np.ndarray | None = None) -> PowerLaws:
    """Fits power laws by least squares, weighted by the numbers of clips.

    For each of the exponents a and b have a closed form; the exponent with the smallest error is taken. More clips
    have more weight, as the scores of few differ more, and as the law holds better for many.

    Args:
        num_clips: [S], at least 2 different ones.
        scores: [..., S], from 0 to 1; NaN gives NaN.
        exponents: [...] or what broadcasts to it, the exponents if they are known; None chooses them.

    Example:
        >>> num_clips = np.array([50, 100, 200])
        >>> law = fit_power_laws(num_clips, 0.9 - 3 * num_clips**-0.5)
        >>> law.c.item(), round(law(400).item(), 3)
        (0.5, 0.75)
    """
    sizes, scores = np.asarray(num_clips, "float64"), np.asarray(scores, "float64")
    unit = sizes.max()
    n, weights = sizes / unit, sizes / sizes.sum()  # [S]
    best = None
    for candidate in EXPONENTS if exponents is None else (exponents,):
        c = np.broadcast_to(candidate, scores.shape[:-1])
        a, b, error = _fit_line(n ** -c[..., None], scores, weights)
        if best is None:
            best = [error, a, b, c]
        else:
            better = error < best[0]
            best = [np.where(better, new, old) for new, old in zip((error, a, b, c), best)]
    assert best is not None
    _, a, b, c = best
    return PowerLaws(a, b, c, float(unit))


def _fit_line(x, scores, weights):
    """The a <= 1 and b >= 0 with the smallest error of a - b x, and this error: each [...]."""
    mean_x, mean = x @ weights, scores @ weights
    away = x - mean_x[..., None]
    b = np.maximum(-((scores - mean[..., None]) * away) @ weights / (away**2 @ weights), 0)
    a = mean + b * mean_x
    through_highest = ((HIGHEST - scores) * x) @ weights / (x**2 @ weights)
    b, a = np.where(a > HIGHEST, through_highest, b), np.minimum(a, HIGHEST)
    return a, b, (scores - a[..., None] + b[..., None] * x) ** 2 @ weights


@dataclass(frozen=True, eq=False)
class Forecast:
    """The values of a measure over numbers of clips.

    The first replicate is the estimate; intervals are quantiles of the others.

    Args:
        num_clips: [S], of the subsets, the largest first.
        scores: [R, S], the mean over the subsets of a size.
        laws: The curves [R] that are fitted to them.
        training_sd: The standard deviation of one training on the largest subset.
    """

    num_clips: np.ndarray
    scores: np.ndarray
    laws: PowerLaws
    training_sd: float

    def measured(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The scores of the subsets with 95% intervals: (value, low, high), each [S]."""
        return interval(self.scores)

    def at(self, num_clips: float, seed: int = 0) -> tuple[float, float, float]:
        """The score of one training on so many clips: (value, low, high)."""
        values = self.laws(num_clips)
        noise = np.random.default_rng(seed).normal(0, self._sd(num_clips), len(values))
        noise[0] = 0
        value, low, high = interval(values + noise)
        return float(value), float(low), float(high)

    def gain(self, num_clips: float) -> tuple[float, float, float]:
        """What so many clips bring on average: (value, low, high).

        It is the difference to the largest subset.
        """
        value, low, high = interval(gains(self.laws, num_clips), lowest=-1.0)
        return float(value), float(low), float(high)

    def _sd(self, num_clips):
        return self.training_sd * np.sqrt(self.num_clips[0] / num_clips)


def gains(laws: PowerLaws, num_clips: float) -> np.ndarray:
    """What so many clips bring compared with the number that is 1 for the laws."""
    return laws(num_clips) - laws(laws.unit)


def forecast(num_clips: ArrayLike, scores: Sequence[np.ndarray], seed: int = 0) -> Forecast:
    """Fits the learning curve of a measure.

    Args:
        num_clips: [S], of the subsets, the largest first, at least 3.
        scores: Of each size, [R, D]: the scores of D subsets on R drawings of the validation recordings, of which the
            first has each once. Subset d is nested: that of the next size is a part of it.
        seed: Of the random numbers.
    """
    rng = np.random.default_rng(seed)
    sizes = np.asarray(num_clips, "float64")
    training_sd = one_training_sd(sizes, scores)
    means = mean_over_draws(scores, training_sd, rng)
    return Forecast(sizes, means, fit_power_laws(sizes, means), float(training_sd))


def one_training_sd(num_clips: np.ndarray, scores: Sequence[np.ndarray]) -> np.ndarray:
    """The standard deviation of one training on the largest subset.

    It is that of the other sizes, of which there are several subsets, as the variance is inverse to the number of
    clips: [...] for scores [R, D, ...].
    """
    variances = [
        of_size[0].var(axis=0, ddof=1) * n / num_clips[0]
        for n, of_size in zip(num_clips, scores)
        if of_size.shape[1] > 1
    ]
    return np.sqrt(np.mean(variances, axis=0))


def mean_over_draws(scores: Sequence[np.ndarray], training_sd: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The mean of subsets drawn with replacement, of each size.

    The draws differ as much as those of many subsets would. Of a size with one subset the noise of a training is added.

    Args:
        scores: Of each size, [R, D, ...].
        training_sd: What `one_training_sd` returns.
        rng: Draws them.

    Returns:
        [R, ..., S]; the first replicate is the mean of all.
    """
    num_replicates, num_draws = scores[0].shape[0], max(of_size.shape[1] for of_size in scores)
    chosen = rng.integers(0, num_draws, (num_replicates, num_draws))
    chosen[0] = np.arange(num_draws)
    rows = np.arange(num_replicates)[:, None]
    means = []
    for of_size in scores:
        mean = of_size.mean(axis=1)
        if of_size.shape[1] == 1:
            noise = rng.normal(0, 1, mean.shape) * training_sd
            noise[0] = 0
            means.append(mean + noise)
        else:
            wider = np.sqrt(num_draws / (num_draws - 1))  # the mean of few draws varies too little
            means.append(mean + wider * (of_size[rows, chosen].mean(axis=1) - mean))
    return np.stack(means, axis=-1)


def interval(replicates: np.ndarray, *, lowest: float = 0.0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The first of several replicates and their 95% interval: (value, low, high).

    Args:
        replicates: [R, ...]; NaN values are ignored.
        lowest: The least that a value can be.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # all NaN gives NaN
        low, high = np.nanpercentile(replicates, [2.5, 97.5], axis=0)
    value = np.clip(replicates[0], lowest, 1)
    return value, np.clip(np.minimum(low, value), lowest, 1), np.clip(np.maximum(high, value), lowest, 1)
