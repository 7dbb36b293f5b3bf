"""Random loss of high frequencies."""

import math
from typing import Any

import keras
from keras import ops

from audiotag.layers.augmentation.random_augmentation import RandomAugmentation


@keras.saving.register_keras_serializable(package="audiotag")
class LowPass(RandomAugmentation):
    """Attenuates the high frequencies of each clip while training.

    Telephones, codecs, walls and old microphones lose them, and a network that was
    trained without such recordings fails on them. Each clip draws a cutoff c and a
    slope s; a frequency f above c is attenuated by s log2(f / c) dB, without delay.
    What is near one end of the waveform may leak to the other. At inference the layer
    is the identity.

    Reference: a low-pass filter is among the usual augmentations of audio, as in the
    library audiomentations; the ranges are our choice.

    Args:
        min_cutoff: Lowest cutoff, as a fraction of half the sample rate, above 0; logarithms of cutoffs are uniform.
        max_cutoff: Highest cutoff, at most 1.
        min_slope: Lowest slope in dB per octave, at least 0; slopes are uniform.
        max_slope: Highest slope in dB per octave.
        probability: Probability that a clip is filtered.
        seed: Seed of the random numbers; None is different in every run.

    Raises:
        ValueError: An option is out of its range.

    Input shape: a waveform [B, N], any float type.
    Output shape: that of the input, the same type; the filter is computed in float32.

    Example:
        >>> high = ops.cos(0.8 * math.pi * ops.arange(1000, dtype="float32"))[None]  # 0.8 of half the sample rate
        >>> low = LowPass(min_cutoff=0.2, max_cutoff=0.2, min_slope=48.0, probability=1.0)(high, training=True)
        >>> bool(ops.std(low) < 0.01 * ops.std(high))
        True
    """

    def __init__(
        self,
        *,
        min_cutoff: float = 0.15,
        max_cutoff: float = 0.8,
        min_slope: float = 12.0,
        max_slope: float = 96.0,
        probability: float = 0.5,
        seed: int | None = None,
        **kwargs,
    ):
        super().__init__(probability=probability, seed=seed, **kwargs)
        if not 0 < min_cutoff <= max_cutoff <= 1:
            raise ValueError(
                "min_cutoff must be above 0 and at most max_cutoff, and max_cutoff at most 1. "
                f"Received: min_cutoff={min_cutoff}, max_cutoff={max_cutoff}"
            )
        if not 0 <= min_slope <= max_slope:
            raise ValueError(
                f"min_slope must be from 0 to max_slope. Received: min_slope={min_slope}, max_slope={max_slope}"
            )
        self.min_cutoff = min_cutoff
        self.max_cutoff = max_cutoff
        self.min_slope = min_slope
        self.max_slope = max_slope
        self.input_spec = keras.layers.InputSpec(ndim=2)

    def get_config(self) -> dict[str, Any]:
        """The options as they were passed."""
        return super().get_config() | {
            "min_cutoff": self.min_cutoff,
            "max_cutoff": self.max_cutoff,
            "min_slope": self.min_slope,
            "max_slope": self.max_slope,
        }

    def get_random_transformation(self, inputs: Any) -> Any:
        """Each clip's cutoff in octaves, its slope, and whether it changes: [B, 1]."""
        shape = (ops.shape(inputs)[0], 1)
        cutoff = self.random_uniform(shape, math.log2(self.min_cutoff), math.log2(self.max_cutoff))
        return cutoff, self.random_uniform(shape, self.min_slope, self.max_slope), self.random_selection(inputs)

    def transform_inputs(self, inputs: Any, transformation: Any) -> Any:
        cutoff, slope, is_selected = transformation
        num_samples = ops.shape(inputs)[1]
        real, imaginary = ops.rfft(ops.cast(inputs, "float32"))  # [B, F] each
        frequency = ops.cast(ops.arange(ops.shape(real)[1]), "float32") * 2 / num_samples  # 1 is half the sample rate
        octaves = ops.log2(ops.maximum(frequency, 1e-9))[None] - cutoff  # above the cutoff [B, F]
        gain = ops.power(10.0, -slope * ops.maximum(octaves, 0) / 20)
        filtered = ops.irfft((real * gain, imaginary * gain), fft_length=num_samples)  # [B, N]
        return ops.where(is_selected, ops.cast(filtered, inputs.dtype), inputs)
