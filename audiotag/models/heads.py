"""Noisy labels in a head of their own: the labels of a batch on their way through the ear, and at the heads.

What unreliable labels say is worth learning from, and nothing to answer with. So the
network answers twice, as the curated labels would have it and as the noisy ones would:
all below the heads learns from both, and only the first is heard in the end. A clip's
labels go through the ear as two blocks, one a head, of the K labels and the clip's
share in that head. Disturbances mix them as any labels, so a curated and a noisy clip
in one window keep their labels apart, and each head is asked for its share.

Reference: the fourth place of FSDKaggle2019, 2019, whose noisy labels had layers of their own at the end.
"""

import numpy as np
from keras import ops

HEADS = ("curated", "noisy")


def with_heads(truth, subsets):
    """The labels of clips, each in the block of its head.

    Args:
        truth: [n, K].
        subsets: The subset of each clip: one of `HEADS`.

    Returns:
        float32 [n, 2 (K + 1)].

    Example:
        >>> with_heads(np.array([[1, 0], [0, 1]]), ["curated", "noisy"]).tolist()
        [[1.0, 0.0, 1.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0, 1.0, 1.0]]
    """
    own = np.asarray(subsets)[:, None] == np.array(HEADS)  # [n, 2]
    labels = np.concatenate([truth, np.ones((len(truth), 1))], axis=1)  # [n, K + 1]
    return (own[:, :, None] * labels[:, None, :]).reshape(len(truth), -1).astype("float32")


def by_head(labels):
    """What each head is asked: labels [B, 2 (K + 1)] → (labels [B, 2, K], share [B, 2]).

    Example:
        >>> half_each = with_heads(np.eye(2), ["curated", "noisy"]).mean(axis=0, keepdims=True)
        >>> labels, share = by_head(ops.convert_to_tensor(half_each))
        >>> labels[0].numpy().tolist(), share[0].numpy().tolist()
        ([[1.0, 0.0], [0.0, 1.0]], [0.5, 0.5])
    """
    blocks = ops.reshape(labels, (-1, len(HEADS), labels.shape[1] // len(HEADS)))  # [B, 2, K + 1]
    share = blocks[:, :, -1]  # [B, 2]
    return ops.divide_no_nan(blocks[:, :, :-1], share[:, :, None]), share
