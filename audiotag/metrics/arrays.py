"""Ranking metrics for arrays.

Conventions. N is the number of clips, K of classes. Truth is 0 or 1, one column per class; a higher score means that
the class is more likely. Logits and probabilities give the same result, as long as rounding makes no two of them equal.
Equal scores get the worst of their ranks, as in scikit-learn, so the order of the columns does not matter. Metrics that
rank the classes of a clip ignore clips without labels. Chance levels are exact: the mean over all orders of distinct
scores.
"""

import numpy as np
from numpy.typing import ArrayLike


def lwlrap(truth: ArrayLike, scores: ArrayLike) -> float:
    """Label-weighted label-ranking average precision, "lwlrap".

    The mean over all true labels of the precision at the rank of the label. Every
    label has the same weight, however many its clip has. It is the metric of
    FSDKaggle2019, which is Kaggle's Freesound Audio Tagging 2019 and task 2 of DCASE 2019.

    For a clip and a true class c, rank(c) is the number of classes that score at
    least as much as c, hits(c) the number of true ones among them:
    lwlrap = sum of hits(c) / rank(c) over all clips and their true classes, divided
    by the number of true labels; 0 where there are none.

    Args:
        truth: [N, K], 1 where a clip carries a class, else 0.
        scores: [N, K], any numbers but NaN.

    Returns:
        A float from 0 to 1. It equals scikit-learn's `label_ranking_average_precision_score` with
        `sample_weight` = labels per clip.

    Raises:
        ValueError: Shapes differ, truth is not 0 or 1, or a score is NaN.

    Example:
        >>> truth = np.array([[1, 0, 1, 0], [0, 0, 0, 1]])
        >>> scores = np.array([[0.9, 0.8, 0.7, 0.6], [0.1, 0.9, 0.5, 0.2]])
        >>> round(lwlrap(truth, scores), 5)
        0.66667
    """
    values, truth = precisions(truth, scores), np.asarray(truth, bool)
    return float(values[truth].sum() / max(1, truth.sum()))


def per_class_lwlrap(truth: ArrayLike, scores: ArrayLike) -> np.ndarray:
    """Lwlrap per class: the mean precision over the clips of each class.

    It shows which classes the network recognizes. Class c gets the mean of
    hits(c) / rank(c), as in `lwlrap`, over the clips that carry it, and 0 if there
    are none. Their mean, weighted by the number of labels per class, is `lwlrap`.

    Args:
        truth: [N, K], 1 where a clip carries a class, else 0.
        scores: [N, K], any numbers but NaN.

    Returns:
        [K] float64, from 0 to 1.

    Raises:
        ValueError: Shapes differ, truth is not 0 or 1, or a score is NaN.

    Example:
        >>> truth = np.array([[1, 0, 1, 0], [0, 0, 0, 1]])
        >>> scores = np.array([[0.9, 0.8, 0.7, 0.6], [0.1, 0.9, 0.5, 0.2]])
        >>> [round(float(precision), 5) for precision in per_class_lwlrap(truth, scores)]
        [1.0, 0.0, 0.66667, 0.33333]
    """
    return precisions(truth, scores).sum(axis=0) / np.maximum(1, np.sum(truth, axis=0))


def per_clip_lwlrap(truth: ArrayLike, scores: ArrayLike) -> np.ndarray:
    """Lwlrap per clip: the mean precision over the labels of each clip.

    It shows which clips the network gets wrong. A clip gets the mean of
    hits(c) / rank(c), as in `lwlrap`, over its labels, and 0 if it has none. Their
    mean, weighted by the number of labels per clip, is `lwlrap`.

    Args:
        truth: [N, K], 1 where a clip carries a class, else 0.
        scores: [N, K], any numbers but NaN.

    Returns:
        [N] float64, from 0 to 1.

    Raises:
        ValueError: Shapes differ, truth is not 0 or 1, or a score is NaN.

    Example:
        >>> truth = np.array([[1, 0, 1, 0], [0, 0, 0, 1]])
        >>> scores = np.array([[0.9, 0.8, 0.7, 0.6], [0.1, 0.9, 0.5, 0.2]])
        >>> [round(float(precision), 5) for precision in per_clip_lwlrap(truth, scores)]
        [0.83333, 0.33333]
    """
    return precisions(truth, scores).sum(axis=1) / np.maximum(1, np.sum(truth, axis=1))


