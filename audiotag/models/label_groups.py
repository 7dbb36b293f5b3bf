"""Labels of trusted and noisy clips in separate groups of columns.

Unreliable labels can have a loss or an output layer of their own, which is trained in
parallel and not used at inference. The labels of a clip then pass through
the preprocessor as two groups of columns, trusted and noisy: K labels and the fraction of
the window that comes from such clips. Augmentations mix these columns like any labels,
so the loss can tell a trusted and a noisy clip in one window apart.

Reference: Akiyama and Sato, 4th place of FSDKaggle2019 (output layers of their own for noisy labels), and
L. Romul, 1st place (a loss of its own for noisy clips), 2019.
"""

from typing import Any

import numpy as np
from keras import ops

NUM_GROUPS = 2  # trusted, noisy


def group_labels(truth: Any, trusted: Any) -> np.ndarray:
    """The labels of clips, each in the columns of its group.

    Args:
        truth: [n, K].
        trusted: bool [n], whether the labels of a clip are reliable.

    Returns:
        float32 [n, 2 (K + 1)].

    Example:
        >>> group_labels(np.array([[1, 0], [0, 1]]), [True, False]).tolist()
        [[1.0, 0.0, 1.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0, 1.0, 1.0]]
    """
    own = np.asarray(trusted, bool)[:, None] == np.array([True, False])  # [n, 2]
    labels = np.concatenate([truth, np.ones((len(truth), 1))], axis=1)  # [n, K + 1]
    return (own[:, :, None] * labels[:, None, :]).reshape(len(truth), -1).astype("float32")


def num_grouped_columns(num_classes: int) -> int:
    """The number of columns of grouped labels of K classes: 2 (K + 1)."""
    return NUM_GROUPS * (num_classes + 1)


def split_weighted_groups(labels: Any) -> tuple[Any, Any]:
    """The labels of each group times its fraction, and the fractions.

    Labels [B, 2 (K + 1)] → (labels [B, 2, K] times their group's fraction of the window, the fractions [B, 2]).
    """
    groups = ops.reshape(labels, (-1, NUM_GROUPS, labels.shape[1] // NUM_GROUPS))  # [B, 2, K + 1]
    return groups[:, :, :-1], groups[:, :, -1]


def split_groups(labels: Any) -> tuple[Any, Any]:
    """The labels of each group, and its fraction of the window.

    Labels [B, 2 (K + 1)] → (labels [B, 2, K] of each group, its fraction of the window [B, 2]).

    Example:
        >>> half_each = group_labels(np.eye(2), [True, False]).mean(axis=0, keepdims=True)
        >>> labels, fractions = split_groups(ops.convert_to_tensor(half_each))
        >>> [[float(label) for label in row] for row in labels[0]], [float(fraction) for fraction in fractions[0]]
        ([[1.0, 0.0], [0.0, 1.0]], [0.5, 0.5])
    """
    weighted, fractions = split_weighted_groups(labels)  # [B, 2, K], [B, 2]
    return ops.divide_no_nan(weighted, fractions[:, :, None]), fractions
