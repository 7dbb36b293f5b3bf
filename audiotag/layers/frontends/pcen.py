"""Mel spectrograms with per-channel energy normalization (PCEN)."""

from typing import Any, Literal

import keras
import numpy as np
from keras import ops

from audiotag.layers import checks
from audiotag.layers.frontends.spectrograms import MelSpectrogram
from audiotag.layers.frontends.stft import spectrum_dtype

# Frames per block of the exponential mean. Larger blocks are fewer matrix products, smaller ones less work in each.
FRAMES_PER_BLOCK = 128


@keras.saving.register_keras_serializable(package="audiotag")
class PcenMel(keras.layers.Layer):
    """Turns waveforms into mel bands with per-channel energy normalization.

    PCEN attenuates stationary noise, such as hum, wind or the coloration of a
    microphone, and keeps onsets. With the energy e of a band, its exponential mean m
    over the past, and the options by their names:

    (e / (epsilon + m)^gain + bias)^root - bias^root.

    The values and the defaults are those of `librosa.pcen(scale * librosa.feature.melspectrogram(...))`; its
    documentation recommends this scale and amplitudes (power 1) for waveforms from -1 to 1. As in librosa, m is 1
    before the first frame.

    Reference: Y. Wang et al., "Trainable frontend for robust and far-field keyword spotting", 2016,
    https://arxiv.org/abs/1607.05666.

    Args:
        sample_rate: Sample rate of the waveforms, in Hz.
        num_bands: Number of mel bands, on Slaney's scale and with his norm.
        fft_length: Length of a frame and of its FFT, in samples.
        frame_step: Step from one frame to the next, in samples.
        low_hz: Lower edge of the lowest band, from 0.
        high_hz: Upper edge of the highest band, at most half the sample rate, which None stands for.
        power: Exponent of the magnitudes before they are summed: 2 for energy, 1 for amplitude.
        padding: Padding before and after the clip, as for `MelSpectrogram`.
        scale: Multiplier of the mel spectrogram, above 0.
        gain: Strength of the normalization, from 0 for none to 1, which removes every constant level.
        bias: Offset added before the root, above 0.
        root: Exponent that compresses loudness, above 0.
        time_constant_seconds: Time constant of the exponential mean, above 0.
        epsilon: Offset added to m, above 0: the floor of the divisor.
        dtype: Type to compute in, "float32" or "float64" (on JAX always "float32"); None is "float64", since the
            normalization raises bands at any distance below a loud tone. The output is float32.

    Raises:
        ValueError: An option is out of its range.

    Input shape: [B, N], any float type; N may differ from call to call.
    Output shape: [B, T, M] with T as for `MelSpectrogram`, float32 from 0.

    Example:
        >>> tuple(PcenMel(sample_rate=44_100)(np.zeros((1, 88_200))).shape)
        (1, 173, 128)
    """

    def __init__(
        self,
        *,
        sample_rate: int,
        num_bands: int = 128,
        fft_length: int = 2048,
        frame_step: int = 512,
        low_hz: float = 0.0,
        high_hz: float | None = None,
        power: float = 1.0,
        padding: Literal["zeros", "reflect"] = "zeros",
        scale: float = 2147483648.0,
        gain: float = 0.98,
        bias: float = 2.0,
        root: float = 0.5,
        time_constant_seconds: float = 0.4,
        epsilon: float = 1e-6,
        dtype: Literal["float32", "float64"] | None = None,
        **kwargs,
    ):
        super().__init__(**kwargs | {"dtype": "float32", "autocast": False})
        checks.above_zero(
            scale=scale, bias=bias, root=root, time_constant_seconds=time_constant_seconds, epsilon=epsilon
        )
        if not 0 <= gain <= 1:
            raise ValueError(f"gain must be from 0 to 1. Received: gain={gain}")
        self.mel = MelSpectrogram(
            sample_rate=sample_rate,
            num_bands=num_bands,
            fft_length=fft_length,
            frame_step=frame_step,
            low_hz=low_hz,
            high_hz=high_hz,
            power=power,
            padding=padding,
            dtype=spectrum_dtype(dtype, range_db=None),
        )
        self.requested_dtype = dtype
        self.scale = scale
        self.gain = gain
        self.bias = bias
        self.root = root
        self.time_constant_seconds = time_constant_seconds
        self.epsilon = epsilon
        self.input_spec = keras.layers.InputSpec(ndim=2)

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Computes the window and the filters, once."""
        self.mel.build(input_shape)

    def call(self, waveform):
        energy = self.scale * self.mel.mel_spectrogram(waveform)  # [B, T, M]
        frames = self.time_constant_seconds * self.mel.sample_rate / self.mel.frame_step
        mean = exponential_moving_average(energy, weight=2 / (1 + np.sqrt(1 + 4 * frames**2)))
        # In the log domain, where no power overflows.
        level = energy * ops.exp(-self.gain * (np.log(self.epsilon) + ops.log1p(mean / self.epsilon)))
        compressed = self.bias**self.root * ops.expm1(self.root * ops.log1p(level / self.bias))
        return ops.cast(compressed, self.compute_dtype)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """(B, T, M) for an input of (B, N); an unknown size stays None."""
        return self.mel.compute_output_shape(input_shape)

    def get_config(self) -> dict[str, Any]:
        """The options as they were passed."""
        shared = ("sample_rate", "num_bands", "fft_length", "frame_step", "low_hz", "high_hz", "power", "padding")
        return super().get_config() | {
            **{name: getattr(self.mel, name) for name in shared},
            "scale": self.scale,
            "gain": self.gain,
            "bias": self.bias,
            "root": self.root,
            "time_constant_seconds": self.time_constant_seconds,
            "epsilon": self.epsilon,
            "dtype": self.requested_dtype,
        }


def exponential_moving_average(energy: Any, *, weight: float) -> Any:
    """The exponential mean along time.

    m[t] = (1 - weight) * m[t - 1] + weight * e[t] with m[-1] = 1, without a loop: within a block of frames, the mean
    is a product with a triangular matrix of decaying weights, and the state that each block passes on to the later
    ones is another such product, over the blocks.

    Args:
        energy: [B, T, M].
        weight: Weight of the newest frame, above 0 and at most 1.

    Returns:
        [B, T, M], in the type of `energy`.

    Example:
        >>> np.asarray(exponential_moving_average(np.array([[[1.0], [0.0], [8.0]]]), weight=0.5)).tolist()
        [[[1.0], [0.5], [4.25]]]
    """
    size, decay = FRAMES_PER_BLOCK, max(1 - weight, 1e-30)
    dtype = keras.backend.standardize_dtype(energy.dtype)
    batch, num_frames, bands = ops.shape(energy)
    num_blocks = (num_frames + size - 1) // size
    energy = ops.pad(energy, [[0, 0], [0, size], [0, 0]])[:, : num_blocks * size]
    blocks = ops.reshape(energy, (batch, num_blocks, size, bands))  # [B, num_blocks, size, M]
    age = np.subtract.outer(np.arange(size), np.arange(size))  # [size, size], in frames
    weights = np.where(age >= 0, weight * decay ** np.maximum(age, 0), 0).astype(dtype)
    within = ops.matmul(weights, blocks)  # [B, num_blocks, size, M]
    block = ops.arange(num_blocks)
    age = ops.cast(size * (block[:, None] - block - 1), dtype)  # [num_blocks, num_blocks], in frames
    weights = ops.where(age >= 0, ops.exp(float(np.log(decay)) * ops.maximum(age, 0)), 0)
    initial = ops.exp(float(size * np.log(decay)) * ops.cast(block[:, None], dtype))  # [num_blocks, 1]
    before = ops.matmul(weights, within[:, :, -1]) + initial  # [B, num_blocks, M]: the mean before each block
    fading = decay ** np.arange(1, size + 1)[:, None].astype(dtype)  # [size, 1]
    mean = within + ops.expand_dims(before, 2) * fading  # [B, num_blocks, size, M]
    return ops.reshape(mean, (batch, num_blocks * size, bands))[:, :num_frames]
