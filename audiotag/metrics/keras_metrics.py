"""Metrics as Keras metrics: `METRICS` of an experiment.

Conventions. Truth is [B, K], 1 where a clip carries a class, else 0; predictions are logits [B, K]. Where a metric has
a threshold, a class is predicted if sigmoid(logit) is above it. Equal scores get the worst of their ranks, as in
scikit-learn. Results are those of all clips since the last `reset_state`, not means over batches. Callbacks with mode
"auto" maximize them.
"""

import math
from typing import Any, Literal

import keras
from keras import ops

Average = Literal["macro", "micro"]
LARGEST = 3e38  # about the largest float32


@keras.saving.register_keras_serializable(package="audiotag")
class Lwlrap(keras.metrics.Metric):
    """`lwlrap` over all batches, as a Keras metric.

    It accumulates the sum of precisions and the number of labels per class, so the
    result is that of the complete set, whatever the batch size, and not a mean over
    batches. Callbacks with mode "auto" maximize it.

    Sample weights multiply a clip's precisions and its number of labels; a weight of 0
    leaves a clip out. The result is 0 without labels.

    Args:
        num_classes: Number of columns of truth and scores.
        name: The name in Keras' logs; for validation clips Keras prefixes `val_`.

    Example:
        >>> import numpy as np
        >>> metric = Lwlrap(4)
        >>> metric.update_state(np.array([[1, 0, 1, 0]]), np.array([[0.9, 0.8, 0.7, 0.6]]))
        >>> metric.update_state(np.array([[0, 0, 0, 1]]), np.array([[0.1, 0.9, 0.5, 0.2]]))
        >>> round(float(metric.result()), 5)
        0.66667
    """

    def __init__(self, num_classes: int, *, name: str = "lwlrap", **kwargs):
        super().__init__(name=name, **kwargs)
        self.num_classes = num_classes
        self.precisions = self.add_variable((num_classes,), initializer="zeros", name="precisions")
        self.counts = self.add_variable((num_classes,), initializer="zeros", name="counts")
        self._direction = "up"  # read by Keras' callbacks

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        """Adds a batch.

        Args:
            y_true: [B, K], 1 where a clip carries a class, else 0.
            y_pred: [B, K], logits or probabilities.
            sample_weight: [B] or [B, 1]; None weights all clips 1.
        """
        truth = ops.cast(y_true, self.dtype)
        precisions = label_precisions(truth, ops.cast(y_pred, self.dtype))
        if sample_weight is not None:
            weight = ops.reshape(ops.cast(sample_weight, self.dtype), (-1, 1))  # [B, 1]
            truth, precisions = weight * truth, weight * precisions
        self.precisions.assign_add(ops.sum(precisions, axis=0))
        self.counts.assign_add(ops.sum(truth, axis=0))

    def result(self) -> Any:
        """Lwlrap of all clips since the last `reset_state`."""
        return ops.divide_no_nan(ops.sum(self.precisions), ops.sum(self.counts))

    def get_config(self) -> dict[str, Any]:
        """The options as they were passed."""
        return super().get_config() | {"num_classes": self.num_classes}


