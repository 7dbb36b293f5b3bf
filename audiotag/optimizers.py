"""The optimizers an experiment may name: Keras' own, with what a schedule and a slower trunk need."""

import keras


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


