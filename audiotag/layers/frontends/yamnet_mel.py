"""The front end of YAMNet."""

from typing import Any

import keras
import numpy as np
from keras import ops

from audiotag.layers.frontends.filters import apply_filters, filter_groups, mel_scale_triangles
from audiotag.layers.frontends.stft import hann_window, power_spectrogram

SAMPLE_RATE = 16_000  # Hz
FRAME_LENGTH, FRAME_STEP, FFT_LENGTH = 400, 160, 512  # samples
NUM_BANDS, LOW_HZ, HIGH_HZ = 64, 125.0, 7500.0
LOG_OFFSET = 0.001
PATCH_FRAMES, PATCH_HOP = 96, 48  # frames
PATCH_SAMPLES = (PATCH_FRAMES - 1) * FRAME_STEP + FRAME_LENGTH  # 15,600


@keras.saving.register_keras_serializable(package="audiotag")
class YamnetMel(keras.layers.Layer):
    """Turns waveforms at 16 kHz into the log mel spectrograms of YAMNet.

    The network `yamnet` was trained on exactly these numbers: magnitudes of frames of
    25 ms every 10 ms, summed in 64 mel bands from 125 to 7,500 Hz, log(mel + 0.001).
    Zeros after the clip fill the last patch of 96 frames, of which one starts every 48
    frames: a window of 0.975 s + k * 0.48 s needs none.

    Reference: M. Plakal and D. Ellis, "YAMNet", 2020, tensorflow/models, research/audioset/yamnet; Gemmeke et al.,
    "Audio Set", 2017.

    Args:
        sample_rate: Sample rate of the waveforms, in Hz; 16,000.

    Raises:
        ValueError: The sample rate is another.

    Input shape: [B, N], any float type; N may differ from call to call.
    Output shape: [B, T, 64] with T = 96 + 48 k for the smallest k that covers the clip, float32.

    Example:
        >>> tuple(YamnetMel(sample_rate=16_000)(np.zeros((1, 48_000))).shape)
        (1, 336, 64)
    """

    def __init__(self, *, sample_rate: int, **kwargs):
        super().__init__(**kwargs | {"dtype": "float32"})
        if sample_rate != SAMPLE_RATE:
            raise ValueError(
                f"YAMNet expects 16000 samples per second. Received: sample_rate={sample_rate}. Make records at that "
                "rate: audiotag make-records DATASET --sample-rate 16000"
            )
        self.sample_rate = sample_rate
        self.input_spec = keras.layers.InputSpec(ndim=2)

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Computes the window and the filters once."""
        window = np.pad(hann_window(FRAME_LENGTH, FRAME_LENGTH), (0, FFT_LENGTH - FRAME_LENGTH))
        self.window = window.astype("float32")  # [FFT_LENGTH]
        filters = mel_scale_triangles(
            sample_rate=SAMPLE_RATE, fft_length=FFT_LENGTH, num_bands=NUM_BANDS, low_hz=LOW_HZ, high_hz=HIGH_HZ
        )  # [F, M]
        self.filters = tuple(filter_groups(filters.astype("float32")))

    def call(self, waveform):
        num_frames = self.num_frames(ops.shape(waveform)[1])
        waveform = ops.pad(waveform, [[0, 0], [0, PATCH_SAMPLES]])  # as many as the last patch may need
        power = power_spectrogram(waveform, self.window, frame_step=FRAME_STEP, num_frames=num_frames)  # [B, T, F]
        mel = apply_filters(ops.sqrt(power), self.filters)  # [B, T, M]
        return ops.cast(ops.log(mel + LOG_OFFSET), self.compute_dtype)

    def num_frames(self, samples: Any) -> Any:
        """T, the number of frames of so many samples, an int or an integer tensor."""
        larger = max if isinstance(samples, int) else ops.maximum  # JAX needs Python integers
        hop = PATCH_HOP * FRAME_STEP
        return PATCH_FRAMES + (larger(samples - PATCH_SAMPLES, 0) + hop - 1) // hop * PATCH_HOP

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """(B, T, 64) for an input of (B, N); an unknown size stays None."""
        batch, samples = input_shape
        return (batch, None if samples is None else self.num_frames(samples), NUM_BANDS)

    def get_config(self) -> dict[str, Any]:
        """The options as they were passed."""
        return super().get_config() | {"sample_rate": self.sample_rate}
