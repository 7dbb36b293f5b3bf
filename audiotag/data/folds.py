"""Parting clips into folds such that every class is as frequent in one as in the others."""

import hashlib

import numpy as np
import pandas as pd

from audiotag.data.labels import multi_hot, split_labels
from audiotag.errors import ConfigError, DataError


def stratified_folds(table, num_folds, *, seed, groups=None):
    """The fold of every clip, such that each fold has its even share of every class.

    Clips are dealt out one by one, those with most labels first, each to the fold that still lacks
    its labels most: Sechidis et al.'s rule, taken over all labels of the clip at once. Then each may
    move to a fold that lacks it more, until none would. Between folds that lack a clip equally, the
    one with fewest clips has it. Names and the seed decide, so the order of the rows does not matter.

    Reference: Sechidis et al., "On the Stratification of Multi-label Data", 2011,
    https://doi.org/10.1007/978-3-642-23808-6_10.

    Args:
        table: Table of clips; uses `name` and `labels`.
        num_folds: Number of folds, at least 2.
        seed: Another seed gives other folds.
        groups: Keeps clips together that must not be parted, such as those cut from one recording: a
            column of the table, or a Series with the index of the table. A clip whose group is "" is alone.

    Returns:
        Series of int with the index of the table, from 0 to num_folds - 1.

    Raises:
        DataError: There are fewer clips, or groups, than folds.
        ConfigError: Fewer than two folds, or no such column.

    Example:
        >>> names = ["1.wav", "2.wav", "3.wav", "4.wav"]
        >>> table = pd.DataFrame({"name": names, "labels": ["Bark", "Meow", "Bark", "Meow"]})
        >>> folds = stratified_folds(table, 2, seed=0)
        >>> sorted(table["labels"][folds == 0])
        ['Bark', 'Meow']
    """
    if num_folds < 2:
        raise ConfigError(f"num_folds is {num_folds}. Expected at least 2: one to train on and one to be judged by.")
    owners, owner = np.unique(_owners(table, groups), return_inverse=True)  # [U], [n]
    if num_folds > len(owners):
        what = "clips" if groups is None else "groups of clips"
        raise DataError(f"{num_folds} folds, but only {len(owners)} {what}. Choose fewer folds.")
    vocabulary = sorted({label for text in table["labels"] for label in split_labels(text)})
    counts = np.zeros((len(owners), len(vocabulary)), "int64")  # [U, K]
    np.add.at(counts, owner, multi_hot(table["labels"], vocabulary).astype("int64"))
    dice = [hashlib.sha256(f"{seed}/{name}".encode()).digest() for name in owners]
    order = sorted(range(len(owners)), key=lambda u: (-counts[u].sum(), dice[u]))
    folds = _deal(counts, np.bincount(owner), order, num_folds)  # [U]
    return pd.Series(folds[owner], index=table.index, name="fold")


def official_folds(table, num_folds):
    """The folds that a dataset comes with, as ESC-10 and ESC-50 do: Series of int from 0 to num_folds - 1.

    Args:
        table: Table of clips; uses `name` and `fold`, from 1 to num_folds.
        num_folds: How many there are.

    Raises:
        DataError: A clip has no official fold, or there are more or fewer of them.

    Example:
        >>> official_folds(pd.DataFrame({"name": ["1.wav", "2.wav"], "fold": [2, 1]}), 2).tolist()
        [1, 0]
    """
    without = table["name"][table["fold"] == 0]
    if len(without):
        raise DataError(f"{without.iloc[0]} has no official fold ({len(without)} in all). Use folds by labels.")
    found = sorted(set(table["fold"]))
    if found != list(range(1, num_folds + 1)):
        raise DataError(f"the official folds are {', '.join(map(str, found))}. Expected 1 to {num_folds}.")
    return (table["fold"] - 1).rename("fold")


def _owners(table, groups):
    """What decides the fold of each clip: its group, or itself where it has none."""
    if groups is None:
        return table["name"].tolist()
    if isinstance(groups, str):
        if groups not in table:
            raise ConfigError(f"groups is {groups!r}, but the table of clips has only {', '.join(table.columns)}.")
        groups = table[groups]
    groups = groups.loc[table.index]
    return [f"group {group}" if group else f"clip {name}" for name, group in zip(table["name"], groups)]


def _deal(counts, sizes, order, num_folds):
    """The fold of every owner [U], given its clips of each class [U, K], their number [U], and whose turn it is."""
    # What each fold lacks to its even share, times num_folds: whole numbers are equal when they are equal.
    lack = np.tile(counts.sum(axis=0), (num_folds, 1))  # [folds, K]
    room = np.full(num_folds, sizes.sum())  # [folds]
    folds = np.full(len(counts), -1)
    moved = True
    while moved:  # ends: every move makes the sum of lack squared smaller, or keeps it and makes that of room smaller
        moved = False
        for u in order:
            here = folds[u]
            if here >= 0:
                lack[here] += num_folds * counts[u]
                room[here] += num_folds * sizes[u]
            wanted = (lack @ counts[u]).tolist()
            folds[u] = max(range(num_folds), key=lambda fold: (wanted[fold], room[fold], fold == here))
            lack[folds[u]] -= num_folds * counts[u]
            room[folds[u]] -= num_folds * sizes[u]
            moved |= folds[u] != here
    return folds
