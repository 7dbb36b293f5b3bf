import keras
import numpy as np
import pytest
from examples import IMAGE, WAVEFORM
from scipy import stats

from audiotag.layers import ConcatMix, MixUp
from audiotag.layers.augmentation.mixing import beta_quantiles

OPTIONS = {
    "alpha": 0.4,
    "pairing": "permutation",
    "label_mixing": "weighted",
    "probability": 0.7,
    "stop_epoch": 3,
    "seed": 3,
}
EXAMPLES = [
    (MixUp, OPTIONS, WAVEFORM),
    (MixUp, OPTIONS | {"pairing": "reverse", "label_mixing": "union"}, IMAGE),
    (ConcatMix, OPTIONS, WAVEFORM),
    (ConcatMix, OPTIONS | {"label_mixing": "union"}, IMAGE),
]

NUM_DRAWS = 10_000
ERROR_RATE = 1e-3  # the fraction of seeds with which a correct layer fails a test; the seeds are fixed


def draws(layer, batch=100):
    """Weights and partners of 10,000 clips, computed from the output of the layer: [calls, B] both."""
    clips, labels = np.ones((batch, 1000), "float32"), np.eye(batch, dtype="float32")
    mixed = [np.asarray(layer((clips, labels), training=True)[1]) for _ in range(NUM_DRAWS // batch)]
    own = np.stack([np.diagonal(label) for label in mixed])
    partners = np.stack([label - np.diag(np.diagonal(label)) for label in mixed])
    return own, np.where(partners.any(axis=2), partners.argmax(axis=2), np.arange(batch))


@pytest.mark.parametrize("alpha", [0.2, 0.3, 0.5, 1.0, 2.0])
def test_the_quantiles_are_those_of_the_beta_distribution(alpha):
    quantiles = beta_quantiles(alpha)
    fractions = np.linspace(0, 1, len(quantiles))
    np.testing.assert_allclose(quantiles, stats.beta.ppf(fractions, alpha, alpha), atol=1e-6)


@pytest.mark.parametrize("alpha", [0.3, 1.0])
def test_weights_are_drawn_from_the_beta_distribution(alpha):
    own, partner = draws(MixUp(alpha=alpha, seed=5))
    alone = partner == np.arange(own.shape[1])
    assert stats.kstest(own[~alone], stats.beta(alpha, alpha).cdf).pvalue > ERROR_RATE
    np.testing.assert_allclose(own[alone], 1, rtol=1e-6)


def test_fractions_of_time_are_the_same_draws_rounded_to_frames():
    weights, _ = draws(MixUp(alpha=0.3, pairing="reverse", seed=5))
    fractions, _ = draws(ConcatMix(alpha=0.3, pairing="reverse", seed=5))
    np.testing.assert_allclose(fractions, weights, atol=0.5 / 1000 + 1e-6)
    np.testing.assert_allclose(1000 * fractions, np.round(1000 * fractions), atol=1e-3)


def test_partners_are_a_permutation_of_the_batch_and_all_equally_likely():
    _, partner = draws(MixUp(alpha=1.0, seed=6), batch=50)
    assert all(sorted(row) == list(range(50)) for row in partner.tolist())
    counts = np.bincount((partner - np.arange(50)).ravel() % 50, minlength=50)
    assert stats.chisquare(counts).pvalue > ERROR_RATE


def test_partners_in_reverse_order():
    _, partner = draws(MixUp(pairing="reverse", seed=6), batch=50)
    np.testing.assert_array_equal(partner, np.tile(np.arange(50)[::-1], (len(partner), 1)))


@pytest.mark.parametrize("layer", [MixUp, ConcatMix])
def test_a_clip_is_mixed_with_its_probability(layer):
    own, _ = draws(layer(pairing="reverse", probability=0.3, seed=7))
    assert stats.binomtest(int((own < 1).sum()), own.size, 0.3).pvalue > ERROR_RATE


@pytest.mark.parametrize("shape", [(300,), (20, 15), (8, 25, 2)])
def test_clips_and_labels_have_the_same_weight(shape):
    rng = np.random.default_rng(0)
    clips, labels = rng.standard_normal((6, *shape)).astype("float32"), np.eye(6, dtype="float32")
    mixed, weights = MixUp(seed=8)((clips, labels), training=True)
    expected = np.tensordot(np.asarray(weights), clips, axes=1)
    np.testing.assert_allclose(mixed, expected, atol=1e-5)


@pytest.mark.parametrize(("shape", "axis"), [((300,), 0), ((20, 15), 0), ((8, 25, 2), 1)])
def test_the_labels_are_the_fractions_of_time_of_a_clip_and_its_partner(shape, axis):
    clips = np.broadcast_to(np.arange(6.0, dtype="float32").reshape(6, *[1] * len(shape)), (6, *shape))
    joined, labels = map(np.asarray, ConcatMix(seed=9)((clips, np.eye(6, dtype="float32")), training=True))
    partner = np.where(labels > 0, np.arange(6), -1)
    for clip in range(6):
        frames = np.moveaxis(joined[clip], axis, 0).reshape(shape[axis], -1)
        assert np.all(frames == frames[:, :1])  # complete frames
        own = frames[:, 0] == clip
        assert own.mean() == pytest.approx(labels[clip, clip]) and np.all(own[:-1] >= own[1:])
        assert set(frames[~own, 0]) <= set(partner[clip])


@pytest.mark.parametrize("layer", [MixUp, ConcatMix])
def test_the_union_has_the_labels_of_both_and_no_others(layer):
    clips = np.tile(np.arange(6.0, dtype="float32")[:, None], (1, 500))
    truth = (np.random.default_rng(1).random((6, 9)) < 0.3).astype("float32")
    weighted, union = layer(seed=3), layer(label_mixing="union", seed=3)  # one seed, the same draws
    weights = np.asarray(weighted((clips, np.eye(6, dtype="float32")), training=True)[1])
    mixed = np.asarray(union((clips, truth), training=True)[1])
    for clip in range(6):
        np.testing.assert_array_equal(mixed[clip], truth[weights[clip] > 0].max(axis=0))


@pytest.mark.parametrize("layer", [MixUp, ConcatMix])
def test_mixing_stops_at_its_epoch(layer):
    mix, labels = layer(stop_epoch=2, seed=4), np.eye(8, dtype="float32")
    for epoch, mixes in ((0, True), (1, True), (2, False), (5, False)):
        mix.epoch.assign(epoch)
        assert np.any(mix((labels, labels), training=True)[1] != labels) == mixes


def test_a_mixed_loss_is_the_loss_of_mixed_labels():
    rng = np.random.default_rng(2)
    truth, logits = np.eye(4, dtype="float32"), rng.standard_normal((4, 4)).astype("float32")
    _, mixed = MixUp(pairing="reverse", seed=1)((truth, truth), training=True)
    loss = keras.losses.BinaryCrossentropy(from_logits=True, reduction="none")
    weight = np.diagonal(mixed)
    expected = weight * loss(truth, logits) + (1 - weight) * loss(truth[::-1], logits)
    np.testing.assert_allclose(loss(mixed, logits), expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"alpha": 0}, "alpha must be above 0. Received: alpha=0"),
        ({"pairing": "next"}, "pairing must be 'permutation' or 'reverse'. Received: pairing='next'"),
        ({"label_mixing": "both"}, "label_mixing must be 'weighted' or 'union'. Received: label_mixing='both'"),
        ({"probability": 1.1}, "probability must be from 0 to 1. Received: probability=1.1"),
        ({"stop_epoch": -1}, "stop_epoch must be at least 0, or None. Received: stop_epoch=-1"),
    ],
)
@pytest.mark.parametrize("layer", [MixUp, ConcatMix])
def test_options_out_of_range_are_refused(layer, options, message):
    with pytest.raises(ValueError) as error:
        layer(**options)
    assert str(error.value) == message
