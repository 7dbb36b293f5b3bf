"""Mixing of pairs of clips and of their labels.

These are the only layers that combine clips of a batch.
"""

from typing import Any, Literal

import keras
import numpy as np
from keras import ops

from audiotag.layers import checks
from audiotag.layers.augmentation.random_augmentation import RandomAugmentation


class _Mix(RandomAugmentation):
    """Pairs each clip with a partner of its batch and draws a weight; a subclass combines the two clips."""

    def __init__(
        self,
        *,
        alpha: float = 1.0,
        pairing: Literal["permutation", "reverse"] = "permutation",
        label_mixing: Literal["weighted", "union"] = "weighted",
        probability: float = 1.0,
        stop_epoch: int | None = None,
        seed: int | None = None,
        **kwargs,
    ):
        super().__init__(probability=probability, seed=seed, **kwargs)
        checks.above_zero(alpha=alpha)
        checks.one_of(("permutation", "reverse"), pairing=pairing)
        checks.one_of(("weighted", "union"), label_mixing=label_mixing)
        if stop_epoch is not None and stop_epoch < 0:
            raise ValueError(f"stop_epoch must be at least 0, or None. Received: stop_epoch={stop_epoch}")
        self.alpha = alpha
        self.pairing = pairing
        self.label_mixing = label_mixing
        self.stop_epoch = stop_epoch
        self.quantiles = beta_quantiles(alpha)  # XLA has no Beta distribution
        if stop_epoch is not None:  # a callback sets it, so a resumed run stops mixing at the same epoch
            self.epoch = self.add_weight(shape=(), dtype="int32", initializer="zeros", trainable=False, name="epoch")

    def get_config(self) -> dict[str, Any]:
        """The options as they were passed."""
        return super().get_config() | {
            "alpha": self.alpha,
            "pairing": self.pairing,
            "label_mixing": self.label_mixing,
            "stop_epoch": self.stop_epoch,
        }

    def get_random_transformation(self, inputs: Any) -> Any:
        """Each clip's partner, its own weight and whether it is mixed: [B] each."""
        batch = ops.shape(inputs)[0]
        index = ops.arange(batch, dtype="int32")
        order = self.random_uniform((batch,), 0, 1)
        partner = ops.argsort(order) if self.pairing == "permutation" else batch - 1 - index
        weight = interpolated(self.quantiles, self.random_uniform((batch,), 0, 1))
        is_mixed = self.random_uniform((batch,), 0, 1) < self.probability
        if self.stop_epoch is not None:
            is_mixed = ops.logical_and(is_mixed, self.epoch < self.stop_epoch)
        return ops.cast(partner, "int32"), weight, is_mixed

    def transform_labels(self, labels: Any, transformation: Any) -> Any:
        partner, weight, is_mixed = transformation
        partner_labels = ops.take(labels, partner, axis=0)  # [B, K]
        if self.label_mixing == "union":
            mixed = ops.maximum(labels, partner_labels)
        else:
            weight = ops.cast(weight, labels.dtype)[:, None]  # [B, 1]
            mixed = weight * labels + (1 - weight) * partner_labels
        return ops.where(is_mixed[:, None], mixed, labels)


@keras.saving.register_keras_serializable(package="audiotag")
class MixUp(_Mix):
    """Adds pairs of clips of a batch, and their labels, while training.

    Real recordings contain several sounds at once, and a network trained on mixtures
    is less certain of wrong labels. With a weight w drawn for each clip,
    x' = w x + (1 - w) x_partner, and the same for the labels with the same w. At
    inference the layer is the identity.

    For a loss that is linear in its labels, as binary cross-entropy and the focal
    loss here are, the loss of mixed labels is the mixture of the losses, which is how
    M. Pinto, 2019, wrote it. His text draws w from U(0, 1), which is alpha = 1; his
    code from U(0, 0.5), which gives the same pairs with the partners exchanged.

    Reference: Zhang et al., "mixup", 2017, https://arxiv.org/abs/1710.09412.

    Args:
        alpha: w is drawn from Beta(alpha, alpha): 1 is uniform; with 0.3 one sound mostly dominates
            (Dorfer and Widmer, 2018).
        pairing: "permutation": a random order of the batch, in which a clip may meet itself; or "reverse":
            the batch in reverse order.
        label_mixing: "weighted" as above; or "union": the classes of both clips (third place of FSDKaggle2019).
        probability: Probability that a clip is mixed.
        stop_epoch: First epoch of a stage, counted from 0, that mixes no more. None mixes to the end.
        seed: Seed of the random numbers; None is different in every run.

    Raises:
        ValueError: An option is out of its range.

    Input: (clips, labels): waveforms [B, N], spectrograms [B, T, M] or images [B, M, T, C], and [B, K].
    Output: the same shapes and types.

    Example:
        >>> clips, labels = MixUp(seed=1)((ops.eye(4), ops.eye(4)), training=True)
        >>> bool(ops.all(clips == labels))
        True
        >>> [round(float(total), 5) for total in ops.sum(labels, axis=1)]
        [1.0, 1.0, 1.0, 1.0]
    """

    def transform_inputs(self, inputs: Any, transformation: Any) -> Any:
        partner, weight, is_mixed = transformation
        fraction = ops.cast(_expanded(weight, inputs), inputs.dtype)
        mixed = fraction * inputs + (1 - fraction) * ops.take(inputs, partner, axis=0)
        return ops.where(_expanded(is_mixed, inputs), mixed, inputs)


