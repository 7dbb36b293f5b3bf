"""Which unreliable labels does a trained model confirm? Rules from truth and scores to labels and confidence."""

import numpy as np
import pandas as pd

from audiotag.data.labels import multi_hot
from audiotag.metrics import per_clip_lwlrap


def exact(truth, scores, *, threshold: float = 0.2):
    """Confirms a clip when the classes above a threshold are just those given.

    M. Pinto (6th place of FSDKaggle2019) kept the noisy clips that a model "correctly
    predicted"; the threshold is that of his F2 measure, the reading of the rule is ours.

    Args:
        truth: bool [n, K], the labels given.
        scores: [n, K], probabilities of a model that has not heard the clips.
        threshold: A probability.

    Returns:
        (labels bool [n, K], confidence float [n]): a clip without labels is left out; the most confident
        clips are taken first where a class may have only so many.

    Example:
        >>> labels, _ = exact(np.array([[True, False], [True, False]]), np.array([[0.9, 0.1], [0.9, 0.3]]))
        >>> labels.tolist()
        [[True, False], [False, False]]
    """
    _check_probability("threshold", threshold)
    confirmed = ((scores > threshold) == truth).all(axis=1)
    return truth & confirmed[:, None], _mean_of_given(truth, scores)


def ranked(truth, scores, *, at_least: float = 1.0):
    """Confirms a clip when its own lwlrap is high enough; at 1 all given labels lead the ranking.

    Args and returns as those of `exact`; `at_least` is a lwlrap.

    Example:
        >>> labels, _ = ranked(np.array([[True, False], [False, True]]), np.array([[0.2, 0.1], [0.2, 0.1]]))
        >>> labels.tolist()
        [[True, False], [False, False]]
    """
    _check_probability("at_least", at_least)
    return truth & (per_clip_lwlrap(truth, scores) >= at_least)[:, None], _mean_of_given(truth, scores)


def probable(truth, scores, *, at_least: float = 0.5):
    """Confirms a clip when the mean probability of its given labels is high enough.

    Args and returns as those of `exact`; `at_least` is a probability, and 0 with `per_class`
    takes the most probable of each class.

    Example:
        >>> labels, _ = probable(np.array([[True, False], [False, True]]), np.array([[0.7, 0.9], [0.2, 0.1]]))
        >>> labels.tolist()
        [[True, False], [False, False]]
    """
    _check_probability("at_least", at_least)
    mean = _mean_of_given(truth, scores)
    return truth & (mean >= at_least)[:, None], mean


def verified(truth, scores, *, at_least: float = 0.95):
    """Confirms a clip whose given labels are the likeliest of all, and likely enough on average.

    For a clip of one label: it is the argmax, and its probability is above 0.95. M. Dorfer
    and G. Widmer, "Training General-Purpose Audio Tagging Networks with Noisy Labels
    and Iterative Self-Verification", DCASE 2018; the form for several labels is ours. Their
    published code asks for no probability, which is at_least 0, and takes the best 40 of a class.

    Args and returns as those of `exact`; `at_least` is a probability, to be exceeded.

    Example:
        >>> truth = np.array([[True, True, False], [True, False, False]])
        >>> labels, _ = verified(truth, np.array([[0.99, 0.97, 0.9], [0.96, 0.1, 0.97]]))
        >>> labels.tolist()
        [[True, True, False], [False, False, False]]
    """
    _check_probability("at_least", at_least)
    mean = _mean_of_given(truth, scores)
    lowest = np.where(truth, scores, np.inf).min(axis=1)
    highest = np.where(truth, -np.inf, scores).max(axis=1)
    return truth & ((lowest > highest) & (mean > at_least))[:, None], mean


def pseudo_labels(truth, scores, *, at_least: float = 0.5):
    """Forgets the given labels: a clip gets the classes that are probable enough, or is left out.

    D.-H. Lee, "Pseudo-Label", ICML 2013 workshop on challenges in representation learning.

    Args and returns as those of `exact`; `at_least` is a probability.

    Example:
        >>> labels, _ = pseudo_labels(np.array([[True, False], [True, False]]), np.array([[0.1, 0.9], [0.4, 0.1]]))
        >>> labels.tolist()
        [[False, True], [False, False]]
    """
    _check_probability("at_least", at_least)
    labels = scores >= at_least
    return labels, _mean_of_given(labels, scores)


RULES = {
    "exact": exact,
    "ranked": ranked,
    "probable": probable,
    "verified": verified,
    "pseudo_labels": pseudo_labels,
}


def select(clips, scores, vocabulary, *, rule, per_class=None, kept=None, source=""):
    """The table of corrections that says which clips a model confirms.

    Args:
        clips: Rows of a table of clips.
        scores: [len(clips), K], probabilities of a model that has heard none of them.
        vocabulary: The K class names.
        rule: One of `RULES`, with its options given.
        per_class: At most so many clips of each class are taken anew, the most confident first; a clip of
            several labels must find room in each.
        kept: Table of corrections; the clips it took stay taken, beside those taken anew.
        source: Who says so, for the column of this name.

    Returns:
        A table as `data.corrections` describes, a row a clip; weight 1 takes it, 0 leaves it out.
    """
    truth = multi_hot(clips["labels"], vocabulary) > 0  # [n, K]
    labels, confidence = rule(truth, scores)  # [n, K], [n]
    names = clips["name"].to_numpy()
    before = {} if kept is None else kept[kept["weight"] > 0].set_index("clip")["labels"].to_dict()
    taken, room = set(before), np.full(len(vocabulary), len(clips) if per_class is None else per_class)
    for row in sorted(range(len(clips)), key=lambda row: (-confidence[row], names[row])):
        if labels[row].any() and names[row] not in taken and room[labels[row]].all():
            room -= labels[row]
            taken.add(names[row])
    said = np.where(labels.any(axis=1)[:, None], labels, truth)  # [n, K]
    return pd.DataFrame(
        {
            "clip": names,
            "labels": [before.get(name, ",".join(np.array(vocabulary)[row])) for name, row in zip(names, said)],
            "weight": [float(name in taken) for name in names],
            "reason": [
                _reason(found.any(), sure, name in taken, name in before)
                for found, sure, name in zip(labels, confidence, names)
            ],
            "source": source,
        }
    )


def _reason(confirmed, confidence, taken, before):
    if before:
        return "taken before"
    words = "confirmed" if confirmed else "not confirmed"
    return f"{words}, {confidence:.3f}{', and no room in its class' if confirmed and not taken else ''}"


def _mean_of_given(truth, scores):
    """The mean probability of the labels of each clip [n], 0 where there are none."""
    return np.where(truth, scores, 0).sum(axis=1) / np.maximum(truth.sum(axis=1), 1)


def _check_probability(name, value):
    if not 0 <= value <= 1:
        raise ValueError(f"{name} must be from 0 to 1. Received: {name}={value}")
