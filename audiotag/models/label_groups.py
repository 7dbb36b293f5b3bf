"""Labels of curated and noisy clips in separate groups of columns.

Unreliable labels can have a loss or an output layer of their own, which is trained in
parallel and not used at inference. The labels of a clip then pass through
the preprocessor as two groups of columns, one per subset: K labels and the fraction of
the window that comes from this subset. Augmentations mix these columns like any labels,
so the loss can tell a curated and a noisy clip in one window apart.

Reference: Akiyama and Sato, 4th place of FSDKaggle2019 (output layers of their own for noisy labels), and
L. Romul, 1st place (a loss of its own for noisy clips), 2019.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from keras import ops

SUBSETS = ("curated", "noisy")


def group_labels(truth: Any, subsets: Sequence[str]) -> np.ndarray:
    """The labels of clips, each in the columns of its subset.

    Args:
        truth: [n, K].
        subsets: The subset of each clip, one of `SUBSETS`.

    Returns:
        float32 [n, 2 (K + 1)].

    Example:
        >>> group_labels(np.array([[1, 0], [0, 1]]), ["curated", "noisy"]).tolist()
        [[1.0, 0.0, 1.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0, 1.0, 1.0]]
    """
    own = np.asarray(subsets)[:, None] == np.array(SUBSETS)  # [n, 2]
    labels = np.concatenate([truth, np.ones((len(truth), 1))], axis=1)  # [n, K + 1]
    return (own[:, :, None] * labels[:, None, :]).reshape(len(truth), -1).astype("float32")


def num_grouped_columns(num_classes: int) -> int:
    """The number of columns of grouped labels of K classes: 2 (K + 1)."""
    return len(SUBSETS) * (num_classes + 1)


def split_weighted_groups(labels: Any) -> tuple[Any, Any]:
    """The labels of each subset times its fraction, and the fractions.

    Labels [B, 2 (K + 1)] → (labels [B, 2, K] times their subset's fraction of the window, the fractions [B, 2]).
    """
    groups = ops.reshape(labels, (-1, len(SUBSETS), labels.shape[1] // len(SUBSETS)))  # [B, 2, K + 1]
    return groups[:, :, :-1], groups[:, :, -1]


def split_groups(labels: Any) -> tuple[Any, Any]:
    """The labels of each subset, and its fraction of the window.

    Labels [B, 2 (K + 1)] → (labels [B, 2, K] of each subset, its fraction of the window [B, 2]).

    Example:
        >>> half_each = group_labels(np.eye(2), ["curated", "noisy"]).mean(axis=0, keepdims=True)
        >>> labels, fractions = split_groups(ops.convert_to_tensor(half_each))
        >>> [[float(label) for label in row] for row in labels[0]], [float(fraction) for fraction in fractions[0]]
        ([[1.0, 0.0], [0.0, 1.0]], [0.5, 0.5])
    """
    weighted, fractions = split_weighted_groups(labels)  # [B, 2, K], [B, 2]
    return ops.divide_no_nan(weighted, fractions[:, :, None]), fractions