def precisions(truth: ArrayLike, scores: ArrayLike) -> np.ndarray:
    """Precision at the rank of each true label: hits(c) / rank(c) of `lwlrap`.

    Args:
        truth: [N, K], 1 where a clip carries a class, else 0.
        scores: [N, K], any numbers but NaN.

    Returns:
        [N, K] float64; 0 where truth is 0.

    Raises:
        ValueError: Shapes differ, truth is not 0 or 1, or a score is NaN.

    Example:
        >>> precisions([[1, 0, 1]], [[0.9, 0.8, 0.7]]).round(5)
        array([[1.     , 0.     , 0.66667]])
    """
    truth, scores = validate(truth, scores)
    values = np.zeros(truth.shape)
    for label in range(truth.shape[1]):
        clips = truth[:, label]
        above = scores[clips] >= scores[clips, label, None]  # [n, K]
        values[clips, label] = (above & truth[clips]).sum(axis=1) / above.sum(axis=1)
    return values


def mean_average_precision_at_k(truth: ArrayLike, scores: ArrayLike, k: int = 3) -> float:
    """Mean average precision of the first k predictions, "MAP@k".

    For systems that show only k classes: the mean of `average_precisions_at_k` over the clips that have labels, 0 where
    there are none. The metric of the DCASE 2018 challenge, with k = 3.

    Args:
        truth: [N, K], 1 where a clip carries a class, else 0.
        scores: [N, K], any numbers but NaN.
        k: Number of classes with the highest scores that count, at least 1.

    Returns:
        A float from 0 to 1.

    Raises:
        ValueError: Shapes differ, truth is not 0 or 1, a score is NaN, or k is below 1.

    Example:
        >>> mean_average_precision_at_k([[0, 1, 0, 0], [0, 0, 0, 1]], [[0.9, 0.8, 0.7, 0.6], [0.9, 0.8, 0.7, 0.6]])
        0.25
    """
    return float(average_precisions_at_k(truth, scores, k).sum() / max(1, np.any(truth, axis=1).sum()))


def average_precisions_at_k(truth: ArrayLike, scores: ArrayLike, k: int = 3) -> np.ndarray:
    """Average precision of each clip's first k predictions.

    The sum of hits(c) / rank(c), as in `lwlrap`, over the clip's labels of rank at most k, divided by
    min(k, number of its labels). With one label and k = 3 that is 1, 1/2, 1/3 for rank 1, 2, 3, else 0.

    Args:
        truth: [N, K], 1 where a clip carries a class, else 0.
        scores: [N, K], any numbers but NaN.
        k: Number of classes with the highest scores that count, at least 1.

    Returns:
        [N] float64, from 0 to 1; 0 for a clip without labels.

    Raises:
        ValueError: Shapes differ, truth is not 0 or 1, a score is NaN, or k is below 1.

    Example:
        >>> average_precisions_at_k([[0, 1, 0, 1]], [[0.9, 0.8, 0.7, 0.6]])
        array([0.25])
    """
    if k < 1:
        raise ValueError(f"k must be at least 1. Received: k={k}")
    truth, scores = validate(truth, scores)
    clips, labels = np.nonzero(truth)
    ranks = np.full(truth.shape, np.inf)
    ranks[clips, labels] = (scores[clips] >= scores[clips, labels, None]).sum(axis=1)
    sums = np.where(ranks <= k, precisions(truth, scores), 0).sum(axis=1)  # [N]
    return sums / np.clip(truth.sum(axis=1), 1, k)


def average_precisions(truth: ArrayLike, scores: ArrayLike) -> np.ndarray:
    """Average precision of each class; the mean over the classes is "mAP".

    The area under the precision-recall curve, as steps: AP(c) is the mean, over the clips that carry c, of
    hits / rank among all clips.

    Args:
        truth: [N, K], 1 where a clip carries a class, else 0.
        scores: [N, K], any numbers but NaN.

    Returns:
        [K] float64, from 0 to 1; NaN for a class that no clip carries. It equals scikit-learn's
        `average_precision_score`.

    Raises:
        ValueError: Shapes differ, truth is not 0 or 1, or a score is NaN.

    Example:
        >>> average_precisions([[1, 0], [0, 0], [1, 0]], [[0.9, 0.1], [0.8, 0.1], [0.7, 0.1]])
        array([0.83333333,        nan])
    """
    truth, scores = validate(truth, scores)
    areas = np.full(truth.shape[1], np.nan)
    for label in np.flatnonzero(truth.any(axis=0)):
        positives, clips = np.sort(scores[truth[:, label], label]), np.sort(scores[:, label])  # [n], [N]
        hits = len(positives) - np.searchsorted(positives, positives)
        ranks = len(clips) - np.searchsorted(clips, positives)
        areas[label] = (hits / ranks).mean()
    return areas


