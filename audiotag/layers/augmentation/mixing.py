"""Mixing two clips, and their labels with them: the only layers that look across the batch."""

from typing import Literal

import keras
import numpy as np
from keras import ops

from audiotag.layers import checks
from audiotag.layers.augmentation.random_augmentation import _Disturbance


class _Mix(_Disturbance):
    """Gives each clip a partner from its batch and a weight; `_mixed` says how the two sounds become one."""

    def __init__(
        self,
        *,
        alpha: float = 1.0,
        partner: Literal["permutation", "reversal"] = "permutation",
        labels: Literal["weighted", "union"] = "weighted",
        probability: float = 1.0,
        end_epoch: int | None = None,
        seed: int | None = None,
        **kwargs,
    ):
        super().__init__(probability, seed, **kwargs)
        checks.above_zero(alpha=alpha)
        checks.one_of(("permutation", "reversal"), partner=partner)
        checks.one_of(("weighted", "union"), labels=labels)
        if end_epoch is not None and end_epoch < 0:
            raise ValueError(f"end_epoch must be at least 0, or None. Received: end_epoch={end_epoch}")
        self.alpha = alpha
        self.partner = partner
        self.labels = labels
        self.end_epoch = end_epoch
        self.quantiles = beta_quantiles(alpha)  # XLA has no Beta distribution
        if end_epoch is not None:  # `fit` tells the epoch, so that a resumed run stops mixing when the whole one does
            self.epoch = self.add_weight(shape=(), dtype="int32", initializer="zeros", trainable=False, name="epoch")

    def call(self, inputs, training=False):
        sound, labels = inputs
        if not training:
            return sound, labels
        partner, weight, mixes = self._throw(ops.shape(sound)[0])
        mixed, weight = self._mixed(sound, ops.take(sound, partner, axis=0), weight)
        others = ops.take(labels, partner, axis=0)  # [B, K]
        if self.labels == "union":
            both = ops.maximum(labels, others)
        else:
            weight = ops.cast(weight, labels.dtype)[:, None]  # [B, 1]
            both = weight * labels + (1 - weight) * others
        return ops.where(_beside(mixes, sound), mixed, sound), ops.where(mixes[:, None], both, labels)

    def compute_output_shape(self, input_shape):
        """The shapes of sound and labels."""
        return tuple(map(tuple, input_shape))

    def compute_output_spec(self, inputs, training=False):
        """The shapes and the types of sound and labels."""
        return tuple(keras.KerasTensor(tensor.shape, dtype=tensor.dtype) for tensor in inputs)

    def get_config(self):
        """What was passed."""
        return super().get_config() | {
            "alpha": self.alpha,
            "partner": self.partner,
            "labels": self.labels,
            "end_epoch": self.end_epoch,
        }

    def _throw(self, batch):
        """Each clip's partner int32 [B], its own weight float32 [B], and whether it mixes at all, bool [B]."""
        places = ops.arange(batch, dtype="int32")
        dice = self._uniform((batch,), 0, 1)
        partner = ops.argsort(dice) if self.partner == "permutation" else batch - 1 - places
        weight = interpolated(self.quantiles, self._uniform((batch,), 0, 1))
        mixes = self._uniform((batch,), 0, 1) < self.probability
        if self.end_epoch is not None:
            mixes = ops.logical_and(mixes, self.epoch < self.end_epoch)
        return ops.cast(partner, "int32"), weight, mixes


