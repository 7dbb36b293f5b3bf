"""Images of a fixed size from clips of any length."""

from typing import Any, Literal

import keras
import numpy as np
from keras import ops

from audiotag.layers import checks
from audiotag.layers.frontends.stft import FLOAT64, are_portable


@keras.saving.register_keras_serializable(package="audiotag")
class FixFrames(keras.layers.Layer):
    """Truncates longer images, and pads shorter ones, to a number of frames.

    For networks with an input of fixed length. Unlike `Resize`, it keeps the time
    scale: a longer clip loses its end, a shorter one is padded at its end.

    Reference: M. Dorfer and G. Widmer, "Training general-purpose audio tagging networks with noisy
    labels and iterative self-verification", 2018, where clips are repeated to 3000 frames.

    Args:
        num_frames: Number of frames of the result.
        pad: Padding after a shorter clip: "repeat" is the clip itself, as often as needed; "zeros"; "minimum" is
            the lowest value in each of its channels, its silence.

    Raises:
        ValueError: num_frames is below 1, or pad is unknown.

    Input shape: [B, M, T, C], any float type.
    Output shape: [B, M, num_frames, C], the same type.

    Example:
        >>> image = ops.reshape(ops.convert_to_tensor([1.0, 2.0, 3.0]), (1, 1, 3, 1))
        >>> [int(pixel) for pixel in ops.reshape(FixFrames(num_frames=7)(image), (-1,))]
        [1, 2, 3, 1, 2, 3, 1]
    """

    def __init__(self, *, num_frames: int, pad: Literal["repeat", "zeros", "minimum"] = "repeat", **kwargs):
        super().__init__(autocast=False, **kwargs)
        if num_frames < 1:
            raise ValueError(f"num_frames must be at least 1. Received: num_frames={num_frames}")
        checks.one_of(("repeat", "zeros", "minimum"), pad=pad)
        self.num_frames = num_frames
        self.pad = pad
        self.input_spec = keras.layers.InputSpec(ndim=4)

    def call(self, image):
        length = ops.shape(image)[2]
        frame = ops.arange(self.num_frames, dtype="int32")
        repeated = ops.take(image, frame % length, axis=2)  # [B, M, num_frames, C]
        if self.pad == "repeat":
            return repeated
        padding = ops.min(image, axis=(1, 2), keepdims=True)  # [B, 1, 1, C]
        if self.pad == "zeros":
            padding = ops.zeros_like(padding)
        return ops.where(ops.reshape(frame < length, (1, 1, -1, 1)), repeated, padding)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """(B, M, num_frames, C) for an input of (B, M, T, C)."""
        return (*input_shape[:2], self.num_frames, input_shape[3])

    def compute_output_spec(self, image: Any) -> keras.KerasTensor:
        """The shape of `compute_output_shape` and the type of the input."""
        return keras.KerasTensor(self.compute_output_shape(image.shape), dtype=image.dtype)

    def get_config(self) -> dict[str, Any]:
        """The options as they were passed."""
        return super().get_config() | {"num_frames": self.num_frames, "pad": self.pad}


