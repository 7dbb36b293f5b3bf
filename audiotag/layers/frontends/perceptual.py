"""A spectrogram weighted as the ear weighs frequencies."""

from typing import Literal

import keras
import numpy as np
from keras import ops

from audiotag.layers import checks
from audiotag.layers.frontends.filters import gathered
from audiotag.layers.frontends.spectrograms import MelSpectrogram, decibels


@keras.saving.register_keras_serializable(package="audiotag")
class PerceptualMel(keras.layers.Layer):
    """Turns waveforms into mel bands of decibels weighted as the ear weighs them.

    A soft hum of 50 Hz and a soft chirp of 3 kHz have the same energy, and we hear
    only the chirp. Decibels are taken of every bin of the FFT, floored under the
    clip's own maximum, A-weighted, and only then gathered into mel bands: each band
    is a weighted sum of decibels, and as the weights of a band sum to about 0.03,
    values are small and mostly negative. Nothing is normalised.

    Reference: M. Dorfer and G. Widmer, "Training general-purpose audio tagging networks with noisy labels and
    iterative self-verification", DCASE 2018, whose defaults these are (version 1).

    Args:
        sample_rate: Of the waveforms, in Hz.
        num_bands: How many mel bands, of Slaney's scale and norm.
        fft_length: Length of a frame, in samples.
        frame_step: From one frame to the next, in samples.
        low_hz: Where the lowest band begins, from 0.
        high_hz: Where the highest band ends, at most half the sample rate, which None stands for.
        padding: What lies beyond a clip's ends, where the first and last frames are centred: its mirror image,
            again and again where the clip is shorter than half a frame, or "zeros".
        silence: Power in a bin that anything quieter counts as.
        dynamic_range_db: Floor of the bins under the loudest bin of the clip, before they are weighted; None for
            none.

    Raises:
        ValueError: An option is out of its range.

    Input shape: [B, N], any float type; N may differ from call to call.
    Output shape: [B, T, M] with T = 1 + N // frame_step (for an odd fft_length 1 + (N - 1) // frame_step), float32.

    Example:
        >>> tuple(PerceptualMel()(np.zeros((1, 32_000))).shape)
        (1, 167, 128)
    """

    def __init__(
        self,
        *,
        sample_rate: int = 32_000,
        num_bands: int = 128,
        fft_length: int = 1024,
        frame_step: int = 192,
        low_hz: float = 0.0,
        high_hz: float | None = None,
        padding: Literal["zeros", "reflect"] = "reflect",
        silence: float = 1e-10,
        dynamic_range_db: float | None = 99.0,
        **kwargs,
    ):
        super().__init__(**kwargs | {"dtype": "float32"})
        checks.above_zero(silence=silence, dynamic_range_db=1.0 if dynamic_range_db is None else dynamic_range_db)
        self.mel = MelSpectrogram(
            sample_rate=sample_rate,
            num_bands=num_bands,
            fft_length=fft_length,
            frame_step=frame_step,
            low_hz=low_hz,
            high_hz=high_hz,
            padding=padding,
        )
        self.silence = silence
        self.dynamic_range_db = dynamic_range_db
        self.input_spec = keras.layers.InputSpec(ndim=2)

    def build(self, input_shape):
        """Computes the window, the filters and the weights, once."""
        self.mel.build(input_shape)
        self.weighting = a_weighting(np.fft.rfftfreq(self.mel.fft_length, 1 / self.mel.sample_rate)).astype("float32")

    def call(self, waveform):
        levels = decibels(self.mel.bins(waveform), silence=self.silence, dynamic_range_db=self.dynamic_range_db)
        bands = gathered(ops.add(levels, self.weighting), self.mel.filters)  # [B, T, M]
        return ops.cast(bands, self.compute_dtype)

    def compute_output_shape(self, input_shape):
        """(B, T, M) for an input of (B, N); what is None stays None."""
        return self.mel.compute_output_shape(input_shape)

    def get_config(self):
        """What was passed."""
        told = ("sample_rate", "num_bands", "fft_length", "frame_step", "low_hz", "high_hz", "padding")
        return super().get_config() | {
            **{name: getattr(self.mel, name) for name in told},
            "silence": self.silence,
            "dynamic_range_db": self.dynamic_range_db,
        }


def a_weighting(hz):
    """How much quieter than 1 kHz a tone seems, in decibels, at least -80.

    With the corners a = 20.6, b = 107.7, c = 737.9 and d = 12,200 Hz of the standard, rounded as librosa did in 2018:
    2 + 20 * log10(d² f⁴ / ((f² + a²) (f² + d²) √((f² + b²) (f² + c²)))).

    Reference: IEC 61672-1, 2013, curve A.

    Example:
        >>> a_weighting(np.array([0.0, 50.0, 1000.0, 10_000.0])).round(1).tolist()
        [-80.0, -30.3, 0.0, -2.5]
    """
    a, b, c, d = np.square([20.6, 107.7, 737.9, 12_200.0])
    square = np.square(np.maximum(hz, 1e-3))  # 0 Hz has no logarithm, and is below the floor
    gain = d * square**2 / ((square + a) * (square + d) * np.sqrt((square + b) * (square + c)))
    return np.maximum(2 + 20 * np.log10(gain), -80)
