"""Schedules of the learning rate over the steps of a stage.

OneCycle also schedules Adam's beta_1. A schedule is a function of the step, which belongs to the optimizer's state, so
a resumed stage continues its schedule. The learning_rate of the experiment's optimizer is the highest value.
"""

import math
from typing import Any

import keras
from keras import ops


class _Schedule(keras.optimizers.schedules.LearningRateSchedule):
    """A learning rate times a factor that depends on the step: `factor(step)`, steps from 0."""

    def __init__(self, learning_rate, epochs, steps_per_epoch):
        self.learning_rate = learning_rate
        self.epochs = epochs
        self.steps_per_epoch = steps_per_epoch
        self.num_steps = epochs * steps_per_epoch

    def __call__(self, step):
        return self.learning_rate * self.factor(ops.cast(step, "int32"))

    def get_config(self) -> dict[str, Any]:
        """The options as they were passed."""
        return {
            "learning_rate": self.learning_rate,
            "epochs": self.epochs,
            "steps_per_epoch": self.steps_per_epoch,
        }


@keras.saving.register_keras_serializable(package="audiotag")
class Constant(_Schedule):
    """A constant rate after an optional linear warmup.

    Adam's first steps are as large as its later ones while its averages are still
    inaccurate; a few hundred small steps protect pretrained weights.

    Step n, from 0, has min(1, (n + 1) / W) of the rate, with a warmup of W steps.

    Args:
        learning_rate: The rate after the warmup.
        epochs: Epochs of the stage.
        steps_per_epoch: Batches per epoch.
        warmup_epochs: Length of the warmup in epochs, from 0 to those of the stage.

    Raises:
        ValueError: warmup_epochs out of its range.

    Example:
        >>> rate = Constant(learning_rate=1.0, epochs=3, steps_per_epoch=4, warmup_epochs=1.0)
        >>> [float(rate(step)) for step in range(6)]
        [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]
    """

    def __init__(self, *, learning_rate: float, epochs: int, steps_per_epoch: int, warmup_epochs: float = 0.0):
        super().__init__(learning_rate, epochs, steps_per_epoch)
        self.warmup_epochs = warmup_epochs
        self.warmup_steps = _warmup_steps(warmup_epochs, epochs, steps_per_epoch)

    def factor(self, step: Any) -> Any:
        """Fraction of the learning rate at a step."""
        return ops.minimum(ops.cast(step + 1, "float32") / max(self.warmup_steps, 1), 1.0)

    def get_config(self) -> dict[str, Any]:
        """The options as they were passed."""
        return super().get_config() | {"warmup_epochs": self.warmup_epochs}


@keras.saving.register_keras_serializable(package="audiotag")
class ConstantThenLinear(_Schedule):
    """A constant rate for some epochs, then a linear decay to 0 epoch by epoch.

    Epoch e of E, from 1, has min(1, (E - e) / (E - constant_epochs)) of the rate. The
    rate of the last epoch is 0, so with Adam it updates only the moving statistics of
    batch normalization.

    Reference: M. Dorfer and G. Widmer's system for DCASE 2018, 2018 (500 epochs from 0.001, the first 100 constant;
    then 30, the first 5 constant).

    Args:
        learning_rate: The rate of the constant epochs.
        epochs: E, epochs of the stage, at least 2.
        steps_per_epoch: Batches per epoch.
        constant_epochs: Epochs at the full rate, at least 0, fewer than the stage has.

    Raises:
        ValueError: constant_epochs out of its range, or a stage of 1 epoch.

    Example:
        >>> rate = ConstantThenLinear(learning_rate=1.0, epochs=5, steps_per_epoch=1, constant_epochs=3)
        >>> [float(rate(step)) for step in range(5)]
        [1.0, 1.0, 1.0, 0.5, 0.0]
    """

    def __init__(self, *, learning_rate: float, epochs: int, steps_per_epoch: int, constant_epochs: int = 0):
        super().__init__(learning_rate, epochs, steps_per_epoch)
        if not 0 <= constant_epochs < epochs:
            raise ValueError(
                f"constant_epochs must be from 0 to below the stage's {epochs} epochs. "
                f"Received: constant_epochs={constant_epochs}"
            )
        if epochs == 1:
            raise ValueError(
                "the rate of the last epoch is 0, so a stage of 1 epoch would learn nothing. "
                "Received: epochs=1. Use 2 or more."
            )
        self.constant_epochs = constant_epochs

    def factor(self, step: Any) -> Any:
        """Fraction of the learning rate at a step."""
        remaining = self.epochs - 1 - step // self.steps_per_epoch
        return ops.clip(ops.cast(remaining, "float32") / (self.epochs - self.constant_epochs), 0.0, 1.0)

    def get_config(self) -> dict[str, Any]:
        """The options as they were passed."""
        return super().get_config() | {"constant_epochs": self.constant_epochs}


