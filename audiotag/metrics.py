"""How good are the scores? Label-weighted label-ranking average precision, for arrays and inside Keras.

Conventions. Truth is 0 or 1, one column a class; scores are any numbers that grow with belief: logits and
probabilities give the same result, as long as no two of them become equal. Equal scores share the worst of their ranks,
as in scikit-learn, so the order of the columns does not matter. Clips without labels count for nothing.
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
    precisions, counts = _sums(truth, scores)
    return float(precisions.sum() / max(1, counts.sum()))


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
    precisions, counts = _sums(truth, scores)
    return precisions / np.maximum(1, counts)


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


def _sums(truth, scores):
    """For each class the sum of its precisions and the number of its clips: [K] float64, [K] int."""
    truth, scores = validate(truth, scores)
    precisions = np.zeros(truth.shape[1])
    for label in range(truth.shape[1]):
        clips = truth[:, label]
        above = scores[clips] >= scores[clips, label, None]  # [n, K]
        precisions[label] = ((above & truth[clips]).sum(axis=1) / above.sum(axis=1)).sum()
    return precisions, truth.sum(axis=0)


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
