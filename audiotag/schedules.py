"""How the learning rate, and under one_cycle Adam's beta_1, move while a stage trains.

A schedule is a function of the number of steps done, which belongs to the optimizer's state, so that a stage that was
killed goes on where it stopped. What the optimizer of the experiment calls learning_rate is the highest value.
"""

import math

import keras
from keras import ops


class _Schedule(keras.optimizers.schedules.LearningRateSchedule):
    """A learning rate times a factor that depends on the step: `factor(step)`, steps from 0."""

    def __init__(self, learning_rate, epochs, steps_per_epoch):
        self.learning_rate = learning_rate
        self.epochs = epochs
        self.steps_per_epoch = steps_per_epoch
        self.steps = epochs * steps_per_epoch

    def __call__(self, step):
        return self.learning_rate * self.factor(ops.cast(step, "int32"))

    def get_config(self):
        """What was passed."""
        return {
            "learning_rate": self.learning_rate,
            "epochs": self.epochs,
            "steps_per_epoch": self.steps_per_epoch,
        }


@keras.saving.register_keras_serializable(package="audiotag")
class Constant(_Schedule):
    """The same rate throughout, after a rise in the beginning if asked for.

    Adam's first steps are as large as its later ones while its averages know
    almost nothing yet; a few hundred small steps keep pretrained weights whole.

    Step n, from 0, has min(1, (n + 1) / W) of the rate, W being the steps of the rise.

    Args:
        learning_rate: The rate after the rise.
        epochs: Of the stage.
        steps_per_epoch: Batches in an epoch.
        warm_up_epochs: Length of the rise in epochs, at most those of the stage.

    Raises:
        ValueError: A rise of a negative length or longer than the stage.

    Example:
        >>> rate = Constant(learning_rate=1.0, epochs=3, steps_per_epoch=4, warm_up_epochs=1.0)
        >>> [float(rate(step)) for step in range(6)]
        [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]
    """

    def __init__(self, *, learning_rate: float, epochs: int, steps_per_epoch: int, warm_up_epochs: float = 0.0):
        super().__init__(learning_rate, epochs, steps_per_epoch)
        self.warm_up_epochs = warm_up_epochs
        self.rise = _rise(warm_up_epochs, epochs, steps_per_epoch)

    def factor(self, step):
        """Share of the learning rate at a step."""
        return ops.minimum(ops.cast(step + 1, "float32") / max(self.rise, 1), 1.0)

    def get_config(self):
        """What was passed."""
        return super().get_config() | {"warm_up_epochs": self.warm_up_epochs}


@keras.saving.register_keras_serializable(package="audiotag")
class HoldThenLinear(_Schedule):
    """The whole rate for some epochs, then down by the same amount each epoch.

    Epoch e of E, from 1, has min(1, (E - e) / (E - hold)) of the rate; the last has
    none, so under Adam nothing but the moving statistics of its normalisations changes in it.

    Reference: M. Dorfer and G. Widmer's system for DCASE 2018, 2018 (500 epochs from 0.001, hold 100; then 30, hold 5).

    Args:
        learning_rate: The rate of the epochs held.
        epochs: E, of the stage.
        steps_per_epoch: Batches in an epoch.
        hold: Epochs with the whole rate, at least 0, fewer than the stage has.

    Raises:
        ValueError: A hold out of its range, or a single epoch, which would have no rate.

    Example:
        >>> rate = HoldThenLinear(learning_rate=1.0, epochs=5, steps_per_epoch=1, hold=3)
        >>> [float(rate(step)) for step in range(5)]
        [1.0, 1.0, 1.0, 0.5, 0.0]
    """

    def __init__(self, *, learning_rate: float, epochs: int, steps_per_epoch: int, hold: int = 0):
        super().__init__(learning_rate, epochs, steps_per_epoch)
        if not 0 <= hold < epochs:
            raise ValueError(f"hold must be from 0 to below the stage's {epochs} epochs. Received: hold={hold}")
        if epochs == 1:
            raise ValueError("the last epoch has no rate, so a stage of 1 would learn nothing. Give it 2 or more.")
        self.hold = hold

    def factor(self, step):
        """Share of the learning rate at a step."""
        left = self.epochs - 1 - step // self.steps_per_epoch
        return ops.clip(ops.cast(left, "float32") / (self.epochs - self.hold), 0.0, 1.0)

    def get_config(self):
        """What was passed."""
        return super().get_config() | {"hold": self.hold}


