"""The optimizers of experiments.

They are Keras' own, with a beta_1 that may follow a schedule and learning rate multipliers of single weights.
"""

from typing import Any

import keras
from keras import ops


class _Multipliers(keras.optimizers.Optimizer):
    """Multiplies the learning rate of single weights, and with it their weight decay."""

    lr_multipliers: tuple[tuple[int, float], ...] = ()  # (id, multiplier) of each weight whose multiplier is not 1

    def build(self, variables: list) -> None:
        """Stores the multiplier of each weight."""
        of_weight = dict(self.lr_multipliers)
        self.multipliers = tuple(of_weight.get(id(weight), 1.0) for weight in variables)
        super().build(variables)

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Updates one weight."""
        super().update_step(gradient, variable, learning_rate * self._multiplier(variable))

    def _apply_weight_decay(self, variables):
        for variable in variables if self.weight_decay else ():
            if self._use_weight_decay(variable):
                weight_decay = ops.cast(self._multiplier(variable) * self.weight_decay, variable.dtype)
                learning_rate = ops.cast(self.learning_rate, variable.dtype)
                variable.assign(variable - variable * weight_decay * learning_rate)

    def _multiplier(self, variable):
        return self.multipliers[self._get_variable_index(variable)]


class _ScheduledBeta(keras.optimizers.Optimizer):
    """Lets beta_1 be a function of the step, which Keras documents but does not implement."""

    @property
    def beta_1(self) -> Any:
        """Decay of the mean of the gradients at the present step."""
        return self._beta_1(self._iterations) if callable(self._beta_1) else self._beta_1

    @beta_1.setter
    def beta_1(self, value: Any) -> None:
        self._beta_1 = value


class Adam(_ScheduledBeta, _Multipliers, keras.optimizers.Adam):
    """Keras' Adam with a schedule for beta_1 and multipliers of the learning rate.

    `beta_1` may be a function of the step. The attribute `lr_multipliers` is set
    before the optimizer is built: pairs of the id of a variable and what its learning
    rate is multiplied by; 1 for the others.

    Example:
        >>> weight, optimizer = keras.Variable(1.0), Adam(learning_rate=0.1)
        >>> optimizer.lr_multipliers = ((id(weight), 0.5),)
        >>> optimizer.apply([keras.ops.ones(())], [weight])
        >>> round(float(weight.value), 4)
        0.95
    """


class AdamW(_ScheduledBeta, _Multipliers, keras.optimizers.AdamW):
    """Keras' AdamW with a schedule for beta_1 and multipliers, as in `Adam`."""


class SGD(_Multipliers, keras.optimizers.SGD):
    """Keras' SGD with multipliers of the learning rate, as in `Adam`."""


def with_lr_multipliers(kind: Any) -> Any:
    """The class of an optimizer with multipliers of the learning rate, as in `Adam`.

    Example:
        >>> with_lr_multipliers(keras.optimizers.Lion).lr_multipliers
        ()
    """
    return kind if issubclass(kind, _Multipliers) else type(kind.__name__, (_Multipliers, kind), {})


OPTIMIZERS = {"adam": Adam, "adamw": AdamW, "sgd": SGD}
