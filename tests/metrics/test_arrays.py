import itertools
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.testing import assert_allclose
from ranking_scores import KINDS, by_brute_force, random_scores
from sklearn.metrics import average_precision_score, label_ranking_average_precision_score, roc_auc_score
from tiers import law

from audiotag.data.labels import multi_hot
from audiotag.metrics import (
    areas_under_roc,
    average_precisions,
    average_precisions_at_k,
    chance_lwlrap,
    chance_map_at_k,
    chance_precision,
    lwlrap,
    mean_average_precision_at_k,
    per_class_lwlrap,
    per_clip_lwlrap,
)

REAL = Path(__file__).parents[3] / "shared" / "data" / "fsdkaggle2019"


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("kind", KINDS)
def test_it_agrees_with_scikit_learn(kind, seed):
    truth, scores = random_scores(kind, 200, 3 + 20 * seed, seed)
    expected = label_ranking_average_precision_score(truth, scores, sample_weight=truth.sum(axis=1))
    assert abs(lwlrap(truth, scores) - expected) < 1e-9


@pytest.mark.parametrize("kind", KINDS)
def test_every_class_agrees_with_a_loop_over_labels(kind):
    truth, scores = random_scores(kind, 40, 9, seed=5)
    truth[:, 4] = 0
    sums, counts = by_brute_force(truth, scores)
    per_class = per_class_lwlrap(truth, scores)
    assert_allclose(per_class, sums / np.maximum(1, counts), atol=1e-12)
    assert per_class[4] == 0
    assert lwlrap(truth, scores) == pytest.approx(np.sum(per_class * counts) / counts.sum(), abs=1e-12)


def test_the_worked_example():
    truth = np.array([[1, 0, 1, 0], [0, 0, 0, 1]])
    scores = np.array([[0.9, 0.8, 0.7, 0.6], [0.1, 0.9, 0.5, 0.2]])
    assert lwlrap(truth, scores) == pytest.approx(2 / 3)
    assert_allclose(per_class_lwlrap(truth, scores), [1, 0, 2 / 3, 1 / 3])


def test_the_weighted_means_over_clips_and_over_classes_are_equal():
    truth, scores = random_scores("tied", 60, 9, seed=9)
    by_clip, by_class = per_clip_lwlrap(truth, scores), per_class_lwlrap(truth, scores)
    assert np.average(by_clip, weights=truth.sum(axis=1)) == pytest.approx(lwlrap(truth, scores), abs=1e-12)
    assert np.average(by_class, weights=truth.sum(axis=0)) == pytest.approx(lwlrap(truth, scores), abs=1e-12)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("kind", KINDS)
def test_average_precision_and_auc_agree_with_scikit_learn(kind, seed):
    truth, scores = random_scores(kind, 120, 7, seed)
    truth[:, 3] = 0
    expected = [average_precision_score(truth[:, k], scores[:, k]) if k != 3 else np.nan for k in range(7)]
    assert_allclose(average_precisions(truth, scores), expected, atol=1e-9)
    expected = [roc_auc_score(truth[:, k], scores[:, k]) if k != 3 else np.nan for k in range(7)]
    assert_allclose(areas_under_roc(truth, scores), expected, atol=1e-9)


def test_auc_of_a_class_that_every_clip_carries_is_undefined():
    assert np.isnan(areas_under_roc(np.ones((3, 1)), np.arange(3)[:, None])).all()


def test_the_first_k_predictions_worked_by_hand():
    scores = np.array([[0.9, 0.8, 0.7, 0.6]])
    for labels, k, expected in [
        ([0], 3, 1), ([1], 3, 1 / 2), ([2], 3, 1 / 3), ([3], 3, 0), ([3], 4, 1 / 4), ([0], 1, 1), ([1], 1, 0),
        ([0, 2], 3, (1 + 2 / 3) / 2), ([0, 3], 3, 1 / 2), ([1, 2], 2, 1 / 4), ([0, 1, 2, 3], 3, 1), ([], 3, 0),
    ]:  # fmt: skip
        truth = np.zeros((1, 4))
        truth[0, labels] = 1
        assert average_precisions_at_k(truth, scores, k)[0] == pytest.approx(expected), (labels, k)
    assert average_precisions_at_k([[1, 0, 0, 0]], [[0.5, 0.5, 0.5, 0.5]], 3)[0] == 0  # the worst of the ranks 1 to 4
    both = np.array([[0, 1, 0, 0], [0, 0, 0, 0]])
    assert mean_average_precision_at_k(both, np.repeat(scores, 2, axis=0)) == 0.5  # the clip without labels is ignored
    with pytest.raises(ValueError, match="k must be at least 1. Received: k=0"):
        average_precisions_at_k(both, np.repeat(scores, 2, axis=0), 0)


