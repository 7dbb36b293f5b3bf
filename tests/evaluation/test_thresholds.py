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
    fit_thresholds,
    fit_thresholds_per_fold,
    measure_decisions,
)


def random_predictions(seed, clips=80, classes=5):
    rng = np.random.default_rng(seed)
    truth = rng.random((clips, classes)) < 0.3
    truth[:, 2] = False
    return truth, np.round(2 * truth + rng.normal(0, 2, truth.shape), 1)  # with ties


def test_measures_of_decisions_are_scikit_learns():
    truth, logits = random_predictions(0)
    predicted = logits > 1
    table = measure_decisions(truth, predicted)
    precision, recall, fs, _ = precision_recall_fscore_support(truth, predicted, average=None, zero_division=0)
    for column, expected in (("precision", precision), ("recall", recall), ("f", fs)):
        assert_allclose(table[column], expected, atol=1e-9)
    assert_allclose(table["accuracy"], [accuracy_score(truth[:, k], predicted[:, k]) for k in range(5)], atol=1e-9)


def test_chance_is_what_shuffled_decisions_get():
    truth, logits = random_predictions(1, clips=20_000)
    predicted = logits > 1
    table = measure_decisions(truth, predicted)
    shuffled = measure_decisions(truth, np.random.default_rng(0).permutation(predicted))
    for column in ("accuracy", "precision", "recall", "f"):
        assert_allclose(table[f"chance_{column}"], shuffled[column], atol=0.02)


@settings(max_examples=60, deadline=None)
@given(
    truth=arrays(bool, 9, elements=st.booleans()),
    logits=arrays("float64", 9, elements=st.integers(-3, 3).map(float)),
)
def test_no_other_threshold_gives_a_higher_f1(truth, logits):
    (threshold,) = fit_thresholds(truth[:, None], logits[:, None])
    if not truth.any():
        assert threshold == 0
        return
    best = f1_score(truth, logits >= threshold)
    assert best == pytest.approx(max(f1_score(truth, logits >= other) for other in logits))
    assert threshold not in logits  # halfway, so that rounding changes nothing


def test_thresholds_of_a_fold_do_not_depend_on_its_clips():
    truth, logits = random_predictions(2)
    folds = np.arange(80) % 4
    fitted = fit_thresholds_per_fold(truth, logits, folds)
    for fold in range(4):
        others = fit_thresholds(truth[folds != fold], logits[folds != fold])
        assert_allclose(fitted[folds == fold], np.tile(others, (20, 1)))
    assert (fit_thresholds_per_fold(truth, logits, np.zeros(80)) == 0).all()


def test_the_reliability_curve_is_scikit_learns():
    truth, logits = random_predictions(3, clips=400)
    probabilities = 1 / (1 + np.exp(-logits))
    table = calibration(truth, probabilities, bins=7)
    fraction, probability = calibration_curve(truth.ravel(), probabilities.ravel(), n_bins=7)
    assert_allclose(table["fraction"], fraction, atol=1e-9)
    assert_allclose(table["probability"], probability, atol=1e-9)
    assert table["predictions"].sum() == 2000


def test_the_calibration_error_is_the_one_computed_by_hand():
    table = calibration([[1, 1, 0, 0]], [[0.9, 0.9, 0.9, 0.2]], bins=2)
    assert table["fraction"].tolist() == [0, pytest.approx(2 / 3)]
    assert calibration_error(table) == pytest.approx((0.2 + 3 * (0.9 - 2 / 3)) / 4)
    assert calibration([[1]], [[1.0]])["to"].tolist() == [1.0]


def test_calibrated_probabilities_have_no_calibration_error():
    rng = np.random.default_rng(0)
    probabilities = rng.random((40_000, 2))
    assert calibration_error(calibration(rng.random((40_000, 2)) < probabilities, probabilities)) < 0.01