def areas_under_roc(truth: ArrayLike, scores: ArrayLike) -> np.ndarray:
    """Area under the receiver operating characteristic of each class, "AUC".

    The probability that a clip that carries the class scores above one that does not;
    equal scores count half. Random scores get 1/2, however rare the class is.

    Args:
        truth: [N, K], 1 where a clip carries a class, else 0.
        scores: [N, K], any numbers but NaN.

    Returns:
        [K] float64, from 0 to 1; NaN for a class that no clip or every clip carries. It equals
        scikit-learn's `roc_auc_score`.

    Raises:
        ValueError: Shapes differ, truth is not 0 or 1, or a score is NaN.

    Example:
        >>> areas_under_roc([[1, 0], [0, 0], [1, 0]], [[0.9, 0.1], [0.8, 0.1], [0.7, 0.1]])
        array([0.5, nan])
    """
    truth, scores = validate(truth, scores)
    areas = np.full(truth.shape[1], np.nan)
    for label in np.flatnonzero(truth.any(axis=0) & ~truth.all(axis=0)):
        positives = scores[truth[:, label], label]  # [n]
        negatives = np.sort(scores[~truth[:, label], label])  # [N - n]
        left, right = (np.searchsorted(negatives, positives, side) for side in ("left", "right"))
        areas[label] = ((left + right) / 2).mean() / len(negatives)
    return areas


def chance_precision(relevant: ArrayLike, total: int) -> np.ndarray | np.float64:
    """Mean precision at the rank of a relevant item under random scores.

    All ranks are equally likely, and so are the positions of the other relevant items:
    the mean of (1 + (relevant - 1) (rank - 1) / (total - 1)) / rank over all ranks.

    Args:
        relevant: Number of relevant items, 1 to total; a number or an array.
        total: Number of ranked items.

    Returns:
        The exact mean over all orders, float64, of the shape of `relevant`.

    Example:
        >>> float(chance_precision(1, 2)), float(chance_precision(2, 2))
        (0.75, 1.0)
    """
    harmonic = (1 / np.arange(1, total + 1)).sum()
    return (harmonic + (np.asarray(relevant) - 1) / max(1, total - 1) * (total - harmonic)) / total


def chance_lwlrap(truth: ArrayLike) -> float:
    """The mean lwlrap of random scores.

    Args:
        truth: [N, K], 1 where a clip carries a class, else 0.

    Example:
        >>> round(chance_lwlrap([[1, 0], [1, 1]]), 5)
        0.91667
    """
    truth = np.asarray(truth)
    labels = truth.sum(axis=1)
    return float((labels * chance_precision(labels, truth.shape[1])).sum() / max(1, labels.sum()))


def chance_map_at_k(truth: ArrayLike, k: int = 3) -> float:
    """The mean MAP@k of random scores.

    Args:
        truth: [N, K], 1 where a clip carries a class, else 0.
        k: Number of classes with the highest scores that count, at least 1.

    Example:
        >>> round(chance_map_at_k([[1, 0, 0, 0]]), 5)
        0.45833
    """
    truth = np.asarray(truth)
    labels, total = truth.sum(axis=1, keepdims=True), truth.shape[1]  # [N, 1]
    labels = labels[labels[:, 0] > 0]
    ranks = np.arange(1, min(k, total) + 1)
    hits = labels / total * (1 + (labels - 1) * (ranks - 1) / max(1, total - 1)) / ranks  # [N, k]
    return float((hits.sum(axis=1) / np.minimum(k, labels[:, 0])).sum() / max(1, len(labels)))


def validate(truth: ArrayLike, scores: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Checks truth and scores, and returns them as arrays.

    Args:
        truth: [N, K], 1 where a clip carries a class, else 0.
        scores: [N, K], any numbers but NaN.

    Returns:
        (truth as bool [N, K], scores [N, K]).

    Raises:
        ValueError: Shapes differ, truth is not 0 or 1, or a score is NaN.

    Example:
        >>> truth, scores = validate([[0, 1]], [[0.2, 0.9]])
        >>> truth.tolist()
        [[False, True]]
    """
    truth, scores = np.asarray(truth), np.asarray(scores)
    if truth.ndim != 2 or truth.shape != scores.shape:
        raise ValueError(
            f"truth and scores must both be [clips, classes]. Received: shapes {truth.shape} and {scores.shape}"
        )
    invalid = truth[(truth != 0) & (truth != 1)]
    if invalid.size:
        raise ValueError(
            f"truth must be 0 or 1. Received: {invalid.size} other values, the first {invalid[0]}. "
            "Did you pass the scores first, or smoothed labels?"
        )
    missing = np.isnan(scores)
    if missing.any():
        raise ValueError(
            f"scores must not be NaN. Received: {missing.sum()} NaN, the first in row {np.argwhere(missing)[0][0]}. "
            "Did training diverge?"
        )
    return truth.astype(bool), scores