@pytest.mark.parametrize("classes", [1, 2, 4, 5])
def test_the_chance_level_is_the_mean_over_all_orders(classes):
    orders = np.array([*itertools.permutations(range(classes))])
    for labels in range(1, classes + 1):
        truth = np.tile(np.arange(classes) < labels, (len(orders), 1))
        assert chance_lwlrap(truth) == pytest.approx(lwlrap(truth, orders), abs=1e-12)
        assert chance_precision(labels, classes) == pytest.approx(lwlrap(truth, orders), abs=1e-12)
        for k in (1, 2, 3):
            assert chance_map_at_k(truth, k) == pytest.approx(mean_average_precision_at_k(truth, orders, k), abs=1e-12)
    assert chance_precision(2, 5) == pytest.approx(np.nanmean(average_precisions(*all_orders(2, 5))), abs=1e-12)


def all_orders(positives, clips):
    """Truth and scores [clips, orders]: every column ranks the same clips in another order."""
    orders = np.array([*itertools.permutations(range(clips))]).T
    return np.tile((np.arange(clips) < positives)[:, None], orders.shape[1]), orders


@pytest.mark.skipif(not REAL.is_dir(), reason="the tables of FSDKaggle2019 are not beside the checkout")
@pytest.mark.parametrize(
    ("usage", "by_chance", "by_curated", "by_test"),
    [("Public", 0.0725, 0.079, 0.125), ("Private", 0.0705, 0.076, 0.115), ("", 0.0709, 0.077, 0.117)],
)
def test_the_chance_level_of_the_real_test_labels_is_as_published(usage, by_chance, by_curated, by_test):
    vocabulary = [line.split(",", 1)[1] for line in (REAL / "vocabulary.csv").read_text().splitlines()]
    clips = pd.read_csv(REAL / "test_post_competition.csv")
    curated = multi_hot(pd.read_csv(REAL / "train_curated_post_competition.csv")["labels"], vocabulary).sum(axis=0)
    clips = clips[clips["usage"].str.contains(usage)]
    truth = multi_hot(clips["labels"], vocabulary)
    assert chance_lwlrap(truth) == pytest.approx(by_chance, abs=2e-3)  # the published figure is one draw
    random = np.random.default_rng(0).random(truth.shape)
    assert lwlrap(truth, random) == pytest.approx(chance_lwlrap(truth), abs=4e-3)
    # The published figures break ties between equal counts; most curated classes have 75 clips.
    tie_break = np.arange(80) / 1000
    assert lwlrap(truth, np.tile(curated + tie_break, (len(truth), 1))) == pytest.approx(by_curated, abs=6e-4)
    by_frequency = truth.sum(axis=0) + tie_break
    assert lwlrap(truth, np.tile(by_frequency, (len(truth), 1))) == pytest.approx(by_test, abs=6e-4)


METRICS = {
    "lwlrap": lwlrap,
    "per clip": per_clip_lwlrap,
    "MAP@3": mean_average_precision_at_k,
    "mAP": average_precisions,
    "AUC": areas_under_roc,
}
PER_CLASS = {"per class": per_class_lwlrap, "mAP": average_precisions, "AUC": areas_under_roc}
SHAPE = (8, 5)
TRUTH = arrays("int8", SHAPE, elements=st.integers(0, 1))
SCORES = arrays("float64", SHAPE, elements=st.integers(-6, 6).map(float))  # with ties
quickly = settings(max_examples=60, deadline=None)


@law
@given(truth=TRUTH, scores=SCORES)
def test_lwlrap_equals_a_loop_over_labels(truth, scores):
    sums, counts = by_brute_force(truth, scores)
    assert lwlrap(truth, scores) == pytest.approx(sums.sum() / max(1, counts.sum()), abs=1e-12)


