import numpy as np
import pytest

from audiotag.evaluation.weighted_areas import WeightedAreas
from audiotag.metrics import areas_under_roc, average_precisions


@pytest.mark.parametrize("decimals", [1, 9], ids=["many equal scores", "no equal scores"])
def test_weights_count_clips_as_often_as_rows_repeat_them(decimals):
    rng = np.random.default_rng(0)
    truth, scores = rng.random((40, 6)) < [0, 0.02, 0.1, 0.3, 0.6, 1], rng.normal(size=(40, 6)).round(decimals)
    draws = [np.arange(40), *(rng.integers(0, 40, 40) for _ in range(30))]
    weights = np.stack([np.bincount(rows, minlength=40) for rows in draws]).astype("float64")
    precision, auc = WeightedAreas(truth, scores)(weights)
    np.testing.assert_allclose(precision, [average_precisions(truth[rows], scores[rows]) for rows in draws], atol=1e-12)
    np.testing.assert_allclose(auc, [areas_under_roc(truth[rows], scores[rows]) for rows in draws], atol=1e-12)
