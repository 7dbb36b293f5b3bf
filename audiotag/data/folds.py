"""Cross-validation folds: stratified by labels, or predefined by a dataset."""

import hashlib
from fractions import Fraction

import numpy as np
import pandas as pd

from audiotag.data.labels import multi_hot, split_labels
from audiotag.errors import ConfigError, DataError


def stratified_folds(
    table: pd.DataFrame, num_folds: int, *, seed: int, groups: str | pd.Series | None = None
) -> pd.Series:
    """Assigns every clip to a fold so that every class is spread evenly.

    Clips are assigned one by one, those with the most labels first, each to the fold that needs its labels most:
    the rule of Sechidis et al., applied to all labels of the clip at once. Then each clip moves to a fold that
    needs it more, until none does. Ties go to the fold with the fewest clips. The result depends on names and the
    seed, not on the order of the rows.

    Reference: Sechidis et al., "On the Stratification of Multi-label Data", 2011,
    https://doi.org/10.1007/978-3-642-23808-6_10.

    Args:
        table: Table of clips; uses `name` and `labels`.
        num_folds: Number of folds, at least 2.
        seed: Another seed gives other folds.
        groups: Clips of one group share a fold, such as those cut from one recording: a column of the table, or
            a Series with the index of the table. A clip whose group is "" is a group of its own.

    Returns:
        Series of int with the index of the table, from 0 to num_folds - 1.

    Raises:
        DataError: There are fewer clips, or groups, than folds.
        ConfigError: There are fewer than two folds, or no such column.

    Example:
        >>> names = ["1.wav", "2.wav", "3.wav", "4.wav"]
        >>> table = pd.DataFrame({"name": names, "labels": ["Bark", "Meow", "Bark", "Meow"]})
        >>> folds = stratified_folds(table, 2, seed=0)
        >>> sorted(table["labels"][folds == 0])
        ['Bark', 'Meow']
    """
    if num_folds < 2:
        raise ConfigError(f"num_folds is {num_folds}. Expected at least 2: one to validate on and one to train on.")
    names, unit = np.unique(_unit_names(table, groups), return_inverse=True)  # [U], [n]
    if num_folds > len(names):
        units = "clips" if groups is None else "groups of clips"
        raise DataError(f"{num_folds} folds, but only {len(names)} {units}. Choose fewer folds.")
    vocabulary = sorted({label for text in table["labels"] for label in split_labels(text)})
    counts = np.zeros((len(names), len(vocabulary)), "int64")  # [U, K]
    np.add.at(counts, unit, multi_hot(table["labels"], vocabulary).astype("int64"))
    draws = [hashlib.sha256(f"{seed}/{name}".encode()).digest() for name in names]
    order = sorted(range(len(names)), key=lambda u: (-counts[u].sum(), draws[u]))
    folds = _assign(counts, np.bincount(unit), order, num_folds)  # [U]
    return pd.Series(folds[unit], index=table.index, name="fold")


def stratified_fraction(
    table: pd.DataFrame, fraction: float, *, seed: int, groups: str | pd.Series | None = None
) -> pd.Series:
    """Chooses a fraction of the clips that has its part of every class.

    They are the first of `stratified_folds`: one of four folds for 0.25, three of ten for 0.3.

    Args:
        table: Table of clips; uses `name` and `labels`.
        fraction: The fraction of the clips to choose, 0.01 to 0.99; the nearest that folds can give.
        seed: Another seed chooses others.
        groups: As for `stratified_folds`: all clips of a group are chosen, or none.

    Returns:
        Series of bool with the index of the table. Some clips are chosen and some are not.

    Raises:
        DataError: There are fewer than two clips, or groups.

    Example:
        >>> names = ["1.wav", "2.wav", "3.wav", "4.wav"]
        >>> table = pd.DataFrame({"name": names, "labels": ["Bark", "Meow", "Bark", "Meow"]})
        >>> chosen = stratified_fraction(table, 0.5, seed=0)
        >>> sorted(table["labels"][chosen])
        ['Bark', 'Meow']
    """
    num_units = len(set(_unit_names(table, groups)))
    if num_units < 2:
        units = "clips" if groups is None else "groups of clips"
        raise DataError(
            f"a fraction of {num_units} {units}. Expected at least 2: one to validate on and one to train on."
        )
    most = min(num_units, 100)
    nearest = Fraction(fraction).limit_denominator(most)
    nearest = min(max(nearest, Fraction(1, most)), Fraction(most - 1, most))
    folds = stratified_folds(table, nearest.denominator, seed=seed, groups=groups)
    return folds < nearest.numerator


def predefined_folds(table: pd.DataFrame, num_folds: int) -> pd.Series:
    """The folds that a dataset defines itself, such as ESC-10 and ESC-50.

    Published results for these datasets use their folds, so only these compare with them.

    Args:
        table: Table of clips; uses `name` and `fold`, from 1 to num_folds.
        num_folds: Number of folds.

    Returns:
        Series of int with the index of the table, from 0 to num_folds - 1.

    Raises:
        DataError: A clip has no predefined fold, or their number is not `num_folds`.

    Example:
        >>> predefined_folds(pd.DataFrame({"name": ["1.wav", "2.wav"], "fold": [2, 1]}), 2).tolist()
        [1, 0]
    """
    without = table["name"][table["fold"] == 0]
    if len(without):
        raise DataError(f"{without.iloc[0]} has no predefined fold ({len(without)} in all). Use stratified folds.")
    found = sorted(set(table["fold"]))
    if found != list(range(1, num_folds + 1)):
        raise DataError(f"the predefined folds are {', '.join(map(str, found))}. Expected 1 to {num_folds}.")
    return (table["fold"] - 1).rename("fold")


def _unit_names(table, groups):
    """The unit that each clip is assigned with: its group, or itself if it has none."""
    if groups is None:
        return table["name"].tolist()
    if isinstance(groups, str):
        if groups not in table:
            raise ConfigError(f"groups is {groups!r}, but the table of clips has only {', '.join(table.columns)}.")
        groups = table[groups]
    groups = groups.loc[table.index]
    return [f"group {group}" if group else f"clip {name}" for name, group in zip(table["name"], groups)]


def _assign(counts, sizes, order, num_folds):
    """The fold of every unit [U]: counts [U, K] and sizes [U] are its clips."""
    # How many clips each fold is short of an even split, times num_folds: integers, so ties are exact.
    lack = np.tile(counts.sum(axis=0), (num_folds, 1))  # [folds, K]
    room = np.full(num_folds, sizes.sum())  # [folds]
    folds = np.full(len(counts), -1)
    moved = True
    while moved:  # ends: every move reduces the sum of lack squared, or keeps it and reduces that of room squared
        moved = False
        for u in order:
            current = folds[u]
            if current >= 0:
                lack[current] += num_folds * counts[u]
                room[current] += num_folds * sizes[u]
            need = (lack @ counts[u]).tolist()
            folds[u] = max(range(num_folds), key=lambda fold: (need[fold], room[fold], fold == current))
            lack[folds[u]] -= num_folds * counts[u]
            room[folds[u]] -= num_folds * sizes[u]
            moved |= folds[u] != current
    return folds
