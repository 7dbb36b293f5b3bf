"""The optimizers an experiment may name: Keras' own, with what a schedule and a slower trunk need."""

import keras

from audiotag.experiment import options
from audiotag.schedules import SCHEDULES


class _TwoRates:
    """Moves the weights of a trunk by a share of the learning rate, and shrinks them by that share less."""

    trunk = ()  # the id of each of its weights
    trunk_rate = 1.0

    def build(self, variables):
        """Notes the share of each weight."""
        self.shares = tuple(self.trunk_rate if id(weight) in self.trunk else 1.0 for weight in variables)
        super().build(variables)

    def update_step(self, gradient, variable, learning_rate):
        """Moves one weight."""
        super().update_step(gradient, variable, learning_rate * self._share(variable))

    def _apply_weight_decay(self, variables):
        whole = self.weight_decay
        for share in dict.fromkeys(self.shares if whole else ()):
            self.weight_decay = share * whole
            super()._apply_weight_decay([weight for weight in variables if self._share(weight) == share])
        self.weight_decay = whole

    def _share(self, variable):
        return self.shares[self._get_variable_index(variable)]


class _MovingBeta:
    """Lets beta_1 be a function of the steps done, as Keras' documentation has it and its code has not."""

    @property
    def beta_1(self):
        """The decay of the mean of the gradients, now."""
        return self._beta_1(self._iterations) if callable(self._beta_1) else self._beta_1

    @beta_1.setter
    def beta_1(self, value):
        self._beta_1 = value


class Adam(_MovingBeta, _TwoRates, keras.optimizers.Adam):
    """Keras' Adam, whose beta_1 may follow a schedule, and whose trunk may be slower."""


class AdamW(_MovingBeta, _TwoRates, keras.optimizers.AdamW):
    """Keras' AdamW, whose beta_1 may follow a schedule, and whose trunk may be slower."""


class SGD(_TwoRates, keras.optimizers.SGD):
    """Keras' SGD, whose trunk may be slower."""


OPTIMIZERS = {"adam": Adam, "adamw": AdamW, "sgd": SGD}


def build_optimizer(stage, weights, *, steps_per_epoch, trunk=()):
    """The optimizer of a stage, with its schedule.

    Keras takes weight_decay off the weights themselves, times the learning rate and
    before the step, in every optimizer: it is decoupled from the gradient.

    Args:
        stage: A `Stage`.
        weights: The trainable variables of the model.
        steps_per_epoch: Batches in an epoch.
        trunk: Those variables that move by the stage's trunk_rate.

    Raises:
        ValueError: Keras or a schedule refuses a setting, or nothing is left to train.
    """
    if not weights:
        raise ValueError("nothing is left to train: with trunk_rate 0 the network needs a head with weights.")
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
    optimizer.trunk, optimizer.trunk_rate = tuple(map(id, trunk)), stage.trunk_rate  # a list would be tracked
    if stage.decayed_weights == "kernels":  # gains, biases and other vectors stay as they are
        optimizer.exclude_from_weight_decay(var_list=[weight for weight in weights if len(weight.shape) < 2])
    return optimizer
