"""Moving a clip in time."""

import keras
from keras import ops

from audiotag.layers.augmentation.random_augmentation import _Disturbance


@keras.saving.register_keras_serializable(package="audiotag")
class TimeRoll(_Disturbance):
    """Lets each clip begin at a random moment of itself while training.

    When a sound happens should not change what it is called. The clip is a circle:
    what is cut off at its end comes back at its beginning. Each clip draws its
    own shift, uniform over all its samples. Outside training the layer is the
    identity.

    Args:
        probability: That a clip is rolled at all.
        seed: Makes the draws repeatable. None draws differently every run.

    Raises:
        ValueError: A probability outside 0 to 1.

    Input shape: a waveform [B, N], any float type.
    Output shape: that of the input, the same type.

    Example:
        >>> rolled = TimeRoll(seed=1)(ops.reshape(ops.arange(4.0), (1, 4)), training=True)
        >>> sorted(float(sample) for sample in rolled[0])
        [0.0, 1.0, 2.0, 3.0]
    """

    def __init__(self, *, probability: float = 1.0, seed: int | None = None, **kwargs):
        super().__init__(probability, seed, **kwargs)
        self.input_spec = keras.layers.InputSpec(ndim=2)

    def _disturbed(self, waveform):
        batch, length = ops.shape(waveform)
        shift = ops.where(self._chosen(waveform), self._integers((batch, 1), 0, length - 1), 0)  # [B, 1]
        moment = ops.arange(length, dtype="int32")
        return ops.take_along_axis(waveform, (moment - shift) % length, axis=1)  # [B, N]