@quickly
@given(truth=TRUTH, scores=SCORES)
def test_increasing_functions_of_the_scores_change_nothing(truth, scores):
    for name, metric in METRICS.items():
        for mapped in (3 * scores - 7, np.exp(scores), 1 / (1 + np.exp(-scores)), scores**3):
            assert_allclose(metric(truth, mapped), metric(truth, scores), atol=1e-12, err_msg=name)


@quickly
@given(truth=TRUTH, scores=SCORES, columns=st.permutations(range(5)), rows=st.permutations(range(8)))
def test_permuted_classes_permute_the_results_also_with_ties(truth, scores, columns, rows):
    moved = truth[rows][:, columns], scores[rows][:, columns]
    for name, metric in PER_CLASS.items():
        assert_allclose(metric(*moved), metric(truth, scores)[columns], atol=1e-12, err_msg=name)
    for metric in (lwlrap, mean_average_precision_at_k):
        assert metric(*moved) == pytest.approx(metric(truth, scores), abs=1e-12)
    assert_allclose(per_clip_lwlrap(*moved), per_clip_lwlrap(truth, scores)[rows], atol=1e-12)


@quickly
@given(truth=TRUTH, scores=SCORES)
def test_every_metric_is_from_0_to_1_and_1_for_a_perfect_ranking(truth, scores):
    for name, metric in METRICS.items():
        values = np.asarray(metric(truth, scores))
        values = values[~np.isnan(values)]
        assert ((values >= 0) & (values <= 1)).all(), name
    perfect = truth + np.arange(40).reshape(SHAPE) / 100
    for metric in (lwlrap, mean_average_precision_at_k):
        assert metric(truth, perfect) == pytest.approx(float(truth.any()))


def test_clips_without_labels_are_ignored():
    truth, scores = random_scores("distinct", 50, 10, seed=1)
    labeled = truth.any(axis=1)
    assert lwlrap(truth, scores) == lwlrap(truth[labeled], scores[labeled])
    assert lwlrap(np.zeros((3, 4)), np.ones((3, 4))) == 0
    assert lwlrap(np.zeros((0, 4)), np.ones((0, 4))) == 0


def test_the_order_of_clips_and_classes_does_not_matter():
    truth, scores = random_scores("tied", 60, 12, seed=2)
    rows, columns = np.random.default_rng(0).permutation(60), np.random.default_rng(1).permutation(12)
    moved = truth[rows][:, columns], scores[rows][:, columns]
    assert lwlrap(*moved) == pytest.approx(lwlrap(truth, scores), abs=1e-12)
    assert_allclose(per_class_lwlrap(*moved), per_class_lwlrap(truth, scores)[columns], atol=1e-12)


def test_a_large_set_is_fast():
    rng = np.random.default_rng(0)
    truth, scores = rng.random((20_000, 80)) < 0.02, rng.random((20_000, 80))
    start = time.perf_counter()
    lwlrap(truth, scores)
    assert time.perf_counter() - start < 2


@pytest.mark.parametrize(
    "function",
    [lwlrap, per_class_lwlrap, per_clip_lwlrap, mean_average_precision_at_k, average_precisions, areas_under_roc],
)
@pytest.mark.parametrize(
    ("truth", "scores", "message"),
    [
        (np.eye(3), np.ones((3, 4)), "must both be [clips, classes]. Received: shapes (3, 3) and (3, 4)"),
        (np.ones(3), np.ones(3), "must both be [clips, classes]. Received: shapes (3,) and (3,)"),
        (np.eye(3), np.full((3, 3), np.nan), "scores must not be NaN. Received: 9 NaN, the first in row 0."),
        (0.5 * np.eye(3), np.eye(3), "truth must be 0 or 1. Received: 3 other values, the first 0.5."),
        (np.full((2, 2), np.nan), np.eye(2), "truth must be 0 or 1. Received: 4 other values, the first nan."),
    ],
)
def test_invalid_truth_or_scores_are_refused(function, truth, scores, message):
    with pytest.raises(ValueError) as error:
        function(truth, scores)
    assert message in str(error.value)
