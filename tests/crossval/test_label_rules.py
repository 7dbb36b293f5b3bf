import functools

import numpy as np
import pandas as pd
import pytest

from audiotag.crossval.label_rules import RULES, exact, probable, pseudo_labels, ranked, select, verified

VOCABULARY = ("Bark", "Meow", "Rain")
CLIPS = pd.DataFrame({"name": [f"{n}.wav" for n in range(5)], "labels": ["Bark", "Bark", "Meow", "Bark,Rain", "Bark"]})
TRUTH = np.array([[1, 0, 0], [1, 0, 0], [0, 1, 0], [1, 0, 1], [1, 0, 0]], bool)
SCORES = np.array([[0.99, 0.1, 0.1], [0.97, 0.1, 0.3], [0.6, 0.1, 0.2], [0.98, 0.05, 0.96], [0.3, 0.1, 0.9]])


def test_exact_wants_all_given_labels_above_the_threshold_and_no_others():
    labels, _ = exact(TRUTH, SCORES, threshold=0.2)
    assert labels.any(axis=1).tolist() == [True, False, False, True, False]
    assert (labels[[0, 3]] == TRUTH[[0, 3]]).all()


def test_ranked_at_1_wants_the_given_labels_to_lead():
    assert ranked(TRUTH, SCORES)[0].any(axis=1).tolist() == [True, True, False, True, False]
    assert ranked(TRUTH, SCORES, at_least=0.5)[0].any(axis=1).tolist() == [True, True, False, True, True]


def test_probable_takes_the_mean_over_the_given_labels():
    labels, confidence = probable(TRUTH, SCORES, at_least=0.97)
    np.testing.assert_allclose(confidence, [0.99, 0.97, 0.1, 0.97, 0.3])
    assert labels.any(axis=1).tolist() == [True, True, False, True, False]


def test_verified_is_the_argmax_above_095_for_one_label_and_its_like_for_several():
    assert verified(TRUTH, SCORES)[0].any(axis=1).tolist() == [True, True, False, True, False]
    beaten = SCORES.copy()
    beaten[3, 1] = 0.97  # a class that was not given, above the lower of the two that were
    assert verified(TRUTH, beaten)[0].any(axis=1).tolist() == [True, True, False, False, False]
    tie = np.array([[0.99, 0.99, 0.0]])
    assert not verified(TRUTH[:1], tie)[0].any()


def test_pseudo_labels_forget_what_was_given():
    labels, _ = pseudo_labels(TRUTH, SCORES, at_least=0.5)
    assert labels.tolist() == (SCORES >= 0.5).tolist()


@pytest.mark.parametrize("rule", RULES.values())
def test_every_rule_refuses_what_is_no_probability(rule):
    key = "threshold" if rule is exact else "at_least"
    with pytest.raises(ValueError, match=f"{key} must be from 0 to 1"):
        rule(TRUTH, SCORES, **{key: 95})


def test_a_class_takes_its_most_confident_clips_and_several_labels_need_room_in_each():
    rule = functools.partial(probable, at_least=0.0)
    table = select(CLIPS, SCORES, VOCABULARY, rule=rule, per_class=2).set_index("clip")
    assert table["weight"].to_dict() == {"0.wav": 1, "1.wav": 1, "2.wav": 1, "3.wav": 0, "4.wav": 0}
    assert table.loc["3.wav", "reason"] == "confirmed, 0.970, and no room in its class"
    assert table["labels"].tolist() == CLIPS["labels"].tolist()


def test_equal_confidence_is_decided_by_the_name_and_not_by_the_order():
    scores = np.full_like(SCORES, 0.9)
    rule = functools.partial(probable, at_least=0.5)
    tables = [select(clips, scores, VOCABULARY, rule=rule, per_class=2) for clips in (CLIPS, CLIPS[::-1])]
    assert all(set(table["clip"][table["weight"] > 0]) == {"0.wav", "1.wav", "2.wav"} for table in tables)


def test_what_was_taken_before_stays_and_leaves_its_room_to_others():
    kept = pd.DataFrame({"clip": ["4.wav", "2.wav"], "labels": ["Bark", "Meow"], "weight": [1.0, 0.0]})
    rule = functools.partial(probable, at_least=0.5)
    table = select(CLIPS, SCORES, VOCABULARY, rule=rule, per_class=1, kept=kept).set_index("clip")
    assert table["weight"].to_dict() == {"0.wav": 1, "1.wav": 0, "2.wav": 0, "3.wav": 0, "4.wav": 1}
    assert table.loc["4.wav", "reason"] == "taken before"
    assert table.loc["2.wav", "reason"] == "not confirmed, 0.100"


def test_pseudo_labels_stand_in_the_table():
    table = select(CLIPS, SCORES, VOCABULARY, rule=pseudo_labels, source="here").set_index("clip")
    assert table["labels"].tolist() == ["Bark", "Bark", "Bark", "Bark,Rain", "Rain"]
    assert set(table["source"]) == {"here"}
