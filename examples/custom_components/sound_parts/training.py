"""A loss, a metric, an optimizer, a learning rate schedule, a callback and a label rule."""

import keras
import numpy as np
from keras import ops


@keras.saving.register_keras_serializable(package="sound_parts")
class Brier(keras.losses.Loss):
    """The squared difference of probabilities and labels, summed over the classes: [B, K] → [B]."""

    def __init__(self, *, weight: float = 1.0, **kwargs):
        super().__init__(**kwargs)
        self.weight = weight

    def call(self, y_true, y_pred):
        return self.weight * ops.sum(ops.square(ops.sigmoid(y_pred) - y_true), axis=-1)


class TopProbability(keras.metrics.Mean):
    """The mean probability of each clip's most probable class; like every metric it gets logits [B, K]."""

    _direction = "up"  # so that it can be the monitor

    def update_state(self, y_true, y_pred, sample_weight=None):
        """Adds the clips of a batch."""
        return super().update_state(ops.max(ops.sigmoid(y_pred), axis=-1), sample_weight)


class Signs(keras.optimizers.SGD):
    """Gradient descent by the sign of each gradient."""

    def __init__(self, *, learning_rate: float = 0.001, **kwargs):
        super().__init__(learning_rate=learning_rate, **kwargs)

    def update_step(self, gradient, variable, learning_rate):
        super().update_step(ops.sign(gradient), variable, learning_rate)


class Halving(keras.optimizers.schedules.LearningRateSchedule):
    """A learning rate that halves after each `every` epochs; audiotag passes the first three arguments."""

    def __init__(self, learning_rate, epochs, steps_per_epoch, *, every: int = 1):
        self.learning_rate = learning_rate
        self.steps = every * steps_per_epoch

    def __call__(self, step):
        return self.learning_rate * 0.5 ** ops.floor(ops.cast(step, "float32") / self.steps)


class SmoothedLoss(keras.callbacks.Callback):
    """Averages the loss over the epochs; its state survives a kill."""

    def __init__(self, *, momentum: float = 0.9):
        super().__init__()
        self.momentum = momentum
        self.value = None

    def on_epoch_end(self, epoch, logs=None):
        """Adds the average to what history.csv and the other callbacks see."""
        loss = float(logs["loss"])
        self.value = loss if self.value is None else self.momentum * self.value + (1 - self.momentum) * loss
        logs["smoothed_loss"] = self.value

    def get_state(self):
        """JSON values that `set_state` takes."""
        return {"value": self.value}

    def set_state(self, state):
        """Restores what `get_state` returned."""
        self.value = None if state["value"] is None else float(state["value"])


def likely_enough(truth, scores, *, quantile: float = 0.5):
    """A label rule: keeps the labels [n, K] of clips whose least probable label is in the upper part of all."""
    lowest = np.where(truth, scores, 1.0).min(axis=1)
    return truth & (lowest >= np.quantile(lowest, quantile))[:, None], lowest