@keras.saving.register_keras_serializable(package="audiotag")
class LabelRankingAveragePrecision(keras.metrics.Mean):
    """Label-ranking average precision, "LRAP": every clip has the same weight.

    In `Lwlrap` every label has the same weight instead. A clip gets the mean of
    hits(c) / rank(c), as in `lwlrap`, over its labels; a clip without labels gets 1,
    as in scikit-learn's `label_ranking_average_precision_score`.

    Args:
        average: "clips" weights every clip equally; "batches" is the mean over batches of each batch's mean, which
            depends on how clips are divided into batches.
        name: The name in Keras' logs.

    Raises:
        ValueError: average is unknown.

    Example:
        >>> metric = LabelRankingAveragePrecision()
        >>> metric.update_state(ops.array([[1.0, 0.0, 1.0, 0.0]]), ops.array([[0.9, 0.8, 0.7, 0.6]]))
        >>> round(float(metric.result()), 5)
        0.83333
    """

    def __init__(self, *, average: Literal["clips", "batches"] = "clips", name: str = "lrap", **kwargs):
        super().__init__(name=name, **kwargs)
        if average not in ("clips", "batches"):
            raise ValueError(f"average must be 'clips' or 'batches'. Received: average={average!r}")
        self.average = average
        self._direction = "up"

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        """Adds a batch: truth and scores [B, K], and weights of the clips."""
        truth = ops.cast(y_true, self.dtype)
        sums = ops.sum(label_precisions(truth, ops.cast(y_pred, self.dtype)), axis=-1)  # [B]
        counts = ops.sum(truth, axis=-1)
        values = ops.where(counts > 0, sums / ops.maximum(counts, 1), 1)
        if self.average == "batches":
            weights = ops.ones_like(values) if sample_weight is None else ops.cast(sample_weight, self.dtype)
            values, sample_weight = ops.divide_no_nan(ops.sum(values * weights), ops.sum(weights)), None
        super().update_state(values, sample_weight)

    def get_config(self) -> dict[str, Any]:
        """The options as they were passed."""
        return super().get_config() | {"average": self.average}


@keras.saving.register_keras_serializable(package="audiotag")
class MeanAveragePrecisionAtK(keras.metrics.Mean):
    """`mean_average_precision_at_k` over all batches, as a Keras metric.

    Args:
        k: Number of classes with the highest scores that count, at least 1.
        name: The name in Keras' logs.

    Raises:
        ValueError: k is below 1.

    Example:
        >>> metric = MeanAveragePrecisionAtK(k=3)
        >>> metric.update_state(ops.array([[0.0, 1.0, 0.0, 0.0]]), ops.array([[0.9, 0.8, 0.7, 0.6]]))
        >>> float(metric.result())
        0.5
    """

    def __init__(self, *, k: int = 3, name: str = "map_at_k", **kwargs):
        super().__init__(name=name, **kwargs)
        if k < 1:
            raise ValueError(f"k must be at least 1. Received: k={k}")
        self.k = k
        self._direction = "up"

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        """Adds a batch: truth and scores [B, K], and weights of the clips."""
        truth = ops.cast(y_true, self.dtype)
        hits, ranks = _hits_and_ranks(truth, ops.cast(y_pred, self.dtype))  # [B, K] both
        sums = ops.sum(ops.where(ranks <= self.k, truth * hits / ranks, 0), axis=-1)  # [B]
        values = sums / ops.clip(ops.sum(truth, axis=-1), 1, self.k)
        super().update_state(values, _weight_of_labeled(truth, sample_weight))

    def get_config(self) -> dict[str, Any]:
        """The options as they were passed."""
        return super().get_config() | {"k": self.k}


@keras.saving.register_keras_serializable(package="audiotag")
class CategoricalAccuracy(keras.metrics.Mean):
    """The fraction of clips whose highest score is that of a label.

    For clips with one label each that is the usual accuracy. Clips without labels do not count; of equal scores the
    first is the highest.

    Args:
        name: The name in Keras' logs.

    Example:
        >>> metric = CategoricalAccuracy()
        >>> metric.update_state(ops.array([[1.0, 0.0], [1.0, 0.0]]), ops.array([[0.9, 0.8], [0.2, 0.7]]))
        >>> float(metric.result())
        0.5
    """

    def __init__(self, *, name: str = "categorical_accuracy", **kwargs):
        super().__init__(name=name, **kwargs)
        self._direction = "up"

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        """Adds a batch: truth and scores [B, K], and weights of the clips."""
        truth = ops.cast(y_true, self.dtype)
        highest = ops.one_hot(ops.argmax(y_pred, axis=-1), truth.shape[-1], dtype=self.dtype)  # [B, K]
        super().update_state(ops.sum(truth * highest, axis=-1), _weight_of_labeled(truth, sample_weight))