@keras.saving.register_keras_serializable(package="audiotag")
class StretchFrames(keras.layers.Layer):
    """Resizes complete clips to one number of frames.

    A clip of any length, between zeros in a window that is longer, becomes an image of one width. Frames at either end
    whose bands all have the lowest value of the image, as those of zeros have in decibels with a limited dynamic
    range, do not belong to the clip. The frames between them are resized as by `Resize`, with "bilinear" and
    `antialias`. An image of one value is resized as it is.

    Reference: the ConvNeXt-Tiny blog's tagger, whose images of complete clips all have one size.

    Args:
        num_frames: Number of frames of the result.

    Raises:
        ValueError: num_frames is below 1.

    Input shape: [B, M, T, C], any float type.
    Output shape: [B, M, num_frames, C], the same type.

    Example:
        >>> image = ops.reshape(ops.convert_to_tensor([0.0, 1.0, 3.0, 0.0, 0.0]), (1, 1, 5, 1))
        >>> [float(pixel) for pixel in ops.reshape(StretchFrames(num_frames=4)(image), (-1,))]
        [1.0, 1.5, 2.5, 3.0]
    """

    def __init__(self, *, num_frames: int, **kwargs):
        super().__init__(autocast=False, **kwargs)
        if num_frames < 1:
            raise ValueError(f"num_frames must be at least 1. Received: num_frames={num_frames}")
        self.num_frames = num_frames
        self.input_spec = keras.layers.InputSpec(ndim=4)

    def call(self, image):
        length = ops.shape(image)[2]
        lowest = ops.min(image, axis=(1, 2), keepdims=True)  # [B, 1, 1, C]
        sounds = ops.cast(ops.any(image > lowest, axis=(1, 3)), "int32")  # [B, T]
        first = ops.cast(ops.argmax(sounds, axis=1), "int32")[:, None, None]  # [B, 1, 1], 0 if none
        end = length - ops.cast(ops.argmax(ops.flip(sounds, axis=1), axis=1), "int32")[:, None, None]
        frame = ops.arange(length, dtype="int32")[None, None]  # [1, 1, T]
        ratio = ops.cast(end - first, "float32") / self.num_frames  # [B, 1, 1]
        new_frame = ops.arange(self.num_frames, dtype="float32")[None, :, None]  # [1, num_frames, 1]
        center = ops.cast(first, "float32") + (new_frame + 0.5) * ratio  # [B, num_frames, 1]
        distance = ops.abs(ops.cast(frame, "float32") + 0.5 - center) / ops.maximum(ratio, 1.0)
        weights = ops.where((frame >= first) & (frame < end), ops.maximum(1.0 - distance, 0.0), 0.0)
        weights = ops.cast(weights / ops.sum(weights, axis=2, keepdims=True), image.dtype)  # [B, num_frames, T]
        return ops.einsum("bmtc,bnt->bmnc", image, weights)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """(B, M, num_frames, C) for an input of (B, M, T, C)."""
        return (*input_shape[:2], self.num_frames, input_shape[3])

    def compute_output_spec(self, image: Any) -> keras.KerasTensor:
        """The shape of `compute_output_shape` and the type of the input."""
        return keras.KerasTensor(self.compute_output_shape(image.shape), dtype=image.dtype)

    def get_config(self) -> dict[str, Any]:
        """The options as they were passed."""
        return super().get_config() | {"num_frames": self.num_frames}


