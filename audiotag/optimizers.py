"""The optimizers of experiments.

They are Keras' own, with a beta_1 that may follow a schedule and a learning rate multiplier for the backbone.
"""

from typing import Any

import keras


class _BackboneMultiplier(keras.optimizers.Optimizer):
    """Multiplies the learning rate of the backbone's weights, and with it their weight decay."""

    backbone: tuple[int, ...] = ()  # the id of each of its weights
    backbone_lr_multiplier = 1.0

    def build(self, variables: list) -> None:
        """Stores the multiplier of each weight."""
        self.multipliers = tuple(
            self.backbone_lr_multiplier if id(weight) in self.backbone else 1.0 for weight in variables
        )
        super().build(variables)

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Updates one weight."""
        super().update_step(gradient, variable, learning_rate * self._multiplier(variable))

    def _apply_weight_decay(self, variables):
        weight_decay = self.weight_decay
        for multiplier in dict.fromkeys(self.multipliers if weight_decay else ()):
            self.weight_decay = multiplier * weight_decay
            super()._apply_weight_decay([weight for weight in variables if self._multiplier(weight) == multiplier])
        self.weight_decay = weight_decay

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


class Adam(_ScheduledBeta, _BackboneMultiplier, keras.optimizers.Adam):
    """Keras' Adam with a schedule for beta_1 and a multiplier for the backbone.

    `beta_1` may be a function of the step. Two attributes are set before the optimizer
    is built: `backbone`, a tuple of the ids of the backbone's variables, and
    `backbone_lr_multiplier`, which multiplies their learning rate; 1 by default.

    Example:
        >>> weight, optimizer = keras.Variable(1.0), Adam(learning_rate=0.1)
        >>> optimizer.backbone, optimizer.backbone_lr_multiplier = (id(weight),), 0.5
        >>> optimizer.apply([keras.ops.ones(())], [weight])
        >>> round(float(weight.value), 4)
        0.95
    """


class AdamW(_ScheduledBeta, _BackboneMultiplier, keras.optimizers.AdamW):
    """Keras' AdamW with the options of `Adam` for beta_1 and the backbone."""


class SGD(_BackboneMultiplier, keras.optimizers.SGD):
    """Keras' SGD with a multiplier for the backbone, as in `Adam`."""


def with_backbone_multiplier(kind: Any) -> Any:
    """The class of an optimizer with a multiplier for the backbone, as in `Adam`.

    Example:
        >>> with_backbone_multiplier(keras.optimizers.Lion).backbone_lr_multiplier
        1.0
    """
    if issubclass(kind, _BackboneMultiplier):
        return kind
    return type(kind.__name__, (_BackboneMultiplier, kind), {})


OPTIMIZERS = {"adam": Adam, "adamw": AdamW, "sgd": SGD}
