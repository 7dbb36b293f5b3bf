"""Sampling probabilities of clips, and class weights of the loss."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

import numpy as np
import pandas as pd

from audiotag.config.signatures import nearest
from audiotag.data.labels import multi_hot
from audiotag.errors import ConfigError


def sampling_probabilities(
    clips: pd.DataFrame,
    vocabulary: Sequence[str],
    *,
    subset_weights: Mapping[str, float] | None = None,
    class_balanced: bool = False,
) -> np.ndarray:
    """The probability that a draw is this clip.

    If each clip is used once per epoch, a few clips with good labels have little weight beside many with bad ones.
    Subset weights set how often each subset is drawn: the first place of FSDKaggle2019 (2019) drew 1% noisy, 42%
    corrected noisy and 57% curated clips.

    Args:
        clips: Rows of a table of clips; uses `subset`, `labels` and, if present, `weight`: a clip of weight 0.5 is
            drawn half as often as one of weight 1 in the same subset.
        vocabulary: The K class names.
        subset_weights: {subset: relative frequency of its clips}, at least 0, in any unit; None draws from all clips
            alike.
        class_balanced: Draws a class uniformly and then one of its clips; with `subset_weights`, within each subset.
            Clips without labels are a class of their own.

    Returns:
        float64 [len(clips)], sum 1.

    Raises:
        ConfigError: A subset has a weight and no clips.

    Example:
        >>> clips = pd.DataFrame({"subset": ["noisy", "noisy", "curated"], "labels": ["Bark", "Bark", "Meow"]})
        >>> vocabulary, weights = ("Bark", "Meow"), {"noisy": 0.1, "curated": 0.9}
        >>> sampling_probabilities(clips, vocabulary, subset_weights=weights).round(2).tolist()
        [0.05, 0.05, 0.9]
        >>> sampling_probabilities(clips, vocabulary, class_balanced=True).round(2).tolist()
        [0.25, 0.25, 0.5]
    """
    probabilities = np.zeros(len(clips))
    weighted: Iterable[tuple[str | None, float]] = subset_weights.items() if subset_weights else [(None, 1.0)]
    for subset, subset_weight in weighted:
        inside = np.full(len(clips), True) if subset is None else (clips["subset"] == subset).to_numpy()
        if not inside.any():
            raise ConfigError(
                f"the subset {subset!r} has a sampling weight, but there are no {subset} clips. Leave its weight out."
            )
        weights = clips["weight"][inside].to_numpy() if "weight" in clips else np.ones(inside.sum())
        if class_balanced:
            of_class = multi_hot(clips["labels"][inside], vocabulary)  # [n, K]
            background = of_class.sum(axis=1, keepdims=True) == 0
            of_class = np.concatenate([of_class, background], axis=1) * weights[:, None]  # [n, K + 1]
            totals = of_class.sum(axis=0)  # [K]
            weights = (of_class / np.where(totals > 0, totals, 1)).sum(axis=1)  # sum 1 per class
        probabilities[inside] = subset_weight * weights / weights.sum()
    return probabilities / probabilities.sum()


def class_weights(
    setting: Literal["balanced"] | Mapping[str, float] | None, labels: Iterable[str], vocabulary: Sequence[str]
) -> np.ndarray | None:
    """The weight of each class in the training loss.

    "balanced" gives classes with few clips more weight: num_labels / (num_present * num_clips(c)), as in
    scikit-learn, so the mean over the labels of the clips is 1. A class without clips gets 1.

    Args:
        setting: `class_weights` of a stage: "balanced", {class: weight} with 1 for the others, or None.
        labels: The labels of each training clip, separated by commas.
        vocabulary: The K class names.

    Returns:
        float32 [K], or None for None.

    Raises:
        ValueError: A class that has a weight is not in the vocabulary.

    Example:
        >>> weights = class_weights("balanced", ["Bark", "Bark,Meow", "Bark"], ["Bark", "Meow", "Rain"])
        >>> [f"{weight:.2f}" for weight in weights]
        ['0.67', '2.00', '1.00']
    """
    if setting is None:
        return None
    if setting == "balanced":
        counts = multi_hot(list(labels), vocabulary).sum(axis=0)  # [K]
        num_present = max(1, (counts > 0).sum())
        return np.where(counts > 0, counts.sum() / (num_present * np.maximum(counts, 1)), 1).astype("float32")
    for name in setting:
        if name not in vocabulary:
            raise ValueError(
                f"there is no class {name!r} in the records. {nearest(name, vocabulary)}Name classes as in their "
                "labels."
            )
    return np.array([setting.get(name, 1.0) for name in vocabulary], "float32")
