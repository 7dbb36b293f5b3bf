import numpy as np
import pytest
import tensorflow as tf

from audiotag.padding import num_repeats, zeros_before


@pytest.mark.parametrize("missing", range(9))
def test_a_short_clip_is_in_the_middle_of_its_zeros_and_an_odd_one_follows_it(missing):
    before = zeros_before(missing)
    after = missing - before
    assert before >= 0 and after - before == missing % 2


@pytest.mark.parametrize("window_samples", range(1, 12))
@pytest.mark.parametrize("clip_samples", range(1, 14))
def test_a_short_clip_is_repeated_just_often_enough_to_fill_the_window(window_samples, clip_samples):
    repeats = num_repeats(window_samples, clip_samples)
    assert (repeats - 1) * clip_samples < window_samples <= repeats * clip_samples


def test_tensors_and_integers_give_the_same_padding():
    windows, clips = np.meshgrid(np.arange(1, 20), np.arange(1, 20))
    np.testing.assert_array_equal(num_repeats(tf.constant(windows), tf.constant(clips)), num_repeats(windows, clips))
    np.testing.assert_array_equal(zeros_before(tf.range(20)), [zeros_before(missing) for missing in range(20)])
