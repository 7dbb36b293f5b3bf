import numpy as np
from examples import IMAGE
from scipy import stats

from audiotag.layers import FlipsAsClasses
from audiotag.layers.augmentation.flips import FLIPS, flipped

EXAMPLES = [(FlipsAsClasses, {"seed": 3}, IMAGE)]

IMAGES = np.random.default_rng(0).standard_normal((1000, 3, 4, 1)).astype("float32")
FLIPPED = [IMAGES, IMAGES[:, :, ::-1], IMAGES[:, ::-1], IMAGES[:, ::-1, ::-1]]


def test_the_flips_are_what_their_names_say():
    assert FLIPS == ("none", "time", "frequency", "both")
    for flip, expected in enumerate(FLIPPED):
        np.testing.assert_array_equal(flipped(IMAGES, [flip]), expected)
    mixed = np.arange(1000) % 4
    np.testing.assert_array_equal(flipped(IMAGES, mixed), np.choose(mixed.reshape(-1, 1, 1, 1), FLIPPED))


def test_every_image_gets_the_labels_of_its_own_flip():
    labels = (np.random.default_rng(1).random((1000, 5)) < 0.4).astype("float32")
    labels[:, 0] = 1
    images, flip_labels = map(np.asarray, FlipsAsClasses(seed=2)((IMAGES, labels), training=True))
    blocks = flip_labels.reshape(1000, 4, 5)
    flip = blocks.any(axis=2).argmax(axis=1)
    np.testing.assert_array_equal(blocks.any(axis=2).sum(axis=1), 1)
    np.testing.assert_array_equal(blocks[np.arange(1000), flip], labels)
    np.testing.assert_array_equal(images, np.choose(flip.reshape(-1, 1, 1, 1), FLIPPED))


def test_all_flips_are_equally_likely():
    layer, counts = FlipsAsClasses(seed=3), np.zeros(4)
    for _ in range(10):
        _, flip_labels = layer((IMAGES, np.ones((1000, 1), "float32")), training=True)
        counts += np.asarray(flip_labels).sum(axis=0)
    assert counts.sum() == 10_000
    assert stats.chisquare(counts).pvalue > 1e-3
