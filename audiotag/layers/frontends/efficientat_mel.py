"""The front end of EfficientAT's networks."""

from typing import Any

import keras
import numpy as np
from keras import ops

from audiotag.layers.frontends.filters import apply_filters, filter_groups, mel_scale_triangles
from audiotag.layers.frontends.stft import power_spectrogram, reflect_pad

SAMPLE_RATE = 32_000  # Hz
WINDOW_LENGTH, FFT_LENGTH, FRAME_STEP = 800, 1024, 320  # samples
NUM_BANDS, LOW_HZ, HIGH_HZ = 128, 0.0, 15_000.0
PREEMPHASIS = 0.97


@keras.saving.register_keras_serializable(package="audiotag")
class EfficientATMel(keras.layers.Layer):
    """Turns waveforms at 32 kHz into the log mel spectrograms of EfficientAT.

    The networks `mn04` and `mn10` were trained on exactly these numbers: each sample
    minus 0.97 times the one before; energies of frames of 25 ms every 10 ms, summed in
    128 mel bands up to 15 kHz; (log(mel + 0.00001) + 4.5) / 5. The published program
    also shifts the lowest and highest frequency at random in training, and masks bands
    and frames: add `frequency_mask` and `time_mask` to augment for the latter.

    Reference: Schmid et al., "Efficient Large-scale Audio Tagging via Transformer-to-CNN Knowledge Distillation",
    2023, https://arxiv.org/abs/2211.04772; https://github.com/fschmid56/EfficientAT.

    Args:
        sample_rate: Sample rate of the waveforms, in Hz; 32,000.

    Raises:
        ValueError: The sample rate is another.

    Input shape: [B, N], any float type, N at least 2; it may differ from call to call.
    Output shape: [B, T, 128] with T = 1 + (N - 1) // 320, float32.

    Example:
        >>> tuple(EfficientATMel(sample_rate=32_000)(np.zeros((1, 32_000))).shape)
        (1, 100, 128)
    """

    def __init__(self, *, sample_rate: int, **kwargs):
        super().__init__(**kwargs | {"dtype": "float32"})
        if sample_rate != SAMPLE_RATE:
            raise ValueError(
                f"EfficientAT expects 32000 samples per second. Received: sample_rate={sample_rate}. Make records at "
                "that rate: audiotag make-records DATASET --sample-rate 32000"
            )
        self.sample_rate = sample_rate
        self.input_spec = keras.layers.InputSpec(ndim=2)

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Computes the window and the filters once."""
        before = (FFT_LENGTH - WINDOW_LENGTH) // 2
        self.window = np.pad(np.hanning(WINDOW_LENGTH), (before, FFT_LENGTH - WINDOW_LENGTH - before))
        filters = mel_scale_triangles(
            sample_rate=SAMPLE_RATE, fft_length=FFT_LENGTH, num_bands=NUM_BANDS, low_hz=LOW_HZ, high_hz=HIGH_HZ
        )  # [F, M]
        self.filters = tuple(filter_groups(filters))

    def call(self, waveform):
        waveform = ops.cast(waveform, self.compute_dtype)
        num_frames = self.num_frames(ops.shape(waveform)[1])
        emphasized = waveform[:, 1:] - PREEMPHASIS * waveform[:, :-1]  # [B, N - 1]
        emphasized = reflect_pad(emphasized, FFT_LENGTH // 2)
        power = power_spectrogram(emphasized, self.window, frame_step=FRAME_STEP, num_frames=num_frames)  # [B, T, F]
        mel = apply_filters(power, self.filters)  # [B, T, M]
        return ops.cast((ops.log(mel + 1e-5) + 4.5) / 5.0, self.compute_dtype)

    def num_frames(self, samples: Any) -> Any:
        """T, the number of frames of so many samples, an int or an integer tensor."""
        return 1 + (samples - 1) // FRAME_STEP

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """(B, T, 128) for an input of (B, N); an unknown size stays None."""
        batch, samples = input_shape
        return (batch, None if samples is None else self.num_frames(samples), NUM_BANDS)

    def get_config(self) -> dict[str, Any]:
        """The options as they were passed."""
        return super().get_config() | {"sample_rate": self.sample_rate}
