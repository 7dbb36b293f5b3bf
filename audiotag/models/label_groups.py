"""The labels of curated and of noisy clips, kept apart on their way through the ear.

What unreliable labels say may be asked in another way than what reliable ones say: by a
loss of its own, or of a head of its own, which learns beside the one that answers and
is not heard in the end. A clip's labels then go through the ear as two blocks, one for
each subset, of the K labels and the clip's share in that subset. Disturbances mix them
as any labels, so a curated and a noisy clip in one window are still told apart.

Reference: the fourth place of FSDKaggle2019, whose noisy labels had layers of their own at the end, and the first,
whose noisy clips had a loss of their own, 2019.
"""

import numpy as np
from keras import ops

SUBSETS = ("curated", "noisy")


def kept_apart(truth, subsets):
    """The labels of clips, each in the block of its subset.

    Args:
        truth: [n, K].
        subsets: The subset of each clip: one of `SUBSETS`.

    Returns:
        float32 [n, 2 (K + 1)].

    Example:
        >>> kept_apart(np.array([[1, 0], [0, 1]]), ["curated", "noisy"]).tolist()
        [[1.0, 0.0, 1.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0, 1.0, 1.0]]
    """
    own = np.asarray(subsets)[:, None] == np.array(SUBSETS)  # [n, 2]
    labels = np.concatenate([truth, np.ones((len(truth), 1))], axis=1)  # [n, K + 1]
    return (own[:, :, None] * labels[:, None, :]).reshape(len(truth), -1).astype("float32")


def num_columns(num_classes):
    """How many columns labels of K classes have when they are kept apart: 2 (K + 1)."""
    return len(SUBSETS) * (num_classes + 1)


def by_share(labels):
    """Labels [B, 2 (K + 1)] → (labels [B, 2, K] by their share in a window, the share of each subset in it [B, 2])."""
    blocks = ops.reshape(labels, (-1, len(SUBSETS), labels.shape[1] // len(SUBSETS)))  # [B, 2, K + 1]
    return blocks[:, :, :-1], blocks[:, :, -1]


def by_subset(labels):
    """Labels [B, 2 (K + 1)] → (labels [B, 2, K] of what each subset has in a window, its share in it [B, 2]).

    Example:
        >>> half_each = kept_apart(np.eye(2), ["curated", "noisy"]).mean(axis=0, keepdims=True)
        >>> labels, share = by_subset(ops.convert_to_tensor(half_each))
        >>> [[float(label) for label in row] for row in labels[0]], [float(part) for part in share[0]]
        ([[1.0, 0.0], [0.0, 1.0]], [0.5, 0.5])
    """
    parts, share = by_share(labels)  # [B, 2, K], [B, 2]
    return ops.divide_no_nan(parts, share[:, :, None]), share