@keras.saving.register_keras_serializable(package="audiotag")
class BinaryAccuracy(keras.metrics.Mean):
    """The fraction of right decisions, over all clips and classes.

    Where clips carry few of many classes, predicting none is nearly always right: prefer `FBeta`.

    Args:
        threshold: Probability above which a class is predicted; above 0, below 1.
        name: The name in Keras' logs.

    Raises:
        ValueError: threshold is out of its range.

    Example:
        >>> metric = BinaryAccuracy()
        >>> metric.update_state(ops.array([[1.0, 0.0, 0.0, 0.0]]), ops.array([[2.0, 1.0, -1.0, -2.0]]))
        >>> float(metric.result())
        0.75
    """

    def __init__(self, *, threshold: float = 0.5, name: str = "binary_accuracy", **kwargs):
        super().__init__(name=name, **kwargs)
        self.threshold = threshold
        self.lowest_logit = _logit(threshold)
        self._direction = "up"

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        """Adds a batch: truth and logits [B, K], and weights of the clips."""
        right = (ops.cast(y_pred, self.dtype) > self.lowest_logit) == (ops.cast(y_true, self.dtype) > 0)  # [B, K]
        super().update_state(ops.mean(ops.cast(right, self.dtype), axis=-1), sample_weight)

    def get_config(self) -> dict[str, Any]:
        """The options as they were passed."""
        return super().get_config() | {"threshold": self.threshold}


@keras.saving.register_keras_serializable(package="audiotag")
class FBeta(keras.metrics.Metric):
    """F-measure of the decisions at a threshold: precision and recall in one.

    With TP true positives, P predictions and L labels,
    F = (1 + beta^2) TP / (beta^2 L + P). "macro" is the mean of F over the classes
    that occur or are predicted, as scikit-learn's `fbeta_score` with
    zero_division=nan; "micro" takes the sums over the classes first. 0 if there is
    neither a label nor a prediction.

    Args:
        num_classes: Number of columns of truth and logits.
        beta: Weight of recall relative to precision, above 0.
        threshold: Probability above which a class is predicted; above 0, below 1.
        average: "macro" or "micro".
        name: The name in Keras' logs.

    Raises:
        ValueError: An option is out of its range.

    Example:
        >>> metric = FBeta(2)
        >>> metric.update_state(ops.array([[1.0, 0.0], [1.0, 0.0]]), ops.array([[1.0, -1.0], [-1.0, -1.0]]))
        >>> round(float(metric.result()), 5)
        0.66667
    """

    def __init__(
        self,
        num_classes: int,
        *,
        beta: float = 1.0,
        threshold: float = 0.5,
        average: Average = "macro",
        name: str = "f_beta",
        **kwargs,
    ):
        super().__init__(name=name, **kwargs)
        if not beta > 0:
            raise ValueError(f"beta must be above 0. Received: beta={beta}")
        if average not in ("macro", "micro"):
            raise ValueError(f'average must be "macro" or "micro". Received: average={average!r}')
        self.num_classes = num_classes
        self.beta = beta
        self.threshold = threshold
        self.average = average
        self.lowest_logit = _logit(threshold)
        self.hits, self.predictions, self.labels = (
            self.add_variable((num_classes,), initializer="zeros", name=name)
            for name in ("hits", "predictions", "labels")
        )
        self._direction = "up"

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        """Adds a batch: truth and logits [B, K], and weights of the clips."""
        truth = ops.cast(y_true, self.dtype)
        predicted = ops.cast(ops.cast(y_pred, self.dtype) > self.lowest_logit, self.dtype)  # [B, K]
        weight = 1.0 if sample_weight is None else ops.reshape(ops.cast(sample_weight, self.dtype), (-1, 1))  # [B, 1]
        self.hits.assign_add(ops.sum(weight * truth * predicted, axis=0))
        self.predictions.assign_add(ops.sum(weight * predicted, axis=0))
        self.labels.assign_add(ops.sum(weight * truth, axis=0))

    def result(self) -> Any:
        """The F-measure of all clips since the last `reset_state`."""
        hits = (1 + self.beta**2) * self.hits
        both = self.beta**2 * self.labels + self.predictions  # [K]
        if self.average == "micro":
            return ops.divide_no_nan(ops.sum(hits), ops.sum(both))
        return _mean_where(both > 0, ops.divide_no_nan(hits, both))

    def get_config(self) -> dict[str, Any]:
        """The options as they were passed."""
        options = {"beta": self.beta, "threshold": self.threshold, "average": self.average}
        return super().get_config() | {"num_classes": self.num_classes} | options


