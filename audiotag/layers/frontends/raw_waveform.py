"""The waveform itself, for networks that listen to samples."""

from typing import Literal

import keras
from keras import ops

from audiotag.layers import checks


@keras.saving.register_keras_serializable(package="audiotag")
class RawWave(keras.layers.Layer):
    """Hands on the waveform itself, a frame a sample, scaled clip by clip.

    For networks that learn their own spectrogram. Scaled to its own extremes,
    (x - min) / (max - min + 1e-6) - 0.5, a clip sounds as loud as any other; a
    constant clip becomes -0.5.

    Reference: the 1D network in the Keras kernel of Maxwell_110, 2019, at 16 kHz.

    Args:
        sample_rate: Of the waveforms, in Hz. Every front end is told; this one makes no use of it.
        scaling: "min_max" as above, or None to leave the samples as they are.

    Raises:
        ValueError: An option is out of its range.

    Input shape: [B, N], any float type; N may differ from call to call.
    Output shape: [B, N, 1], float32.

    Example:
        >>> wave = RawWave(sample_rate=16_000)(ops.convert_to_tensor([[-1.0, 0.0, 3.0]]))
        >>> [round(float(sample), 4) for sample in wave[0, :, 0]]
        [-0.5, -0.25, 0.5]
    """

    def __init__(self, *, sample_rate: int, scaling: Literal["min_max"] | None = "min_max", **kwargs):
        super().__init__(**kwargs | {"dtype": "float32"})
        checks.above_zero(sample_rate=sample_rate)
        checks.one_of(("min_max", None), scaling=scaling)
        self.sample_rate = sample_rate
        self.scaling = scaling
        self.input_spec = keras.layers.InputSpec(ndim=2)

    def call(self, waveform):
        waveform = ops.cast(waveform, self.compute_dtype)
        if self.scaling == "min_max":
            low = ops.min(waveform, axis=1, keepdims=True)  # [B, 1]
            span = ops.max(waveform, axis=1, keepdims=True) - low  # [B, 1]
            waveform = (waveform - low) / (span + 1e-6) - 0.5
        return ops.expand_dims(waveform, axis=-1)  # [B, N, 1]

    def compute_output_shape(self, input_shape):
        """(B, N, 1) for an input of (B, N)."""
        return (*input_shape, 1)

    def get_config(self):
        """What was passed."""
        return super().get_config() | {"sample_rate": self.sample_rate, "scaling": self.scaling}
