"""How often each clip is drawn, where an epoch draws clips with replacement."""

import numpy as np

from audiotag.data.labels import multi_hot
from audiotag.errors import ConfigError


def shares(clips, vocabulary, *, subsets=None, balanced=False):
    """The share of all draws that falls to each clip.

    Few good labels among many bad ones: heard once an epoch, the good ones drown. With
    shares of the subsets they are heard as often as one likes (the first place of
    FSDKaggle2019 heard 1 % noisy, 42 % corrected and 57 % curated clips).

    Args:
        clips: Rows of a table of clips; uses `subset` and `labels`, and `weight`, where there is one: beside a
            clip of weight 1, one of weight 0.5 is drawn half as often.
        vocabulary: The K class names.
        subsets: {subset: its share}, in any unit; None draws all clips alike. Within a subset all clips
            are alike, unless balanced.
        balanced: A class is drawn, each as likely as the others, and then one of its clips; within
            each subset, where these have shares.

    Returns:
        float64 [len(clips)], sum 1.

    Raises:
        ConfigError: A subset has a share and no clips.

    Example:
        >>> import pandas as pd
        >>> clips = pd.DataFrame({"subset": ["noisy", "noisy", "curated"], "labels": ["Bark", "Bark", "Meow"]})
        >>> shares(clips, ("Bark", "Meow"), subsets={"noisy": 0.1, "curated": 0.9}).round(2).tolist()
        [0.05, 0.05, 0.9]
        >>> shares(clips, ("Bark", "Meow"), balanced=True).round(2).tolist()
        [0.25, 0.25, 0.5]
    """
    answer = np.zeros(len(clips))
    for subset, share in (subsets or {None: 1.0}).items():
        inside = np.full(len(clips), True) if subset is None else (clips["subset"] == subset).to_numpy()
        if not inside.any():
            raise ConfigError(f"{subset} clips shall be drawn, but there are none. Leave their share out.")
        parts = clips["weight"][inside].to_numpy() if "weight" in clips else np.ones(inside.sum())
        if balanced:
            of_class = multi_hot(clips["labels"][inside], vocabulary) * parts[:, None]  # [n, K]
            totals = of_class.sum(axis=0)  # [K]
            parts = (of_class / np.where(totals > 0, totals, 1)).sum(axis=1)  # each class gives its clips 1 in all
        answer[inside] = share * parts / parts.sum()
    return answer / answer.sum()
