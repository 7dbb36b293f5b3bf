"""Mel spectrograms as librosa computes them, on the device and clip by clip."""

import math
from typing import Literal

import keras
from keras import ops

from audiotag.layers import checks
from audiotag.layers.frontends.filters import gathered, mel_filters, touched_bins
from audiotag.layers.frontends.stft import hann_window, power_spectrum, reflected


@keras.saving.register_keras_serializable(package="audiotag")
class MelSpectrogram(keras.layers.Layer):
    """Turns waveforms into the power in mel bands.

    Bands as wide as the ear's, of any loudness: what `LogMel`, `PcenMel` and
    `PerceptualMel` start from. The numbers and the defaults are those of
    `librosa.feature.melspectrogram`. Whatever the dtype policy, the output is float32.

    Args:
        sample_rate: Of the waveforms, in Hz.
        num_bands: How many mel bands. Bands narrower than an FFT bin may stay silent.
        fft_length: Length of a frame, in samples.
        frame_step: From one frame to the next, in samples.
        low_hz: Where the lowest band begins, from 0.
        high_hz: Where the highest band ends, at most half the sample rate, which None stands for.
        power: Of the magnitudes that are summed: 2 for energy, 1 for amplitude.
        window_length: Of the Hann window in the middle of a frame, in samples; None for the whole frame.
        padding: What lies beyond a clip's ends, where the first and last frames are centred. Systems built on
            librosa before 0.9 used "reflect", again and again where the clip is shorter than half a frame.
        mel_scale: "slaney" is linear up to 1 kHz and logarithmic above; "htk" is logarithmic all the way.
        norm: "slaney" divides each band by its width in Hz; None leaves triangles of height 1.

    Raises:
        ValueError: An option is out of its range.

    Input shape: [B, N], any float type; N may differ from call to call.
    Output shape: [B, T, M] with T = 1 + N // frame_step (for an odd fft_length 1 + (N - 1) // frame_step), float32.

    Example:
        >>> tone = ops.sin(2 * math.pi * 440 * ops.arange(16_000.0) / 16_000)[None]
        >>> mel = MelSpectrogram(sample_rate=16_000, num_bands=64, fft_length=1024)(tone)
        >>> tuple(mel.shape), int(ops.argmax(mel[0, 16]))
        ((1, 32, 64), 8)
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
        power: float = 2.0,
        window_length: int | None = None,
        padding: Literal["zeros", "reflect"] = "zeros",
        mel_scale: Literal["slaney", "htk"] = "slaney",
        norm: Literal["slaney"] | None = "slaney",
        **kwargs,
    ):
        super().__init__(**kwargs | {"dtype": "float32"})
        checks.above_zero(
            sample_rate=sample_rate, num_bands=num_bands, fft_length=fft_length, frame_step=frame_step, power=power
        )
        checks.at_most(1_000_000, num_bands=num_bands, fft_length=fft_length)
        if window_length is not None and not 0 < window_length <= fft_length:
            raise ValueError(
                f"window_length must be 1 to fft_length={fft_length}, or None. Received: window_length={window_length}"
            )
        checks.frequency_range(low_hz, high_hz, sample_rate)
        checks.one_of(("zeros", "reflect"), padding=padding)
        checks.one_of(("slaney", "htk"), mel_scale=mel_scale)
        checks.one_of(("slaney", None), norm=norm)
        self.sample_rate = sample_rate
        self.num_bands = num_bands
        self.fft_length = fft_length
        self.frame_step = frame_step
        self.low_hz = low_hz
        self.high_hz = high_hz
        self.power = power
        self.window_length = window_length
        self.padding = padding
        self.mel_scale = mel_scale
        self.norm = norm
        self.input_spec = keras.layers.InputSpec(ndim=2)

    def build(self, input_shape):
        """Computes the window and the filters, once."""
        self.window = hann_window(self.window_length or self.fft_length, self.fft_length)  # [F]
        filters = mel_filters(
            sample_rate=self.sample_rate,
            fft_length=self.fft_length,
            num_bands=self.num_bands,
            low_hz=self.low_hz,
            high_hz=self.sample_rate / 2 if self.high_hz is None else self.high_hz,
            mel_scale=self.mel_scale,
            norm=self.norm,
        )  # [F // 2 + 1, M]
        self.filters = tuple(touched_bins(filters))

    def call(self, waveform):
        return ops.cast(self.energies(waveform), self.compute_dtype)

    def energies(self, waveform):
        """The power in the bands, [B, T, M], before it is rounded to float32."""
        power = self.bins(waveform)  # [B, T, F // 2 + 1]
        return gathered(power if self.power == 2 else ops.power(power, self.power / 2), self.filters)

    def bins(self, waveform):
        """The power in the bins of the FFT of centred frames, [B, T, F // 2 + 1]."""
        num_frames, margin = self.num_frames(ops.shape(waveform)[1]), self.fft_length // 2
        if self.padding == "reflect":
            waveform = reflected(waveform, margin)
        else:
            waveform = ops.pad(waveform, [[0, 0], [margin, margin]])
        return power_spectrum(waveform, self.window, frame_step=self.frame_step, num_frames=num_frames)

    def num_frames(self, samples):
        """T, how many frames are centred within a clip of so many samples, an int or a tensor."""
        return 1 + (samples - self.fft_length % 2) // self.frame_step

    def compute_output_shape(self, input_shape):
        """(B, T, M) for an input of (B, N); what is None stays None."""
        batch, samples = input_shape
        return (batch, None if samples is None else self.num_frames(samples), self.num_bands)

    def get_config(self):
        """What was passed."""
        return super().get_config() | {
            "sample_rate": self.sample_rate,
            "num_bands": self.num_bands,
            "fft_length": self.fft_length,
            "frame_step": self.frame_step,
            "low_hz": self.low_hz,
            "high_hz": self.high_hz,
            "power": self.power,
            "window_length": self.window_length,
            "padding": self.padding,
            "mel_scale": self.mel_scale,
            "norm": self.norm,
        }


@keras.saving.register_keras_serializable(package="audiotag")
class LogMel(MelSpectrogram):
    """Turns waveforms into mel spectrograms in decibels.

    Loudness and pitch on the scales of the ear: what differs to us differs in
    the picture. It runs inside the compiled model, so training and serving hear
    the same, and it floors each clip under the clip's own maximum, so a loud
    neighbour in the batch changes nothing.

    The numbers are those of `librosa.feature.melspectrogram` followed by
    `librosa.power_to_db`, within 1e-3 dB, and so are the defaults. Whatever the
    dtype policy, the output is float32.

    Args:
        sample_rate, num_bands, fft_length, frame_step, low_hz, high_hz, power, window_length, padding, mel_scale,
            norm: As for `MelSpectrogram`.
        reference: What is 0 dB, or "max" for the clip's own maximum.
        silence: Anything quieter counts as this.
        dynamic_range_db: Floor under the clip's own maximum; None for none.

    Raises:
        ValueError: An option is out of its range.

    Input shape: [B, N], any float type; N may differ from call to call.
    Output shape: [B, T, M] with T = 1 + N // frame_step (for an odd fft_length 1 + (N - 1) // frame_step), float32.

    Example:
        >>> tone = ops.sin(2 * math.pi * 440 * ops.arange(16_000.0) / 16_000)[None]
        >>> decibels = LogMel(sample_rate=16_000, num_bands=64, fft_length=1024)(tone)
        >>> tuple(decibels.shape)
        (1, 32, 64)
        >>> round(float(ops.max(decibels) - ops.min(decibels)))
        80
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
        power: float = 2.0,
        window_length: int | None = None,
        padding: Literal["zeros", "reflect"] = "zeros",
        mel_scale: Literal["slaney", "htk"] = "slaney",
        norm: Literal["slaney"] | None = "slaney",
        reference: float | Literal["max"] = 1.0,
        silence: float = 1e-10,
        dynamic_range_db: float | None = 80.0,
        **kwargs,
    ):
        super().__init__(
            sample_rate=sample_rate,
            num_bands=num_bands,
            fft_length=fft_length,
            frame_step=frame_step,
            low_hz=low_hz,
            high_hz=high_hz,
            power=power,
            window_length=window_length,
            padding=padding,
            mel_scale=mel_scale,
            norm=norm,
            **kwargs,
        )
        checks.above_zero(
            reference=1.0 if reference == "max" else reference,
            silence=silence,
            dynamic_range_db=1.0 if dynamic_range_db is None else dynamic_range_db,
        )
        self.reference = reference
        self.silence = silence
        self.dynamic_range_db = dynamic_range_db

    def call(self, waveform):
        levels = decibels(self.energies(waveform), silence=self.silence, dynamic_range_db=self.dynamic_range_db)
        if self.reference == "max":
            return levels - ops.max(levels, axis=(1, 2), keepdims=True)
        return levels - 10 * math.log10(max(self.silence, self.reference))

    def get_config(self):
        """What was passed."""
        return super().get_config() | {
            "reference": self.reference,
            "silence": self.silence,
            "dynamic_range_db": self.dynamic_range_db,
        }


def decibels(power, *, silence, dynamic_range_db):
    """10 * log10 of what is at least `silence`, floored under the clip's own maximum: [B, T, M] float32.

    Example:
        >>> levels = decibels(ops.convert_to_tensor([[[100.0, 1e-7, 0.0]]]), silence=1e-10, dynamic_range_db=80.0)
        >>> [round(float(level), 4) for level in levels[0, 0]]
        [20.0, -60.0, -60.0]
    """
    levels = 10 * ops.log10(ops.maximum(ops.cast(power, "float32"), silence))  # [B, T, M]
    if dynamic_range_db is None:
        return levels
    return ops.maximum(levels, ops.max(levels, axis=(1, 2), keepdims=True) - dynamic_range_db)
