import numpy as np
import pandas as pd
import pytest
from sklearn.utils.class_weight import compute_class_weight

from audiotag.data.sampling import class_weights, sampling_probabilities
from audiotag.errors import ConfigError

VOCABULARY = ("Bark", "Meow", "Rain")
CLIPS = pd.DataFrame(
    {
        "subset": ["noisy"] * 3 + ["curated"] * 3,
        "labels": ["Bark", "Bark", "Bark,Meow", "Bark", "Rain", "Bark,Rain"],
    }
)


def test_by_default_all_clips_are_equally_probable():
    np.testing.assert_allclose(sampling_probabilities(CLIPS, VOCABULARY), np.full(6, 1 / 6))


def test_each_subset_has_the_probability_of_its_weight():
    probabilities = sampling_probabilities(CLIPS, VOCABULARY, subset_weights={"noisy": 1, "curated": 57})
    np.testing.assert_allclose(probabilities, np.repeat([1 / 58 / 3, 57 / 58 / 3], 3))


def test_class_balanced_draws_every_class_equally_often():
    truth = np.array([["Bark" in t, "Meow" in t, "Rain" in t] for t in CLIPS["labels"]])
    probabilities = sampling_probabilities(CLIPS, VOCABULARY, class_balanced=True)
    expected = (truth / truth.sum(axis=0) / 3).sum(axis=1)
    np.testing.assert_allclose(probabilities, expected)


def test_class_balanced_draws_clips_without_labels_like_those_of_a_class():
    clips = CLIPS.assign(labels=["Bark", "Bark", "Meow", "", "", ""])
    probabilities = sampling_probabilities(clips, VOCABULARY, class_balanced=True)
    np.testing.assert_allclose(probabilities, np.array([1 / 2, 1 / 2, 1, 1 / 3, 1 / 3, 1 / 3]) / 3)


def test_classes_are_balanced_within_each_subset():
    probabilities = sampling_probabilities(
        CLIPS, VOCABULARY, subset_weights={"noisy": 0.25, "curated": 0.75}, class_balanced=True
    )
    np.testing.assert_allclose(probabilities[:3], 0.25 * np.array([1 / 3, 1 / 3, 1 / 3 + 1]) / 2)
    np.testing.assert_allclose(probabilities[3:], 0.75 * np.array([0.5, 0.5, 1]) / 2)


def test_class_balanced_ignores_how_much_the_clips_of_a_class_weigh_in_sum():
    clips = CLIPS.assign(labels=["Bark", "Bark", "Meow", "Meow", "Rain", "Rain"], weight=[1, 1, 0.5, 0.5, 2, 1])
    probabilities = sampling_probabilities(clips, VOCABULARY, class_balanced=True)
    np.testing.assert_allclose(probabilities, np.array([1 / 2, 1 / 2, 1 / 2, 1 / 2, 2 / 3, 1 / 3]) / 3)


def test_a_subset_with_a_weight_but_no_clips_is_named():
    with pytest.raises(
        ConfigError, match="the subset 'test' has a sampling weight, but there are no test clips. Leave its weight out"
    ):
        sampling_probabilities(CLIPS, VOCABULARY, subset_weights={"test": 1.0})


def test_the_weight_of_a_clip_counts_within_its_subset():
    weighted = CLIPS.assign(weight=[0.5, 1, 1, 1, 1, 1])
    probabilities = sampling_probabilities(weighted, VOCABULARY, subset_weights={"noisy": 0.2, "curated": 0.8})
    np.testing.assert_allclose(probabilities, [0.04, 0.08, 0.08, *[0.8 / 3] * 3])


def test_balanced_class_weights_are_those_of_scikit_learn():
    labels = ["Bark"] * 5 + ["Meow"] * 2 + ["Rain"] * 3
    expected = compute_class_weight("balanced", classes=np.array(VOCABULARY), y=labels)
    weights = class_weights("balanced", labels, VOCABULARY)
    np.testing.assert_allclose(weights, expected, rtol=1e-6)
    assert np.mean([weights[VOCABULARY.index(label)] for label in labels]) == pytest.approx(1)


def test_class_weights_of_clips_without_labels_and_of_classes_that_are_not_named_are_1():
    assert class_weights("balanced", ["", "Bark", "Bark"], VOCABULARY).tolist() == [1, 1, 1]
    assert class_weights({"Meow": 2.5}, ["Bark"], VOCABULARY).tolist() == [1, 2.5, 1]
    assert class_weights(None, ["Bark"], VOCABULARY) is None


def test_a_weight_of_an_unknown_class_names_the_nearest():
    with pytest.raises(ValueError, match="there is no class 'Brak' in the records. Did you mean 'Bark'?"):
        class_weights({"Brak": 2.0}, [], VOCABULARY)
