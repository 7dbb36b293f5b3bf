"""Losses of logits.

Conventions. Truth is [B, K]: 1 where a clip carries a class, 0 where not, and between for mixed or uncertain labels;
sums over the classes are linear in it, so mixed labels give the mixed loss. Logits are [B, K]; with p = sigmoid(logit),
-log p is softplus(-logit) and -log(1 - p) is softplus(logit), which stay finite. Each clip has one loss, which its
sample weight multiplies. The reduction of a batch has Keras' names: "sum_over_batch_size" and "mean" divide the sum by
the number of clips; "sum" does not, so the gradient grows with the batch; "mean_with_sample_weight" divides by the sum
of the weights; "none" returns the losses of the clips.
"""

from typing import Any, Literal

import keras
from keras import ops

Reduction = Literal["sum_over_batch_size", "sum", "mean", "mean_with_sample_weight", "none"]


def binary_crossentropy(
    *, label_smoothing: float = 0.0, reduction: Reduction = "sum_over_batch_size"
) -> keras.losses.BinaryCrossentropy:
    """Binary cross-entropy, the mean over the classes.

    Sounds overlap, so each class is predicted independently. Where labels are
    unreliable, smoothing keeps the network from being certain of wrong ones.

    With y' = y (1 - s) + s / 2 for a smoothing of s, a clip's loss is the mean
    over the classes of -y' log p - (1 - y') log(1 - p).

    Args:
        label_smoothing: From 0 to below 1; with 0.7 the targets are 0.65 for true and 0.35 for false.
        reduction: How the losses of a batch's clips become one, with Keras' names. "sum" does not divide
            by their number, so the gradient grows with the batch.

    Returns:
        A `keras.losses.BinaryCrossentropy`.

    Raises:
        ValueError: label_smoothing is out of its range, or a reduction that Keras does not have.

    Example:
        >>> loss = binary_crossentropy(label_smoothing=0.7, reduction="sum")
        >>> round(float(loss(ops.array([[1.0, 0.0]]), ops.array([[0.0, 0.0]]))), 4)
        0.6931
    """
    _check_smoothing(label_smoothing)
    return keras.losses.BinaryCrossentropy(from_logits=True, label_smoothing=label_smoothing, reduction=reduction)


@keras.saving.register_keras_serializable(package="audiotag")
class Focal(keras.losses.Loss):
    """Binary cross-entropy that focuses on wrong predictions.

    Of 80 classes a clip carries one or two; without weights the many easy negatives
    dominate the loss. Each class's cross-entropy is weighted by how wrong the
    prediction is.

    With y' = y (1 - s) + s / 2 for a smoothing of s, a clip's loss is the sum over
    the classes of -y' (1 - p)^gamma log p - (1 - y') p^gamma log(1 - p). For labels
    of 0 and 1 that is exp(gamma log sigmoid(-z (2y - 1))) times the cross-entropy of
    the logit z, as published; between 0 and 1 the published form is not linear in y,
    which did not matter there, since it mixed losses, not labels.

    Reference: Lin et al., "Focal loss for dense object detection", 2017,
    https://arxiv.org/abs/1708.02002; M. Pinto's system for FSDKaggle2019, 2019 (gamma 2, no alpha).

    Args:
        gamma: How fast the weight of right predictions falls, at least 0; 0 gives the sum of the cross-entropies.
        alpha: Weight of positives, from 0 to 1; that of negatives is 1 - alpha. None gives both the weight 1.
        label_smoothing: From 0 to below 1.
        reduction: As in `binary_crossentropy`.

    Raises:
        ValueError: An option is out of its range, or a reduction that Keras does not have.

    Example:
        >>> loss = Focal()(ops.array([[1.0, 0.0]]), ops.array([[0.0, 0.0]]))  # 2 log(2) / 4
        >>> round(float(loss), 4)
        0.3466
    """

    def __init__(
        self,
        *,
        gamma: float = 2.0,
        alpha: float | None = None,
        label_smoothing: float = 0.0,
        reduction: Reduction = "sum_over_batch_size",
        **kwargs,
    ):
        super().__init__(reduction=reduction, **kwargs)
        if gamma < 0:
            raise ValueError(f"gamma must be at least 0. Received: gamma={gamma}")
        if alpha is not None and not 0 <= alpha <= 1:
            raise ValueError(f"alpha must be from 0 to 1, or None. Received: alpha={alpha}")
        _check_smoothing(label_smoothing)
        self.gamma = gamma
        self.alpha = alpha
        self.label_smoothing = label_smoothing

    def call(self, y_true, y_pred):
        truth = y_true * (1 - self.label_smoothing) + self.label_smoothing / 2
        positive, negative = ops.softplus(-y_pred), ops.softplus(y_pred)  # -log p, -log(1 - p)
        positive_loss = truth * ops.exp(-self.gamma * negative) * positive  # [B, K]
        negative_loss = (1 - truth) * ops.exp(-self.gamma * positive) * negative
        if self.alpha is not None:
            positive_loss, negative_loss = self.alpha * positive_loss, (1 - self.alpha) * negative_loss
        return ops.sum(positive_loss + negative_loss, axis=-1)  # [B]

    def get_config(self) -> dict[str, Any]:
        """The options as they were passed."""
        return super().get_config() | {
            "gamma": self.gamma,
            "alpha": self.alpha,
            "label_smoothing": self.label_smoothing,
        }


