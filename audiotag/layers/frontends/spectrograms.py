"""Mel spectrograms, in power and in decibels, with librosa's values."""

import math
from typing import Any, Literal

import keras
from keras import ops

from audiotag.layers import checks
from audiotag.layers.frontends.filters import apply_filters, filter_groups, mel_filters
from audiotag.layers.frontends.stft import hann_window, power_spectrogram, reflect_pad, spectrum_dtype


@keras.saving.register_keras_serializable(package="audiotag")
class MelSpectrogram(keras.layers.Layer):
    """Turns waveforms into mel spectrograms: the power in each mel band.

    Mel bands have roughly the resolution of human hearing. `LogMel`, `PcenMel` and
    `PerceptualMel` build on this layer. The values and the defaults are those of
    `librosa.feature.melspectrogram`. Whatever the dtype policy, the output is float32.

    Args:
        sample_rate: Sample rate of the waveforms, in Hz.
        num_bands: Number of mel bands. Bands narrower than an FFT bin may be empty.
        fft_length: Length of a frame and of its FFT, in samples.
        frame_step: Step from one frame to the next, in samples.
        low_hz: Lower edge of the lowest band, from 0.
        high_hz: Upper edge of the highest band, at most half the sample rate, which None stands for.
        power: Exponent of the magnitudes before they are summed: 2 for energy, 1 for amplitude.
        window_length: Length of the Hann window, centered in the frame, in samples; None for fft_length.
        padding: Padding before and after the clip, so that frames are centered. "reflect" was librosa's default before
            0.9; the reflection repeats if the clip is shorter than half a frame.
        mel_scale: "slaney" is linear up to 1 kHz and logarithmic above; "htk" is logarithmic throughout.
        norm: "slaney" divides each band by its width in Hz; None keeps triangles of height 1.
        dtype: Type to compute in, "float32" or "float64" (on JAX always "float32"); None is "float32", in which
            amplitudes are exact to about 1e-7 of the largest one. The output is float32.

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
        dtype: Literal["float32", "float64"] | None = None,
        **kwargs,
    ):
        super().__init__(**kwargs | {"dtype": "float32", "autocast": False})
        checks.above_zero(
            sample_rate=sample_rate, num_bands=num_bands, fft_length=fft_length, frame_step=frame_step, power=power
        )
        checks.at_most(1_000_000, fft_length=fft_length)
        checks.at_most(10_000, num_bands=num_bands)
        checks.at_most(100_000_000, num_bands_times_fft_length=num_bands * fft_length)
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
        self.requested_dtype = dtype
        self.spectrum_dtype = spectrum_dtype(dtype)
        self.input_spec = keras.layers.InputSpec(ndim=2)

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Computes the window and the filters once."""
        window = hann_window(self.window_length or self.fft_length, self.fft_length)
        self.window = window.astype(self.spectrum_dtype)  # [fft_length]
        filters = mel_filters(
            sample_rate=self.sample_rate,
            fft_length=self.fft_length,
            num_bands=self.num_bands,
            low_hz=self.low_hz,
            high_hz=self.sample_rate / 2 if self.high_hz is None else self.high_hz,
            mel_scale=self.mel_scale,
            norm=self.norm,
        )  # [F, M]
        self.filters = tuple(filter_groups(filters.astype(self.spectrum_dtype)))

    def call(self, waveform):
        return ops.cast(self.mel_spectrogram(waveform), self.compute_dtype)

    def mel_spectrogram(self, waveform: Any) -> Any:
        """The power in each mel band, [B, T, M], in `spectrum_dtype`."""
        power = self.power_spectrogram(waveform)  # [B, T, F]
        if self.power != 2:
            power = ops.sqrt(power) if self.power == 1 else ops.power(power, self.power / 2)
        return apply_filters(power, self.filters)

    def power_spectrogram(self, waveform: Any) -> Any:
        """The power in each bin of the FFT of centered frames, [B, T, F]."""
        num_frames, margin = self.num_frames(ops.shape(waveform)[1]), self.fft_length // 2
        if self.padding == "reflect":
            waveform, margin = reflect_pad(waveform, margin), 0
        return power_spectrogram(
            waveform, self.window, frame_step=self.frame_step, num_frames=num_frames, margin=margin
        )

    def num_frames(self, samples: Any) -> Any:
        """T, the number of frames of so many samples, an int or an integer tensor."""
        return 1 + (samples - self.fft_length % 2) // self.frame_step

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """(B, T, M) for an input of (B, N); an unknown size stays None."""
        batch, samples = input_shape
        return (batch, None if samples is None else self.num_frames(samples), self.num_bands)

    def get_config(self) -> dict[str, Any]:
        """The options as they were passed."""
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
            "dtype": self.requested_dtype,
        }


