"""Which recordings to label next: uncertain ones that are unlike each other."""

import sys
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.special import expit
from sklearn.exceptions import ConvergenceWarning
from tqdm import tqdm

from audiotag import files, progress
from audiotag.errors import DataError
from audiotag.inference.long_recordings import ahead, finite_logits, window_batches_of
from audiotag.inference.predictor import Predictor, pool_windows

CANDIDATES = 3  # of the least sure recordings, for each that is chosen
NUM_CLASSES = 3  # most probable ones, in the table


def rank_to_label(predictor: Predictor, paths: Sequence[str | Path], *, top: int) -> pd.DataFrame:
    """The recordings to label next, the least sure first.

    A file that cannot be read is named on standard error and left out.

    Args:
        predictor: A `Predictor` with embeddings.
        paths: Audio files without labels, of any length, rate and number of channels.
        top: How many to choose.

    Returns:
        A row per chosen file: fname, margin (the difference between the probabilities of the two most probable
        classes), predicted (the most probable classes with their probabilities).

    Raises:
        DataError: The model has no embeddings or one class, or no file can be read.
    """
    predictor.needed_embeddings()
    if len(predictor.vocabulary) < 2:
        raise DataError("the model has one class. Expected two or more, between which it can be unsure.")
    names, logits, embeddings = _described(predictor, paths)
    rows = labeling_order(logits, embeddings, top)
    probabilities = expit(logits[rows])
    best = np.argsort(-probabilities, axis=1, kind="stable")[:, :NUM_CLASSES]
    predicted = [
        ", ".join(f"{predictor.vocabulary[label]} {row[label]:.2f}" for label in labels)
        for row, labels in zip(probabilities, best)
    ]
    return pd.DataFrame(
        {"fname": [names[row] for row in rows], "margin": margins(logits[rows]), "predicted": predicted}
    )


def _described(predictor, paths):
    """(names, logits [N, K], embeddings [N, D]) of the files that can be read."""
    names, logits, embeddings = [], [], []
    for path in progress.bar(paths, total=len(paths), unit="file", label="label-next"):
        try:
            if not files.is_utf8(path):
                raise DataError(f"the name {str(path)!r} has bytes that are not UTF-8. Rename the file.")
            of_windows, vectors = _of_windows(predictor, path)
        except DataError as error:
            tqdm.write(f"Left out: {error}", file=sys.stderr)
            continue
        names.append(str(path))
        logits.append(pool_windows(of_windows, predictor.pool))
        embeddings.append(vectors.mean(axis=0, dtype="float64"))
    if not names:
        raise DataError(f"none of {len(paths)} files can be read, so there is nothing to label.")
    return names, np.stack(logits), np.stack(embeddings)


def _of_windows(predictor, path):
    """The logits [W, K] and embeddings [W, D] of the windows of a file."""
    logits, vectors, embeddings = [], [], predictor.needed_embeddings()
    for _, _, waveform in ahead(window_batches_of(predictor, path)):
        logits.append(finite_logits(np.asarray(predictor.logits(waveform)), path))
        vectors.append(finite_logits(np.asarray(embeddings(waveform)), path))
    return np.concatenate(logits), np.concatenate(vectors)


def margins(logits: np.ndarray) -> np.ndarray:
    """How sure a model is: the difference of the two highest probabilities.

    Args:
        logits: [N, K].

    Returns:
        [N], from 0 to 1.

    Reference: Scheffer et al., "Active Hidden Markov Models for Information Extraction", 2001.
    """
    highest = np.sort(expit(logits), axis=1)
    return highest[:, -1] - highest[:, -2]


def labeling_order(logits: np.ndarray, embeddings: np.ndarray, count: int) -> list[int]:
    """The rows of clips to label next, the least sure first.

    The least sure clips, three times as many as asked for, are divided into as many clusters as asked for, by k-means
    of their embeddings. Of each cluster the clip nearest to its center is chosen, so that few are alike and none is far
    from all others. Embeddings are standardized over all clips and scaled to length 1.

    Args:
        logits: [N, K].
        embeddings: [N, D].
        count: How many to choose; all N if there are fewer.

    Reference: Zhdanov, "Diverse Mini-Batch Active Learning", 2019.

    Example:
        >>> logits = np.array([[0.1, 0.0], [0.2, 0.0], [0.3, 0.0], [9.0, 0.0]])
        >>> labeling_order(logits, np.array([[1.0, 0.0], [1.0, 0.1], [-1.0, 0.0], [0.0, 1.0]]), 1)
        [0]
    """
    from sklearn.cluster import KMeans  # here: it takes a second

    sure = margins(logits)
    order = np.argsort(sure, kind="stable")
    if count >= len(order):
        return order.tolist()
    candidates = order[: CANDIDATES * count]
    embeddings = np.asarray(embeddings, "float64")
    deviation = embeddings.std(axis=0)
    standardized = (embeddings - embeddings.mean(axis=0)) / np.where(deviation > 0, deviation, np.inf)
    unit = (standardized / np.maximum(np.linalg.norm(standardized, axis=1, keepdims=True), 1e-12))[candidates]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # of equal clips, of which there are fewer clusters
        clusters = KMeans(count, n_init=1, random_state=0).fit(unit)
    distances = np.linalg.norm(unit - clusters.cluster_centers_[clusters.labels_], axis=1)
    by_distance = pd.DataFrame({"cluster": clusters.labels_, "distance": distances}).sort_values("distance")
    chosen = by_distance.groupby("cluster").head(1).index
    others = np.setdiff1d(np.arange(len(candidates)), chosen)[: count - len(chosen)]
    rows = candidates[np.concatenate([chosen, others])]
    return rows[np.argsort(sure[rows], kind="stable")].tolist()


def labeling_text(table: pd.DataFrame) -> str:
    """The table as lines for a terminal."""
    return "\n".join(f"{row.fname}  {row.predicted}" for row in table.itertuples())