@keras.saving.register_keras_serializable(package="audiotag")
class Cosine(_Schedule):
    """Half a cosine from the rate to 0, once or in several cycles.

    The rate falls slowly where it is high and where it is low. Cycles with restarts
    lead to several sets of weights, each worth saving.

    After a warmup of W steps as in `Constant`, step n of N has (1 + cos(pi x)) / 2 of
    the rate, x being the completed fraction of its cycle: cycles (n - W) / (N - W)
    modulo 1.

    Reference: Loshchilov and Hutter, "SGDR", 2016, https://arxiv.org/abs/1608.03983.

    Args:
        learning_rate: The rate at the beginning of a cycle.
        epochs: Epochs of the stage.
        steps_per_epoch: Batches per epoch.
        warmup_epochs: Length of the warmup in epochs, from 0 to those of the stage.
        cycles: Number of cycles, at least 1.

    Raises:
        ValueError: An option is out of its range.

    Example:
        >>> rate = Cosine(learning_rate=1.0, epochs=4, steps_per_epoch=1)
        >>> [round(float(rate(step)), 4) for step in range(4)]
        [1.0, 0.8536, 0.5, 0.1464]
    """

    def __init__(
        self, *, learning_rate: float, epochs: int, steps_per_epoch: int, warmup_epochs: float = 0.0, cycles: int = 1
    ):
        super().__init__(learning_rate, epochs, steps_per_epoch)
        if cycles < 1:
            raise ValueError(f"cycles must be at least 1. Received: cycles={cycles}")
        self.warmup_epochs = warmup_epochs
        self.cycles = cycles
        self.warmup_steps = _warmup_steps(warmup_epochs, epochs, steps_per_epoch)

    def factor(self, step: Any) -> Any:
        """Fraction of the learning rate at a step."""
        warmup = ops.cast(step + 1, "float32") / max(self.warmup_steps, 1)
        length = max(self.num_steps - self.warmup_steps, 1)
        # The remainder is taken of integers, so it is exact.
        fraction = ops.cast(self.cycles * (step - self.warmup_steps) % length, "float32") / length
        return ops.where(step < self.warmup_steps, warmup, _cosine(1.0, 0.0, fraction))

    def get_config(self) -> dict[str, Any]:
        """The options as they were passed."""
        return super().get_config() | {"warmup_epochs": self.warmup_epochs, "cycles": self.cycles}


