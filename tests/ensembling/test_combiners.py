import numpy as np
import pytest
from scipy.special import expit, logit
from scipy.stats import gmean, rankdata
from sklearn.linear_model import Ridge as SklearnRidge

from audiotag.ensembling.combiners import COMBINERS, GeometricMean, LogitWeights, Mean, RankMean, Ridge
from audiotag.metrics import lwlrap

MEANS = {"mean": Mean, "geometric_mean": GeometricMean, "rank_mean": RankMean}


def member_logits(clips=200, members=3, classes=6, seed=0):
    """Truth [N, K] and logits [N, E, K] of members with different amounts of noise."""
    rng = np.random.default_rng(seed)
    truth = rng.random((clips, classes)) < 0.3
    return truth, 3 * truth[:, None] - 1.5 + rng.normal(0, [[[1.0], [2.0], [4.0]]], (clips, members, classes))


def test_the_mean_is_that_of_the_probabilities():
    _, logits = member_logits()
    mean = np.asarray(Mean(weights=[1, 2, 5])(logits))
    np.testing.assert_allclose(expit(mean), np.average(expit(logits), axis=1, weights=[1, 2, 5]), atol=1e-12)


def test_the_geometric_mean_is_scipys_above_its_floor():
    _, logits = member_logits()
    mean = np.asarray(GeometricMean(weights=[1, 2, 5], floor=0.01)(logits))
    expected = gmean(np.maximum(expit(logits), 0.01), axis=1, weights=np.broadcast_to([[1], [2], [5]], logits.shape))
    np.testing.assert_allclose(expit(mean), expected, atol=1e-12)


def test_the_floor_keeps_one_member_from_making_ties():
    logits = np.array([[[-2000.0, -2000.0, 1.0], [2.0, 1.0, 0.0]]])  # probability 0 in float64
    mean = np.asarray(GeometricMean(weights=[1, 1])(logits))[0]
    assert np.isfinite(mean).all() and mean[0] > mean[1]
    with pytest.raises(ValueError, match="floor must be above 0 and below 1. Received: floor=0"):
        GeometricMean(weights=[1], floor=0)


def test_the_rank_mean_uses_scipys_ranks():
    logits = np.round(member_logits()[1])  # with ties
    mean = np.asarray(RankMean(weights=[1, 2, 5])(logits))
    ranks = (rankdata(logits, axis=-1) - 0.5) / logits.shape[-1]
    np.testing.assert_allclose(expit(mean), np.average(ranks, axis=1, weights=[1, 2, 5]), atol=1e-12)


@pytest.mark.parametrize("name", MEANS)
@pytest.mark.parametrize("sign", [-1, 1])
def test_nearly_certain_members_make_no_ties(name, sign):
    logits = np.tile(sign * np.arange(1, 9) * 20.0, (1, 2, 1))
    mean = np.asarray(MEANS[name](weights=[1, 1], **({"floor": 1e-100} if name == "geometric_mean" else {}))(logits))[0]
    assert (np.sign(np.diff(mean)) == sign).all()


@pytest.mark.parametrize("name", MEANS)
def test_one_member_alone_keeps_its_order(name):
    _, logits = member_logits(members=3)
    mean = np.asarray(MEANS[name](weights=[1])(logits[:, :1]))
    np.testing.assert_array_equal(np.argsort(mean, axis=1), np.argsort(logits[:, 0], axis=1))


def test_level_1_is_scikit_learns_ridge_averaged_over_the_members():
    truth, logits = member_logits()
    combined = np.asarray(Ridge(level=1, alpha=2.0).fit(logits, truth)(logits))
    p = expit(logits)
    expected = np.mean([SklearnRidge(alpha=2.0).fit(p[:, e], truth).predict(p[:, e]) for e in range(3)], axis=0)
    np.testing.assert_allclose(combined, 4 * (expected - 0.5), atol=1e-9)


def test_ridge_uses_labels_that_occur_together():
    rng = np.random.default_rng(0)
    applause = rng.random(400) < 0.5
    truth = np.stack([applause, applause, rng.random(400) < 0.5], axis=1)  # a crowd wherever there is applause
    logits = 4.0 * truth[:, None] - 2 + rng.normal(0, 1, (400, 2, 3))
    logits[:, :, 1] = rng.normal(0, 1, (400, 2))  # noise: no member detects the crowd
    train, test = slice(0, 200), slice(200, 400)
    for level in (1, 2):
        combined = np.asarray(Ridge(level=level).fit(logits[train], truth[train])(logits[test]))
        assert np.mean((combined[:, 1] > 0) == truth[test, 1]) > 0.9


@pytest.mark.parametrize("combiner", [Ridge(level=2), LogitWeights()])
def test_the_best_member_gets_the_largest_weight(combiner):
    truth, logits = member_logits(clips=600)
    train, test = slice(0, 300), slice(300, 600)
    unweighted = lwlrap(truth[test], np.asarray(Mean(weights=[1, 1, 1])(logits[test])))
    fitted = lwlrap(truth[test], np.asarray(combiner.fit(logits[train], truth[train])(logits[test])))
    assert fitted > unweighted + 0.01
    if isinstance(combiner, LogitWeights):
        assert combiner.weights[0] > combiner.weights[1] > combiner.weights[2] > 0


def test_fitted_logit_weights_are_a_local_minimum_of_the_loss():
    truth, logits = member_logits(clips=100)
    combiner = LogitWeights(l2=1e-4).fit(logits, truth)

    def loss():
        z = np.asarray(combiner(logits))
        entropy = -(truth * np.log(expit(z)) + ~truth * np.log(expit(-z))).mean()
        return entropy + 1e-4 * (((combiner.weights - 1 / 3) ** 2).sum() + (combiner.biases**2).sum())

    best = loss()
    for values in (combiner.weights, combiner.biases):
        for index in range(len(values)):
            for step in (-0.05, 0.05):
                values[index] += step
                assert loss() > best
                values[index] -= step


def test_a_permutation_of_the_classes_permutes_the_result():
    truth, logits = member_logits()
    order = [3, 1, 5, 0, 2, 4]
    for name, kind in COMBINERS.items():
        fit = (lambda z, t: kind().fit(z, t)) if kind.needs_fit else (lambda z, t: kind(weights=[1, 2, 3]))
        permuted = np.asarray(fit(logits[..., order], truth[:, order])(logits[..., order]))
        np.testing.assert_allclose(permuted, np.asarray(fit(logits, truth)(logits))[:, order], atol=1e-4, err_msg=name)


def test_options_out_of_range_are_refused():
    with pytest.raises(ValueError, match="alpha must be above 0. Received: alpha=0"):
        Ridge(alpha=0)
    with pytest.raises(ValueError, match="l2 must be at least 0. Received: l2=-1"):
        LogitWeights(l2=-1)


def test_only_the_ratio_of_weights_matters():
    logits = logit(np.array([[[0.2], [0.6]]]))
    assert expit(np.asarray(Mean(weights=[10, 30])(logits)))[0, 0] == pytest.approx(0.5)
