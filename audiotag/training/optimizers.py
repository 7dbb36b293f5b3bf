"""The optimizers an experiment may name: Keras' own, with what a schedule needs."""

import keras

from audiotag.experiment import options
from audiotag.schedules import SCHEDULES


class _MovingBeta:
    """Lets beta_1 be a function of the steps done, as Keras' documentation has it and its code has not."""

    @property
    def beta_1(self):
        """The decay of the mean of the gradients, now."""
        return self._beta_1(self._iterations) if callable(self._beta_1) else self._beta_1

    @beta_1.setter
    def beta_1(self, value):
        self._beta_1 = value


class Adam(_MovingBeta, keras.optimizers.Adam):
    """Keras' Adam, whose beta_1 may follow a schedule."""


class AdamW(_MovingBeta, keras.optimizers.AdamW):
    """Keras' AdamW, whose beta_1 may follow a schedule."""


OPTIMIZERS = {"adam": Adam, "adamw": AdamW, "sgd": keras.optimizers.SGD}


def build_optimizer(stage, weights, *, steps_per_epoch):
    """The optimizer of a stage, with its schedule.

    Keras takes weight_decay off the weights themselves, times the learning rate and
    before the step, in every optimizer: it is decoupled from the gradient.

    Args:
        stage: A `Stage`.
        weights: The trainable variables of the model.
        steps_per_epoch: Batches in an epoch.

    Raises:
        ValueError: Keras or a schedule refuses a setting.
    """
    told = options(stage.optimizer)
    if stage.schedule is not None:
        schedule = SCHEDULES[stage.schedule.name](
            learning_rate=stage.optimizer.learning_rate,
            epochs=stage.epochs,
            steps_per_epoch=steps_per_epoch,
            **options(stage.schedule),
        )
        told["learning_rate"] = schedule
        if getattr(schedule, "beta_1", None) is not None:
            told["beta_1"] = schedule.momentum
    optimizer = OPTIMIZERS[stage.optimizer.name](**told)
    if stage.decayed_weights == "kernels":  # gains, biases and other vectors stay as they are
        optimizer.exclude_from_weight_decay(var_list=[weight for weight in weights if len(weight.shape) < 2])
    return optimizer
