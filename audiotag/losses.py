"""What a network is trained to make small, from its logits."""

from typing import Literal

import keras


def binary_crossentropy(
    *,
    label_smoothing: float = 0.0,
    reduction: Literal["sum_over_batch_size", "sum", "mean", "mean_with_sample_weight", "none"] = "sum_over_batch_size",
):
    """Binary cross-entropy of every class, from logits.

    Sounds overlap, so each class is a question of its own. Where labels are
    unreliable, smoothing keeps the network from being certain of wrong ones.

    With p = sigmoid(logit) and y' = y (1 - s) + s / 2 for a smoothing of s, a
    clip's loss is the mean over the classes of -y' log p - (1 - y') log(1 - p).

    Args:
        label_smoothing: From 0 to below 1; 0.7 teaches 0.65 for true and 0.35 for false.
        reduction: How the losses of a batch's clips become one, in Keras' words. "sum" does not divide
            by their number, so the gradient grows with the batch.

    Returns:
        A `keras.losses.BinaryCrossentropy`.

    Raises:
        ValueError: A smoothing out of its range, or a reduction that Keras does not have.

    Example:
        >>> loss = binary_crossentropy(label_smoothing=0.7, reduction="sum")
        >>> round(float(loss(keras.ops.array([[1.0, 0.0]]), keras.ops.array([[0.0, 0.0]]))), 4)
        0.6931
    """
    if not 0 <= label_smoothing < 1:
        raise ValueError(f"label_smoothing must be from 0 to below 1. Received: label_smoothing={label_smoothing}")
    return keras.losses.BinaryCrossentropy(from_logits=True, label_smoothing=label_smoothing, reduction=reduction)


# The names an experiment file may use.
LOSSES = {"binary_crossentropy": binary_crossentropy}
