import functools

import numpy as np
import pandas as pd
import pytest

from audiotag.crossval.label_rules import (
    RULES,
    exact_match,
    mean_probability,
    pseudo_labels,
    select,
    self_verified,
    top_ranked,
)

VOCABULARY = ("Bark", "Meow", "Rain")
CLIPS = pd.DataFrame({"name": [f"{n}.wav" for n in range(5)], "labels": ["Bark", "Bark", "Meow", "Bark,Rain", "Bark"]})
TRUTH = np.array([[1, 0, 0], [1, 0, 0], [0, 1, 0], [1, 0, 1], [1, 0, 0]], bool)
SCORES = np.array([[0.99, 0.1, 0.1], [0.97, 0.1, 0.3], [0.6, 0.1, 0.2], [0.98, 0.05, 0.96], [0.3, 0.1, 0.9]])


def test_exact_match_confirms_if_the_labels_and_no_other_classes_are_above_the_threshold():
    labels, _ = exact_match(TRUTH, SCORES, threshold=0.2)
    assert labels.any(axis=1).tolist() == [True, False, False, True, False]
    assert (labels[[0, 3]] == TRUTH[[0, 3]]).all()


def test_top_ranked_at_1_confirms_if_the_labels_are_ranked_first():
    assert top_ranked(TRUTH, SCORES)[0].any(axis=1).tolist() == [True, True, False, True, False]
    assert top_ranked(TRUTH, SCORES, threshold=0.5)[0].any(axis=1).tolist() == [True, True, False, True, True]


def test_mean_probability_is_the_mean_over_the_labels():
    labels, confidence = mean_probability(TRUTH, SCORES, threshold=0.97)
    np.testing.assert_allclose(confidence, [0.99, 0.97, 0.1, 0.97, 0.3])
    assert labels.any(axis=1).tolist() == [True, True, False, True, False]


def test_self_verified_is_the_argmax_above_095_for_one_label_and_the_top_classes_for_several():
    assert self_verified(TRUTH, SCORES)[0].any(axis=1).tolist() == [True, True, False, True, False]
    scores = SCORES.copy()
    scores[3, 1] = 0.97  # not a label, and above the lower of the two labels
    assert self_verified(TRUTH, scores)[0].any(axis=1).tolist() == [True, True, False, False, False]
    tie = np.array([[0.99, 0.99, 0.0]])
    assert not self_verified(TRUTH[:1], tie)[0].any()


def test_pseudo_labels_ignore_the_given_labels():
    labels, _ = pseudo_labels(TRUTH, SCORES, threshold=0.5)
    assert labels.tolist() == (SCORES >= 0.5).tolist()


@pytest.mark.parametrize("rule", RULES.values())
def test_every_rule_refuses_a_threshold_that_is_no_probability(rule):
    with pytest.raises(ValueError, match=r"threshold must be from 0 to 1\. Received: threshold=95"):
        rule(TRUTH, SCORES, threshold=95)


def test_each_class_keeps_its_most_confident_clips_and_several_labels_need_room_in_each():
    rule = functools.partial(mean_probability, threshold=0.0)
    table = select(CLIPS, SCORES, VOCABULARY, rule=rule, max_per_class=2).set_index("clip")
    assert table["weight"].to_dict() == {"0.wav": 1, "1.wav": 1, "2.wav": 1, "3.wav": 0, "4.wav": 0}
    assert table.loc["3.wav", "reason"] == "confirmed, 0.970, but max_per_class is reached"
    assert table["labels"].tolist() == CLIPS["labels"].tolist()


def test_ties_are_resolved_by_name_and_not_by_order():
    scores = np.full_like(SCORES, 0.9)
    rule = functools.partial(mean_probability, threshold=0.5)
    tables = [select(clips, scores, VOCABULARY, rule=rule, max_per_class=2) for clips in (CLIPS, CLIPS[::-1])]
    assert all(set(table["clip"][table["weight"] > 0]) == {"0.wav", "1.wav", "2.wav"} for table in tables)


@pytest.mark.parametrize(
    ("most", "selected"), [(1, ["4.wav"]), (2, ["0.wav", "4.wav"]), (None, ["0.wav", "1.wav", "3.wav", "4.wav"])]
)
def test_clips_of_an_earlier_round_stay_and_count_towards_max_per_class(most, selected):
    previous = pd.DataFrame({"clip": ["4.wav", "2.wav"], "labels": ["Bark", "Meow"], "weight": [1.0, 0.0]})
    rule = functools.partial(mean_probability, threshold=0.5)
    table = select(CLIPS, SCORES, VOCABULARY, rule=rule, max_per_class=most, previous=previous).set_index("clip")
    assert table.index[table["weight"] > 0].tolist() == selected
    assert table.loc["4.wav", "reason"] == "kept in an earlier round"
    assert table.loc["2.wav", "reason"] == "not confirmed, 0.100"


def test_more_clips_than_max_per_class_may_stay_and_none_is_added():
    previous = pd.DataFrame({"clip": ["3.wav", "4.wav"], "labels": ["Bark", "Bark"], "weight": [1.0, 1.0]})
    rule = functools.partial(mean_probability, threshold=0.5)
    table = select(CLIPS, SCORES, VOCABULARY, rule=rule, max_per_class=1, previous=previous).set_index("clip")
    assert table.index[table["weight"] > 0].tolist() == ["3.wav", "4.wav"]


def test_pseudo_labels_are_in_the_table():
    table = select(CLIPS, SCORES, VOCABULARY, rule=pseudo_labels, source="here").set_index("clip")
    assert table["labels"].tolist() == ["Bark", "Bark", "Bark", "Bark,Rain", "Rain"]
    assert set(table["source"]) == {"here"}
