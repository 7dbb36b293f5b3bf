"""A front end, an image preprocessing step and an augmentation that changes labels."""

import keras
from keras import ops

from audiotag.layers import RandomAugmentation


@keras.saving.register_keras_serializable(package="sound_parts")
class LogPower(keras.layers.Layer):
    """A front end: waveform [B, N] → log power spectrogram [B, T, M].

    Args:
        sample_rate: In Hz; audiotag passes that of the records.
        frame_seconds: Length of a frame, and the time between two frames.
        floor: Added to the power before the logarithm.
    """

    def __init__(self, *, sample_rate: int, frame_seconds: float = 0.02, floor: float = 1e-6, **kwargs):
        super().__init__(**kwargs)
        self.sample_rate = sample_rate
        self.frame_seconds = frame_seconds
        self.floor = floor
        self.frame = round(frame_seconds * sample_rate)

    def call(self, waveform):
        real, imaginary = ops.stft(waveform, self.frame, self.frame, fft_length=self.frame, center=False)
        return ops.log(ops.square(real) + ops.square(imaginary) + self.floor)

    def get_config(self):
        options = {"sample_rate": self.sample_rate, "frame_seconds": self.frame_seconds, "floor": self.floor}
        return super().get_config() | options


@keras.saving.register_keras_serializable(package="sound_parts")
class Scale(keras.layers.Layer):
    """Image preprocessing: multiplies images [B, M, T, C] by a constant."""

    def __init__(self, *, factor: float = 0.1, **kwargs):
        super().__init__(**kwargs)
        self.factor = factor

    def call(self, image):
        return self.factor * image

    def get_config(self):
        return super().get_config() | {"factor": self.factor}


@keras.saving.register_keras_serializable(package="sound_parts")
class AddNeighbor(RandomAugmentation):
    """An augmentation: adds the next clip of the batch to a clip, and its labels.

    Args:
        volume: By which the other clip is multiplied.
        probability: Probability that a clip changes.
        seed: Of the random numbers; audiotag passes one.
    """

    def __init__(self, *, volume: float = 0.5, probability: float = 0.5, seed: int | None = None, **kwargs):
        super().__init__(probability=probability, seed=seed, **kwargs)
        self.volume = volume

    def get_random_transformation(self, inputs):
        return self.random_selection(inputs)

    def transform_inputs(self, inputs, transformation):
        return ops.where(transformation, inputs + self.volume * ops.roll(inputs, -1, axis=0), inputs)

    def transform_labels(self, labels, transformation):
        chosen = ops.reshape(transformation, (-1, 1))  # [B, 1]
        return ops.where(chosen, ops.maximum(labels, ops.roll(labels, -1, axis=0)), labels)

    def get_config(self):
        return super().get_config() | {"volume": self.volume}
