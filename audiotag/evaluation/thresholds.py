"""Thresholds per class, accuracy and F1 at these thresholds, and calibration."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy.optimize import minimize_scalar

DEFAULT_LOGIT = 0.0  # probability 1/2: the threshold of a class without clips
LARGEST_LOGIT = 40.0  # for fitting a temperature; the float64 nearest to its probability is 1
LARGEST_TEMPERATURE = 20.0  # and one over it the smallest


@dataclass(frozen=True)
class Calibration:
    """What was fitted to out-of-fold predictions beside the model.

    Args:
        thresholds: [K], the logit from which each class is predicted.
        temperature: Calibrated probabilities are those of the logits divided by it.
    """

    thresholds: tuple[float, ...]
    temperature: float = 1.0


def fit_thresholds(truth: Any, logits: Any) -> np.ndarray:
    """The threshold of each class that maximizes its F1.

    F1 = 2 true positives / (predicted positives + positives). The threshold is halfway
    between the last clip above it and the first below, so equal scores are on the same side.
    Fit it on out-of-fold predictions.

    Args:
        truth: [N, K], 1 if a clip has the class, else 0.
        logits: [N, K].

    Returns:
        [K] logits; 0, which is probability 1/2, for a class that no clip has.

    Example:
        >>> fit_thresholds([[1], [1], [0], [0]], [[4.0], [1.0], [0.0], [-3.0]])
        array([0.5])
    """
    truth, logits = np.asarray(truth, bool), np.asarray(logits, "float64")
    thresholds = np.full(truth.shape[1], DEFAULT_LOGIT)
    for label in np.flatnonzero(truth.any(axis=0)):
        order = np.argsort(-logits[:, label], kind="stable")
        scores = logits[order, label]
        hits, chosen = np.cumsum(truth[order, label]), np.arange(1, len(order) + 1)
        last = np.append(scores[1:] < scores[:-1], True)  # of a group of equal scores
        f = np.where(last, 2 * hits / (chosen + hits[-1]), -1)
        best = f.argmax()
        below = scores[best + 1] if best + 1 < len(scores) else scores[best] - 2
        thresholds[label] = (scores[best] + below) / 2
    return thresholds


def fit_temperature(truth: Any, logits: Any) -> float:
    """The number to divide logits by for calibrated probabilities.

    It minimizes their binary cross-entropy. One number for all classes leaves their ranking as it is.

    Reference: Guo et al., "On Calibration of Modern Neural Networks", 2017.

    Args:
        truth: [N, K], 1 if a clip has the class, else 0.
        logits: [N, K].

    Example:
        >>> truth = [[1], [1], [1], [0]] * 10  # right in three of four cases, and certain as if in 95 of 100
        >>> temperature = fit_temperature(truth, [[3.0]] * 40)
        >>> round(float(1 / (1 + np.exp(-3 / temperature))), 3)
        0.75
    """
    truth = np.asarray(truth, "float64")
    logits = np.clip(np.asarray(logits, "float64"), -LARGEST_LOGIT, LARGEST_LOGIT)

    def cross_entropy(log_temperature):
        scaled = logits / np.exp(log_temperature)
        return np.mean(np.logaddexp(0, scaled) - truth * scaled)

    limit = np.log(LARGEST_TEMPERATURE)
    return float(np.exp(minimize_scalar(cross_entropy, bounds=(-limit, limit), method="bounded").x))


def fit_thresholds_per_fold(truth: Any, logits: Any, folds: Any) -> np.ndarray:
    """The thresholds of each clip, fitted on the other folds: [N, K].

    Args:
        truth: [N, K], 1 if a clip has the class, else 0.
        logits: [N, K].
        folds: [N], the fold of each clip; with a single fold all thresholds are probability 1/2.
    """
    folds = np.asarray(folds)
    thresholds = np.full(np.shape(logits), DEFAULT_LOGIT)
    for fold in np.unique(folds):
        own = folds == fold
        if not own.all():
            thresholds[own] = fit_thresholds(np.asarray(truth)[~own], np.asarray(logits)[~own])
    return thresholds


def measure_decisions(truth: Any, predicted: Any) -> pd.DataFrame:
    """Accuracy, precision, recall and F1 of each class, with their chance levels.

    The chance levels are what random decisions of the same frequency would get.

    With true positives TP: precision = TP / predicted positives, recall = TP / positives, F1 = 2 TP / (predicted
    positives + positives), accuracy = fraction of correct decisions; 0 / 0 is 0, as in scikit-learn.

    Args:
        truth: [N, K], 1 if a clip has the class, else 0.
        predicted: [N, K], 1 if the class is predicted, else 0.

    Returns:
        A table with a row per class and the columns accuracy, precision, recall, f, and each again with the
        prefix `chance_`.

    Example:
        >>> measure_decisions([[1], [1], [0], [0]], [[1], [0], [1], [0]]).to_dict("records")[0]["recall"]
        0.5
    """
    truth, predicted = np.asarray(truth, bool), np.asarray(predicted, bool)
    positive, chosen = truth.mean(axis=0), predicted.mean(axis=0)  # [K]
    correct = (truth == predicted).mean(axis=0)
    table = _columns(correct, (truth & predicted).mean(axis=0), positive, chosen)
    by_chance = _columns(positive * chosen + (1 - positive) * (1 - chosen), positive * chosen, positive, chosen)
    return pd.DataFrame(table | {f"chance_{column}": values for column, values in by_chance.items()})


def _columns(correct, true_positive, positive, predicted):
    """The four measures from fractions of the clips, [K] each."""
    precision, recall = _ratio(true_positive, predicted), _ratio(true_positive, positive)
    return {
        "accuracy": correct,
        "precision": precision,
        "recall": recall,
        "f": _ratio(2 * true_positive, positive + predicted),
    }


def _ratio(numerator, denominator):
    return np.divide(numerator, denominator, out=np.zeros(np.shape(numerator)), where=denominator > 0)


def calibration(truth: Any, probabilities: Any, *, bins: int = 10) -> pd.DataFrame:
    """The reliability curve over all clips and classes.

    It is the fraction of true labels per bin of probability.

    Args:
        truth: [N, K], 1 if a clip has the class, else 0.
        probabilities: [N, K], 0 to 1.
        bins: Number of equal bins of 0 to 1; the last includes 1.

    Returns:
        A table with a row per bin that is not empty: from, to, predictions (their number), probability (their
        mean), fraction (of them that are true).

    Example:
        >>> calibration([[1, 0]], [[0.75, 0.25]], bins=2)["fraction"].tolist()
        [0.0, 1.0]
    """
    truth, probabilities = np.asarray(truth, "float64").ravel(), np.asarray(probabilities, "float64").ravel()
    place = np.minimum((probabilities * bins).astype(int), bins - 1)
    count = np.bincount(place, minlength=bins)
    filled = count > 0
    table = {"from": np.arange(bins) / bins, "to": np.arange(1, bins + 1) / bins, "predictions": count}
    for column, values in (("probability", probabilities), ("fraction", truth)):
        table[column] = np.bincount(place, values, minlength=bins) / np.maximum(1, count)
    return pd.DataFrame(table)[filled].reset_index(drop=True)


def calibration_error(table: pd.DataFrame) -> float:
    """Expected calibration error of a reliability curve; 0 is best.

    It is the mean distance of the curve from the diagonal.

    Args:
        table: What `calibration` returns.

    Example:
        >>> calibration_error(calibration([[1, 0]], [[0.75, 0.25]]))
        0.25
    """
    return float(np.average((table["probability"] - table["fraction"]).abs(), weights=table["predictions"]))
