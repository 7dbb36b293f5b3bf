"""Rules that decide which unreliable labels a model confirms.

They decide from labels and out-of-fold scores.
"""

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd

from audiotag.config.components import Section
from audiotag.config.custom import bound, errors_of
from audiotag.data.labels import multi_hot
from audiotag.metrics import per_clip_lwlrap

Selected = tuple[np.ndarray, np.ndarray]  # labels bool [n, K]; confidence [n], the mean probability of a clip's labels


def exact_match(truth: np.ndarray, scores: np.ndarray, *, threshold: float = 0.2) -> Selected:
    """Confirms a clip if the classes above a threshold are exactly its labels.

    M. Pinto (6th place of FSDKaggle2019) kept the noisy clips that a model "correctly
    predicted". The threshold is that of his F2 measure; this is our interpretation of his rule.

    Args:
        truth: bool [n, K], the given labels.
        scores: [n, K], probabilities of a model that did not train on the clips.
        threshold: A probability.

    Returns:
        (labels bool [n, K], confidence float [n]). A clip without labels is left out; if the number of clips
        per class is limited, the most confident are kept.

    Example:
        >>> labels, _ = exact_match(np.array([[True, False], [True, False]]), np.array([[0.9, 0.1], [0.9, 0.3]]))
        >>> labels.tolist()
        [[True, False], [False, False]]
    """
    _check_probability("threshold", threshold)
    confirmed = ((scores > threshold) == truth).all(axis=1)
    return truth & confirmed[:, None], _mean_of_labels(truth, scores)


def top_ranked(truth: np.ndarray, scores: np.ndarray, *, threshold: float = 1.0) -> Selected:
    """Confirms a clip if its own lwlrap is high enough.

    With threshold 1, its labels must be ranked above all other classes.

    Arguments and result as for `exact_match`; `threshold` is an lwlrap value.

    Example:
        >>> labels, _ = top_ranked(np.array([[True, False], [False, True]]), np.array([[0.2, 0.1], [0.2, 0.1]]))
        >>> labels.tolist()
        [[True, False], [False, False]]
    """
    _check_probability("threshold", threshold)
    return truth & (per_clip_lwlrap(truth, scores) >= threshold)[:, None], _mean_of_labels(truth, scores)


def mean_probability(truth: np.ndarray, scores: np.ndarray, *, threshold: float = 0.5) -> Selected:
    """Confirms a clip if the mean probability of its labels is high enough.

    Arguments and result as for `exact_match`; `threshold` is a probability, and 0 together with
    `max_per_class` keeps the most probable clips of each class.

    Example:
        >>> labels, _ = mean_probability(np.array([[True, False], [False, True]]), np.array([[0.7, 0.9], [0.2, 0.1]]))
        >>> labels.tolist()
        [[True, False], [False, False]]
    """
    _check_probability("threshold", threshold)
    mean = _mean_of_labels(truth, scores)
    return truth & (mean >= threshold)[:, None], mean


def self_verified(truth: np.ndarray, scores: np.ndarray, *, threshold: float = 0.95) -> Selected:
    """Confirms a clip if its labels are the most probable classes.

    They must also be probable enough on average. For a clip with one label: it is the argmax, and its
    probability is above 0.95. M. Dorfer and G. Widmer, "Training General-Purpose Audio Tagging Networks
    with Noisy Labels and Iterative Self-Verification", DCASE 2018; the form for several labels is ours.
    Their published code has no probability threshold, which is threshold 0, and keeps the best 40 of each
    class.

    Arguments and result as for `exact_match`; the mean probability must exceed `threshold`.

    Example:
        >>> truth = np.array([[True, True, False], [True, False, False]])
        >>> labels, _ = self_verified(truth, np.array([[0.99, 0.97, 0.9], [0.96, 0.1, 0.97]]))
        >>> labels.tolist()
        [[True, True, False], [False, False, False]]
    """
    _check_probability("threshold", threshold)
    mean = _mean_of_labels(truth, scores)
    lowest = np.where(truth, scores, np.inf).min(axis=1)
    highest = np.where(truth, -np.inf, scores).max(axis=1)
    return truth & ((lowest > highest) & (mean > threshold))[:, None], mean


