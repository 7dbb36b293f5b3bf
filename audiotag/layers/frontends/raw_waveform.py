"""The front end of networks that work on samples."""

from typing import Any, Literal

import keras
from keras import ops

from audiotag.layers import checks


@keras.saving.register_keras_serializable(package="audiotag")
class RawWaveform(keras.layers.Layer):
    """Passes the waveform on, one frame per sample, scaled clip by clip.

    For networks that learn their own spectrogram. The scaling
    (x - min) / (max - min + 1e-6) - 0.5 gives every clip the same range; a
    constant clip becomes -0.5.

    Reference: the 1D network in the Kaggle notebook of Maxwell_110, 2019, at 16 kHz.

    Args:
        sample_rate: Sample rate of the waveforms, in Hz. Every front end accepts it; this one does not use it.
        scaling: "min_max" as above, or None to leave the samples as they are.

    Raises:
        ValueError: An option is out of its range.

    Input shape: [B, N], any float type; N may differ from call to call.
    Output shape: [B, N, 1], float32.

    Example:
        >>> scaled = RawWaveform(sample_rate=16_000)(ops.convert_to_tensor([[-1.0, 0.0, 3.0]]))
        >>> [round(float(sample), 4) for sample in scaled[0, :, 0]]
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

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """(B, N, 1) for an input of (B, N)."""
        return (*input_shape, 1)

    def get_config(self) -> dict[str, Any]:
        """The options as they were passed."""
        return super().get_config() | {"sample_rate": self.sample_rate, "scaling": self.scaling}
