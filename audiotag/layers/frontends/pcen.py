"""A spectrogram in which each band is measured against its own recent past."""

from typing import Literal

import keras
import numpy as np
from keras import ops

from audiotag.layers import checks
from audiotag.layers.frontends.spectrograms import MelSpectrogram
from audiotag.layers.frontends.stft import PRECISION

# Frames smoothed by one product. Many are few products, few are little work in each.
FRAMES_PER_PRODUCT = 128


@keras.saving.register_keras_serializable(package="audiotag")
class PcenMel(keras.layers.Layer):
    """Turns waveforms into mel bands, each measured against its own recent past.

    Per-channel energy normalisation turns down whatever goes on and on, hum, wind
    or the colour of a microphone, and keeps what begins. With the energy e of a band,
    its exponential mean m over the past, and all options by their names:

    (e / (epsilon + m)^gain + bias)^root - bias^root.

    The numbers are those of `librosa.pcen(scale * librosa.feature.melspectrogram(...))`, and so are the defaults;
    the scale and the amplitudes (power 1) are what its documentation advises for waveforms within -1 to 1. As
    there, m starts from 1 before the first frame.

    Reference: Y. Wang et al., "Trainable frontend for robust and far-field keyword spotting", 2016,
    https://arxiv.org/abs/1607.05666.

    Args:
        sample_rate: Of the waveforms, in Hz.
        num_bands: How many mel bands, of Slaney's scale and norm.
        fft_length: Length of a frame, in samples.
        frame_step: From one frame to the next, in samples.
        low_hz: Where the lowest band begins, from 0.
        high_hz: Where the highest band ends, at most half the sample rate, which None stands for.
        power: Of the magnitudes that are summed: 2 for energy, 1 for amplitude.
        padding: What lies beyond a clip's ends, as for `MelSpectrogram`.
        scale: Factor before anything else.
        gain: How much is turned down, from 0 for nothing to 1 for everything that stays the same.
        bias: What is added before the root, above 0.
        root: Exponent that compresses loudness, above 0.
        time_constant_seconds: How far back m remembers.
        epsilon: What m is never below, above 0.

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
        **kwargs,
    ):
        super().__init__(**kwargs | {"dtype": "float32"})
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
        )
        self.scale = scale
        self.gain = gain
        self.bias = bias
        self.root = root
        self.time_constant_seconds = time_constant_seconds
        self.epsilon = epsilon
        self.input_spec = keras.layers.InputSpec(ndim=2)

    def build(self, input_shape):
        """Computes the window and the filters, once."""
        self.mel.build(input_shape)

    def call(self, waveform):
        energy = self.scale * self.mel.energies(waveform)  # [B, T, M]
        frames = self.time_constant_seconds * self.mel.sample_rate / self.mel.frame_step
        mean = smoothed(energy, 2 / (1 + np.sqrt(1 + 4 * frames**2)))
        # In logarithms, so that no power overflows.
        level = energy * ops.exp(-self.gain * (np.log(self.epsilon) + ops.log1p(mean / self.epsilon)))
        compressed = self.bias**self.root * ops.expm1(self.root * ops.log1p(level / self.bias))
        return ops.cast(compressed, self.compute_dtype)

    def compute_output_shape(self, input_shape):
        """(B, T, M) for an input of (B, N); what is None stays None."""
        return self.mel.compute_output_shape(input_shape)

    def get_config(self):
        """What was passed."""
        told = ("sample_rate", "num_bands", "fft_length", "frame_step", "low_hz", "high_hz", "power", "padding")
        return super().get_config() | {
            **{name: getattr(self.mel, name) for name in told},
            "scale": self.scale,
            "gain": self.gain,
            "bias": self.bias,
            "root": self.root,
            "time_constant_seconds": self.time_constant_seconds,
            "epsilon": self.epsilon,
        }


def smoothed(energy, weight):
    """The exponential mean along time: m[t] = (1 - weight) * m[t - 1] + weight * e[t], from m[-1] = 1.

    No loop: within a block of frames the mean is the product with a triangle of decaying weights, and what each
    block hands on to all later ones is another such product, over the blocks.

    Args:
        energy: [B, T, M], in `PRECISION`.
        weight: Of the newest frame, above 0 and at most 1.

    Returns:
        [B, T, M].

    Example:
        >>> np.asarray(smoothed(np.array([[[1.0], [0.0], [8.0]]]), 0.5)).tolist()
        [[[1.0], [0.5], [4.25]]]
    """
    size, keep = FRAMES_PER_PRODUCT, max(1 - weight, 1e-30)
    batch, num_frames, bands = ops.shape(energy)
    num_blocks = (num_frames + size - 1) // size  # K
    energy = ops.pad(ops.cast(energy, PRECISION), [[0, 0], [0, size], [0, 0]])[:, : num_blocks * size]
    blocks = ops.reshape(energy, (batch, num_blocks, size, bands))
    age = np.subtract.outer(np.arange(size), np.arange(size))
    triangle = np.where(age >= 0, weight * keep ** np.maximum(age, 0), 0).astype(PRECISION)
    within = ops.matmul(triangle, blocks)  # [B, K, size, M]
    number = ops.arange(num_blocks)
    age = ops.cast(size * (number[:, None] - number - 1), PRECISION)  # [K, K]
    decay = ops.where(age >= 0, ops.exp(float(np.log(keep)) * ops.maximum(age, 0)), 0)
    start = ops.exp(float(size * np.log(keep)) * ops.cast(number[:, None], PRECISION))  # [K, 1]
    before = ops.matmul(decay, within[:, :, -1]) + start  # [B, K, M], the mean at the end of the block before
    fading = keep ** np.arange(1, size + 1)[:, None].astype(PRECISION)  # [size, 1]
    mean = within + ops.expand_dims(before, 2) * fading
    return ops.reshape(mean, (batch, num_blocks * size, bands))[:, :num_frames]
