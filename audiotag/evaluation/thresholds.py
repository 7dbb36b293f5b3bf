"""From scores to yes or no: thresholds, how often decisions are right, whether probabilities mean what they say."""

import numpy as np
import pandas as pd

EVEN = 0.0  # the logit of probability 1/2: the threshold of a class nothing is known of


def fit_thresholds(truth, logits):
    """The threshold of each class above which yes makes its F greatest.

    F = 2 hits / (clips chosen + clips that carry the class). The threshold lies
    half-way between the last clip chosen and the first that is not, so equal
    scores are chosen together. Fit it on scores of clips that training never heard.

    Args:
        truth: [N, K], 1 where a clip carries a class, else 0.
        logits: [N, K].

    Returns:
        [K] logits; 0, which is probability 1/2, where no clip carries the class.

    Example:
        >>> fit_thresholds([[1], [1], [0], [0]], [[4.0], [1.0], [0.0], [-3.0]])
        array([0.5])
    """
    truth, logits = np.asarray(truth, bool), np.asarray(logits, "float64")
    thresholds = np.full(truth.shape[1], EVEN)
    for label in np.flatnonzero(truth.any(axis=0)):
        order = np.argsort(-logits[:, label], kind="stable")
        ranked = logits[order, label]
        hits, chosen = np.cumsum(truth[order, label]), np.arange(1, len(order) + 1)
        last = np.append(ranked[1:] < ranked[:-1], True)  # of a group of equal scores
        f = np.where(last, 2 * hits / (chosen + hits[-1]), -1)
        best = f.argmax()
        below = ranked[best + 1] if best + 1 < len(ranked) else ranked[best] - 2
        thresholds[label] = (ranked[best] + below) / 2
    return thresholds


def fit_across(truth, logits, parts):
    """The thresholds for each clip, fitted on the other parts: [N, K], for clips that must not choose their own.

    Args:
        truth: [N, K], 1 where a clip carries a class, else 0.
        logits: [N, K].
        parts: [N], which part each clip belongs to; a single part gets probability 1/2 throughout.
    """
    parts = np.asarray(parts)
    thresholds = np.full(np.shape(logits), EVEN)
    for part in np.unique(parts):
        own = parts == part
        if not own.all():
            thresholds[own] = fit_thresholds(np.asarray(truth)[~own], np.asarray(logits)[~own])
    return thresholds


def judge_decisions(truth, chosen):
    """Accuracy, precision, recall and F of each class, and what decisions as frequent, made by chance, would get.

    precision = hits / chosen, recall = hits / carrying, F = 2 hits / (chosen + carrying), accuracy = share
    of the clips decided rightly; 0 / 0 is 0, as in scikit-learn.

    Args:
        truth: [N, K], 1 where a clip carries a class, else 0.
        chosen: [N, K], 1 where the answer is yes.

    Returns:
        A table of a row a class, with the columns accuracy, precision, recall, f, and each again after `chance_`.

    Example:
        >>> judge_decisions([[1], [1], [0], [0]], [[1], [0], [1], [0]]).to_dict("records")[0]["recall"]
        0.5
    """
    truth, chosen = np.asarray(truth, bool), np.asarray(chosen, bool)
    carry, yes = truth.mean(axis=0), chosen.mean(axis=0)  # [K]
    right = (truth == chosen).mean(axis=0)
    table = _columns(right, (truth & chosen).mean(axis=0), carry, yes)
    by_chance = _columns(carry * yes + (1 - carry) * (1 - yes), carry * yes, carry, yes)
    return pd.DataFrame(table | {f"chance_{column}": values for column, values in by_chance.items()})


def f(truth, chosen):
    """The F of each class, as in `judge_decisions`: [K].

    Example:
        >>> f([[1], [1], [0], [0]], [[1], [0], [1], [0]])
        array([0.5])
    """
    truth, chosen = np.asarray(truth, bool), np.asarray(chosen, bool)
    return _ratio(2 * (truth & chosen).sum(axis=0), truth.sum(axis=0) + chosen.sum(axis=0))


def _columns(right, hits, carry, yes):
    """The four measures from shares of the clips: decided rightly, rightly chosen, carrying, chosen; [K] each."""
    precision, recall = _ratio(hits, yes), _ratio(hits, carry)
    return {"accuracy": right, "precision": precision, "recall": recall, "f": _ratio(2 * hits, carry + yes)}


def _ratio(part, whole):
    return np.divide(part, whole, out=np.zeros(np.shape(part)), where=whole > 0)


def calibration(truth, probabilities, *, bins=10):
    """Do 70 of 100 answers given with probability 0.7 hold? The reliability curve, over all clips and classes.

    Args:
        truth: [N, K], 1 where a clip carries a class, else 0.
        probabilities: [N, K], 0 to 1.
        bins: Into how many equal steps 0 to 1 is cut; the last holds 1 too.

    Returns:
        A table of a row a bin that is not empty: from, to, answers, probability (their mean), share (of them that
        hold).

    Example:
        >>> calibration([[1, 0]], [[0.75, 0.25]], bins=2)["share"].tolist()
        [0.0, 1.0]
    """
    truth, probabilities = np.asarray(truth, "float64").ravel(), np.asarray(probabilities, "float64").ravel()
    place = np.minimum((probabilities * bins).astype(int), bins - 1)
    answers = np.bincount(place, minlength=bins)
    filled = answers > 0
    table = {"from": np.arange(bins) / bins, "to": np.arange(1, bins + 1) / bins, "answers": answers}
    for column, values in (("probability", probabilities), ("share", truth)):
        table[column] = np.bincount(place, values, minlength=bins) / np.maximum(1, answers)
    return pd.DataFrame(table)[filled].reset_index(drop=True)


def calibration_error(table):
    """Expected calibration error: the mean distance of a reliability curve from the diagonal; 0 is best.

    Example:
        >>> calibration_error(calibration([[1, 0]], [[0.75, 0.25]]))
        0.25
    """
    return float(np.average((table["probability"] - table["share"]).abs(), weights=table["answers"]))