@keras.saving.register_keras_serializable(package="audiotag")
class F2Curriculum(keras.losses.Loss):
    """A loss over the clips of a batch that are not yet predicted right.

    A clip that is already predicted right teaches the network little more, and
    training on it leads to overconfidence. Such clips are dropped: those where the
    classes with p above the threshold are exactly the clip's classes, which is where
    F2, the F-measure with beta 2, is 1. (It is 0 for a clip without labels and
    predictions.) "sum_over_batch_size" and "mean" divide by the number of clips kept;
    a batch of which no clip is kept gives 0.

    A clip carries a class if its label is above the same threshold. That makes no
    difference for hard labels; for soft ones a network whose probabilities equal the
    labels is right.

    `published` follows the system's code where it differs from its description. F2 is
    compared with the unthresholded labels, so a mixture of clips with different labels
    is never dropped. With "binary_crossentropy" every clip has the same loss: 100
    times the mean over the complete batch, so dropping clips changes nothing, unless
    all are dropped. Two things differ from that code. Of a pair of mixed clips, that
    code weights two losses, each a mean over the batch; here MixUp mixes the labels, so
    each clip's own loss is weighted, which has the same expectation. And where all
    clips are dropped, that code gives NaN and this class 0. With "focal" only the
    latter differs.

    Reference: M. Pinto's system for FSDKaggle2019, 2019 ("BCE++").

    Args:
        base: The loss of a clip, with its own defaults.
        label_smoothing: From 0 to below 1; it does not change which clips are dropped.
        threshold: Probability above which a class is predicted; above 0, below 1.
        published: Follow the system's code instead of its description.
        reduction: As in `binary_crossentropy`, but over the clips kept.

    Raises:
        ValueError: An option is out of its range, or a reduction that Keras does not have.

    Example:
        >>> truth = ops.array([[1.0, 0.0], [1.0, 0.0]])
        >>> logits = ops.array([[9.0, -9.0], [0.0, 0.0]])  # the first clip is right
        >>> round(float(F2Curriculum()(truth, logits)), 4)
        0.6931
    """

    def __init__(
        self,
        *,
        base: Literal["binary_crossentropy", "focal"] = "binary_crossentropy",
        label_smoothing: float = 0.0,
        threshold: float = 0.2,
        published: bool = False,
        reduction: Reduction = "sum_over_batch_size",
        **kwargs,
    ):
        super().__init__(reduction=reduction, **kwargs)
        if base not in ("binary_crossentropy", "focal"):
            raise ValueError(f'base must be "binary_crossentropy" or "focal". Received: base={base!r}')
        if not 0 < threshold < 1:
            raise ValueError(f"threshold must be between 0 and 1. Received: threshold={threshold}")
        self.base = base
        self.label_smoothing = label_smoothing
        self.threshold = threshold
        self.published = published
        self.loss = LOSSES[base](label_smoothing=label_smoothing)

    def __call__(self, y_true, y_pred, sample_weight=None):
        truth, logits = (ops.convert_to_tensor(x, dtype=self.dtype) for x in (y_true, y_pred))
        weight = ops.cast(self.kept(truth, logits), self.dtype)  # [B]
        if self.reduction in ("sum_over_batch_size", "mean"):
            weight = ops.divide_no_nan(weight, ops.mean(weight))
        if sample_weight is not None:
            weight = weight * ops.reshape(ops.convert_to_tensor(sample_weight, dtype=self.dtype), (-1,))
        return super().__call__(truth, logits, weight)

    def call(self, y_true, y_pred):
        losses = self.loss.call(y_true, y_pred)  # [B]
        if self.published and self.base == "binary_crossentropy":
            return 100 * ops.mean(losses) * ops.ones_like(losses)
        return losses

    def kept(self, truth: Any, logits: Any) -> Any:
        """The clips that are not yet predicted right.

        Args:
            truth: [B, K], labels from 0 to 1.
            logits: [B, K].

        Returns:
            bool [B].
        """
        predicted = ops.sigmoid(logits) > self.threshold  # [B, K]
        labels = truth if self.published else ops.cast(truth > self.threshold, truth.dtype)
        right = ops.all(ops.cast(predicted, truth.dtype) == labels, axis=-1) & ops.any(predicted, axis=-1)
        return ops.logical_not(right)

    def get_config(self) -> dict[str, Any]:
        """The options as they were passed."""
        return super().get_config() | {
            "base": self.base,
            "label_smoothing": self.label_smoothing,
            "threshold": self.threshold,
            "published": self.published,
        }


