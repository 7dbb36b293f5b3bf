"""Pictures of one size, from clips of any length: cut and repeated, or stretched."""

from typing import Literal

import keras
import numpy as np
from keras import ops

from audiotag.layers import checks
from audiotag.layers.frontends.stft import PRECISION


@keras.saving.register_keras_serializable(package="audiotag")
class FitFrames(keras.layers.Layer):
    """Cuts longer clips, and fills shorter ones, to one number of frames.

    For networks that hear every clip at the same speed and at one length: the end
    of a longer clip is cut off, and a shorter one starts again, as often as it takes.

    Reference: M. Dorfer and G. Widmer, "Training general-purpose audio tagging networks with noisy
    labels and iterative self-verification", 2018, where 3000 frames are filled by repeating.

    Args:
        num_frames: Frames of the result.
        short_clips: What follows a shorter clip: "repeat" is the clip itself, "zeros", or "minimum", the
            lowest value in each of its channels, which is its silence.

    Raises:
        ValueError: num_frames below 1, or an unknown filling.

    Input shape: [B, M, T, C], any float type.
    Output shape: [B, M, num_frames, C], the same type.

    Example:
        >>> clip = ops.reshape(ops.convert_to_tensor([1.0, 2.0, 3.0]), (1, 1, 3, 1))
        >>> [int(pixel) for pixel in ops.reshape(FitFrames(num_frames=7)(clip), (-1,))]
        [1, 2, 3, 1, 2, 3, 1]
    """

    def __init__(self, *, num_frames: int, short_clips: Literal["repeat", "zeros", "minimum"] = "repeat", **kwargs):
        super().__init__(autocast=False, **kwargs)
        if num_frames < 1:
            raise ValueError(f"num_frames must be at least 1. Received: num_frames={num_frames}")
        checks.one_of(("repeat", "zeros", "minimum"), short_clips=short_clips)
        self.num_frames = num_frames
        self.short_clips = short_clips
        self.input_spec = keras.layers.InputSpec(ndim=4)

    def call(self, picture):
        length = ops.shape(picture)[2]
        place = ops.arange(self.num_frames, dtype="int32")
        repeated = ops.take(picture, place % length, axis=2)  # [B, M, num_frames, C]
        if self.short_clips == "repeat":
            return repeated
        filling = ops.min(picture, axis=(1, 2), keepdims=True)  # [B, 1, 1, C]
        if self.short_clips == "zeros":
            filling = ops.zeros_like(filling)
        return ops.where(ops.reshape(place < length, (1, 1, -1, 1)), repeated, filling)

    def compute_output_shape(self, input_shape):
        """(B, M, num_frames, C) for an input of (B, M, T, C)."""
        return (*input_shape[:2], self.num_frames, input_shape[3])

    def compute_output_spec(self, picture):
        """The shape above, and the type of the input."""
        return keras.KerasTensor(self.compute_output_shape(picture.shape), dtype=picture.dtype)

    def get_config(self):
        """What was passed."""
        return super().get_config() | {"num_frames": self.num_frames, "short_clips": self.short_clips}


