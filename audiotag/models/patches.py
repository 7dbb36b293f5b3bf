"""Patches: equal parts of an image in time, which a network reads one by one."""

from typing import Any

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="audiotag")
class SplitPatches(keras.layers.Layer):
    """Cuts images into overlapping patches of equal length.

    A network with a fixed input then reads clips of any length. Frames after the last complete patch are left out;
    an image shorter than a patch repeats its last frame.

    Args:
        num_frames: T' of a patch.
        hop: Frames from the start of a patch to the start of the next.

    Input shape: [B, M, T, C]; T may differ from call to call.
    Output shape: [B * W, T', M, C] with W = 1 + max(T - T', 0) // hop, time first.

    Example:
        >>> tuple(SplitPatches(num_frames=96, hop=48)(ops.zeros((2, 64, 200, 1))).shape)
        (6, 96, 64, 1)
    """

    def __init__(self, *, num_frames: int, hop: int, **kwargs):
        super().__init__(**kwargs)
        self.num_frames = num_frames
        self.hop = hop
        self.input_spec = keras.layers.InputSpec(ndim=4)

    def call(self, image):
        bands, frames, channels = ops.shape(image)[1:]
        larger = max if isinstance(frames, int) else ops.maximum  # JAX needs Python integers
        num_patches = 1 + larger(frames - self.num_frames, 0) // self.hop
        image = ops.transpose(image, (0, 2, 1, 3))  # [B, T, M, C]
        place = self.hop * ops.arange(num_patches)[:, None] + ops.arange(self.num_frames)  # [W, T']
        patches = ops.take(image, ops.minimum(place, frames - 1), axis=1)  # [B, W, T', M, C]
        return ops.reshape(patches, (-1, self.num_frames, bands, channels))

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """(None, T', M, C) for an input of (B, M, T, C)."""
        return (None, self.num_frames, input_shape[1], input_shape[3])

    def get_config(self) -> dict[str, Any]:
        """The options as they were passed."""
        return super().get_config() | {"num_frames": self.num_frames, "hop": self.hop}


@keras.saving.register_keras_serializable(package="audiotag")
class JoinPatches(keras.layers.Layer):
    """Puts the embeddings of patches together by clip, in float32.

    Input shape: ([B * W, D], [B, ...]), the embeddings of what `SplitPatches` returns, and the images.
    Output shape: [B, W, D], float32.

    Example:
        >>> tuple(JoinPatches()((ops.zeros((6, 8)), ops.zeros((2, 64, 200, 1)))).shape)
        (2, 3, 8)
    """

    def __init__(self, **kwargs):
        super().__init__(**kwargs | {"dtype": "float32"})

    def call(self, inputs):
        embeddings, image = inputs
        return ops.reshape(embeddings, (ops.shape(image)[0], -1, embeddings.shape[-1]))

    def compute_output_shape(self, input_shape: Any) -> tuple[int | None, ...]:
        """(B, None, D) for embeddings of (B * W, D) and an image of (B, ...)."""
        embeddings, image = input_shape
        return (image[0], None, embeddings[-1])
