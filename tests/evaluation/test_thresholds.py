import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.testing import assert_allclose
from sklearn.calibration import calibration_curve
from sklearn.metrics import accuracy_score, f1_score, precision_recall_fscore_support

from audiotag.evaluation.thresholds import (
    calibration,
    calibration_error,
    f,
    fit_across,
    fit_thresholds,
    judge_decisions,
)


def draws(seed, clips=80, classes=5):
    rng = np.random.default_rng(seed)
    truth = rng.random((clips, classes)) < 0.3
    truth[:, 2] = False
    return truth, np.round(2 * truth + rng.normal(0, 2, truth.shape), 1)  # with ties


def test_decisions_are_judged_as_scikit_learn_does():
    truth, logits = draws(0)
    chosen = logits > 1
    table = judge_decisions(truth, chosen)
    precision, recall, fs, _ = precision_recall_fscore_support(truth, chosen, average=None, zero_division=0)
    for column, expected in (("precision", precision), ("recall", recall), ("f", fs)):
        assert_allclose(table[column], expected, atol=1e-9)
    assert_allclose(table["accuracy"], [accuracy_score(truth[:, k], chosen[:, k]) for k in range(5)], atol=1e-9)
    assert_allclose(f(truth, chosen), fs, atol=1e-9)


def test_chance_is_what_decisions_as_frequent_get_when_shuffled():
    truth, logits = draws(1, clips=20_000)
    chosen = logits > 1
    table = judge_decisions(truth, chosen)
    shuffled = judge_decisions(truth, np.random.default_rng(0).permutation(chosen))
    for column in ("accuracy", "precision", "recall", "f"):
        assert_allclose(table[f"chance_{column}"], shuffled[column], atol=0.02)


@settings(max_examples=60, deadline=None)
@given(
    truth=arrays(bool, 9, elements=st.booleans()),
    logits=arrays("float64", 9, elements=st.integers(-3, 3).map(float)),
)
def test_no_other_threshold_gives_a_greater_f(truth, logits):
    (threshold,) = fit_thresholds(truth[:, None], logits[:, None])
    if not truth.any():
        assert threshold == 0
        return
    best = f1_score(truth, logits >= threshold)
    assert best == pytest.approx(max(f1_score(truth, logits >= other) for other in logits))
    assert threshold not in logits  # half-way, so that rounding decides nothing


def test_thresholds_of_a_part_do_not_know_its_clips():
    truth, logits = draws(2)
    parts = np.arange(80) % 4
    fitted = fit_across(truth, logits, parts)
    for part in range(4):
        others = fit_thresholds(truth[parts != part], logits[parts != part])
        assert_allclose(fitted[parts == part], np.tile(others, (20, 1)))
    assert (fit_across(truth, logits, np.zeros(80)) == 0).all()


def test_the_reliability_curve_is_scikit_learns():
    truth, logits = draws(3, clips=400)
    probabilities = 1 / (1 + np.exp(-logits))
    table = calibration(truth, probabilities, bins=7)
    share, probability = calibration_curve(truth.ravel(), probabilities.ravel(), n_bins=7)
    assert_allclose(table["share"], share, atol=1e-9)
    assert_allclose(table["probability"], probability, atol=1e-9)
    assert table["answers"].sum() == 2000


def test_the_calibration_error_as_worked_by_hand():
    table = calibration([[1, 1, 0, 0]], [[0.9, 0.9, 0.9, 0.2]], bins=2)
    assert table["share"].tolist() == [0, pytest.approx(2 / 3)]
    assert calibration_error(table) == pytest.approx((0.2 + 3 * (0.9 - 2 / 3)) / 4)
    assert calibration([[1]], [[1.0]])["to"].tolist() == [1.0]


def test_answers_that_mean_what_they_say_have_no_error():
    rng = np.random.default_rng(0)
    probabilities = rng.random((40_000, 2))
    assert calibration_error(calibration(rng.random((40_000, 2)) < probabilities, probabilities)) < 0.01