@keras.saving.register_keras_serializable(package="audiotag")
class Resize(keras.layers.Layer):
    """Resizes images to a fixed size.

    For networks that were designed, or pretrained, for images of one size. The center
    of output pixel i of n lies at u = (i + 0.5) * N / n of N input pixels. "nearest" is
    the input pixel floor(u). The others are weighted means of the input pixels: one
    whose center is d away has weight k(d), divided by the sum within the image:

    - "bilinear": `k(d) = max(0, 1 - |d|)`;
    - "bicubic": `k(d) = 1.5|d|^3 - 2.5|d|^2 + 1` up to `|d| = 1`, then
      `-0.5|d|^3 + 2.5|d|^2 - 4|d| + 2` up to 2, then 0. It is sharper, and may exceed
      the range of the image at an edge.

    With `antialias`, d is divided by N / n along an axis that shrinks, so that every
    input pixel contributes. Pillow does the same; its default is "bicubic" since
    version 7 and "nearest" before. Keras' image loaders default to "nearest", which
    A. Maji's tagger of 2020 used at 64 x 64.

    Reference: R. Keys, "Cubic Convolution Interpolation for Digital Image Processing", 1981.

    Args:
        height: Number of rows of the result.
        width: Number of columns of the result.
        interpolation: "nearest" repeats or drops pixels; "bilinear" blends 2 x 2 neighbours, "bicubic" 4 x 4.
        antialias: Low-pass filter along an axis that shrinks; without it fine lines may vanish.

    Raises:
        ValueError: A size is below 1, interpolation is unknown, or antialias is used with "nearest".

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
                "antialias needs interpolation 'bilinear' or 'bicubic'. Received: antialias=True with 'nearest'"
            )
        self.height = height
        self.width = width
        self.interpolation = interpolation
        self.antialias = antialias
        self.input_spec = keras.layers.InputSpec(ndim=4)

    def call(self, image):
        _, bands, frames, _ = ops.shape(image)
        if self.interpolation == "nearest":
            rows = ops.take(image, nearest_pixels(bands, self.height), axis=1)  # [B, height, T, C]
            return ops.take(rows, nearest_pixels(frames, self.width), axis=2)  # [B, height, width, C]
        options = {"interpolation": self.interpolation, "antialias": self.antialias}
        rows = pixel_weights(bands, self.height, **options)  # [height, M]
        columns = pixel_weights(frames, self.width, **options)  # [width, T]
        precision = "float32" if are_portable() else FLOAT64
        rows, columns = ops.cast(rows, precision), ops.cast(columns, precision)
        planes = ops.transpose(ops.cast(image, precision), (0, 3, 1, 2))  # [B, C, M, T]
        planes = ops.matmul(ops.matmul(rows, planes), ops.transpose(columns))  # [B, C, height, width]
        return ops.cast(ops.transpose(planes, (0, 2, 3, 1)), image.dtype)  # [B, height, width, C]

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """(B, height, width, C) for an input of (B, M, T, C)."""
        return (input_shape[0], self.height, self.width, input_shape[3])

    def compute_output_spec(self, image: Any) -> keras.KerasTensor:
        """The shape of `compute_output_shape` and the type of the input."""
        return keras.KerasTensor(self.compute_output_shape(image.shape), dtype=image.dtype)

    def get_config(self) -> dict[str, Any]:
        """The options as they were passed."""
        return super().get_config() | {
            "height": self.height,
            "width": self.width,
            "interpolation": self.interpolation,
            "antialias": self.antialias,
        }


def nearest_pixels(old: Any, new: int) -> Any:
    """Index of the input pixel at the center of each output pixel: [new] int32.

    Args:
        old: Number of input pixels, an int or, if unknown in a graph, an integer tensor.
        new: Number of output pixels.

    Example:
        >>> ops.convert_to_numpy(nearest_pixels(5, 3)).tolist()
        [0, 2, 4]
    """
    return (2 * ops.arange(new, dtype="int32") + 1) * old // (2 * new)


def pixel_weights(old: Any, new: int, *, interpolation: Literal["bilinear", "bicubic"], antialias: bool = False) -> Any:
    """Weight of each input pixel in each output pixel; every row sums to 1.

    Args:
        old: Number of input pixels, an int or, if unknown in a graph, an integer tensor.
        new: Number of output pixels.
        interpolation: As for `Resize`.
        antialias: As for `Resize`.

    Returns:
        [new, old], a NumPy array if `old` is an int.

    Example:
        >>> pixel_weights(2, 4, interpolation="bilinear").tolist()
        [[1.0, 0.0], [0.75, 0.25], [0.25, 0.75], [0.0, 1.0]]
    """
    static = isinstance(old, int)
    xp, precision = (np, "float64") if static else (ops, FLOAT64)
    ratio = (old if static else ops.cast(old, precision)) / new
    old_centers = xp.arange(old, dtype=precision) + 0.5  # [old]
    new_centers = (xp.arange(new, dtype=precision) + 0.5)[:, None] * ratio  # [new, 1]
    distance = xp.abs(old_centers - new_centers) / (xp.maximum(ratio, 1.0) if antialias else 1.0)  # [new, old]
    weights = xp.maximum(1.0 - distance, 0.0)
    if interpolation == "bicubic":
        near = (1.5 * distance - 2.5) * distance**2 + 1.0
        far = ((-0.5 * distance + 2.5) * distance - 4.0) * distance + 2.0
        weights = xp.where(distance < 1, near, xp.where(distance < 2, far, 0.0))
    return weights / xp.sum(weights, axis=1, keepdims=True)
