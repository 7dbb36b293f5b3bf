import numpy as np

from audiotag.evaluation.bootstrap import bootstrap


def test_an_interval_covers_the_true_value_19_times_in_20():
    covered = 0
    for seed in range(200):
        heads = np.random.default_rng(seed).random(150) < 0.7
        low, high = bootstrap(lambda rows: heads[rows].mean(), 150, seed=seed)
        covered += low <= 0.7 <= high
    assert 0.9 < covered / 200 <= 0.985
