import numpy as np
import pytest
from sklearn.linear_model import Ridge
from sklearn.preprocessing import StandardScaler

from audiotag.models.initial_heads import ridge

RNG = np.random.default_rng(0)
INPUTS = RNG.normal(3, 2, (60, 8)) * np.geomspace(0.1, 10, 8)
TRUTH = (INPUTS @ RNG.normal(size=(8, 3)) + RNG.normal(size=(60, 3)) > 40).astype("float32")
ONES, FOLDS = np.ones(60), np.arange(60) % 5


def test_it_is_scikit_learns_ridge_on_standardized_inputs():
    kernel, bias, chosen = ridge(INPUTS, TRUTH, ONES, FOLDS, alpha=7.0, scale=3.0)
    scaler = StandardScaler().fit(INPUTS)
    expected = Ridge(alpha=7.0).fit(scaler.transform(INPUTS), 2 * TRUTH - 1)
    np.testing.assert_allclose(
        INPUTS @ kernel + bias, 3 * expected.predict(scaler.transform(INPUTS)), rtol=1e-4, atol=1e-4
    )
    assert chosen == {"alpha": 7.0}
    assert kernel.dtype == bias.dtype == np.float32


def test_a_row_of_weight_2_counts_as_two_rows():
    twice = np.concatenate([np.arange(60), np.arange(20)])
    kernel, bias, _ = ridge(INPUTS[twice], TRUTH[twice], np.ones(80), FOLDS[twice], alpha=5.0)
    weighted, other, _ = ridge(INPUTS, TRUTH, np.where(np.arange(60) < 20, 2.0, 1.0), FOLDS, alpha=5.0)
    np.testing.assert_allclose(kernel, weighted, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(bias, other, rtol=1e-5, atol=1e-6)


def test_alpha_is_that_of_the_smallest_error_on_rows_left_out():
    alphas, scaled = (0.1, 10.0, 1000.0), StandardScaler().fit_transform(INPUTS)
    errors = []
    for alpha in alphas:
        left_out = [
            Ridge(alpha=alpha).fit(scaled[FOLDS != fold], 2 * TRUTH[FOLDS != fold] - 1).predict(scaled[FOLDS == fold])
            - (2 * TRUTH[FOLDS == fold] - 1)
            for fold in range(5)
        ]
        errors.append(np.mean(np.concatenate(left_out) ** 2))
    _, _, chosen = ridge(INPUTS, TRUTH, ONES, FOLDS, alpha=alphas)
    assert chosen["alpha"] == alphas[np.argmin(errors)]
    assert chosen["error"] == pytest.approx(min(errors), rel=1e-9)


def test_an_input_that_is_always_the_same_has_no_weight():
    constant = np.concatenate([INPUTS, np.full((60, 1), 123.456)], axis=1)
    kernel, bias, _ = ridge(constant, TRUTH, ONES, FOLDS, alpha=5.0)
    assert np.all(kernel[-1] == 0)
    np.testing.assert_allclose(bias, ridge(INPUTS, TRUTH, ONES, FOLDS, alpha=5.0)[1], rtol=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"alpha": 0.0}, r"^alpha must be one or more numbers above 0\. Received: alpha=0\.0"),
        ({"alpha": ()}, r"^alpha must be one or more numbers above 0\. Received: alpha=\(\)"),
        ({"scale": -1.0}, r"^scale must be above 0\. Received: scale=-1\.0"),
    ],
)
def test_options_that_mean_nothing_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        ridge(INPUTS, TRUTH, ONES, FOLDS, **options)


def test_a_prior_that_knows_the_classes_helps_where_clips_are_few_and_is_left_out_where_it_misleads():
    inputs, known = RNG.normal(size=(300, 40)), RNG.normal(size=(40, 3))
    truth = np.eye(3)[(inputs @ known).argmax(axis=1)]
    few, rest = np.arange(12), np.arange(12, 300)

    def accuracy(prior):
        kernel, bias, chosen = ridge(inputs[few], truth[few], np.ones(12), np.arange(12) % 4, prior=prior)
        return np.mean((inputs[rest] @ kernel + bias).argmax(axis=1) == truth[rest].argmax(axis=1)), chosen

    alone, with_prior = accuracy(None), accuracy((known, np.zeros(3)))
    assert with_prior[0] > alone[0] + 0.1 and with_prior[1]["prior_weight"] > 0 and "prior_weight" not in alone[1]
    misled = accuracy((-known, np.zeros(3)))
    assert misled == (alone[0], alone[1] | {"prior_weight": 0.0})


def test_kernel_and_bias_hold_the_prior():
    prior = RNG.normal(size=(8, 3)), RNG.normal(size=3)
    kernel, bias, chosen = ridge(INPUTS, TRUTH, ONES, FOLDS, prior=prior, alpha=5.0, prior_weight=0.5, scale=2.0)
    known = INPUTS @ prior[0] + prior[1]
    known = (known - known.mean()) / known.std()
    scaled = StandardScaler().fit_transform(INPUTS)
    expected = Ridge(alpha=5.0).fit(scaled, 2 * TRUTH - 1 - 0.5 * known).predict(scaled) + 0.5 * known
    np.testing.assert_allclose(INPUTS @ kernel + bias, 2 * expected, rtol=1e-4, atol=1e-4)
    assert chosen == {"alpha": 5.0, "prior_weight": 0.5}