def pseudo_labels(truth: np.ndarray, scores: np.ndarray, *, threshold: float = 0.5) -> Selected:
    """Ignores the given labels: a clip gets the classes that are probable enough.

    A clip without such a class is left out.

    D.-H. Lee, "Pseudo-Label", ICML 2013 workshop on challenges in representation learning.

    Arguments and result as for `exact_match`; `threshold` is a probability.

    Example:
        >>> labels, _ = pseudo_labels(np.array([[True, False], [True, False]]), np.array([[0.1, 0.9], [0.4, 0.1]]))
        >>> labels.tolist()
        [[False, True], [False, False]]
    """
    _check_probability("threshold", threshold)
    labels = scores >= threshold
    return labels, _mean_of_labels(labels, scores)


RULES = {
    "exact_match": exact_match,
    "top_ranked": top_ranked,
    "mean_probability": mean_probability,
    "self_verified": self_verified,
    "pseudo_labels": pseudo_labels,
}


def build_rule(component: Section) -> Callable[[np.ndarray, np.ndarray], Selected]:
    """The rule that a component of an experiment names, with its options given.

    Raises:
        ConfigError: When it is called: the rule is a user's own and fails, or returns something else than `Selected`.
    """
    rule = bound(component, RULES)

    def checked(truth, scores):
        with errors_of(component):
            labels, confidence = map(np.asarray, rule(truth, scores))
            if (labels.shape, labels.dtype, confidence.shape) != (truth.shape, bool, (len(truth),)):
                raise ValueError(
                    f"returns {labels.dtype} {list(labels.shape)} and {list(confidence.shape)}. Expected labels, bool "
                    f"{list(truth.shape)}, and the confidence of each clip, [{len(truth)}]"
                )
        return labels, confidence

    return checked


def select(
    clips: pd.DataFrame,
    scores: np.ndarray,
    vocabulary: Sequence[str],
    *,
    rule: Callable[[np.ndarray, np.ndarray], Selected],
    max_per_class: int | None = None,
    previous: pd.DataFrame | None = None,
    source: str = "",
) -> pd.DataFrame:
    """The table of corrections that keeps the clips that a rule confirms.

    Args:
        clips: Rows of a table of clips.
        scores: [len(clips), K], probabilities of a model that trained on none of them.
        vocabulary: The K class names.
        rule: What `build_rule` returns.
        max_per_class: At most this many clips of each class, those of `previous` included, the most confident first;
            a clip with several labels counts for each. None keeps all.
        previous: A table of corrections of an earlier round, whose clips are kept before new ones.
        source: The text of the column `source`.

    Returns:
        A table as `data.corrections` describes, a row per clip; weight 1 keeps the clip, 0 leaves it out.
    """
    truth = multi_hot(clips["labels"], vocabulary) > 0  # [n, K]
    labels, confidence = rule(truth, scores)  # [n, K], [n]
    names = clips["name"].to_numpy()
    earlier = {} if previous is None else previous[previous["weight"] > 0].set_index("clip")["labels"].to_dict()
    most = len(clips) + len(earlier) if max_per_class is None else max_per_class
    kept, room = set(earlier), most - multi_hot(list(earlier.values()), vocabulary).sum(axis=0)  # room [K]
    for row in sorted(range(len(clips)), key=lambda row: (-confidence[row], names[row])):
        if labels[row].any() and names[row] not in kept and (room[labels[row]] > 0).all():
            room -= labels[row]
            kept.add(names[row])
    shown = np.where(labels.any(axis=1, keepdims=True), labels, truth)  # [n, K]
    return pd.DataFrame(
        {
            "clip": names,
            "labels": [earlier.get(name, ",".join(np.array(vocabulary)[row])) for name, row in zip(names, shown)],
            "weight": [float(name in kept) for name in names],
            "reason": [
                _reason(row.any(), value, name in kept, name in earlier)
                for row, value, name in zip(labels, confidence, names)
            ],
            "source": source,
        }
    )


def _reason(confirmed, confidence, kept, kept_earlier):
    if kept_earlier:
        return "kept in an earlier round"
    if not confirmed:
        return f"not confirmed, {confidence:.3f}"
    return f"confirmed, {confidence:.3f}" + ("" if kept else ", but max_per_class is reached")


def _mean_of_labels(truth, scores):
    """The mean probability of the labels of each clip [n], 0 for a clip without labels."""
    return np.where(truth, scores, 0).sum(axis=1) / np.maximum(truth.sum(axis=1), 1)


def _check_probability(name, value):
    if not 0 <= value <= 1:
        raise ValueError(f"{name} must be from 0 to 1. Received: {name}={value}")
