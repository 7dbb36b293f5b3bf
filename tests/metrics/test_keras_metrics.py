import inspect

import keras
import numpy as np
import pytest
import tensorflow as tf
from numpy.testing import assert_allclose
from ranking_scores import KINDS, by_brute_force, random_scores
from scipy.special import expit
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    fbeta_score,
    label_ranking_average_precision_score,
    roc_auc_score,
)

from audiotag.metrics import (
    METRICS,
    AreaUnderRoc,
    BinaryAccuracy,
    CategoricalAccuracy,
    FBeta,
    Lwlrap,
    MeanAveragePrecision,
    lwlrap,
    mean_average_precision_at_k,
)

OPTIONS = {
    "lwlrap": {},
    "mean_average_precision": {},
    "auc": {},
    "categorical_accuracy": {},
    "binary_accuracy": {"threshold": 0.3},
    "f_beta": {"beta": 2.0, "threshold": 0.3, "average": "micro"},
    "lrap": {"average": "clips"},
    "map_at_k": {"k": 2},
}


def build(name, num_classes, num_clips, **options):
    kind = METRICS[name]
    sizes = {"num_classes": num_classes, "num_clips": num_clips}
    accepted = inspect.signature(kind.__init__).parameters
    return kind(**{key: size for key, size in sizes.items() if key in accepted}, **options)


def per_class(function, truth, scores):
    """The mean of a metric of scikit-learn over the classes that some clips carry and others do not."""
    return np.mean([function(t, s) for t, s in zip(truth.T, scores.T) if 0 < t.sum() < len(t)])


def in_batches(truth, scores, batch_size, weights=None, metric=None):
    metric = metric or Lwlrap(truth.shape[1])
    for start in range(0, len(truth), batch_size):
        batch = slice(start, start + batch_size)
        metric.update_state(truth[batch], scores[batch], None if weights is None else weights[batch])
    return metric


@pytest.mark.parametrize("batch_size", [1, 3, 16, 64, 200])
@pytest.mark.parametrize("kind", KINDS)
def test_the_metric_is_exact_for_any_batch_size(kind, batch_size):
    truth, scores = random_scores(kind, 200, 20, seed=3)
    scores = scores.astype("float32")
    metric = in_batches(truth, scores, batch_size)
    assert float(metric.result()) == pytest.approx(lwlrap(truth, scores), abs=1e-6)


def test_the_metric_accumulates_per_class():
    truth, scores = random_scores("tied", 50, 8, seed=4)
    metric = in_batches(truth, scores, 7)
    sums, counts = by_brute_force(truth, scores)
    assert_allclose(metric.precisions, sums, rtol=1e-6)
    assert_allclose(metric.counts, counts)


def test_lrap_may_be_the_mean_over_batches():
    truth, scores = random_scores(KINDS[0], 50, 8, seed=4)
    metric = in_batches(truth, scores, 20, metric=METRICS["lrap"](average="batches"))
    parts = [label_ranking_average_precision_score(truth[i : i + 20], scores[i : i + 20]) for i in (0, 20, 40)]
    assert float(metric.result()) == pytest.approx(np.mean(parts), abs=1e-6)
    exact = float(in_batches(truth, scores, 20, metric=METRICS["lrap"]()).result())
    assert abs(np.mean(parts) - exact) > 1e-4
    with pytest.raises(ValueError, match="average must be 'clips' or 'batches'. Received: average='mean'"):
        METRICS["lrap"](average="mean")


@pytest.mark.parametrize("column", [False, True])
def test_sample_weights_multiply_clips_and_zero_leaves_them_out(column):
    truth, scores = random_scores("tied", 60, 8, seed=6)
    weights = np.random.default_rng(0).integers(0, 4, 60)
    repeated = lwlrap(np.repeat(truth, weights, axis=0), np.repeat(scores, weights, axis=0))
    metric = in_batches(truth, scores, 16, weights[:, None] if column else weights)
    assert float(metric.result()) == pytest.approx(repeated, abs=1e-6)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64", "int32"])
