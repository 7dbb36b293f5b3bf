import csv
import itertools
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiers import law

from audiotag.data.folds import predefined_folds, stratified_folds, stratified_fraction
from audiotag.data.labels import multi_hot, split_labels
from audiotag.errors import ConfigError, DataError

REAL = Path(__file__).resolve().parents[3] / "shared" / "data" / "fsdkaggle2019"
needs_the_real_tables = pytest.mark.skipif(
    not REAL.is_dir(), reason="the tables of FSDKaggle2019 are not beside the project"
)


def real_table(name):
    """Clips of a table; a group is a recording, or all videos of one uploader."""
    with open(REAL / f"{name}_post_competition.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    groups = [row.get("freesound_id") or row["flickr_video_URL"].split("/")[4] for row in rows]
    names, labels = zip(*((row["fname"], row["labels"]) for row in rows))
    return pd.DataFrame({"name": names, "labels": labels, "group": groups})


def labeled(*labels):
    return pd.DataFrame({"name": [f"{index:04d}.wav" for index in range(len(labels))], "labels": labels})


def random_table(num_clips, num_classes, seed):
    rng = np.random.default_rng(seed)
    rarity = np.sort(rng.random(num_classes) ** 2)
    rows = rng.random((num_clips, num_classes)) < rarity * 0.5
    return labeled(*(",".join(f"c{index}" for index in np.flatnonzero(row)) for row in rows))


def clips_of_each_class(table, folds):
    """[folds, K]"""
    vocabulary = sorted({label for text in table["labels"] for label in split_labels(text)})
    truth = multi_hot(table["labels"], vocabulary)
    return np.stack([truth[(folds == fold).to_numpy()].sum(axis=0) for fold in range(folds.max() + 1)])


def max_deviation_from_even(table, folds):
    counts = clips_of_each_class(table, folds)
    return np.abs(counts - counts.mean(axis=0)).max()


@needs_the_real_tables
@pytest.mark.parametrize("num_folds", [5, 10])
@pytest.mark.parametrize("seed", [0, 2019])
@pytest.mark.parametrize("name", ["train_curated", "test"])
def test_every_real_class_is_within_one_clip_of_an_even_split(name, num_folds, seed):
    table = real_table(name)
    folds = stratified_folds(table, num_folds, seed=seed)
    assert max_deviation_from_even(table, folds) <= 1.0
    assert np.ptp(np.bincount(folds)) <= 1


@needs_the_real_tables
@pytest.mark.parametrize("groups, curated_deviation, noisy_deviation", [(None, 1.0, 0.0), ("group", 1.0, 2.0)])
def test_all_real_training_clips_are_assigned_in_seconds_in_any_order_of_the_rows(
    groups, curated_deviation, noisy_deviation
):
    """Curated and noisy clips separately, as in a run; an uploader has up to 290 of the noisy ones."""
    tables = [real_table("train_curated"), real_table("train_noisy")]
    assert [len(table) for table in tables] == [4_970, 19_815]
    results = []
    for ordered in (lambda table: table, lambda table: table[::-1], lambda table: table.sample(frac=1, random_state=0)):
        start = time.process_time()  # of this process, whatever else the machine does
        folds = [stratified_folds(ordered(table), 5, seed=0, groups=groups) for table in tables]
        assert time.process_time() - start < 30
        results.append([one.sort_index() for one in folds])
    for table, deviation, folds, *others in zip(tables, (curated_deviation, noisy_deviation), *results):
        assert all(other.equals(folds) for other in others)
        assert max_deviation_from_even(table, folds) == deviation
        assert groups is None or (folds.groupby(table["group"]).nunique() == 1).all()


def test_single_labels_are_spread_evenly():
    table = labeled(*["a"] * 10, *["b"] * 15, *["c"] * 5)
    counts = clips_of_each_class(table, stratified_folds(table, 5, seed=0))
    np.testing.assert_array_equal(counts, [[2, 3, 1]] * 5)


@pytest.mark.parametrize("seed", range(5))
def test_small_tables_come_near_the_best_of_all_assignments(seed):
    table = random_table(8, 4, seed)

    def unevenness(folds):
        counts = clips_of_each_class(table, pd.Series([*folds]))
        return np.square(counts - counts.mean(axis=0)).sum()

    assignments = [folds for folds in itertools.product(range(2), repeat=8) if sum(folds) == 4]
    assert unevenness(stratified_folds(table, 2, seed=0)) <= min(map(unevenness, assignments)) + 1.0


@law
@given(
    labels=st.lists(
        st.sets(st.sampled_from("abcde")).map(lambda each: ",".join(sorted(each))), min_size=2, max_size=30
    ),
    num_folds=st.integers(2, 6),
    seed=st.integers(0, 3),
    groups=st.none() | st.lists(st.sampled_from(["", "x", "y", "z"]), min_size=30, max_size=30),
)
def test_every_clip_has_one_fold_and_no_fold_is_empty(labels, num_folds, seed, groups):
    table = labeled(*labels)
    groups = None if groups is None else pd.Series(groups[: len(labels)])
    num_units = len(labels) if groups is None else (groups == "").sum() + groups[groups != ""].nunique()
    if num_units < num_folds:
        with pytest.raises(DataError, match=f"{num_folds} folds, but only {num_units} "):
            stratified_folds(table, num_folds, seed=seed, groups=groups)
        return
    folds = stratified_folds(table, num_folds, seed=seed, groups=groups)
    assert folds.index.equals(table.index) and set(folds) == set(range(num_folds))
    if groups is not None:
        assert (folds.groupby(groups).nunique()[lambda count: count.index != ""] == 1).all()


@law
@given(st.lists(st.sampled_from(["", *"abcde"]), min_size=6, max_size=40), st.integers(2, 6), st.integers(0, 3))
def test_folds_have_even_sizes_and_classes_if_clips_have_one_label(labels, num_folds, seed):
    table = labeled(*labels)
    folds = stratified_folds(table, num_folds, seed=seed)
    for clips in [folds, *(folds[table["labels"] == label] for label in "abcde")]:
        sizes = clips.value_counts().reindex(range(num_folds), fill_value=0)
        assert sizes.max() - sizes.min() <= 1


@pytest.mark.check("D9")
def test_the_order_of_the_rows_does_not_matter():
    table = random_table(200, 10, seed=1)
    shuffled = table.sample(frac=1, random_state=0)
    pd.testing.assert_series_equal(
        stratified_folds(shuffled, 5, seed=7).sort_index(), stratified_folds(table, 5, seed=7), check_names=True
    )


PRINT_FOLDS = """
import sys
import pandas as pd
from audiotag.data.folds import stratified_folds
table = pd.DataFrame({"name": [f"{i}.wav" for i in range(60)], "labels": ["abcde"[i * i % 7 % 5] for i in range(60)]})
shuffled = table.sample(frac=1, random_state=int(sys.argv[1]))
print(stratified_folds(shuffled, 5, seed=7).sort_index().tolist())
"""


@pytest.mark.check("D9", 4)
def test_neither_order_nor_hash_seed_changes_a_fold():
    outputs = set()
    for seed in ("0", "1", "7", "2019"):
        environment = os.environ | {"PYTHONHASHSEED": seed, "PYTHONPATH": str(Path(__file__).parents[2])}
        command = [sys.executable, "-c", PRINT_FOLDS, seed]
        outputs.add(subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout)
    assert len(outputs) == 1


@pytest.mark.check("D9")
def test_one_seed_repeats_and_another_differs():
    table = random_table(200, 10, seed=1)
    folds = stratified_folds(table, 5, seed=1)
    assert folds.equals(stratified_folds(table, 5, seed=1))
    assert (folds != stratified_folds(table, 5, seed=2)).mean() > 0.5


def test_the_series_has_the_index_of_the_table():
    table = random_table(20, 3, seed=0).set_axis([f"row {index}" for index in range(20)])
    assert stratified_folds(table, 4, seed=0).index.equals(table.index)


@pytest.mark.check("D9")
@pytest.mark.parametrize("as_series", [False, True])
def test_a_group_is_never_split(as_series):
    table = random_table(300, 8, seed=2)
    table["group"] = [f"recording {index // 3}" if index % 2 else "" for index in range(300)]
    folds = stratified_folds(
        table, 5, seed=0, groups=table["group"].sample(frac=1, random_state=0) if as_series else "group"
    )
    grouped = table["group"] != ""
    assert (folds[grouped].groupby(table["group"][grouped]).nunique() == 1).all()
    assert folds[~grouped].nunique() == 5
    assert max_deviation_from_even(table, folds) <= 2.0


def test_a_group_named_like_a_clip_is_not_that_clip():
    table = labeled("a", "a", "a").assign(group=["", "0000.wav", "0000.wav"])
    folds = stratified_folds(table, 2, seed=0, groups="group")
    assert folds[0] != folds[1] == folds[2]


def test_a_class_rarer_than_the_folds_is_spread():
    table = labeled(*["rare"] * 3, *["common"] * 47)
    folds = stratified_folds(table, 10, seed=0)
    assert folds[:3].nunique() == 3
    np.testing.assert_array_equal(np.bincount(folds), [5] * 10)


def test_clips_without_labels_equalize_the_sizes():
    table = labeled(*[""] * 7, *["a"] * 4, *["a,b,c"] * 2)
    np.testing.assert_array_equal(sorted(np.bincount(stratified_folds(table, 4, seed=0))), [3, 3, 3, 4])


def test_more_folds_than_clips_are_refused():
    with pytest.raises(DataError, match="4 folds, but only 3 clips. Choose fewer folds."):
        stratified_folds(labeled("a", "a", "a"), 4, seed=0)


def test_more_folds_than_groups_are_refused():
    table = labeled("a", "a", "a").assign(group=["x", "x", "y"])
    with pytest.raises(DataError, match="3 folds, but only 2 groups of clips. Choose fewer folds."):
        stratified_folds(table, 3, seed=0, groups="group")


def test_one_fold_is_refused():
    with pytest.raises(
        ConfigError, match="num_folds is 1. Expected at least 2: one to validate on and one to train on"
    ):
        stratified_folds(labeled("a", "a"), 1, seed=0)


def test_groups_by_an_absent_column_are_refused():
    with pytest.raises(ConfigError, match="groups is 'recording', but the table of clips has only name, labels"):
        stratified_folds(labeled("a", "a"), 2, seed=0, groups="recording")


# Predefined folds


def test_predefined_folds_are_counted_from_zero_in_the_order_of_the_table():
    table = labeled("a", "b", "a").assign(fold=[3, 1, 2]).set_axis(["x", "y", "z"])
    folds = predefined_folds(table, 3)
    assert folds.to_dict() == {"x": 2, "y": 0, "z": 1} and folds.name == "fold"


def test_a_clip_without_a_predefined_fold_is_named():
    table = labeled("a", "b", "a").assign(fold=[1, 0, 0])
    with pytest.raises(DataError, match=r"0001.wav has no predefined fold \(2 in all\). Use stratified folds."):
        predefined_folds(table, 2)


@pytest.mark.parametrize("num_folds", [2, 4])
def test_another_number_of_predefined_folds_is_refused(num_folds):
    table = labeled("a", "b", "a").assign(fold=[3, 1, 2])
    with pytest.raises(DataError, match=f"the predefined folds are 1, 2, 3. Expected 1 to {num_folds}."):
        predefined_folds(table, num_folds)


@pytest.mark.parametrize("fraction", [0.01, 0.25, 0.3, 0.5, 0.99])
def test_a_fraction_has_its_part_of_every_class(fraction):
    table = labeled(*["a"] * 100, *["b"] * 200, *["a,b"] * 100)
    chosen = stratified_fraction(table, fraction, seed=1)
    assert chosen.sum() == pytest.approx(400 * fraction, abs=1)
    counts = clips_of_each_class(table, chosen.astype(int))[1]
    np.testing.assert_allclose(counts, np.array([200, 300]) * fraction, atol=3)
    assert chosen.equals(stratified_fraction(table, fraction, seed=1))


@pytest.mark.parametrize("fraction", [0.01, 0.4, 0.99])
def test_a_fraction_keeps_groups_together_and_is_neither_nothing_nor_all(fraction):
    table = labeled(*"aabbab").assign(group=["1", "1", "2", "2", "", ""])
    chosen = stratified_fraction(table, fraction, seed=0, groups="group")
    assert 0 < chosen.sum() < 6 and chosen[0] == chosen[1] and chosen[2] == chosen[3]
    with pytest.raises(DataError, match="a fraction of 1 groups of clips. Expected at least 2"):
        stratified_fraction(table[:2], fraction, seed=0, groups="group")
