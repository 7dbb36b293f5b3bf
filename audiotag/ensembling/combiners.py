"""Many opinions on a clip become one: means of several kinds, ridge regression and a small learned sum.

Every combiner takes logits [B, E, K] of E members and answers logits [B, K], in `keras.ops`, so that the same code
ranks clips in float64 and sits in a SavedModel. Those that learn are to be fitted on clips that no member was trained
on, which `inference.ensemble` sees to.
"""

from typing import Literal

import keras
import numpy as np
from keras import ops
from scipy.optimize import minimize
from scipy.special import expit, log_expit
from sklearn.linear_model import RidgeCV
from sklearn.model_selection import KFold

ALPHAS = np.logspace(-3, 4, 15)
LARGEST = 30.0  # logits beyond are as certain: one clip must not decide what is fitted


class Arithmetic:
    """The weighted mean of the members' probabilities.

    Args:
        weights: [E], how much each member counts, in any unit.

    Example:
        >>> mean = Arithmetic(weights=[1, 3])(np.log([[[1.0], [3.0]]]))  # probabilities 1/2 and 3/4
        >>> round(float(expit(mean[0, 0])), 4)
        0.6875
    """

    fitted = False

    def __init__(self, *, weights):
        self.weights = np.asarray(weights, "float64") / np.sum(weights)

    def __call__(self, logits):
        weights = _like(np.log(self.weights)[None, :, None], logits)
        present, absent = ops.log_sigmoid(logits) + weights, ops.log_sigmoid(-logits) + weights
        return ops.logsumexp(present, axis=1) - ops.logsumexp(absent, axis=1)  # [B, K]


class Geometric:
    """The weighted geometric mean of the members' probabilities, taken in logarithms.

    A class must convince every member. The floor keeps one member from vetoing it
    for good, and from making ties at 0.

    Reference: Maxwell_110's and L. Romul's systems for FSDKaggle2019 average so.

    Args:
        weights: [E], how much each member counts, in any unit.
        floor: The least probability that a member may give, 0 to 1.

    Example:
        >>> mean = Geometric(weights=[1, 1])(np.log([[[1.0], [1 / 7]]]))  # probabilities 1/2 and 1/8
        >>> round(float(expit(mean[0, 0])), 4)
        0.25
    """

    fitted = False

    def __init__(self, *, weights, floor: float = 1e-7):
        if not 0 < floor < 1:
            raise ValueError(f"floor must be above 0 and below 1. Received: floor={floor}")
        self.weights = np.asarray(weights, "float64") / np.sum(weights)
        self.floor = floor

    def __call__(self, logits):
        present = ops.maximum(ops.log_sigmoid(logits), float(np.log(self.floor)))
        present = ops.sum(present * _like(self.weights[None, :, None], logits), axis=1)  # [B, K]
        least = np.finfo(keras.backend.standardize_dtype(logits.dtype)).tiny
        present = ops.minimum(present, -float(least))  # 1 - p must have a logarithm
        return present - ops.log(-ops.expm1(present))


class Ranks:
    """The weighted mean of the ranks that the members give to the classes of a clip.

    For members whose probabilities cannot be compared. Equal scores share a rank.

    Args:
        weights: [E], how much each member counts, in any unit.

    Example:
        >>> mean = Ranks(weights=[1, 1])(np.array([[[3.0, 2.0, 1.0], [9.0, 10.0, 8.0]]]))
        >>> bool(mean[0, 0] == mean[0, 1] > mean[0, 2])
        True
    """

    fitted = False

    def __init__(self, *, weights):
        self.weights = np.asarray(weights, "float64") / np.sum(weights)

    def __call__(self, logits):
        one, other = ops.expand_dims(logits, -1), ops.expand_dims(logits, -2)  # [B, E, K, 1], [B, E, 1, K]
        better = ops.sum(_like(one > other, logits) + 0.5 * _like(one == other, logits), axis=-1)
        share = better / logits.shape[-1]  # [B, E, K], above 0 and below 1
        share = ops.sum(share * _like(self.weights[None, :, None], logits), axis=1)  # [B, K]
        return ops.log(share) - ops.log1p(-share)


