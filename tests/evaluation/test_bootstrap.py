import numpy as np

from audiotag.evaluation.bootstrap import bootstrap


def mean_of(values):
    """A measure: the weighted mean of the values."""
    return lambda weights: weights @ values / weights.sum(axis=1)


def test_an_interval_covers_the_true_value_19_times_in_20():
    covered = 0
    for seed in range(200):
        heads = np.random.default_rng(seed).random(150) < 0.7
        low, high = bootstrap(mean_of(heads), 150, seed=seed)
        covered += low <= 0.7 <= high
    assert 0.9 < covered / 200 <= 0.985


def test_recordings_are_drawn_with_all_of_their_clips():
    of_recordings = np.random.default_rng(0).random(40)
    of_clips = np.repeat(of_recordings, 3)  # three equal clips each: no more information than one
    groups = np.repeat([f"recording {number}" for number in np.random.default_rng(1).permutation(40)], 3)
    by_recording = bootstrap(mean_of(of_clips), 120, groups=groups, resamples=2000)
    one_clip_each = bootstrap(mean_of(of_recordings), 40, resamples=2000)
    np.testing.assert_allclose(by_recording, one_clip_each, atol=0.01)
    low, high = bootstrap(mean_of(of_clips), 120, resamples=2000)
    assert high - low < 0.7 * (by_recording[1] - by_recording[0])
