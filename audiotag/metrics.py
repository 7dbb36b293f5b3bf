"""How good are the scores? What ranks classes within a clip, or clips within a class, for arrays and inside Keras.

Conventions. Truth is 0 or 1, one column a class; scores are any numbers that grow with belief: logits and
probabilities give the same result, as long as no two of them become equal. Equal scores share the worst of their ranks,
as in scikit-learn, so the order of the columns does not matter. Clips without labels count for nothing where classes
are ranked within a clip. What chance gets is exact: the mean over all orders of distinct scores.
"""

import keras
import numpy as np
from keras import ops


def lwlrap(truth, scores):
    """Label-weighted label-ranking average precision, "lwlrap".

    Of all true labels: how clean is the list of classes ranked at or above each?
    Every label counts the same, however many its clip has. It is the measure of
    the DCASE 2019 challenge on general-purpose tagging with noisy labels.

    For a clip and a true class c, rank(c) is the number of classes that score at
    least as much as c, hits(c) the number of true ones among them:
    lwlrap = sum of hits(c) / rank(c) over all clips and their true classes, over
    the number of true labels; 0 where there are none.

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
    found, truth = precisions(truth, scores), np.asarray(truth, bool)
    return float(found[truth].sum() / max(1, truth.sum()))


def per_class_lwlrap(truth, scores):
    """The share of each class in lwlrap: mean precision over its clips.

    Which classes does the network hear, which not? Class c gets the mean of
    hits(c) / rank(c), as in `lwlrap`, over the clips that carry it, and 0 if there
    are none. Weighted by the classes' shares of all labels they sum to `lwlrap`.

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


def per_clip_lwlrap(truth, scores):
    """How well the classes of each clip are ranked: the mean precision over its labels.

    Which clips does the network get wrong? Clip i gets the mean of
    hits(c) / rank(c), as in `lwlrap`, over its labels, and 0 if it has none.
    Weighted by the clips' shares of all labels they sum to `lwlrap`.

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


def precisions(truth, scores):
    """Of each true label the precision at its rank, hits(c) / rank(c) as in `lwlrap`: the terms it is made of.

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
    found = np.zeros(truth.shape)
    for label in range(truth.shape[1]):
        clips = truth[:, label]
        above = scores[clips] >= scores[clips, label, None]  # [n, K]
        found[clips, label] = (above & truth[clips]).sum(axis=1) / above.sum(axis=1)
    return found


def mean_average_precision_at_k(truth, scores, k=3):
    """Mean average precision of the first k answers, "MAP@k".

    For who shows only k answers: the mean of `precisions_at_k` over the clips that have labels, 0 where there
    are none. The measure of the DCASE 2018 challenge, with k = 3.

    Args:
        truth: [N, K], 1 where a clip carries a class, else 0.
        scores: [N, K], any numbers but NaN.
        k: How many answers count, at least 1.

    Returns:
        A float from 0 to 1.

    Raises:
        ValueError: Shapes differ, truth is not 0 or 1, a score is NaN, or k is below 1.

    Example:
        >>> mean_average_precision_at_k([[0, 1, 0, 0], [0, 0, 0, 1]], [[0.9, 0.8, 0.7, 0.6], [0.9, 0.8, 0.7, 0.6]])
        0.25
    """
    return float(precisions_at_k(truth, scores, k).sum() / max(1, np.any(truth, axis=1).sum()))


def precisions_at_k(truth, scores, k=3):
    """Average precision of each clip's first k answers.

    The sum of hits(c) / rank(c), as in `lwlrap`, over the clip's labels of rank at most k, over
    min(k, its labels). With one label that is 1, 1/2, 1/3 for rank 1, 2, 3, else 0.

    Args:
        truth: [N, K], 1 where a clip carries a class, else 0.
        scores: [N, K], any numbers but NaN.
        k: How many answers count, at least 1.

    Returns:
        [N] float64, from 0 to 1; 0 for a clip without labels.

    Raises:
        ValueError: Shapes differ, truth is not 0 or 1, a score is NaN, or k is below 1.

    Example:
        >>> precisions_at_k([[0, 1, 0, 1]], [[0.9, 0.8, 0.7, 0.6]])
        array([0.25])
    """
    if k < 1:
        raise ValueError(f"k must be at least 1. Received: k={k}")
    truth, scores = validate(truth, scores)
    clips, labels = np.nonzero(truth)
    ranks = np.full(truth.shape, np.inf)
    ranks[clips, labels] = (scores[clips] >= scores[clips, labels, None]).sum(axis=1)
    found = np.where(ranks <= k, precisions(truth, scores), 0).sum(axis=1)  # [N]
    return found / np.clip(truth.sum(axis=1), 1, k)


def average_precisions(truth, scores):
    """Average precision of each class: how clean is the list of clips ranked at or above each of its own?

    The area under the curve of precision over recall, as steps:
    AP(c) is the mean, over the clips that carry c, of hits / rank among all clips. Their mean over the classes is
    "mAP".

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
        own, everyone = np.sort(scores[truth[:, label], label]), np.sort(scores[:, label])  # [n], [N]
        hits = len(own) - np.searchsorted(own, own)
        ranks = len(everyone) - np.searchsorted(everyone, own)
        areas[label] = (hits / ranks).mean()
    return areas


def areas_under_roc(truth, scores):
    """Area under the receiver operating characteristic of each class, "AUC".

    How likely does a clip that carries the class score above one that does not?
    Equal scores count half. Chance gets 1/2, however rare the class.

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
        own = scores[truth[:, label], label]  # [n]
        others = np.sort(scores[~truth[:, label], label])  # [N - n]
        below = (np.searchsorted(others, own, "left") + np.searchsorted(others, own, "right")) / 2  # [n]
        areas[label] = below.mean() / len(others)
    return areas


