"""A loaded model that predicts logits for waveforms.

It is the model of a run, of an ensemble, a SavedModel, or an ONNX or LiteRT file.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import expit, log_expit, logsumexp

from audiotag.errors import DataError

SAMPLES_PER_BLOCK = 1 << 20  # that a network sees at a time: 65 s at 16 kHz


@dataclass(frozen=True)
class Predictor:
    """A model that predicts logits, and how audio files are read for it.

    Args:
        logits: A function: waveform float32 [B, N] → logits float32 [B, K].
        audio_config: How `read_waveform` reads a file as the model expects it: its options.
        vocabulary: The K class names.
        window_samples: Samples of a window.
        hop: Samples from one window to the next in a long recording.
        pool: How the logits of windows are pooled, as in `predict.pool`.
        thresholds: [K], the logit from which each class is predicted; None is 0, probability 1/2.
        embeddings: A function: waveform float32 [B, N] → float32 [B, D], the mean over the windows of each clip; of a
            run with several models, those of the first. None if the model cannot tell, such as an ensemble.
    """

    logits: Callable[[Any], Any]
    audio_config: dict[str, Any]
    vocabulary: tuple[str, ...]
    window_samples: int
    hop: int
    pool: str
    thresholds: tuple[float, ...] | None = None
    embeddings: Callable[[Any], Any] | None = None

    def needed_embeddings(self) -> Callable[[Any], Any]:
        """The function `embeddings`.

        Raises:
            DataError: The model has none.
        """
        if self.embeddings is None:
            raise DataError(
                "the model has no embeddings: it is an ensemble, an ONNX or LiteRT file, or a SavedModel whose program "
                "runs because of --allow-unsafe. Give the directory of a run; or export a SavedModel again with this "
                "version of audiotag and open it without --allow-unsafe."
            )
        return self.embeddings

    def class_thresholds(self) -> np.ndarray:
        """The probability from which each class is predicted, float64 [K]."""
        return expit(np.asarray(self.thresholds or np.zeros(len(self.vocabulary))))


def pool_windows(logits: np.ndarray, pool: str) -> np.ndarray:
    """Pools the logits of windows as `windowing.pool_logits` does, in float64.

    Args:
        logits: [W, ...], those of all windows of a recording, or of several models.
        pool: "mean", "max" or "log_mean_exp".

    Returns:
        float64 [...].

    Example:
        >>> pool_windows(np.array([[50.0, -1.0], [50.0, 1.0]]), "mean").tolist()
        [50.0, 0.0]
    """
    logits = logits.astype("float64")
    if pool == "max":
        return logits.max(axis=0)
    if pool == "log_mean_exp":
        return logsumexp(logits, axis=0) - np.log(len(logits))
    return mean_logits(logits)


def mean_logits(logits: np.ndarray, axis: int = 0) -> np.ndarray:
    """The logits of the mean of probabilities along an axis, exact for any logits.

    Example:
        >>> float(mean_logits(np.array([50.0, 50.0])))
        50.0
    """
    return logsumexp(log_expit(logits), axis=axis) - logsumexp(log_expit(-logits), axis=axis)