@keras.saving.register_keras_serializable(package="audiotag")
class LogMel(MelSpectrogram):
    """Turns waveforms into mel spectrograms in decibels.

    Decibels and mel follow how people perceive loudness and pitch. The layer is a
    step of the model, so training and serving compute the same spectrogram. Each clip
    is floored below its own maximum, so its result does not depend on its batch.

    The values and the defaults are those of `librosa.feature.melspectrogram` followed by
    `librosa.power_to_db`. In float32, recordings, tones, chirps and silence are at most
    1e-2 dB off and 99.99 % of the levels at most 1e-3 dB; only where "reflect" puts a
    kink into a tone it is up to 3e-2 dB, close to the floor. Rounding the waveform to 16
    bits changes more. In float64 it is at most 1e-4 dB. Whatever the dtype policy, the
    output is float32.

    Args:
        sample_rate, num_bands, fft_length, frame_step, low_hz, high_hz, power, window_length: As for `MelSpectrogram`.
        padding, mel_scale, norm: As for `MelSpectrogram`.
        reference: Power of 0 dB, above 0, or "max" for the clip's own maximum.
        silence: Floor of the power of a band, above 0.
        dynamic_range_db: Levels are floored this far below the clip's own maximum; None for no floor.
        dtype: Type to compute in, "float32" or "float64" (on JAX always "float32"). None is "float64" if levels are
            resolved more than 100 dB below a tone, where float32 is off by more than 0.1 dB: if `dynamic_range_db` is
            None or above 100, or with power 1, whose decibels are half as many, above 50. The output is float32.

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
        dtype: Literal["float32", "float64"] | None = None,
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
            dtype=dtype,
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
        range_db = None if dynamic_range_db is None else dynamic_range_db * 2 / power
        self.spectrum_dtype = spectrum_dtype(dtype, range_db=range_db)

    def call(self, waveform):
        power = self.mel_spectrogram(waveform)  # [B, T, M]
        levels = power_to_db(power, silence=self.silence, dynamic_range_db=self.dynamic_range_db)
        if self.reference == "max":
            return levels - ops.max(levels, axis=(1, 2), keepdims=True)
        return levels - 10 * math.log10(max(self.silence, self.reference))

    def get_config(self) -> dict[str, Any]:
        """The options as they were passed."""
        return super().get_config() | {
            "reference": self.reference,
            "silence": self.silence,
            "dynamic_range_db": self.dynamic_range_db,
        }


def power_to_db(power: Any, *, silence: float, dynamic_range_db: float | None) -> Any:
    """Converts power to decibels, 10 * log10(max(power, silence)), in float32.

    Args:
        power: [B, T, M].
        silence: Floor of the power, above 0.
        dynamic_range_db: Levels are floored this far below the clip's own maximum; None for no floor.

    Returns:
        [B, T, M] float32.

    Example:
        >>> levels = power_to_db(ops.convert_to_tensor([[[100.0, 1e-7, 0.0]]]), silence=1e-10, dynamic_range_db=80.0)
        >>> [round(float(level), 4) for level in levels[0, 0]]
        [20.0, -60.0, -60.0]
    """
    levels = 10 * ops.log10(ops.maximum(ops.cast(power, "float32"), silence))  # [B, T, M]
    if dynamic_range_db is None:
        return levels
    return ops.maximum(levels, ops.max(levels, axis=(1, 2), keepdims=True) - dynamic_range_db)