@keras.saving.register_keras_serializable(package="audiotag")
class ConcatMix(_Mix):
    """Concatenates pairs of clips of a batch, and joins their labels, while training.

    Sounds also follow each other. Of T frames the first round(w T) are the clip's own
    and the rest its partner's, each at its own time; the labels are weighted by the
    fractions of time, or joined. At inference the layer is the identity.

    Reference: after the concatenating mixer of L. Romul's first place in FSDKaggle2019.

    Args:
        alpha: The fraction w is drawn from Beta(alpha, alpha): 1 is uniform.
        pairing: "permutation": a random order of the batch, in which a clip may meet itself; or "reverse":
            the batch in reverse order.
        label_mixing: "weighted" by the fractions of time; or "union": the classes of both clips.
        probability: Probability that a clip is mixed.
        stop_epoch: First epoch of a stage, counted from 0, that mixes no more. None mixes to the end.
        seed: Seed of the random numbers; None is different in every run.

    Raises:
        ValueError: An option is out of its range.

    Input: (clips, labels): waveforms [B, N], spectrograms [B, T, M] or images [B, M, T, C], and [B, K].
    Output: the same shapes and types.

    Example:
        >>> waveforms = ops.repeat(ops.reshape(ops.arange(4.0), (4, 1)), 10, axis=1)
        >>> clips, labels = ConcatMix(seed=1)((waveforms, ops.eye(4)), training=True)
        >>> bool(ops.all(clips[:, 1:] - clips[:, :-1] == 0))
        False
        >>> [round(float(total), 5) for total in ops.sum(labels, axis=1)]
        [1.0, 1.0, 1.0, 1.0]
    """

    def get_random_transformation(self, inputs: Any) -> Any:
        """Partner, fraction of whole frames or samples, and whether mixed: [B] each."""
        partner, weight, is_mixed = super().get_random_transformation(inputs)
        length = ops.cast(ops.shape(inputs)[_time_axis(inputs)], "float32")
        return partner, ops.round(weight * length) / length, is_mixed

    def transform_inputs(self, inputs: Any, transformation: Any) -> Any:
        partner, weight, is_mixed = transformation
        axis = _time_axis(inputs)
        size = ops.shape(inputs)[axis]
        own = ops.cast(ops.round(weight * ops.cast(size, "float32")), "int32")  # [B], in frames or samples
        position = ops.arange(size, dtype="int32")
        position = ops.reshape(position, [size if i == axis else 1 for i in range(len(inputs.shape))])
        is_own = position < _expanded(own, inputs)
        is_own = ops.logical_or(is_own, ops.logical_not(_expanded(is_mixed, inputs)))
        return ops.where(is_own, inputs, ops.take(inputs, partner, axis=0))


def beta_quantiles(alpha: float, *, steps: int = 1024) -> np.ndarray:
    """Quantiles of Beta(alpha, alpha), from 0 to 1 in 2 `steps` equal steps.

    The density is integrated by the trapezoidal rule up to the median, over
    v = w ** min(alpha, 1), where it is finite for alpha below 1 too. Above the median
    the quantiles follow by symmetry.

    Args:
        alpha: Above 0.
        steps: Steps from 0 to the median.

    Returns:
        float32 [2 steps + 1].

    Example:
        >>> beta_quantiles(1.0, steps=2).tolist()
        [0.0, 0.25, 0.5, 0.75, 1.0]
    """
    power = min(alpha, 1)
    v = np.linspace(0, 0.5**power, 16 * steps + 1)  # w = v ** (1 / power)
    density = v ** (alpha / power - 1) * (1 - v ** (1 / power)) ** (alpha - 1)
    mass = np.concatenate([[0], np.cumsum(density[1:] + density[:-1])])
    low = np.interp(np.linspace(0, mass[-1], steps + 1), mass, v) ** (1 / power)
    return np.concatenate([low, 1 - low[-2::-1]]).astype("float32")


def interpolated(table: Any, fraction: Any) -> Any:
    """Values of an evenly spaced table, linearly interpolated.

    Args:
        table: [L], at least two values.
        fraction: float32 [B], from 0, the first value, to below 1, the last.

    Returns:
        [B], of the table's type.

    Example:
        >>> table, fraction = ops.convert_to_tensor([0.0, 10.0, 30.0]), ops.convert_to_tensor([0.25, 0.75])
        >>> [float(value) for value in interpolated(table, fraction)]
        [5.0, 20.0]
    """
    position = fraction * (len(table) - 1)
    low = ops.cast(ops.floor(position), "int32")
    here, above = ops.take(table, low), ops.take(table, low + 1)
    return here + (position - ops.floor(position)) * (above - here)


def _time_axis(clips):
    return 2 if len(clips.shape) == 4 else 1


def _expanded(draws, clips):
    """[B] → [B, 1, ...], of the rank of the clips."""
    return ops.reshape(draws, (-1, *[1] * (len(clips.shape) - 1)))