@keras.saving.register_keras_serializable(package="audiotag")
class Cosine(_Schedule):
    """Down to nothing along half a cosine, once or again and again.

    It is slow where the rate is high and where it is low. Cycles bring the weights to
    several places where training may end, each worth keeping.

    After a rise of W steps as in `Constant`, step n of N has (1 + cos(pi x)) / 2 of the
    rate, x being the share done of its cycle: cycles (n - W) / (N - W) modulo 1.

    Reference: Loshchilov and Hutter, "SGDR", 2016, https://arxiv.org/abs/1608.03983.

    Args:
        learning_rate: The rate at the beginning of a cycle.
        epochs: Of the stage.
        steps_per_epoch: Batches in an epoch.
        warm_up_epochs: Length of the rise in epochs, at most those of the stage.
        cycles: How often the rate falls, at least once.

    Raises:
        ValueError: A rise of a negative length or longer than the stage, or no cycle.

    Example:
        >>> rate = Cosine(learning_rate=1.0, epochs=4, steps_per_epoch=1)
        >>> [round(float(rate(step)), 4) for step in range(4)]
        [1.0, 0.8536, 0.5, 0.1464]
    """

    def __init__(
        self, *, learning_rate: float, epochs: int, steps_per_epoch: int, warm_up_epochs: float = 0.0, cycles: int = 1
    ):
        super().__init__(learning_rate, epochs, steps_per_epoch)
        if cycles < 1:
            raise ValueError(f"cycles must be at least 1. Received: cycles={cycles}")
        self.warm_up_epochs = warm_up_epochs
        self.cycles = cycles
        self.rise = _rise(warm_up_epochs, epochs, steps_per_epoch)

    def factor(self, step):
        """Share of the learning rate at a step."""
        rising = ops.cast(step + 1, "float32") / max(self.rise, 1)
        length = max(self.steps - self.rise, 1)
        done = ops.cast(self.cycles * (step - self.rise) % length, "float32") / length  # in whole steps: exact
        return ops.where(step < self.rise, rising, _cosine(1.0, 0.0, done))

    def get_config(self):
        """What was passed."""
        return super().get_config() | {"warm_up_epochs": self.warm_up_epochs, "cycles": self.cycles}


@keras.saving.register_keras_serializable(package="audiotag")
class OneCycle(_Schedule):
    """Up to a rate that would be too high to keep, and down to nothing.

    The high rate in the middle keeps the network out of narrow places; momentum moves
    the other way, so that steps stay bounded. It needs far fewer epochs than a
    constant rate, and their number decides all.

    Of N steps the first R = floor(warm_up_share N) rise from learning_rate / start_divisor to
    learning_rate, the others fall to learning_rate / end_divisor, which step N would
    have. Between two values a and b it moves along b + (a - b) (1 + cos(pi x)) / 2, x
    being n / R or (n - R) / (N - R). Adam's beta_1 moves from the first of `beta_1` to
    the second and back in the same way, and the optimizer's own beta_1 counts for
    nothing.

    Reference: Smith, "A disciplined approach to neural network hyper-parameters", 2018,
    https://arxiv.org/abs/1803.09820; fastai 1.0 and M. Pinto's system for FSDKaggle2019, 2019: the defaults.

    Args:
        learning_rate: The highest rate.
        epochs: Of the stage.
        steps_per_epoch: Batches in an epoch.
        warm_up_share: Share of the steps that rise, from 0 to below 1.
        start_divisor: What the highest rate is divided by at the first step.
        end_divisor: What it is divided by in the end.
        beta_1: (outside, at the highest rate), or null to leave the optimizer's own.

    Raises:
        ValueError: An option out of its range.

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
        warm_up_share: float = 0.3,
        start_divisor: float = 25.0,
        end_divisor: float = 250_000.0,
        beta_1: tuple[float, float] | None = (0.95, 0.85),
    ):
        super().__init__(learning_rate, epochs, steps_per_epoch)
        if not 0 <= warm_up_share < 1:
            raise ValueError(f"warm_up_share must be from 0 to below 1. Received: warm_up_share={warm_up_share}")
        if start_divisor < 1 or end_divisor < 1:
            raise ValueError(
                "start_divisor and end_divisor must be at least 1. "
                f"Received: start_divisor={start_divisor}, end_divisor={end_divisor}"
            )
        if beta_1 is not None and (len(beta_1) != 2 or not all(0 <= beta < 1 for beta in beta_1)):
            raise ValueError(f"beta_1 must be two numbers from 0 to below 1, or None. Received: beta_1={beta_1}")
        self.warm_up_share = warm_up_share
        self.start_divisor = start_divisor
        self.end_divisor = end_divisor
        self.beta_1 = beta_1
        self.rise = int(warm_up_share * self.steps)

    def factor(self, step):
        """Share of the learning rate at a step."""
        return self._between(1 / self.start_divisor, 1.0, 1 / self.end_divisor, step)

    def momentum(self, step):
        """Adam's beta_1 at a step."""
        outside, inside = self.beta_1
        return self._between(outside, inside, outside, ops.cast(step, "int32"))

    def get_config(self):
        """What was passed."""
        return super().get_config() | {
            "warm_up_share": self.warm_up_share,
            "start_divisor": self.start_divisor,
            "end_divisor": self.end_divisor,
            "beta_1": self.beta_1,
        }

    def _between(self, start, top, end, step):
        """From `start` to `top` while the rate rises, then to `end`."""
        risen = ops.cast(step, "float32") / max(self.rise, 1)
        fallen = ops.cast(step - self.rise, "float32") / max(self.steps - self.rise, 1)
        return ops.where(step < self.rise, _cosine(start, top, risen), _cosine(top, end, ops.minimum(fallen, 1.0)))


# The names an experiment file may use.
SCHEDULES = {"constant": Constant, "hold_then_linear": HoldThenLinear, "cosine": Cosine, "one_cycle": OneCycle}


def _rise(warm_up_epochs, epochs, steps_per_epoch):
    """How many steps a warm-up of so many epochs takes."""
    if not 0 <= warm_up_epochs <= epochs:
        raise ValueError(f"warm_up_epochs must be from 0 to {epochs}. Received: warm_up_epochs={warm_up_epochs}")
    return round(warm_up_epochs * steps_per_epoch)


def _cosine(start, end, done):
    """Half a cosine from `start`, where nothing is done, to `end`, where all is."""
    return end + (start - end) * (1 + ops.cos(math.pi * done)) / 2