@keras.saving.register_keras_serializable(package="audiotag")
class MixUp(_Mix):
    """Adds two clips of a batch, and their labels, while training.

    Two sounds at once are what a street sounds like, and a network that has heard
    all its clips in every company is less sure of wrong labels. With a weight w
    drawn for each clip, x' = w x + (1 - w) x_partner and the same for the labels,
    by the same w, so sound and labels always agree. Outside training nothing is mixed.

    For a loss that is linear in its labels, as binary cross-entropy and the focal
    loss here are, mixed labels cost what mixed losses do: M. Pinto, 2019, wrote it
    that way. His prose draws w from U(0, 1), which is alpha = 1; his code from
    U(0, 0.5), which gives the same pairs with the names of the partners exchanged.

    Reference: Zhang et al., "mixup", 2017, https://arxiv.org/abs/1710.09412.

    Args:
        alpha: w is drawn from Beta(alpha, alpha): 1 is uniform, 0.3 mostly leaves one sound in front
            (Dorfer and Widmer, 2018).
        partner: "permutation" of the batch, by chance a clip itself; or "reversal" of the batch.
        labels: "weighted" as above; or the "union": what is heard in either is heard (third place of
            FSDKaggle2019).
        probability: Share of the clips that are mixed.
        end_epoch: From this epoch of a stage on, counted from 0, nothing is mixed any more; None mixes to the end.
        seed: Makes the draws repeatable. None draws differently every run.

    Raises:
        ValueError: An option is out of its range.

    Input: (sound, labels): a waveform [B, N], spectrogram [B, T, M] or picture [B, M, T, C], and [B, K].
    Output: the same shapes and types.

    Example:
        >>> sound, labels = MixUp(seed=1)((ops.eye(4), ops.eye(4)), training=True)
        >>> bool(ops.all(sound == labels))
        True
        >>> [round(float(total), 5) for total in ops.sum(labels, axis=1)]
        [1.0, 1.0, 1.0, 1.0]
    """

    def _mixed(self, sound, others, weight):
        share = ops.cast(_beside(weight, sound), sound.dtype)
        return share * sound + (1 - share) * others, weight


@keras.saving.register_keras_serializable(package="audiotag")
class ConcatMix(_Mix):
    """Lets a clip be followed by another of its batch, and joins their labels, while training.

    Sounds also come one after another. Of T frames the first round(w T) are the
    clip's own and the rest its partner's; the labels go by the shares that are
    heard, or by their union. Outside training nothing is joined.

    Reference: after the concatenating mixer of L. Romul's first place in FSDKaggle2019.

    Args:
        alpha: The share w is drawn from Beta(alpha, alpha): 1 is uniform.
        partner: "permutation" of the batch, by chance a clip itself; or "reversal" of the batch.
        labels: "weighted" by the shares of time; or the "union".
        probability: Share of the clips that are joined.
        end_epoch: From this epoch of a stage on, counted from 0, nothing is joined any more; None goes on to the end.
        seed: Makes the draws repeatable. None draws differently every run.

    Raises:
        ValueError: An option is out of its range.

    Input: (sound, labels): a waveform [B, N], spectrogram [B, T, M] or picture [B, M, T, C], and [B, K].
    Output: the same shapes and types.

    Example:
        >>> waveforms = ops.repeat(ops.reshape(ops.arange(4.0), (4, 1)), 10, axis=1)
        >>> sound, labels = ConcatMix(seed=1)((waveforms, ops.eye(4)), training=True)
        >>> bool(ops.all(sound[:, 1:] - sound[:, :-1] == 0))
        False
        >>> [round(float(total), 5) for total in ops.sum(labels, axis=1)]
        [1.0, 1.0, 1.0, 1.0]
    """

    def _mixed(self, sound, others, weight):
        axis = 2 if len(sound.shape) == 4 else 1
        size = ops.shape(sound)[axis]
        length = ops.cast(size, "float32")
        own = ops.round(weight * length)  # [B] frames
        place = ops.arange(size, dtype="int32")
        place = ops.reshape(place, [size if i == axis else 1 for i in range(len(sound.shape))])
        is_own = place < _beside(ops.cast(own, "int32"), sound)
        return ops.where(is_own, sound, others), own / length


def beta_quantiles(alpha, *, steps=1024):
    """Quantiles of Beta(alpha, alpha), from 0 to 1 in 2 `steps` even steps: float32 [2 steps + 1].

    Up to the median by the trapezoidal rule, over a v that makes the density
    smooth where alpha is below 1; beyond it by symmetry.

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


def interpolated(table, share):
    """The value of an evenly spaced table at a share, from 0 to below 1, of its length: [B] for [B]."""
    place = share * (len(table) - 1)
    low = ops.cast(ops.floor(place), "int32")
    here, above = ops.take(table, low), ops.take(table, low + 1)
    return here + (place - ops.floor(place)) * (above - here)


def _beside(throws, sound):
    """[B] → [B, 1, ...], of the rank of the sound."""
    return ops.reshape(throws, (-1, *[1] * (len(sound.shape) - 1)))
