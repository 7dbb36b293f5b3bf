"""Heads that are solved for, not trained: the last dense layer in closed form."""

from typing import Any

import numpy as np


def ridge(
    inputs: Any,
    truth: Any,
    weights: Any,
    folds: Any,
    *,
    alpha: float | tuple[float, ...] = (1.0, 10.0, 100.0, 1e3, 1e4, 1e5),
    scale: float = 5.0,
) -> tuple[np.ndarray, np.ndarray, dict[str, float]]:
    """Ridge regression from standardized embeddings to -1 and 1.

    A class that is present is 1. With few clips it is a strong classifier on the embeddings of a pretrained backbone,
    and it takes seconds. As the start of training all layers it keeps what the backbone knows, where a random head
    would overwrite it.

    The head minimizes sum of w (y - b - x' k)^2 + alpha |k|^2, with x scaled to mean 0 and standard deviation 1 over
    the rows; the scaling is then folded into kernel and bias, and both are multiplied by `scale`. Of several alpha it
    takes that of the smallest squared error on rows whose fold was left out.

    Reference: Hoerl and Kennard, "Ridge Regression", 1970; Kornblith et al., "Do Better ImageNet Models Transfer
    Better?", 2019 (fine-tuning from such a head).

    Args:
        inputs: [n, D], what enters the layer, a row per window.
        truth: [n, K], 0 or 1.
        weights: [n], of each row, above 0; their mean over clips is 1.
        folds: int [n], a group of rows each, for the choice of alpha; rows of one recording share one.
        alpha: Strength of the penalty, above 0; of several, one is chosen.
        scale: The logit of a class that is surely present.

    Returns:
        (kernel float32 [D, K], bias float32 [K], what was chosen: {"alpha": ..., "error": the mean squared error on
        rows left out, if there were several}).

    Raises:
        ValueError: alpha or scale is not above 0.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> inputs = rng.normal(size=(40, 3))
        >>> kernel, bias, chosen = ridge(inputs, inputs[:, :1] > 0, np.ones(40), np.arange(40) % 4, alpha=(1.0, 1e6))
        >>> chosen["alpha"], bool(kernel[0, 0] > 10 * abs(kernel[1, 0]))
        (1.0, True)
    """
    alphas = (alpha,) if isinstance(alpha, (int, float)) else alpha
    if not alphas or min(alphas) <= 0:
        raise ValueError(f"alpha must be one or more numbers above 0. Received: alpha={alpha}")
    if scale <= 0:
        raise ValueError(f"scale must be above 0. Received: scale={scale}")
    inputs, weights, folds = np.asarray(inputs, "float64"), np.asarray(weights, "float64"), np.asarray(folds)
    targets = 2.0 * np.asarray(truth, "float64") - 1  # [n, K]
    mean = np.average(inputs, axis=0, weights=weights)  # [D]
    deviation = np.sqrt(np.average(np.square(inputs - mean), axis=0, weights=weights))
    deviation = np.where(deviation > 1e-6 * (1 + abs(mean)), deviation, np.inf)  # a constant has no weight
    standardized = (inputs - mean) / deviation
    sums = [
        _sums(standardized[rows], targets[rows], weights[rows]) for rows in (folds == fold for fold in np.unique(folds))
    ]
    total = _added(sums)
    chosen: dict[str, float] = {"alpha": float(alphas[0])}
    if len(alphas) > 1 and len(sums) > 1:
        errors = np.zeros(len(alphas))
        for left_out in sums:
            rest = tuple(whole - part for whole, part in zip(total, left_out))
            for index, (kernel, bias) in enumerate(_solutions(rest, alphas)):
                errors[index] += _squared_error(left_out, kernel, bias)
        errors /= total[0] * targets.shape[1]
        best = int(np.argmin(errors))
        chosen = {"alpha": float(alphas[best]), "error": float(errors[best])}
    ((kernel, bias),) = _solutions(total, [chosen["alpha"]])
    kernel = scale * kernel / deviation[:, None]
    return kernel.astype("float32"), (scale * bias - mean @ kernel).astype("float32"), chosen


def _sums(x, y, w):
    """What least squares needs of some rows: the sums of w, w x, w y, w x x', w x y', w y y."""
    weighted = w[:, None] * x  # [n, D]
    return w.sum(), weighted.sum(axis=0), w @ y, weighted.T @ x, weighted.T @ y, float(w @ np.square(y).sum(axis=1))


def _added(sums):
    return tuple(sum(parts[1:], start=parts[0]) for parts in zip(*sums))


def _solutions(sums, alphas):
    """(kernel [D, K], bias [K]) for each alpha."""
    n, x, y, xx, xy, _ = sums
    values, vectors = np.linalg.eigh(xx - np.outer(x, x) / n)  # of the centered rows
    projected = vectors.T @ (xy - np.outer(x, y) / n)  # [D, K]
    for alpha in alphas:
        kernel = vectors @ (projected / (np.maximum(values, 0) + alpha)[:, None])
        yield kernel, (y - x @ kernel) / n


def _squared_error(sums, kernel, bias):
    """The sum of w (y - b - x' k)^2 over the rows of the sums."""
    n, x, y, xx, xy, yy = sums
    explained = np.sum(kernel * xy) + bias @ y
    square = np.sum(kernel * (xx @ kernel)) + 2 * bias @ (x @ kernel) + n * bias @ bias
    return yy - 2 * explained + square


INITIAL_HEADS = {"ridge": ridge}