def test_scores_of_any_type_are_ranked_in_float32(dtype):
    truth, scores = random_scores("tied", 60, 8, seed=7)
    metric = Lwlrap(8)
    metric.update_state(keras.ops.cast(truth, "bool"), keras.ops.cast(scores, dtype))
    assert float(metric.result()) == pytest.approx(lwlrap(truth, scores), abs=1e-6)


def test_the_metric_is_zero_without_labels_and_after_a_reset():
    metric = Lwlrap(3)
    assert float(metric.result()) == 0
    metric.update_state(np.zeros((2, 3)), np.ones((2, 3)))
    assert float(metric.result()) == 0
    metric.update_state(np.eye(3), np.eye(3))
    assert float(metric.result()) == 1
    metric.reset_state()
    assert float(metric.result()) == 0


def test_the_metric_round_trips():
    metric = Lwlrap(5, name="curated_lwlrap")
    again = keras.metrics.deserialize(keras.metrics.serialize(metric))
    assert again.get_config() == metric.get_config()
    assert (again.num_classes, again.name, Lwlrap(5).name) == (5, "curated_lwlrap", "lwlrap")


def test_callbacks_with_mode_auto_maximize_the_metric(tmp_path):
    truth, scores = random_scores("distinct", 40, 6, seed=8)
    truth, scores = truth.astype("float32"), scores.astype("float32")
    model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(6, kernel_initializer="identity")])
    model.compile("sgd", keras.losses.BinaryCrossentropy(from_logits=True), metrics=[Lwlrap(6)])
    stopping = keras.callbacks.EarlyStopping(monitor="val_lwlrap", mode="auto")
    checkpoint = keras.callbacks.ModelCheckpoint(tmp_path / "best.keras", monitor="val_lwlrap", save_best_only=True)
    plateau = keras.callbacks.ReduceLROnPlateau(monitor="val_lwlrap")
    model.optimizer.learning_rate = 0.0
    history = model.fit(
        scores,
        truth,
        validation_data=(scores, truth),
        batch_size=7,
        verbose=0,
        callbacks=[stopping, checkpoint, plateau],
    )
    for callback in (stopping, checkpoint, plateau):
        assert callback.monitor_op is keras.ops.greater
    assert history.history["val_lwlrap"] == [pytest.approx(lwlrap(truth, scores), abs=1e-6)]
    assert keras.models.load_model(tmp_path / "best.keras").count_params() == model.count_params()


# The other metrics


def test_no_metric_is_missing_from_the_options():
    assert set(OPTIONS) == set(METRICS)


@pytest.mark.parametrize("name", OPTIONS)
def test_every_metric_round_trips_and_is_maximized(name):
    metric = build(name, 5, 7, **OPTIONS[name])
    again = keras.metrics.deserialize(keras.metrics.serialize(metric))
    assert again.get_config() == metric.get_config()
    assert OPTIONS[name].items() <= metric.get_config().items()
    assert (metric.name, metric._direction) == (name, "up")


@pytest.mark.parametrize("batch_size", [60, 300])
@pytest.mark.parametrize("kind", ["distinct", "tied", "equal", "logits"])
def test_every_metric_equals_scikit_learn_for_any_batch_size(kind, batch_size):
    truth, scores = random_scores(kind, 300, 12, seed=1)
    scores = (scores - scores.mean()).astype("float32")
    single, labeled = np.eye(12, dtype=int)[np.arange(300) % 12], truth.any(axis=1)
    truth[labeled.nonzero()[0][0], :] = 0
    decisions = expit(scores) > 0.3
    expected = {
        ("mean_average_precision", ()): per_class(average_precision_score, truth, scores),
        ("auc", ()): per_class(roc_auc_score, truth, scores),
        ("binary_accuracy", (("threshold", 0.3),)): np.mean(decisions == truth),
        ("lrap", ()): label_ranking_average_precision_score(truth, scores),
        ("map_at_k", (("k", 3),)): mean_average_precision_at_k(truth, scores),
        ("map_at_k", (("k", 1),)): mean_average_precision_at_k(truth, scores, k=1),
    }
    for average, beta in (("macro", 1.0), ("macro", 2.0), ("micro", 0.5)):
        options = (("average", average), ("beta", beta), ("threshold", 0.3))
        value = fbeta_score(truth, decisions, beta=beta, average=average, zero_division=np.nan)
        expected["f_beta", options] = np.nan_to_num(value)
    for (name, options), value in expected.items():
        metric = in_batches(truth, scores, batch_size, metric=build(name, 12, 300, **dict(options)))
        assert float(metric.result()) == pytest.approx(value, abs=1e-6), name
    metric = in_batches(single, scores, batch_size, metric=CategoricalAccuracy())
    assert float(metric.result()) == pytest.approx(accuracy_score(single.argmax(axis=1), scores.argmax(axis=1)))


