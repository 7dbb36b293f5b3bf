"""Truth and scores with and without ties, and lwlrap as a loop over labels."""

import numpy as np

KINDS = ["distinct", "tied", "equal", "logits", "saturated"]


def random_scores(kind, clips, classes, seed):
    """Truth of clips with and without labels, and scores with and without ties."""
    rng = np.random.default_rng(seed)
    truth = (rng.random((clips, classes)) < rng.choice([0.05, 0.2, 0.7])).astype(int)
    truth[::7] = 0
    truth[1::7] = 1
    scores = {
        "distinct": lambda: rng.random((clips, classes)),
        "tied": lambda: rng.integers(0, 4, (clips, classes)).astype(float),
        "equal": lambda: np.zeros((clips, classes)),
        "logits": lambda: rng.normal(0, 30, (clips, classes)),
        "saturated": lambda: np.round(rng.random((clips, classes))),
    }[kind]()
    return truth, scores


def by_brute_force(truth, scores):
    """Sums and counts per class, label by label."""
    sums, counts = np.zeros(truth.shape[1]), np.zeros(truth.shape[1])
    for labels, row in zip(truth, scores):
        for label in np.flatnonzero(labels):
            above = [other for other in range(len(row)) if row[other] >= row[label]]
            sums[label] += sum(labels[other] for other in above) / len(above)
            counts[label] += 1
    return sums, counts
