"""Intervals of means and differences over seeds and recordings.

Two things make a score of few seeds and few recordings uncertain: other seeds train other models, and other
recordings are easier or harder. An interval over seeds alone, or over recordings alone, is too narrow. The variances
of both are added, as in studies of several readers and cases, and the quantile of t is the mean of those for so many
seeds and recordings, weighted by the variances.

References: Obuchowski and Rockette, "Hypothesis Testing of Diagnostic Accuracy for Multiple Readers and Multiple
Tests", 1995; Cochran and Cox, "Experimental Designs", 1950, section 4.14.
"""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from audiotag.evaluation.measures import MEASURES, labeled, recordings_of, weighted_measures
from audiotag.evaluation.thresholds import DEFAULT_LOGIT

MAX_BLOCKS = 200  # more recordings than this are left out in blocks, not one by one


@dataclass(frozen=True, eq=False)
class Measured:
    """The measures of one model, and what each recording does to them.

    Args:
        values: The value of each measure, a Series.
        influences: How much each recording, or block of them, raises each measure: its value less the value without
            them, about their mean. A row per recording or block, a column per measure.
        clips: A name for each clip, the same wherever its audio is the same.
        recordings: A name for each recording.
    """

    values: pd.Series
    influences: pd.DataFrame
    clips: frozenset[str]
    recordings: frozenset[str]


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds with its 95% interval."""

    mean: float
    low: float
    high: float


def measure_recordings(
    clips: pd.DataFrame, logits: np.ndarray, vocabulary: Sequence[str], *, thresholds: Any = None
) -> Measured:
    """The measures of `evaluate`, and how they change without each recording.

    Args:
        clips: A table of clips: name, sha256, labels, and group, the recording that a clip is from, or "".
        logits: [clips, K].
        vocabulary: The K class names.
        thresholds: As for `measures.evaluate`.

    Raises:
        DataError: The clips have no labels, or scores are missing or NaN.
    """
    truth = labeled(clips, logits, vocabulary).astype("float64")
    thresholds = np.broadcast_to(DEFAULT_LOGIT if thresholds is None else thresholds, np.shape(logits))
    measure = weighted_measures(truth, logits, thresholds)
    recordings = recordings_of(clips)
    blocks = recordings
    if recordings.nunique() > MAX_BLOCKS:  # the same blocks in every run
        blocks = recordings.map(lambda name: f"block {zlib.crc32(name.encode()) % MAX_BLOCKS}")
    names, block = np.unique(blocks, return_inverse=True)
    without = measure((block != np.arange(len(names))[:, None]).astype("float64"))  # [blocks, measures]
    influences = pd.DataFrame(without.mean(axis=0) - without, index=names, columns=[*MEASURES])
    values = pd.Series(measure(np.ones((1, len(clips))))[0], index=[*MEASURES])
    return Measured(values, influences, frozenset(clips["name"] + " " + clips["sha256"]), frozenset(recordings))


def mean_of(several: Sequence[Measured]) -> Measured:
    """The mean of models on different test sets, such as rotated folds, as one."""
    influences = pd.concat([measured.influences for measured in several]) / len(several)
    return Measured(
        sum(measured.values for measured in several) / len(several),
        influences.groupby(level=0, sort=True).sum(),
        frozenset().union(*(measured.clips for measured in several)),
        frozenset().union(*(measured.recordings for measured in several)),
    )


def difference(first: Measured, second: Measured) -> Measured:
    """The first less the second, recording by recording."""
    return Measured(
        first.values - second.values,
        first.influences.sub(second.influences, fill_value=0.0),
        first.clips | second.clips,
        first.recordings | second.recordings,
    )


def estimate(seeds: Sequence[Measured], measure: str) -> Estimate:
    """The mean of a measure over seeds, with its 95% interval.

    The interval is about other seeds and other recordings. With one seed it is about other recordings only.

    Args:
        seeds: A `Measured` per seed, or the `difference` of two.
        measure: The name of the measure.
    """
    table = pd.concat([measured.influences[measure] for measured in seeds], axis=1).fillna(0.0)  # 0: not in this seed
    return estimate_of_arrays(np.array([measured.values[measure] for measured in seeds]), table.to_numpy().T)


def estimate_of_arrays(values: np.ndarray, influences: np.ndarray) -> Estimate:
    """`estimate` of one measure, from arrays.

    Args:
        values: [S], the value of each seed.
        influences: [S, G], how much each recording raises it: the value less the value without the recording, about
            their mean.

    Example:
        >>> clips = np.random.default_rng(0).normal(0.5, 0.1, (3, 100))  # 3 seeds, 100 recordings
        >>> values = clips.mean(axis=1)
        >>> found = estimate_of_arrays(values, (clips - values[:, None]) / 99)
        >>> bool(found.low < 0.5 < found.high)
        True
    """
    num_seeds, num_recordings = influences.shape
    mean = float(values.mean())
    if num_recordings < 2:
        return Estimate(mean, float("nan"), float("nan"))
    scale = (num_recordings - 1) / num_recordings  # of the jackknife
    products = scale * influences @ influences.T  # [S, S]: the covariance of two seeds that the recordings cause
    if num_seeds == 1:
        of_recordings, of_seeds = products[0, 0], 0.0
    else:
        common = (products.sum() - np.trace(products)) / (num_seeds * (num_seeds - 1))
        of_recordings, of_seeds = max(0.0, common), values.var(ddof=1) / num_seeds
    variance = of_recordings + of_seeds
    if not variance > 0:  # NaN, too
        return Estimate(mean, mean + 0 * variance, mean + 0 * variance)
    quantiles = stats.t.ppf(0.975, [num_recordings - 1, max(1, num_seeds - 1)])
    half = float(quantiles @ [of_recordings, of_seeds]) / variance**0.5
    return Estimate(mean, float(mean - half), float(mean + half))
