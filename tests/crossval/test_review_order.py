import sys

import numpy as np
import pytest

from audiotag.crossval.review_order import cleanlab_quality, typicality, usefulness
from audiotag.errors import ConfigError

TRUTH = np.array([[1, 0, 0]] * 12 + [[0, 1, 0]] * 4, bool)
SCORES = np.array([[0.9, 0.05, 0.05]] * 12 + [[0.05, 0.9, 0.05]] * 4)
DOUBTFUL = np.full(16, 0.5)


def test_clips_of_rare_classes_come_before_those_of_frequent_ones():
    value = usefulness(TRUTH, SCORES, DOUBTFUL)
    assert value[12] > value[0]


def test_a_class_needs_at_most_twice_what_an_average_class_does():
    truth = np.zeros((100, 2), bool)
    truth[:99, 0] = truth[99:, 1] = True
    scores = np.full((100, 2), [0.9, 0.1])
    value = usefulness(truth, scores, np.ones(100))
    assert value[99] == pytest.approx(2)


def test_more_doubtful_and_more_typical_clips_come_first():
    scores = np.concatenate([SCORES, [[0.05, 0.05, 0.9]]])
    truth = np.concatenate([TRUTH, [[1, 0, 0]]])
    typical = typicality(scores)
    assert typical[16] < typical[0]
    value = usefulness(truth, scores, np.array([0.2, *[0.9] * 16]))
    assert value[0] < value[1]


def test_clips_with_the_same_sound_have_the_sum_of_their_usefulness():
    single = usefulness(TRUTH, SCORES, DOUBTFUL)
    value = usefulness(TRUTH, SCORES, DOUBTFUL, clusters=np.array([7, 7, *range(100, 114)]))
    assert value[:2] == pytest.approx(single[:2].sum())
    assert value[2:] == pytest.approx(single[2:])


def test_one_clip_is_typical():
    assert typicality(SCORES[:1]) == 1


def test_cleanlab_takes_clips_without_labels_and_scores_of_zero_and_one():
    scores = np.array([[1.0, 0.0], [0.0, 1.0], [0.5, 0.5]])
    quality = cleanlab_quality(np.array([[1, 0], [1, 0], [0, 0]], bool), scores)
    assert quality[0] > 0.99 and quality[1] < 0.3 and 0 < quality[2] < 1


def test_without_cleanlab_a_sentence_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "cleanlab.multilabel_classification", None)
    with pytest.raises(ConfigError, match=r"cleanlab is not installed. Install it with: pip install .*\[cleanlab\]"):
        cleanlab_quality(TRUTH, SCORES)
