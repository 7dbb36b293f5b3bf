"""Random brightness and contrast."""

import math
from typing import Any

import keras
from keras import ops

from audiotag.layers.augmentation.random_augmentation import RandomAugmentation

MIN_PIXEL = 1e-7  # the logit of 0 and of 1 is infinite


@keras.saving.register_keras_serializable(package="audiotag")
class BrightnessContrast(RandomAugmentation):
    """Changes the brightness and the contrast of each image while training.

    It imitates the same sound at another level and with more or less background
    noise. Pixels x from 0 to 1 are changed as logits, so they stay in that range:

        x' = sigmoid((logit(x) + logit(b)) * c)

    with a brightness b, where 0.5 changes nothing, and a contrast c, where 1
    changes nothing. x is clipped to 1e-7 to 1 - 1e-7 first. Each image draws
    separately whether its brightness and whether its contrast changes; if neither
    does, it is returned as it is. At inference the layer is the identity.

    Reference: the lighting transforms of fastai v1, used by M. Pinto, 6th place of FSDKaggle2019.

    Args:
        min_brightness: Lowest b, above 0; b is uniform.
        max_brightness: Highest b, below 1.
        min_contrast: Lowest c, above 0; the logarithm of c is uniform.
        max_contrast: Highest c.
        probability: Probability that the brightness changes, and separately that the contrast does.
        seed: Seed of the random numbers; None is different in every run.

    Raises:
        ValueError: An option is out of its range.

    Input shape: an image [B, M, T, C] of pixels from 0 to 1, any float type.
    Output shape: that of the input, the same type; computed in float32.

    Example:
        >>> options = {"min_brightness": 0.6, "max_brightness": 0.6, "min_contrast": 1, "max_contrast": 1}
        >>> brighter = BrightnessContrast(**options, probability=1)
        >>> round(float(brighter(ops.full((1, 1, 1, 1), 0.5), training=True)[0, 0, 0, 0]), 3)
        0.6
    """

    def __init__(
        self,
        *,
        min_brightness: float = 0.4,
        max_brightness: float = 0.6,
        min_contrast: float = 0.8,
        max_contrast: float = 1.25,
        probability: float = 0.75,
        seed: int | None = None,
        **kwargs,
    ):
        super().__init__(probability=probability, seed=seed, **kwargs)
        if not 0 < min_brightness <= max_brightness < 1:
            raise ValueError(
                "min_brightness must be above 0 and at most max_brightness, and max_brightness below 1. "
                f"Received: min_brightness={min_brightness}, max_brightness={max_brightness}"
            )
        if not 0 < min_contrast <= max_contrast:
            raise ValueError(
                "min_contrast must be above 0 and at most max_contrast. "
                f"Received: min_contrast={min_contrast}, max_contrast={max_contrast}"
            )
        self.min_brightness = min_brightness
        self.max_brightness = max_brightness
        self.min_contrast = min_contrast
        self.max_contrast = max_contrast
        self.input_spec = keras.layers.InputSpec(ndim=4)

    def get_config(self) -> dict[str, Any]:
        """The options as they were passed."""
        return super().get_config() | {
            "min_brightness": self.min_brightness,
            "max_brightness": self.max_brightness,
            "min_contrast": self.min_contrast,
            "max_contrast": self.max_contrast,
        }

    def get_random_transformation(self, inputs: Any) -> Any:
        """Brightness and contrast of each image, and whether it changes: [B, 1, 1, 1]."""
        shape = (ops.shape(inputs)[0], 1, 1, 1)
        brightness = self.random_uniform(shape, self.min_brightness, self.max_brightness)
        contrast = ops.exp(self.random_uniform(shape, math.log(self.min_contrast), math.log(self.max_contrast)))
        brightens, contrasts = self.random_selection(inputs), self.random_selection(inputs)
        brightness = ops.where(brightens, brightness, 0.5)
        contrast = ops.where(contrasts, contrast, 1.0)
        return brightness, contrast, brightens | contrasts

    def transform_inputs(self, inputs: Any, transformation: Any) -> Any:
        brightness, contrast, is_changed = transformation
        pixels = ops.minimum(ops.maximum(ops.cast(inputs, "float32"), MIN_PIXEL), 1 - MIN_PIXEL)
        changed = ops.sigmoid((_logit(pixels) + _logit(brightness)) * contrast)
        return ops.where(is_changed, ops.cast(changed, inputs.dtype), inputs)


def _logit(x):
    return ops.log(x / (1 - x))