@keras.saving.register_keras_serializable(package="audiotag")
class Resize(keras.layers.Layer):
    """Stretches pictures to a fixed size.

    For networks that were made, or trained, for pictures of one size. The middle
    of pixel i of n new ones lies at u = (i + 0.5) * N / n of N old ones. "nearest"
    is the old pixel floor(u). The others are means of the old pixels, whose middles
    lie d away, with weights k(d) that are divided by their sum within the picture:

    - "bilinear": k(d) = max(0, 1 - |d|);
    - "bicubic": k(d) = 1.5|d|^3 - 2.5|d|^2 + 1 up to |d| = 1, then
      -0.5|d|^3 + 2.5|d|^2 - 4|d| + 2 up to 2, then 0. It is sharper, and may leave the
      range of the picture at an edge.

    With `antialias`, d is divided by N / n where a side shrinks, so that every old
    pixel counts. Pillow resizes so, from version 7 on with "bicubic" where nothing is
    said and with "nearest" before; Keras' image loaders take "nearest", S0's at 64 x 64.

    Reference: R. Keys, "Cubic Convolution Interpolation for Digital Image Processing", 1981.

    Args:
        height: Rows of the result.
        width: Columns of the result.
        interpolation: "nearest" repeats or drops pixels; "bilinear" blends 2 x 2 neighbours, "bicubic" 4 x 4.
        antialias: Smooth what shrinks, else fine lines may vanish.

    Raises:
        ValueError: A size below 1, an unknown interpolation, or antialias with "nearest", which drops pixels.

    Input shape: [B, M, T, C], any float type.
    Output shape: [B, height, width, C], the same type.

    Example:
        >>> tuple(Resize(height=64, width=64)(ops.ones((2, 128, 173, 1))).shape)
        (2, 64, 64, 1)
    """

    def __init__(
        self,
        *,
        height: int,
        width: int,
        interpolation: Literal["nearest", "bilinear", "bicubic"] = "nearest",
        antialias: bool = False,
        **kwargs,
    ):
        super().__init__(autocast=False, **kwargs)
        for name, value in (("height", height), ("width", width)):
            if value < 1:
                raise ValueError(f"{name} must be at least 1. Received: {name}={value}")
        checks.one_of(("nearest", "bilinear", "bicubic"), interpolation=interpolation)
        if antialias and interpolation == "nearest":
            raise ValueError(
                "antialias smooths with interpolation 'bilinear' or 'bicubic'. Received: antialias=True with 'nearest'"
            )
        self.height = height
        self.width = width
        self.interpolation = interpolation
        self.antialias = antialias
        self.input_spec = keras.layers.InputSpec(ndim=4)

    def call(self, picture):
        _, bands, frames, _ = ops.shape(picture)
        if self.interpolation == "nearest":
            rows = ops.take(picture, nearest_pixels(bands, self.height), axis=1)  # [B, height, T, C]
            return ops.take(rows, nearest_pixels(frames, self.width), axis=2)  # [B, height, width, C]
        how = {"interpolation": self.interpolation, "antialias": self.antialias}
        rows = pixel_weights(bands, self.height, **how)  # [height, M]
        columns = pixel_weights(frames, self.width, **how)  # [width, T]
        planes = ops.transpose(ops.cast(picture, PRECISION), (0, 3, 1, 2))  # [B, C, M, T]
        planes = ops.matmul(ops.matmul(rows, planes), ops.transpose(columns))  # [B, C, height, width]
        return ops.cast(ops.transpose(planes, (0, 2, 3, 1)), picture.dtype)  # [B, height, width, C]

    def compute_output_shape(self, input_shape):
        """(B, height, width, C) for an input of (B, M, T, C)."""
        return (input_shape[0], self.height, self.width, input_shape[3])

    def compute_output_spec(self, picture):
        """The shape above, and the type of the input."""
        return keras.KerasTensor(self.compute_output_shape(picture.shape), dtype=picture.dtype)

    def get_config(self):
        """What was passed."""
        return super().get_config() | {
            "height": self.height,
            "width": self.width,
            "interpolation": self.interpolation,
            "antialias": self.antialias,
        }


def nearest_pixels(old, new):
    """Which of `old` pixels in a row lies under the middle of each of `new` ones: [new] int32.

    `old` may be a number, or a tensor where it is not known yet.

    Example:
        >>> ops.convert_to_numpy(nearest_pixels(5, 3)).tolist()
        [0, 2, 4]
    """
    return (2 * ops.arange(new, dtype="int32") + 1) * old // (2 * new)


def pixel_weights(old, new, *, interpolation, antialias=False):
    """How much each of `old` pixels in a row counts in each of `new` ones: [new, old], every row sums to 1.

    `old` may be a number, or a tensor where it is not known yet.

    Example:
        >>> pixel_weights(2, 4, interpolation="bilinear").tolist()
        [[1.0, 0.0], [0.75, 0.25], [0.25, 0.75], [0.0, 1.0]]
    """
    known = isinstance(old, int)
    xp, precision = (np, "float64") if known else (ops, PRECISION)
    place = xp.arange(old, dtype=precision) + 0.5  # [old]
    ratio = (old if known else ops.cast(old, precision)) / new
    middle = (xp.arange(new, dtype=precision) + 0.5)[:, None] * ratio  # [new, 1]
    distance = xp.abs(place - middle) / (xp.maximum(ratio, 1.0) if antialias else 1.0)  # [new, old]
    weights = xp.maximum(1.0 - distance, 0.0)
    if interpolation == "bicubic":
        near = (1.5 * distance - 2.5) * distance**2 + 1.0
        far = ((-0.5 * distance + 2.5) * distance - 4.0) * distance + 2.0
        weights = xp.where(distance < 1, near, xp.where(distance < 2, far, 0.0))
    return weights / xp.sum(weights, axis=1, keepdims=True)