@keras.saving.register_keras_serializable(package="audiotag")
class CategoricalCrossentropy(keras.losses.Loss):
    """Categorical cross-entropy: the probabilities of the classes sum to 1.

    For clips that carry one class each: the network need not learn that two classes
    exclude each other.

    With q = softmax of a clip's logits, its labels y scaled to sum 1, and
    y' = y (1 - s) + s / K for a smoothing of s, its loss is the sum over the classes
    of -y' log q. The target of a clip of several classes is equal probabilities for
    them; a clip without labels gives 0. No probability is clipped.

    Reference: M. Dorfer and G. Widmer's system for DCASE 2018, 2018.

    Args:
        label_smoothing: From 0 to below 1.
        reduction: As in `binary_crossentropy`.

    Raises:
        ValueError: label_smoothing is out of its range, or a reduction that Keras does not have.

    Example:
        >>> loss = CategoricalCrossentropy()(ops.array([[1.0, 0.0, 1.0, 0.0]]), ops.zeros((1, 4)))  # log(4)
        >>> round(float(loss), 4)
        1.3863
    """

    def __init__(self, *, label_smoothing: float = 0.0, reduction: Reduction = "sum_over_batch_size", **kwargs):
        super().__init__(reduction=reduction, **kwargs)
        _check_smoothing(label_smoothing)
        self.label_smoothing = label_smoothing

    def call(self, y_true, y_pred):
        total = ops.sum(y_true, axis=-1, keepdims=True)  # [B, 1]
        truth = ops.divide_no_nan(y_true, total)  # [B, K]
        smooth = self.label_smoothing * ops.cast(total > 0, truth.dtype) / truth.shape[-1]
        truth = truth * (1 - self.label_smoothing) + smooth
        return -ops.sum(truth * ops.log_softmax(y_pred, axis=-1), axis=-1)  # [B]

    def get_config(self) -> dict[str, Any]:
        """The options as they were passed."""
        return super().get_config() | {"label_smoothing": self.label_smoothing}


@keras.saving.register_keras_serializable(package="audiotag")
class SoftBootstrapping(keras.losses.Loss):
    """Binary cross-entropy with labels mixed with the network's own probabilities.

    Where labels are unreliable, a network that contradicts one may be right. A clip's
    loss is the mean over the classes of the cross-entropy of p and
    beta y + (1 - beta) p.

    As in the system below, the gradient treats the p inside the target as a constant.
    It is then beta (p - y) / K, exactly beta times that of `binary_crossentropy`: used
    alone it changes only the size of the step, which Adam cancels; it matters together
    with clips that have another loss. With `through_targets` the gradient flows through
    both, as in the paper, which also rewards certainty and so changes what is learned.

    Reference: Reed et al., "Training deep neural networks on noisy labels with bootstrapping", 2014,
    https://arxiv.org/abs/1412.6596; L. Romul, 1st place of FSDKaggle2019, 2019 ("L_soft" on noisy clips, beta 0.7).

    Args:
        beta: Weight of the labels, from 0 to 1; 1 is `binary_crossentropy`.
        through_targets: Let the gradient also flow through the probabilities inside the target.
        reduction: As in `binary_crossentropy`.

    Raises:
        ValueError: beta is out of its range, or a reduction that Keras does not have.

    Example:
        >>> loss = SoftBootstrapping()(ops.array([[0.0]]), ops.array([[1.0986]]))  # p is 0.75, the target 0.225
        >>> round(float(loss), 4)
        1.1391
    """

    def __init__(
        self,
        *,
        beta: float = 0.7,
        through_targets: bool = False,
        reduction: Reduction = "sum_over_batch_size",
        **kwargs,
    ):
        super().__init__(reduction=reduction, **kwargs)
        if not 0 <= beta <= 1:
            raise ValueError(f"beta must be from 0 to 1. Received: beta={beta}")
        self.beta = beta
        self.through_targets = through_targets

    def call(self, y_true, y_pred):
        probability = ops.sigmoid(y_pred)  # [B, K]
        if not self.through_targets:
            probability = ops.stop_gradient(probability)
        target = self.beta * y_true + (1 - self.beta) * probability
        return ops.mean(target * ops.softplus(-y_pred) + (1 - target) * ops.softplus(y_pred), axis=-1)  # [B]

    def get_config(self) -> dict[str, Any]:
        """The options as they were passed."""
        return super().get_config() | {"beta": self.beta, "through_targets": self.through_targets}


# The names of losses in experiment files.
LOSSES = {
    "binary_crossentropy": binary_crossentropy,
    "focal": Focal,
    "f2_curriculum": F2Curriculum,
    "categorical_crossentropy": CategoricalCrossentropy,
    "soft_bootstrapping": SoftBootstrapping,
}


def _check_smoothing(label_smoothing):
    if not 0 <= label_smoothing < 1:
        raise ValueError(f"label_smoothing must be from 0 to below 1. Received: label_smoothing={label_smoothing}")
