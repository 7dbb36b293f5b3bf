"""How a short clip is padded, and how many windows a long one has.

Training windows and inference use the same rules, with and without Keras.
"""

from typing import Any

import numpy as np

FULL_CLIP_STEPS = 13  # a clip is one window up to 64 times the window length; a longer clip is cut into such windows


def zeros_before(missing: Any) -> Any:
    """The number of zeros before a short clip with `"pad": "zeros"`.

    The other zeros come after the clip.

    Args:
        missing: Samples of the window that the clip does not fill, an integer or an integer tensor, at least 0.

    Example:
        >>> zeros_before(5)
        2
    """
    return missing // 2


def num_repeats(window_samples: Any, clip_samples: Any) -> Any:
    """How often a short clip is repeated with `"pad": "repeat"`.

    The repeats fill a window, and the surplus is cut off.

    Args:
        window_samples: Samples of the window, above 0.
        clip_samples: Samples of the clip, above 0.

    Example:
        >>> num_repeats(7, 3)
        3
    """
    return (window_samples - 1) // clip_samples + 1


def num_sliding_windows(clip_samples: Any, window_samples: Any, hop: Any) -> Any:
    """The number of sliding windows of a clip, at least 1.

    The last one ends with the clip.

    Args:
        clip_samples: Samples of the clip, an integer, or an array or tensor of them.
        window_samples: Samples of the window, above 0.
        hop: Samples from the start of a window to the start of the next, above 0.

    Example:
        >>> [num_sliding_windows(clip_samples, 4, 3) for clip_samples in (2, 4, 5, 7, 8)]
        [1, 1, 2, 2, 3]
    """
    spare = clip_samples - window_samples
    return 1 + ((spare + abs(spare)) // 2 + hop - 1) // hop


def full_clip_lengths(window_samples: int) -> list[int]:
    """The lengths of windows over complete clips.

    They are n, n sqrt(2), 2 n, 2 sqrt(2) n, …, 64 n.

    Example:
        >>> full_clip_lengths(100)[:4]
        [100, 142, 200, 283]
    """
    return np.ceil(window_samples * 2 ** (np.arange(FULL_CLIP_STEPS) / 2)).astype("int32").tolist()


def random_fractions(count: int) -> np.ndarray:
    """Numbers from 0 to below 1, the same in every process: float32 [count]."""
    return np.random.default_rng(0).random(count).astype("float32")