@keras.saving.register_keras_serializable(package="audiotag")
class OneCycle(_Schedule):
    """Up to a rate that is too high to keep, then down to almost 0.

    The high rate in the middle keeps the network out of sharp minima; momentum moves
    in the opposite direction, so that steps stay bounded. It needs far fewer epochs
    than a constant rate, and depends on their number.

    Of N steps the first R = floor(warmup_fraction N) rise from learning_rate / div to
    learning_rate, the others fall to learning_rate / div_final, the rate of step N.
    Between two values a and b the rate is b + (a - b) (1 + cos(pi x)) / 2, x being
    n / R or (n - R) / (N - R). Adam's beta_1 moves from the first value of `beta_1` to
    the second and back in the same way; it replaces the beta_1 of the optimizer.

    Reference: Smith, "A disciplined approach to neural network hyper-parameters", 2018,
    https://arxiv.org/abs/1803.09820; fastai 1.0 and M. Pinto's system for FSDKaggle2019, 2019: the defaults.

    Args:
        learning_rate: The highest rate.
        epochs: Epochs of the stage.
        steps_per_epoch: Batches per epoch.
        warmup_fraction: Fraction of the steps that rise, from 0 to below 1.
        div: Divides the highest rate at the first step; at least 1.
        div_final: Divides the highest rate at the end; at least 1.
        beta_1: (at both ends, at the highest rate), or None to keep the optimizer's own.

    Raises:
        ValueError: An option is out of its range.

    Example:
        >>> cycle = OneCycle(learning_rate=0.01, epochs=10, steps_per_epoch=1)
        >>> [round(float(cycle(step)), 6) for step in (0, 3, 9)]
        [0.0004, 0.01, 0.000495]
        >>> [round(float(cycle.momentum(step)), 4) for step in (0, 3, 9)]
        [0.95, 0.85, 0.945]
    """

    def __init__(
        self,
        *,
        learning_rate: float,
        epochs: int,
        steps_per_epoch: int,
        warmup_fraction: float = 0.3,
        div: float = 25.0,
        div_final: float = 250_000.0,
        beta_1: tuple[float, float] | None = (0.95, 0.85),
    ):
        super().__init__(learning_rate, epochs, steps_per_epoch)
        if not 0 <= warmup_fraction < 1:
            raise ValueError(f"warmup_fraction must be from 0 to below 1. Received: warmup_fraction={warmup_fraction}")
        if div < 1 or div_final < 1:
            raise ValueError(f"div and div_final must be at least 1. Received: div={div}, div_final={div_final}")
        if beta_1 is not None and (len(beta_1) != 2 or not all(0 <= beta < 1 for beta in beta_1)):
            raise ValueError(f"beta_1 must be two numbers from 0 to below 1, or None. Received: beta_1={beta_1}")
        self.warmup_fraction = warmup_fraction
        self.div = div
        self.div_final = div_final
        self.beta_1 = beta_1
        self.warmup_steps = int(warmup_fraction * self.num_steps)

    def factor(self, step: Any) -> Any:
        """Fraction of the learning rate at a step."""
        return self._interpolated(1 / self.div, 1.0, 1 / self.div_final, step)

    def momentum(self, step: Any) -> Any:
        """Adam's beta_1 at a step."""
        if self.beta_1 is None:
            raise ValueError("momentum needs beta_1, two numbers. Received: beta_1=None")
        ends, middle = self.beta_1
        return self._interpolated(ends, middle, ends, ops.cast(step, "int32"))

    def get_config(self) -> dict[str, Any]:
        """The options as they were passed."""
        return super().get_config() | {
            "warmup_fraction": self.warmup_fraction,
            "div": self.div,
            "div_final": self.div_final,
            "beta_1": self.beta_1,
        }

    def _interpolated(self, start, top, end, step):
        """From `start` to `top` while the rate rises, then to `end`."""
        rise = ops.cast(step, "float32") / max(self.warmup_steps, 1)
        fall = ops.cast(step - self.warmup_steps, "float32") / max(self.num_steps - self.warmup_steps, 1)
        return ops.where(step < self.warmup_steps, _cosine(start, top, rise), _cosine(top, end, ops.minimum(fall, 1.0)))


# The names of schedules in experiment files.
SCHEDULES = {"constant": Constant, "constant_then_linear": ConstantThenLinear, "cosine": Cosine, "one_cycle": OneCycle}


def _warmup_steps(warmup_epochs, epochs, steps_per_epoch):
    """The steps of a warmup of that many epochs, rounded."""
    if not 0 <= warmup_epochs <= epochs:
        raise ValueError(
            f"warmup_epochs must be from 0 to the stage's {epochs} epochs. Received: warmup_epochs={warmup_epochs}"
        )
    return round(warmup_epochs * steps_per_epoch)


def _cosine(start, end, fraction):
    """Half a cosine from `start`, at fraction 0, to `end`, at 1."""
    return end + (start - end) * (1 + ops.cos(math.pi * fraction)) / 2
