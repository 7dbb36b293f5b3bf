"""How bright a picture is, and how strong its contrasts."""

import math

import keras
from keras import ops

from audiotag.layers.augmentation.random_augmentation import _Disturbance

DARKEST = 1e-7  # a pixel of 0 or 1 has no logit


@keras.saving.register_keras_serializable(package="audiotag")
class Lighting(_Disturbance):
    """Changes the brightness and the contrast of each picture while training.

    The same sound, louder or softer, against more or less noise. Pixels x from 0
    to 1 are taken to logits, where no change leaves that range:

        x' = sigmoid((logit(x) + logit(b)) * c)

    with a brightness b, where 0.5 changes nothing, and a contrast c, where 1
    changes nothing. x is held within 1e-7 to 1 - 1e-7 first. A picture throws
    for its brightness and for its contrast apart; where neither strikes it is left
    as it was. Outside training the layer is the identity.

    Reference: the lighting of fastai v1, as M. Pinto, 6th place of FSDKaggle2019, trained with it.

    Args:
        min_brightness: Least b, above 0; b is uniform.
        max_brightness: Greatest b, below 1.
        min_contrast: Least c, above 0; the logarithm of c is uniform.
        max_contrast: Greatest c.
        probability: That the brightness changes, and again that the contrast does.
        seed: Makes the draws repeatable. None draws differently every run.

    Raises:
        ValueError: An option is out of its range.

    Input shape: a picture [B, M, T, C] of pixels from 0 to 1, any float type.
    Output shape: that of the input, the same type; computed in float32.

    Example:
        >>> light = Lighting(min_brightness=0.6, max_brightness=0.6, min_contrast=1, max_contrast=1, probability=1)
        >>> round(float(light(ops.full((1, 1, 1, 1), 0.5), training=True)[0, 0, 0, 0]), 3)
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
        super().__init__(probability, seed, **kwargs)
        if not 0 < min_brightness <= max_brightness < 1:
            raise ValueError(
                "min_brightness must be above 0 and at most max_brightness, and that below 1. "
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

    def get_config(self):
        """What was passed."""
        return super().get_config() | {
            "min_brightness": self.min_brightness,
            "max_brightness": self.max_brightness,
            "min_contrast": self.min_contrast,
            "max_contrast": self.max_contrast,
        }

    def _disturbed(self, picture):
        dice = (ops.shape(picture)[0], 1, 1, 1)
        brightness = self._uniform(dice, self.min_brightness, self.max_brightness)
        contrast = ops.exp(self._uniform(dice, math.log(self.min_contrast), math.log(self.max_contrast)))
        brightens, contrasts = self._chosen(picture), self._chosen(picture)
        brightness = ops.where(brightens, brightness, 0.5)
        contrast = ops.where(contrasts, contrast, 1.0)
        pixels = ops.minimum(ops.maximum(ops.cast(picture, "float32"), DARKEST), 1 - DARKEST)
        lit = ops.sigmoid((_logit(pixels) + _logit(brightness)) * contrast)
        return ops.where(brightens | contrasts, ops.cast(lit, picture.dtype), picture)


def _logit(x):
    return ops.log(x / (1 - x))
