"""The order in which to review labels: by doubt, and by expected usefulness."""

import numpy as np
from scipy.special import logit

from audiotag.data.near_duplicates import nearest
from audiotag.errors import ConfigError

NUM_NEIGHBORS = 3  # clips that say how typical a clip is
LEAST_SCORE = 1e-7  # cleanlab takes logarithms of scores
MOST_NEED = 2.0  # of a rare class; an average class has 1


def usefulness(
    truth: np.ndarray, scores: np.ndarray, suspicion: np.ndarray, clusters: np.ndarray | None = None
) -> np.ndarray:
    """How much the review of each clip is expected to help a model.

    It is the product of how doubtful the label is, how much its classes need correct labels, and how typical the clip
    is. Classes with few clips need them more: sqrt(mean clips per class / clips of the class), at most 2. A clip has
    the largest need of its given classes, and of the others times their probability. A clip is typical if others sound
    alike to the models: by the mean cosine similarity of its logits to those of its 3 nearest neighbors; a clip unlike
    all others counts half. One decision settles clips with the same sound, so they have the sum of theirs.

    Args:
        truth: bool [n, K], the given labels.
        scores: [n, K], out-of-fold probabilities.
        suspicion: [n], how doubtful the labels are, 0 to 1.
        clusters: int [n], equal for clips with the same sound; None if all differ.

    Returns:
        [n], 0 or more.

    Example:
        >>> truth = np.array([[True, False], [True, False], [True, False], [False, True]])
        >>> scores = np.array([[0.9, 0.1], [0.2, 0.8], [0.8, 0.2], [0.3, 0.7]])
        >>> int(usefulness(truth, scores, suspicion=np.array([0.1, 0.9, 0.2, 0.3])).argmax())
        1
    """
    counts = truth.sum(axis=0)  # [K]
    need = np.minimum(np.sqrt(counts.mean() / np.maximum(counts, 1)), MOST_NEED)  # [K]
    needed = (need * np.where(truth, 1, scores)).max(axis=1)  # [n]
    value = suspicion * needed * (1 + typicality(scores)) / 2  # [n]
    if clusters is None:
        return value
    _, cluster = np.unique(clusters, return_inverse=True)
    return np.bincount(cluster, weights=value)[cluster]


def typicality(scores: np.ndarray) -> np.ndarray:
    """The mean similarity of each clip [n] to its neighbors; scores [n, K]."""
    logits = logit(np.clip(scores, LEAST_SCORE, 1 - LEAST_SCORE))
    length = np.linalg.norm(logits, axis=1, keepdims=True)
    logits = logits / np.maximum(length, 1e-9)
    neighbors = min(NUM_NEIGHBORS, len(logits) - 1)
    if not neighbors:
        return np.ones(len(logits))
    distance, _ = nearest(logits, neighbors)
    return np.clip(1 - np.square(distance) / 2, 0, 1).mean(axis=1)  # cosines of vectors of length 1


def cleanlab_quality(truth: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """The quality of each clip's labels by cleanlab, [n], from 0 to 1.

    Reference: Thyagarajan et al., "Identifying Incorrect Annotations in Multi-Label Classification Data", 2022.

    Args:
        truth: bool [n, K], the given labels.
        scores: [n, K], out-of-fold probabilities.

    Raises:
        ConfigError: cleanlab is not installed.
    """
    try:
        from cleanlab.multilabel_classification import get_label_quality_scores
    except ImportError:
        raise ConfigError(
            "cleanlab is not installed. Install it with: pip install 'audiotag-trainer[cleanlab]', or rank by margin."
        ) from None
    labels = [np.flatnonzero(row).tolist() for row in truth]
    return get_label_quality_scores(labels, np.clip(scores, LEAST_SCORE, 1 - LEAST_SCORE))
