"""Heads that are solved for, not trained: the last dense layer in closed form."""

from typing import Any

import numpy as np


def ridge(
    inputs: Any,
    truth: Any,
    weights: Any,
    folds: Any,
    *,
    prior: tuple[Any, Any] | None = None,
    alpha: float | tuple[float, ...] = (1.0, 10.0, 100.0, 1e3, 1e4),
    prior_weight: float | tuple[float, ...] = (0.0, 0.2, 0.4, 0.8),
    scale: float = 5.0,
) -> tuple[np.ndarray, np.ndarray, dict[str, float]]:
    """Ridge regression from standardized embeddings to -1 and 1.

    A class that is present is 1. With few clips it is a strong classifier on the embeddings of a pretrained backbone,
    and it takes seconds. As the start of training all layers it keeps what the backbone knows, where a random head
    would overwrite it.

    The head minimizes sum of w (y - b - x' k)^2 + alpha |k|^2, with x scaled to mean 0 and standard deviation 1 over
    the rows; the scaling is then folded into kernel and bias, and both are multiplied by `scale`. Of several alpha it
    takes that of the smallest squared error on rows whose fold was left out.

    With few clips the names of the classes help: if the backbone was published with a layer whose classes have similar
    names, that layer is the `prior`. Its logits, scaled to a standard deviation of 1, predict the part `prior_weight`
    of the targets, and the regression the rest. The weight is chosen together with alpha.

    Reference: Hoerl and Kennard, "Ridge Regression", 1970; Kornblith et al., "Do Better ImageNet Models Transfer
    Better?", 2019 (fine-tuning from such a head).

    Args:
        inputs: [n, D], what enters the layer, a row per window.
        truth: [n, K], 0 or 1.
        weights: [n], of each row, above 0; their mean over clips is 1.
        folds: int [n], a group of rows each, for the choice of alpha; rows of one recording share one.
        prior: (kernel [D, K], bias [K]) of a head that is known before; None if there is none.
        alpha: Strength of the penalty, above 0; of several, one is chosen.
        prior_weight: Weight of the prior, from 0, which ignores it; of several, one is chosen.
        scale: The logit of a class that is surely present.

    Returns:
        (kernel float32 [D, K], bias float32 [K], what was chosen: {"alpha": ..., "prior_weight": ..., if there is a
        prior, "error": the mean squared error on rows left out, if there were several}).

    Raises:
        ValueError: alpha or scale is not above 0, or prior_weight is below 0.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> inputs = rng.normal(size=(40, 3))
        >>> kernel, bias, chosen = ridge(inputs, inputs[:, :1] > 0, np.ones(40), np.arange(40) % 4, alpha=(1.0, 1e6))
        >>> chosen["alpha"], bool(kernel[0, 0] > 10 * abs(kernel[1, 0]))
        (1.0, True)
    """
    alphas, prior_weights = _several(alpha), _several(prior_weight)
    if not alphas or min(alphas) <= 0:
        raise ValueError(f"alpha must be one or more numbers above 0. Received: alpha={alpha}")
    if not prior_weights or min(prior_weights) < 0:
        raise ValueError(f"prior_weight must be one or more numbers from 0. Received: prior_weight={prior_weight}")
    if scale <= 0:
        raise ValueError(f"scale must be above 0. Received: scale={scale}")
    inputs, weights, folds = np.asarray(inputs, "float64"), np.asarray(weights, "float64"), np.asarray(folds)
    targets = 2.0 * np.asarray(truth, "float64") - 1  # [n, K]
    prior_kernel, prior_bias = _standardized_head(prior, inputs, weights, targets.shape[1])
    known = inputs @ prior_kernel + prior_bias  # [n, K]
    mean = np.average(inputs, axis=0, weights=weights)  # [D]
    deviation = np.sqrt(np.average(np.square(inputs - mean), axis=0, weights=weights))
    deviation = np.where(deviation > 1e-6 * (1 + abs(mean)), deviation, np.inf)  # a constant has no weight
    standardized = (inputs - mean) / deviation
    axes = None
    if len(inputs) < inputs.shape[1]:  # the kernel is in the space of the rows, which is smaller
        axes = np.linalg.svd(standardized, full_matrices=False)[2]  # [n, D]
        standardized = standardized @ axes.T  # [n, n]
    sums = [
        _sums(standardized[rows], np.concatenate([targets[rows], known[rows]], axis=1), weights[rows])
        for rows in (folds == fold for fold in np.unique(folds))
    ]
    if prior is None:
        prior_weights = (0.0,)
    pairs = [(each, strength) for each in prior_weights for strength in alphas]
    errors = _errors_left_out(sums, pairs) if len(pairs) > 1 and len(sums) > 1 else np.zeros(len(pairs))
    best, strength = pairs[int(np.argmin(errors))]
    chosen = {"alpha": float(strength)} | ({} if prior is None else {"prior_weight": float(best)})
    if errors.any():
        chosen["error"] = float(errors.min() / (weights.sum() * targets.shape[1]))
    ((kernel, bias),) = _solutions(_added(sums), [(best, strength)])
    kernel = kernel if axes is None else axes.T @ kernel  # [D, K]
    kernel = scale * kernel / deviation[:, None]
    bias = scale * bias - mean @ kernel
    kernel, bias = kernel + scale * best * prior_kernel, bias + scale * best * prior_bias
    return kernel.astype("float32"), bias.astype("float32"), chosen


