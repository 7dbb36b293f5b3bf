"""Average precision and AUC of each class on clips with weights."""

import numpy as np
from scipy.sparse import csr_array


class WeightedAreas:
    """Average precisions and AUCs of many weightings of the same clips.

    A weight is how often a clip counts. The scores of a class are sorted once; each weighting then costs one sum over
    its clips. With weights of 1 the values are those of `audiotag.metrics.average_precisions` and `areas_under_roc`.

    Args:
        truth: [N, K], 1 where a clip carries a class, else 0.
        scores: [N, K], any numbers but NaN.

    Example:
        >>> areas = WeightedAreas(np.array([[1], [0], [1]]), np.array([[0.9], [0.8], [0.7]]))
        >>> precision, auc = areas(np.array([[1.0, 1.0, 1.0], [1.0, 0.0, 1.0]]))
        >>> precision.round(5).tolist(), auc.tolist()
        ([[0.83333], [1.0]], [[0.5], [nan]])
    """

    def __init__(self, truth: np.ndarray, scores: np.ndarray):
        self.num_clips, self.num_classes = np.shape(truth)
        self.sums = {
            label: _sums(np.asarray(truth[:, label], bool), np.asarray(scores[:, label]))
            for label in np.flatnonzero(np.any(truth, axis=0))
        }

    def __call__(self, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The areas of each weighting.

        Args:
            weights: float64 [R, N].

        Returns:
            (average precision, AUC), each float64 [R, K]; NaN where it is not defined.
        """
        columns = np.ascontiguousarray(weights.T)  # [N, R]
        total = columns.sum(axis=0)  # [R]
        precision, auc = np.full((2, len(weights), self.num_classes), np.nan)
        for label, (between, of_positives) in self.sums.items():
            segments, positives = between @ columns, of_positives @ columns  # [2 U + 1, R], [U, R]
            below = np.cumsum(segments, axis=0)[:-1:2]  # [U, R]: weight of the clips that score less
            ranks = total - below  # of the positives, with ties at the worst
            hits = positives[::-1].cumsum(axis=0)[::-1]
            relevant = hits[0]  # [R]: weight of the positives
            lower = below - (relevant - hits) + (segments[1::2] - positives) / 2  # negatives, half of the equal ones
            with np.errstate(invalid="ignore"):  # 0 / 0 is NaN
                at_rank = np.divide(hits, ranks, out=np.zeros_like(hits), where=positives > 0)
                precision[:, label] = (positives * at_rank).sum(axis=0) / relevant
                auc[:, label] = (positives * lower).sum(axis=0) / (relevant * (total - relevant))
        return precision, auc


def _sums(positive, scores):
    """Two sparse matrices that sum the weights of clips around the U different scores of a class' positives.

    The first, [2 U + 1, N], sums them below, at, between, ... and above these scores; the second, [U, N], sums the
    positives at each.
    """
    order = np.argsort(scores, kind="stable")
    levels, level_of = np.unique(scores[positive], return_inverse=True)  # [U], [positives]
    edges = np.stack([np.searchsorted(scores[order], levels, side) for side in ("left", "right")], axis=1).ravel()
    between = csr_array(
        (np.ones(len(scores)), order, np.concatenate([[0], edges, [len(scores)]])), shape=(len(edges) + 1, len(scores))
    )
    clips = np.flatnonzero(positive)
    of_positives = csr_array((np.ones(len(clips)), (level_of, clips)), shape=(len(levels), len(scores)))
    return between, of_positives
