import numpy as np
import pytest

from audiotag.models.label_groups import group_labels, num_grouped_columns, split_groups, split_weighted_groups

TRUSTED = [True, False, False, True]
TRUTH = np.array([[1, 0, 1], [0, 1, 0], [0, 0, 0], [0, 0, 1]], "float32")


def test_each_clip_has_its_labels_in_the_columns_of_its_group():
    grouped = group_labels(TRUTH, TRUSTED)
    assert grouped.shape == (4, num_grouped_columns(3)) and grouped.dtype == "float32"
    labels, fractions = map(np.asarray, split_groups(grouped))
    assert fractions.tolist() == [[1, 0], [0, 1], [0, 1], [1, 0]]
    for row, trusted in enumerate(TRUSTED):
        own = int(not trusted)
        np.testing.assert_array_equal(labels[row, own], TRUTH[row])
        assert not labels[row, 1 - own].any()


@pytest.mark.parametrize("fraction", [0.25, 0.5, 1.0])
def test_labels_of_a_mixed_window_are_recovered_from_their_fractions(fraction):
    first, second = group_labels(TRUTH[:2], TRUSTED[:2])
    mixed = (fraction * first + (1 - fraction) * second)[None]
    labels, fractions = map(np.asarray, split_groups(mixed))
    np.testing.assert_allclose(fractions, [[fraction, 1 - fraction]])
    np.testing.assert_allclose(labels[0], [TRUTH[0], TRUTH[1] if fraction < 1 else 0 * TRUTH[1]])
    weighted, same = map(np.asarray, split_weighted_groups(mixed))
    np.testing.assert_allclose(same, fractions)
    np.testing.assert_allclose(weighted[0], [fraction * TRUTH[0], (1 - fraction) * TRUTH[1]])
