import numpy as np
from scipy import stats

from audiotag.layers import FlipLabels
from audiotag.layers.augmentation.flips import FLIPS, flipped

PICTURES = np.random.default_rng(0).standard_normal((1000, 3, 4, 1)).astype("float32")
TURNED = [PICTURES, PICTURES[:, :, ::-1], PICTURES[:, ::-1], PICTURES[:, ::-1, ::-1]]


def test_the_flips_are_what_their_names_say():
    assert FLIPS == ("none", "time", "frequency", "both")
    for flip, expected in enumerate(TURNED):
        np.testing.assert_array_equal(flipped(PICTURES, [flip]), expected)
    mixed = np.arange(1000) % 4
    np.testing.assert_array_equal(flipped(PICTURES, mixed), np.choose(mixed.reshape(-1, 1, 1, 1), TURNED))


def test_every_picture_gets_the_labels_of_its_own_flip():
    labels = (np.random.default_rng(1).random((1000, 5)) < 0.4).astype("float32")
    labels[:, 0] = 1
    pictures, renamed = map(np.asarray, FlipLabels(seed=2)((PICTURES, labels), training=True))
    blocks = renamed.reshape(1000, 4, 5)
    flip = blocks.any(axis=2).argmax(axis=1)
    np.testing.assert_array_equal(blocks.any(axis=2).sum(axis=1), 1)
    np.testing.assert_array_equal(blocks[np.arange(1000), flip], labels)
    np.testing.assert_array_equal(pictures, np.choose(flip.reshape(-1, 1, 1, 1), TURNED))


def test_each_flip_comes_as_often_as_the_others():
    layer, counts = FlipLabels(seed=3), np.zeros(4)
    for _ in range(10):
        _, renamed = layer((PICTURES, np.ones((1000, 1), "float32")), training=True)
        counts += np.asarray(renamed).sum(axis=0)
    assert counts.sum() == 10_000
    assert stats.chisquare(counts).pvalue > 1e-3