class _OfAllClips(keras.metrics.Metric):
    """Stores truth and scores of `num_clips` clips, since the result is not a sum over the clips.

    The result sorts them all, so `Tagger` computes such metrics for validation only, once per epoch.
    """

    def __init__(self, num_classes, num_clips, *, name, **kwargs):
        super().__init__(name=name, **kwargs)
        self.num_classes = num_classes
        self.num_clips = num_clips
        self.truth = self.add_variable((num_clips, num_classes), initializer="zeros", name="truth")
        self.scores = self.add_variable((num_clips, num_classes), initializer="zeros", name="scores")
        self.count = self.add_variable((), initializer="zeros", dtype="int32", name="count")
        self._direction = "up"

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        """Adds a batch: truth [B, K] and scores [B, K]. At most num_clips clips are stored, and none has a weight."""
        if sample_weight is not None:
            raise ValueError(
                f"{self.name} has no sample weights. Give it to compile as a metric, not weighted_metrics."
            )
        truth, scores = ops.cast(y_true, self.dtype), ops.cast(y_pred, self.dtype)
        batch = ops.shape(truth)[0]
        rows = ops.expand_dims(self.count + ops.arange(batch, dtype="int32"), 1)  # [B, 1]
        self.truth.assign(ops.scatter_update(self.truth, rows, truth))
        self.scores.assign(ops.scatter_update(self.scores, rows, ops.clip(scores, -LARGEST, LARGEST)))
        self.count.assign_add(batch)

    def result(self) -> Any:
        """The mean over the classes for which the metric is defined; 0 if there is none, NaN if a score is NaN."""
        seen = ops.arange(self.num_clips, dtype="int32") < self.count  # [N]
        columns = ops.transpose(self.truth), ops.transpose(self.scores)  # [K, N] both
        values, defined = ops.map(lambda column: self._of_class(column[0] > 0, column[1], seen), columns)  # [K] both
        mean = _mean_where(defined, values)
        return ops.where(ops.any(ops.isnan(self.scores)), math.nan, mean)

    def get_config(self) -> dict[str, Any]:
        """The options as they were passed."""
        return super().get_config() | {"num_classes": self.num_classes, "num_clips": self.num_clips}


@keras.saving.register_keras_serializable(package="audiotag")
class MeanAveragePrecision(_OfAllClips):
    """Mean average precision, "mAP": the mean of `average_precisions`.

    The mean over the classes that occur of the area under the precision-recall curve,
    as steps: scikit-learn's `average_precision_score`. It is exact, not binned: the metric
    stores truth and scores, and takes no sample weights.

    Args:
        num_classes: Number of columns of truth and scores.
        num_clips: The largest number of clips between two `reset_state`.
        name: The name in Keras' logs.

    Example:
        >>> metric = MeanAveragePrecision(2, 3)
        >>> truth, scores = [[1, 0], [0, 0], [1, 0]], [[0.9, 0.1], [0.8, 0.1], [0.7, 0.1]]
        >>> metric.update_state(ops.array(truth), ops.array(scores))
        >>> round(float(metric.result()), 5)
        0.83333
    """

    def __init__(self, num_classes: int, num_clips: int, *, name: str = "mean_average_precision", **kwargs):
        super().__init__(num_classes, num_clips, name=name, **kwargs)

    def _of_class(self, truth, scores, seen):
        """The average precision of a class, and whether it occurs: truth and scores [N], those seen [N]."""
        hits, ranks = _counts_from(truth, scores, scores), _counts_from(seen, scores, scores)
        return _mean_where(truth, hits / ops.maximum(ranks, 1)), ops.any(truth)