class Ridge:
    """Ridge regression of each label on the probabilities of all: where there is applause, there may be a crowd.

    Level 1 learns, for each member, every label from that member's probabilities of
    all labels, and the members' answers are averaged. Level 2 learns, for each label, how much each member's
    answer of level 1 counts, on answers for clips that level 1 was not fitted on.

    Reference: 1st place of Planet: Understanding the Amazon from Space, 2017, to which Maxwell_110 points.

    Args:
        level: 1 or 2.
        alpha: How strongly weights are drawn to 0; None chooses one of 0.001 to 10,000 by leaving each clip out.
    """

    fitted = True

    def __init__(self, *, level: Literal[1, 2] = 2, alpha: float | None = None):
        if alpha is not None and alpha <= 0:
            raise ValueError(f"alpha must be above 0. Received: alpha={alpha}")
        self.level = level
        self.alphas = ALPHAS if alpha is None else [alpha]

    def fit(self, logits, truth):
        """Learns from logits [N, E, K] and truth [N, K]."""
        heard, truth = expit(logits), np.asarray(truth, "float64")
        members = heard.shape[1]
        kernel, bias = zip(*(self._level_1(heard[:, member], truth) for member in range(members)))
        share, rest = np.full(truth.shape[1:] + (members,), 1 / members), np.zeros(truth.shape[1])  # [K, E], [K]
        if self.level == 2:
            answers = self._answers_across(heard, truth)  # [N, E, K]
            for label in range(truth.shape[1]):
                share[label], rest[label] = _ridge(answers[:, :, label], truth[:, label], self.alphas)
        self.kernel = np.stack(kernel) * share.T[:, None]  # [E, K, K]: from each label to each
        self.bias = (np.stack(bias) * share.T).sum(axis=0) + rest  # [K]
        return self

    def __call__(self, logits):
        scores = ops.einsum("bek,ekl->bl", ops.sigmoid(logits), _like(self.kernel, logits))
        scores = scores + _like(self.bias, logits)
        return 4 * (scores - 0.5)  # a sigmoid of it is near the score, and keeps all orders

    def _level_1(self, heard, truth):
        return _ridge(heard, truth, self.alphas)

    def _answers_across(self, heard, truth):
        """What level 1 answers for clips that it was not fitted on: [N, E, K]."""
        answers = np.zeros(heard.shape)
        for learn, ask in KFold(5, shuffle=True, random_state=0).split(truth):
            for member in range(heard.shape[1]):
                kernel, bias = self._level_1(heard[learn, member], truth[learn])
                answers[ask, member] = heard[ask, member] @ kernel + bias
        return answers


class Learned:
    """A weighted sum of the members' logits and a bias of each class, learned by cross-entropy.

    A few numbers, so that a few hundred clips suffice: E weights and K biases,
    drawn to the plain mean.

    Reference: Dorfer and Widmer's fusion has the same parts, DCASE 2018.

    Args:
        l2: How strongly they are drawn there.
    """

    fitted = True

    def __init__(self, *, l2: float = 1e-3):
        if l2 < 0:
            raise ValueError(f"l2 must be at least 0. Received: l2={l2}")
        self.l2 = l2

    def fit(self, logits, truth):
        """Learns from logits [N, E, K] and truth [N, K]."""
        logits, truth = np.clip(logits, -LARGEST, LARGEST), np.asarray(truth, "float64")
        members = logits.shape[1]
        plain = np.concatenate([np.full(members, 1 / members), np.zeros(truth.shape[1])])

        def loss(numbers):
            z = np.einsum("nek,e->nk", logits, numbers[:members]) + numbers[members:]  # [N, K]
            error = (expit(z) - truth) / truth.size
            slope = np.concatenate([np.einsum("nek,nk->e", logits, error), error.sum(axis=0)])
            apart = numbers - plain
            entropy = -(truth * log_expit(z) + (1 - truth) * log_expit(-z)).mean()
            return entropy + self.l2 * apart @ apart, slope + 2 * self.l2 * apart

        numbers = minimize(loss, plain, jac=True, method="L-BFGS-B").x
        self.weights, self.biases = numbers[:members], numbers[members:]
        return self

    def __call__(self, logits):
        return ops.sum(logits * _like(self.weights[None, :, None], logits), axis=1) + _like(self.biases, logits)


def _ridge(features, truth, alphas):
    """(kernel [features, targets], bias [targets]) of a ridge regression; [features] and a number for one target."""
    fitted = RidgeCV(alphas=alphas).fit(features, truth)
    return np.asarray(fitted.coef_).T, fitted.intercept_


def _like(constant, logits):
    """A constant of the type of the logits."""
    return ops.cast(ops.convert_to_tensor(constant), keras.backend.standardize_dtype(logits.dtype))


COMBINERS = {"arithmetic": Arithmetic, "geometric": Geometric, "ranks": Ranks, "ridge": Ridge, "learned": Learned}