def _several(value):
    return (value,) if isinstance(value, (int, float)) else tuple(value)


def _standardized_head(prior, inputs, weights, num_classes):
    """The kernel and bias of a prior whose outputs have mean 0 and standard deviation 1; zeros without a prior."""
    if prior is None:
        return np.zeros((inputs.shape[1], num_classes)), np.zeros(num_classes)
    kernel, bias = (np.asarray(array, "float64") for array in prior)
    known = inputs @ kernel + bias  # [n, K]
    weights = np.broadcast_to(weights[:, None], known.shape)
    mean = np.average(known, weights=weights)
    deviation = np.sqrt(np.average(np.square(known - mean), weights=weights))
    deviation = deviation if deviation > 0 else np.inf
    return kernel / deviation, (bias - mean) / deviation


def _sums(x, y, w):
    """What least squares needs of some rows: the sums of w, w x, w y, w x x', w x y', w y y'."""
    weighted = w[:, None] * x  # [n, D]
    return w.sum(), weighted.sum(axis=0), w @ y, weighted.T @ x, weighted.T @ y, (w[:, None] * y).T @ y


def _added(sums):
    return tuple(sum(parts[1:], start=parts[0]) for parts in zip(*sums))


def _rest(sums, prior_weight):
    """The sums for what the prior leaves of the targets; those of y are of targets and prior side by side."""
    n, x, y, xx, xy, yy = sums
    num_classes = len(y) // 2
    rest = np.concatenate([np.eye(num_classes), -prior_weight * np.eye(num_classes)])  # [2 K, K]
    return n, x, y @ rest, xx, xy @ rest, np.trace(rest.T @ yy @ rest)


def _solutions(sums, pairs):
    """(kernel [D, K], bias [K]) for each (prior_weight, alpha)."""
    n, x, _, xx, _, _ = sums
    values, vectors = np.linalg.eigh(xx - np.outer(x, x) / n)  # of the centered rows
    for prior_weight, alpha in pairs:
        _, _, y, _, xy, _ = _rest(sums, prior_weight)
        projected = vectors.T @ (xy - np.outer(x, y) / n)  # [D, K]
        kernel = vectors @ (projected / (np.maximum(values, 0) + alpha)[:, None])
        yield kernel, (y - x @ kernel) / n


def _errors_left_out(sums, pairs):
    """The sum of squared errors of each (prior_weight, alpha) on the rows of each fold, by the others: [pairs]."""
    errors, total = np.zeros(len(pairs)), _added(sums)
    for left_out in sums:
        others = tuple(whole - part for whole, part in zip(total, left_out))
        for index, (kernel, bias) in enumerate(_solutions(others, pairs)):
            errors[index] += _squared_error(_rest(left_out, pairs[index][0]), kernel, bias)
    return errors


def _squared_error(sums, kernel, bias):
    """The sum of w (y - b - x' k)^2 over the rows of the sums."""
    n, x, y, xx, xy, yy = sums
    explained = np.sum(kernel * xy) + bias @ y
    square = np.sum(kernel * (xx @ kernel)) + 2 * bias @ (x @ kernel) + n * bias @ bias
    return yy - 2 * explained + square


INITIAL_HEADS = {"ridge": ridge}