@keras.saving.register_keras_serializable(package="audiotag")
class AreaUnderRoc(_OfAllClips):
    """Area under the receiver operating characteristic, "AUC".

    The mean of `areas_under_roc` over the classes that some clips carry and others do not; scikit-learn's
    `roc_auc_score` of each. It is exact, not binned as `keras.metrics.AUC`: the metric stores
    truth and scores, and takes no sample weights.

    Args:
        num_classes: Number of columns of truth and scores.
        num_clips: The largest number of clips between two `reset_state`.
        name: The name in Keras' logs.

    Example:
        >>> metric = AreaUnderRoc(2, 3)
        >>> truth, scores = [[1, 0], [0, 0], [1, 0]], [[0.9, 0.1], [0.8, 0.1], [0.7, 0.1]]
        >>> metric.update_state(ops.array(truth), ops.array(scores))
        >>> float(metric.result())
        0.5
    """

    def __init__(self, num_classes: int, num_clips: int, *, name: str = "auc", **kwargs):
        super().__init__(num_classes, num_clips, name=name, **kwargs)

    def _of_class(self, truth, scores, seen):
        """The area of a class, and whether it has positives and negatives: truth and scores [N], those seen [N]."""
        negative = ops.logical_and(seen, ops.logical_not(truth))
        count = ops.sum(ops.cast(negative, scores.dtype))
        above = (_counts_from(negative, scores, scores) + _counts_from(negative, scores, scores, side="right")) / 2
        below = (count - above) / ops.maximum(count, 1)  # [N], fractions of the negatives, ties half
        return _mean_where(truth, below), ops.logical_and(ops.any(truth), count > 0)


def _counts_from(chosen, scores, values, *, side="left"):
    """How many chosen scores are at least each value, or with side="right" above it: [N], of the scores' type."""
    ascending = ops.sort(ops.where(chosen, scores, -math.inf))  # scores are finite
    return ops.cast(len(scores) - ops.searchsorted(ascending, values, side=side), scores.dtype)


def _mean_where(chosen, values):
    """The mean of the chosen values, 0 if none is chosen."""
    chosen = ops.cast(chosen, values.dtype)
    return ops.divide_no_nan(ops.sum(chosen * values), ops.sum(chosen))


def _weight_of_labeled(truth, sample_weight):
    """The weights of clips [B], 0 for those without labels."""
    labeled = ops.cast(ops.any(truth > 0, axis=-1), truth.dtype)  # [B]
    return labeled if sample_weight is None else labeled * ops.reshape(ops.cast(sample_weight, truth.dtype), (-1,))


def _logit(threshold):
    if not 0 < threshold < 1:
        raise ValueError(f"threshold must be between 0 and 1. Received: threshold={threshold}")
    return math.log(threshold / (1 - threshold))


def label_precisions(truth: Any, scores: Any) -> Any:
    """`precisions` in Keras operations, without checks.

    Args:
        truth: [B, K], 1 where a clip carries a class, else 0, of a float type.
        scores: [B, K].

    Returns:
        [B, K], of the type of truth; 0 where truth is 0.

    Example:
        >>> import numpy as np
        >>> precisions = label_precisions(np.array([[1.0, 0.0, 1.0]]), np.array([[0.9, 0.8, 0.7]]))
        >>> [round(float(precision), 5) for precision in precisions[0]]
        [1.0, 0.0, 0.66667]
    """
    hits, ranks = _hits_and_ranks(truth, scores)
    return truth * hits / ranks


def _hits_and_ranks(truth, scores):
    """For each class of a clip how many true classes, and how many classes, score at least as much: [B, K] both."""
    above = ops.expand_dims(scores, 1) >= ops.expand_dims(scores, 2)  # [B, i, j]: j ranks at or above i
    above = ops.cast(above, truth.dtype)
    ranks = ops.sum(above, axis=-1)  # [B, K]
    hits = ops.sum(above * ops.expand_dims(truth, 1), axis=-1)  # [B, K]
    return hits, ranks