def chance_precision(relevant, total):
    """What random scores get for hits / rank of a relevant one, when `relevant` of `total` are.

    Its rank is any, and of those above it each other relevant one is likely:
    the mean of (1 + (relevant - 1) (rank - 1) / (total - 1)) / rank over all ranks.

    Args:
        relevant: How many are relevant, 1 to total; a number or an array.
        total: How many are ranked.

    Returns:
        The exact mean over all orders, of the shape of `relevant`.

    Example:
        >>> float(chance_precision(1, 2)), float(chance_precision(2, 2))
        (0.75, 1.0)
    """
    harmonic = (1 / np.arange(1, total + 1)).sum()
    return (harmonic + (np.asarray(relevant) - 1) / max(1, total - 1) * (total - harmonic)) / total


def chance_lwlrap(truth):
    """The lwlrap that random scores get on average.

    Example:
        >>> round(chance_lwlrap([[1, 0], [1, 1]]), 5)
        0.91667
    """
    truth = np.asarray(truth)
    labels = truth.sum(axis=1)
    return float((labels * chance_precision(labels, truth.shape[1])).sum() / max(1, labels.sum()))


def chance_at_k(truth, k=3):
    """The MAP@k that random scores get on average.

    Example:
        >>> round(chance_at_k([[1, 0, 0, 0]]), 5)
        0.45833
    """
    truth = np.asarray(truth)
    labels, total = truth.sum(axis=1, keepdims=True), truth.shape[1]  # [N, 1]
    labels = labels[labels[:, 0] > 0]
    ranks = np.arange(1, min(k, total) + 1)
    hits = labels / total * (1 + (labels - 1) * (ranks - 1) / max(1, total - 1)) / ranks  # [N, k]
    return float((hits.sum(axis=1) / np.minimum(k, labels[:, 0])).sum() / max(1, len(labels)))


def validate(truth, scores):
    """Truth as booleans and scores as an array, once they belong together.

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
    strange = truth[(truth != 0) & (truth != 1)]
    if strange.size:
        raise ValueError(
            f"truth must be 0 or 1. Received: {strange.size} other values, the first {strange[0]}. "
            "Did you pass the scores first, or smoothed labels?"
        )
    missing = np.isnan(scores)
    if missing.any():
        raise ValueError(
            f"scores must not be NaN. Received: {missing.sum()} NaN, the first in row {np.argwhere(missing)[0][0]}. "
            "Did training diverge?"
        )
    return truth.astype(bool), scores


@keras.saving.register_keras_serializable(package="audiotag")
class Lwlrap(keras.metrics.Metric):
    """Keeps `lwlrap` over all batches seen.

    It keeps the sum of precisions and the number of labels of each class, so the
    result is that of the whole set, whatever the batch size, and not a mean over
    batches. Callbacks in mode "auto" know that more is better.

    Weights, one a clip, multiply a clip's precisions and its number of labels; a
    weight of 0 leaves a clip out. The result is 0 while no label was seen.

    Args:
        num_classes: How many columns truth and scores have.
        name: Under which Keras logs it; on held-out clips `val_` stands before.

    Example:
        >>> metric = Lwlrap(4)
        >>> metric.update_state(np.array([[1, 0, 1, 0]]), np.array([[0.9, 0.8, 0.7, 0.6]]))
        >>> metric.update_state(np.array([[0, 0, 0, 1]]), np.array([[0.1, 0.9, 0.5, 0.2]]))
        >>> round(float(metric.result()), 5)
        0.66667
    """

    def __init__(self, num_classes, *, name="lwlrap", **kwargs):
        super().__init__(name=name, **kwargs)
        self.num_classes = num_classes
        self.precisions = self.add_variable((num_classes,), initializer="zeros", name="precisions")
        self.counts = self.add_variable((num_classes,), initializer="zeros", name="counts")
        self._direction = "up"  # where Keras' callbacks look

    def update_state(self, y_true, y_pred, sample_weight=None):
        """Adds a batch.

        Args:
            y_true: [B, K], 1 where a clip carries a class, else 0.
            y_pred: [B, K], logits or probabilities.
            sample_weight: [B] or [B, 1]; None weighs all clips 1.
        """
        truth = ops.cast(y_true, self.dtype)
        precisions = label_precisions(truth, ops.cast(y_pred, self.dtype))
        if sample_weight is not None:
            weight = ops.reshape(ops.cast(sample_weight, self.dtype), (-1, 1))  # [B, 1]
            truth, precisions = weight * truth, weight * precisions
        self.precisions.assign_add(ops.sum(precisions, axis=0))
        self.counts.assign_add(ops.sum(truth, axis=0))

    def result(self):
        """Lwlrap of all clips since the last `reset_state`."""
        return ops.divide_no_nan(ops.sum(self.precisions), ops.sum(self.counts))

    def get_config(self):
        """What was passed."""
        return super().get_config() | {"num_classes": self.num_classes}


def label_precisions(truth, scores):
    """Precision at the rank of each true label, zero elsewhere: [B, K] of two tensors [B, K].

    Example:
        >>> precisions = label_precisions(np.array([[1.0, 0.0, 1.0]]), np.array([[0.9, 0.8, 0.7]]))
        >>> [round(float(precision), 5) for precision in precisions[0]]
        [1.0, 0.0, 0.66667]
    """
    above = ops.expand_dims(scores, 1) >= ops.expand_dims(scores, 2)  # [B, K, K]: the last axis at or above the middle
    above = ops.cast(above, truth.dtype)
    rank = ops.sum(above, axis=-1)  # [B, K]
    hits = ops.sum(above * ops.expand_dims(truth, 1), axis=-1)  # [B, K]
    return truth * hits / rank
