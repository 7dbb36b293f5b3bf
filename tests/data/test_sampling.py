import numpy as np
import pandas as pd
import pytest

from audiotag.data.sampling import shares
from audiotag.errors import ConfigError

VOCABULARY = ("Bark", "Meow", "Rain")
CLIPS = pd.DataFrame(
    {
        "subset": ["noisy"] * 3 + ["curated"] * 3,
        "labels": ["Bark", "Bark", "Bark,Meow", "Bark", "Rain", "Bark,Rain"],
    }
)


def test_without_a_wish_all_clips_are_alike():
    np.testing.assert_allclose(shares(CLIPS, VOCABULARY), np.full(6, 1 / 6))


def test_each_subset_gets_its_share():
    found = shares(CLIPS, VOCABULARY, subsets={"noisy": 1, "curated": 57})
    np.testing.assert_allclose(found, np.repeat([1 / 58 / 3, 57 / 58 / 3], 3))


def test_balanced_every_class_is_drawn_as_often_as_the_others():
    truth = np.array([["Bark" in t, "Meow" in t, "Rain" in t] for t in CLIPS["labels"]])
    found = shares(CLIPS, VOCABULARY, balanced=True)
    by_hand = (truth / truth.sum(axis=0) / 3).sum(axis=1)
    np.testing.assert_allclose(found, by_hand)


def test_balanced_within_each_subset():
    found = shares(CLIPS, VOCABULARY, subsets={"noisy": 0.25, "curated": 0.75}, balanced=True)
    np.testing.assert_allclose(found[:3], 0.25 * np.array([1 / 3, 1 / 3, 1 / 3 + 1]) / 2)
    np.testing.assert_allclose(found[3:], 0.75 * np.array([0.5, 0.5, 1]) / 2)


def test_balanced_a_class_is_drawn_as_often_whatever_its_clips_weigh():
    clips = CLIPS.assign(labels=["Bark", "Bark", "Meow", "Meow", "Rain", "Rain"], weight=[1, 1, 0.5, 0.5, 2, 1])
    found = shares(clips, VOCABULARY, balanced=True)
    np.testing.assert_allclose(found, np.array([1 / 2, 1 / 2, 1 / 2, 1 / 2, 2 / 3, 1 / 3]) / 3)


def test_a_subset_that_is_not_there_is_named():
    with pytest.raises(ConfigError, match="test clips shall be drawn, but there are none"):
        shares(CLIPS, VOCABULARY, subsets={"test": 1.0})


def test_a_weight_makes_a_clip_rarer_within_its_subset():
    weighted = CLIPS.assign(weight=[0.5, 1, 1, 1, 1, 1])
    found = shares(weighted, VOCABULARY, subsets={"noisy": 0.2, "curated": 0.8})
    np.testing.assert_allclose(found, [0.04, 0.08, 0.08, *[0.8 / 3] * 3])
