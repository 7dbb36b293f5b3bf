"""Combiners of the logits of several models.

They are weighted means, ridge regression and learned weights.

Every combiner maps logits [B, E, K] of E members to logits [B, K], in `keras.ops`, so the same
code scores clips in float64 and is part of a SavedModel. Those that are fitted must be fitted
on out-of-fold predictions, which `ensembling.members` does; `arrays` are the attributes that
`fit` computes, with their shapes.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any, Literal

import keras
import numpy as np
from keras import ops
from scipy.optimize import minimize
from scipy.special import expit, log_expit
from sklearn.linear_model import RidgeCV
from sklearn.model_selection import KFold

ALPHAS = np.logspace(-3, 4, 15)
MAX_LOGIT = 30.0  # larger logits are clipped for fitting, so that no single clip dominates


class Mean:
    """The weighted mean of the members' probabilities.

    Args:
        weights: [E], the relative weight of each member.

    Example:
        >>> mean = Mean(weights=[1, 3])(np.log([[[1.0], [3.0]]]))  # probabilities 1/2 and 3/4
        >>> round(float(expit(mean[0, 0])), 4)
        0.6875
    """

    needs_fit = False
    arrays: dict[str, str] = {}

    def __init__(self, *, weights: Sequence[float]):
        self.weights = np.asarray(weights, "float64") / np.sum(weights)

    def __call__(self, logits: Any) -> Any:
        weights = _like(np.log(self.weights)[None, :, None], logits)
        present, absent = ops.log_sigmoid(logits) + weights, ops.log_sigmoid(-logits) + weights
        return ops.logsumexp(present, axis=1) - ops.logsumexp(absent, axis=1)  # [B, K]


class GeometricMean:
    """The weighted geometric mean of the members' probabilities.

    It is computed from logarithms. A class needs a high probability from every member. The floor
    keeps one member from forcing the mean to 0, which would also make ties.

    Reference: Maxwell_110's and L. Romul's systems for FSDKaggle2019, 2019.

    Args:
        weights: [E], the relative weight of each member.
        floor: Lower bound of a member's probability, above 0 and below 1.

    Example:
        >>> mean = GeometricMean(weights=[1, 1])(np.log([[[1.0], [1 / 7]]]))  # probabilities 1/2 and 1/8
        >>> round(float(expit(mean[0, 0])), 4)
        0.25
    """

    needs_fit = False
    arrays: dict[str, str] = {}

    def __init__(self, *, weights: Sequence[float], floor: float = 1e-7):
        if not 0 < floor < 1:
            raise ValueError(f"floor must be above 0 and below 1. Received: floor={floor}")
        self.weights = np.asarray(weights, "float64") / np.sum(weights)
        self.floor = floor

    def __call__(self, logits: Any) -> Any:
        present = ops.maximum(ops.log_sigmoid(logits), float(np.log(self.floor)))
        present = ops.sum(present * _like(self.weights[None, :, None], logits), axis=1)  # [B, K]
        least = np.finfo(keras.backend.standardize_dtype(logits.dtype)).tiny
        present = ops.minimum(present, -float(least))  # so that log(1 - p) exists
        return present - ops.log(-ops.expm1(present))


class RankMean:
    """The weighted mean of the ranks of the classes of a clip.

    For members whose probabilities are on different scales. Equal scores have equal ranks.

    Args:
        weights: [E], the relative weight of each member.

    Example:
        >>> mean = RankMean(weights=[1, 1])(np.array([[[3.0, 2.0, 1.0], [9.0, 10.0, 8.0]]]))
        >>> bool(mean[0, 0] == mean[0, 1] > mean[0, 2])
        True
    """

    needs_fit = False
    arrays: dict[str, str] = {}

    def __init__(self, *, weights: Sequence[float]):
        self.weights = np.asarray(weights, "float64") / np.sum(weights)

    def __call__(self, logits: Any) -> Any:
        one, other = ops.expand_dims(logits, -1), ops.expand_dims(logits, -2)  # [B, E, K, 1], [B, E, 1, K]
        better = ops.sum(_like(one > other, logits) + 0.5 * _like(one == other, logits), axis=-1)
        rank = better / logits.shape[-1]  # [B, E, K], above 0 and below 1
        rank = ops.sum(rank * _like(self.weights[None, :, None], logits), axis=1)  # [B, K]
        return ops.log(rank) - ops.log1p(-rank)


class Ridge:
    """Ridge regression of each label on the probabilities of all classes.

    It makes use of labels that occur together. Level 1 fits, for each member, every label to that
    member's probabilities of all classes, and averages the members' predictions. Level 2 fits, for each
    label, the weight of each member's level 1 prediction, on predictions for clips that level 1 was not
    fitted on.

    Reference: 1st place of Planet: Understanding the Amazon from Space, 2017, which Maxwell_110 cites.

    Args:
        level: 1 or 2.
        alpha: Strength of the L2 penalty; None chooses from 0.001 to 10,000 by leave-one-out.
    """

    needs_fit = True
    arrays = {"kernel": "EKK", "bias": "K"}

    def __init__(self, *, level: Literal[1, 2] = 2, alpha: float | None = None):
        if alpha is not None and alpha <= 0:
            raise ValueError(f"alpha must be above 0. Received: alpha={alpha}")
        self.level = level
        self.alphas = ALPHAS if alpha is None else [alpha]

    def fit(self, logits: np.ndarray, truth: np.ndarray) -> "Ridge":
        """Fits the regression to logits [N, E, K] and truth [N, K]."""
        probabilities, truth = expit(logits), np.asarray(truth, "float64")
        members = probabilities.shape[1]
        kernel, bias = zip(*(self._level_1(probabilities[:, member], truth) for member in range(members)))
        weights, offset = np.full(truth.shape[1:] + (members,), 1 / members), np.zeros(truth.shape[1])  # [K, E], [K]
        if self.level == 2:
            predictions = self._cross_predictions(probabilities, truth)  # [N, E, K]
            for label in range(truth.shape[1]):
                weights[label], offset[label] = _ridge(predictions[:, :, label], truth[:, label], self.alphas)
        self.kernel = np.stack(kernel) * weights.T[:, None]  # [E, K, K]: from each class to each label
        self.bias = (np.stack(bias) * weights.T).sum(axis=0) + offset  # [K]
        return self

    def __call__(self, logits: Any) -> Any:
        scores = ops.einsum("bek,ekl->bl", ops.sigmoid(logits), _like(self.kernel, logits))
        scores = scores + _like(self.bias, logits)
        return 4 * (scores - 0.5)  # its sigmoid is near the score, in the same order

    def _level_1(self, probabilities, truth):
        return _ridge(probabilities, truth, self.alphas)

    def _cross_predictions(self, probabilities, truth):
        """Level 1 predictions for clips that level 1 was not fitted on: [N, E, K]."""
        predictions = np.zeros(probabilities.shape)
        for train, test in KFold(5, shuffle=True, random_state=0).split(truth):
            for member in range(probabilities.shape[1]):
                kernel, bias = self._level_1(probabilities[train, member], truth[train])
                predictions[test, member] = probabilities[test, member] @ kernel + bias
        return predictions


class LogitWeights:
    """A weighted sum of the members' logits and a bias per class.

    The weights and biases are fitted by cross-entropy.

    It has only E weights and K biases, with an L2 penalty towards the plain mean, so a few
    hundred clips suffice.

    Reference: Dorfer and Widmer's late fusion, DCASE 2018.

    Args:
        l2: Strength of the L2 penalty.
    """

    needs_fit = True
    arrays = {"weights": "E", "biases": "K"}

    def __init__(self, *, l2: float = 1e-3):
        if l2 < 0:
            raise ValueError(f"l2 must be at least 0. Received: l2={l2}")
        self.l2 = l2

    def fit(self, logits: np.ndarray, truth: np.ndarray) -> "LogitWeights":
        """Fits weights and biases to logits [N, E, K] and truth [N, K]."""
        logits, truth = np.clip(logits, -MAX_LOGIT, MAX_LOGIT), np.asarray(truth, "float64")
        members = logits.shape[1]
        initial = np.concatenate([np.full(members, 1 / members), np.zeros(truth.shape[1])])

        def loss(values):
            z = np.einsum("nek,e->nk", logits, values[:members]) + values[members:]  # [N, K]
            error = (expit(z) - truth) / truth.size
            gradient = np.concatenate([np.einsum("nek,nk->e", logits, error), error.sum(axis=0)])
            distance = values - initial
            entropy = -(truth * log_expit(z) + (1 - truth) * log_expit(-z)).mean()
            return entropy + self.l2 * distance @ distance, gradient + 2 * self.l2 * distance

        values = minimize(loss, initial, jac=True, method="L-BFGS-B").x
        self.weights, self.biases = values[:members], values[members:]
        return self

    def __call__(self, logits: Any) -> Any:
        return ops.sum(logits * _like(self.weights[None, :, None], logits), axis=1) + _like(self.biases, logits)


@dataclasses.dataclass(frozen=True, eq=False)
class FittedCombiner:
    """A combiner, ready to use, and the standardization of logits before it.

    It maps logits [B, E, K] to logits [B, K].

    Args:
        combine: One of `COMBINERS`, fitted if it needs fitting.
        mean: [E, K], subtracted from each member's logits; None leaves the logits as they are.
        deviation: [E, K], what they are then divided by; None if `mean` is.
    """

    combine: Any
    mean: np.ndarray | None = None
    deviation: np.ndarray | None = None

    def __call__(self, logits: Any) -> Any:
        return self.combine(self.standardize(logits))

    def standardize(self, logits: Any) -> Any:
        """The logits that the combiner receives, [B, E, K]."""
        if self.mean is None:
            return logits
        return (logits - ops.cast(self.mean, logits.dtype)) / ops.cast(self.deviation, logits.dtype)


def _ridge(features, truth, alphas):
    """(kernel [features, targets], bias [targets]) of a ridge regression; [features] and a number for one target."""
    fitted = RidgeCV(alphas=alphas).fit(features, truth)
    return np.asarray(fitted.coef_).T, fitted.intercept_


def _like(constant, logits):
    """A constant with the dtype of the logits."""
    return ops.cast(ops.convert_to_tensor(constant), keras.backend.standardize_dtype(logits.dtype))


COMBINERS = {
    "mean": Mean,
    "geometric_mean": GeometricMean,
    "rank_mean": RankMean,
    "ridge": Ridge,
    "logit_weights": LogitWeights,
}