def test_average_precision_and_auc_of_many_clips_are_exact():
    rng = np.random.default_rng(3)
    truth = (rng.random((4_000, 20)) < 0.03).astype(int)
    scores = (truth + rng.normal(0, 1, truth.shape)).astype("float32")
    for kind, function in ((MeanAveragePrecision, average_precision_score), (AreaUnderRoc, roc_auc_score)):
        metric = in_batches(truth, scores, 64, metric=kind(20, 4_000))
        assert float(metric.result()) == pytest.approx(per_class(function, truth, scores), abs=1e-6)


@pytest.mark.parametrize("name", ["mean_average_precision", "auc"])
def test_a_metric_of_all_clips_uses_those_seen_since_the_last_reset(name):
    truth, scores = random_scores("distinct", 60, 5, seed=2)
    metric = in_batches(truth, scores, 7, metric=build(name, 5, 100))
    whole = in_batches(truth, scores, 60, metric=build(name, 5, 60))
    assert float(metric.result()) == float(whole.result()) > 0
    metric.reset_state()
    assert float(metric.result()) == 0
    metric.update_state(truth, np.where(scores > scores.mean(), np.inf, -np.inf))
    assert 0 < float(metric.result()) < 1
    metric.update_state(truth[:1], np.full((1, 5), np.nan))
    assert np.isnan(float(metric.result()))
    with pytest.raises(ValueError, match=f"{name} has no sample weights"):
        metric.update_state(truth, scores, np.ones(60))


@pytest.mark.parametrize("jit_compile", [False, True])
@pytest.mark.parametrize("name", OPTIONS)
def test_every_metric_is_the_same_in_a_graph(name, jit_compile):
    truth, scores = random_scores("distinct", 30, 6, seed=5)
    metric, expected = (build(name, 6, 30, **OPTIONS[name]) for _ in range(2))

    @tf.function(jit_compile=jit_compile)
    def step(truth, scores):
        metric.update_state(truth, scores)
        return metric.result()

    for rows in (slice(0, 15), slice(15, 30)):
        value = step(tf.constant(truth[rows], "float32"), tf.constant(scores[rows], "float32"))
    assert float(value) == pytest.approx(float(in_batches(truth, scores, 30, metric=expected).result()), abs=1e-6)


@pytest.mark.parametrize("name", [name for name in OPTIONS if name not in ("mean_average_precision", "auc")])
def test_a_clip_of_weight_2_counts_twice_in_every_metric(name):
    truth, scores = random_scores("distinct", 30, 6, seed=6)
    weights = np.arange(30) % 3
    weighted = in_batches(truth, scores, 30, weights, metric=build(name, 6, 30, **OPTIONS[name]))
    repeated = [np.repeat(table, weights, axis=0) for table in (truth, scores)]
    expected = in_batches(*repeated, 30, metric=build(name, 6, 30, **OPTIONS[name]))
    assert float(weighted.result()) == pytest.approx(float(expected.result()), abs=1e-6)


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        (BinaryAccuracy, {"threshold": 1.0}, "threshold must be between 0 and 1. Received: threshold=1.0"),
        (METRICS["map_at_k"], {"k": 0}, "k must be at least 1. Received: k=0"),
        (FBeta, {"num_classes": 3, "beta": 0.0}, "beta must be above 0. Received: beta=0.0"),
        (FBeta, {"num_classes": 3, "average": "all"}, 'average must be "macro" or "micro". Received: average=\'all\''),
    ],
)
def test_an_option_out_of_its_range_is_refused(kind, options, message):
    with pytest.raises(ValueError) as error:
        kind(**options)
    assert str(error.value) == message
