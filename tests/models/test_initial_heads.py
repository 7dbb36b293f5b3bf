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
