import keras
import numpy as np
import pytest
import tensorflow as tf
from scipy.special import expit, log_expit, log_softmax

from audiotag.losses import CategoricalCrossentropy, F2Curriculum, Focal, SoftBootstrapping, binary_crossentropy

# Each loss, and a value for each of its options except the reduction.
EXAMPLES = [
    ("binary_crossentropy", {"label_smoothing": 0.2}),
    ("focal", {"gamma": 1.5, "alpha": 0.25, "label_smoothing": 0.2}),
    ("f2_curriculum", {"base": "focal", "label_smoothing": 0.2, "threshold": 0.3, "published": False}),
    ("f2_curriculum", {"base": "binary_crossentropy", "label_smoothing": 0.2, "threshold": 0.3, "published": True}),
    ("categorical_crossentropy", {"label_smoothing": 0.2}),
    ("soft_bootstrapping", {"beta": 0.6, "through_targets": False}),
    ("soft_bootstrapping", {"beta": 0.6, "through_targets": True}),
]

REDUCTIONS = {
    "sum_over_batch_size": np.mean,
    "mean": np.mean,
    "mean_with_sample_weight": np.mean,
    "sum": np.sum,
    "none": lambda losses: losses,
}


# By hand, in float64: the loss of each clip, [B], from truth and logits [B, K].


def crossentropy_by_hand(truth, logits, smoothing=0.0):
    target = truth * (1 - smoothing) + smoothing / 2
    return -(target * log_expit(logits) + (1 - target) * log_expit(-logits)).mean(axis=1)


def focal_by_hand(truth, logits, gamma=2.0, alpha=None, smoothing=0.0):
    """The loss of hard labels as published, and of a soft label the mean of both, weighted by the label."""
    alpha = (1.0, 1.0) if alpha is None else (alpha, 1 - alpha)
    target = truth * (1 - smoothing) + smoothing / 2
    total = 0.0
    for hard, fraction, weight in ((1, target, alpha[0]), (0, 1 - target, alpha[1])):
        crossentropy = -(hard * log_expit(logits) + (1 - hard) * log_expit(-logits))
        total = total + weight * fraction * np.exp(gamma * log_expit(-logits * (2 * hard - 1))) * crossentropy
    return total.sum(axis=1)


def categorical_by_hand(truth, logits, smoothing=0.0):
    losses = []
    for labels, scores in zip(truth, logits):
        total = labels.sum()
        target = labels / total * (1 - smoothing) + smoothing / len(labels) if total else 0 * labels
        losses.append(-(target * log_softmax(scores)).sum())
    return np.array(losses)


def bootstrapping_by_hand(truth, logits, beta=0.7):
    target = beta * truth + (1 - beta) * expit(logits)
    return -(target * log_expit(logits) + (1 - target) * log_expit(-logits)).mean(axis=1)


def f2_by_hand(truth, predicted):
    hits = (predicted * truth).sum()
    precision, recall = hits / max(predicted.sum(), 1), hits / max(truth.sum(), 1e-9)
    return 5 * precision * recall / (4 * precision + recall) if hits else 0.0


FORMULAS = {
    "bce": (binary_crossentropy(), crossentropy_by_hand),
    "bce smoothed": (binary_crossentropy(label_smoothing=0.7), lambda t, z: crossentropy_by_hand(t, z, 0.7)),
    "focal": (Focal(), focal_by_hand),
    "focal, all options": (
        Focal(gamma=1.5, alpha=0.25, label_smoothing=0.2),
        lambda t, z: focal_by_hand(t, z, gamma=1.5, alpha=0.25, smoothing=0.2),
    ),
    "categorical": (CategoricalCrossentropy(), categorical_by_hand),
    "categorical smoothed": (CategoricalCrossentropy(label_smoothing=0.3), lambda t, z: categorical_by_hand(t, z, 0.3)),
    "bootstrapping": (SoftBootstrapping(through_targets=True), bootstrapping_by_hand),
    "bootstrapping, beta": (
        SoftBootstrapping(beta=0.2, through_targets=True),
        lambda t, z: bootstrapping_by_hand(t, z, 0.2),
    ),
}
every_formula = pytest.mark.parametrize(("loss", "by_hand"), FORMULAS.values(), ids=FORMULAS)
every_kind_of_label = pytest.mark.parametrize("labels", ["hard", "mixed", "any"])


def random_clips(labels, clips=6, classes=20, spread=3.0, seed=0):
    """Truth and logits of clips, float32; the first clip has no labels, the second all."""
    rng = np.random.default_rng(seed)
    truth = (rng.uniform(size=(clips, classes)) < 0.15).astype("float32")
    if labels == "mixed":
        truth = 0.3 * truth + 0.7 * truth[::-1]
    elif labels == "any":
        truth = rng.uniform(size=truth.shape)
    truth[0], truth[1] = 0, 1
    return truth.astype("float32"), rng.normal(0, spread, truth.shape).astype("float32")


def per_clip(loss, truth, logits):
    return np.asarray(type(loss).from_config(loss.get_config() | {"reduction": "none"})(truth, logits))


def gradient(loss, truth, logits):
    logits = tf.constant(logits)
    with tf.GradientTape() as tape:
        tape.watch(logits)
        value = loss(truth, logits)
    return tape.gradient(value, logits).numpy()


def slope(by_hand, truth, logits, step=1e-5):
    """The gradient of the mean over the clips by finite differences, in float64."""
    truth, logits = truth.astype("float64"), logits.astype("float64")
    slopes = np.zeros_like(logits)
    for index in np.ndindex(logits.shape):
        ahead, behind = logits.copy(), logits.copy()
        ahead[index] += step
        behind[index] -= step
        slopes[index] = (by_hand(truth, ahead).mean() - by_hand(truth, behind).mean()) / (2 * step)
    return slopes


# All losses


@every_formula
@every_kind_of_label
@pytest.mark.parametrize("spread", [3.0, 100.0])
def test_it_agrees_with_the_formula(loss, by_hand, labels, spread):
    truth, logits = random_clips(labels, spread=spread)
    logits[2] = 100 * (1 - 2 * np.round(truth[2]))  # as wrong as possible
    logits[3] = -logits[2]
    expected = by_hand(truth.astype("float64"), logits.astype("float64"))
    np.testing.assert_allclose(per_clip(loss, truth, logits), expected, rtol=2e-5, atol=1e-6)
    assert float(loss(truth, logits)) == pytest.approx(expected.mean(), rel=2e-5)


@every_formula
@every_kind_of_label
def test_its_gradient_agrees_with_the_formula(loss, by_hand, labels):
    truth, logits = random_clips(labels, classes=7)
    np.testing.assert_allclose(gradient(loss, truth, logits), slope(by_hand, truth, logits), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("loss", ["bce", "focal", "categorical", "bootstrapping"])
def test_every_reduction_reduces_the_losses_of_the_clips(loss, reduction):
    loss, by_hand = FORMULAS[loss]
    truth, logits = random_clips("mixed")
    reduced = type(loss).from_config(loss.get_config() | {"reduction": reduction})
    np.testing.assert_allclose(reduced(truth, logits), REDUCTIONS[reduction](by_hand(truth, logits)), rtol=1e-5)


@pytest.mark.parametrize("loss", ["bce", "bce smoothed", "focal", "focal, all options", "bootstrapping"])
def test_mixed_labels_give_the_mixed_loss(loss):
    loss, _ = FORMULAS[loss]
    (first, logits), (second, _) = random_clips("hard", seed=1), random_clips("hard", seed=2)
    mixed = per_clip(loss, np.float32(0.3) * first + np.float32(0.7) * second, logits)
    expected = 0.3 * per_clip(loss, first, logits) + 0.7 * per_clip(loss, second, logits)
    np.testing.assert_allclose(mixed, expected, rtol=1e-5, atol=1e-6)


# binary_crossentropy


def test_seventy_percent_smoothing_has_the_published_floor():
    truth = np.eye(64, 80, dtype="float32")
    best = np.log(0.65 / 0.35) * (2 * truth - 1)
    assert round(float(binary_crossentropy(label_smoothing=0.7)(truth, best)), 4) == 0.6474
    batch_loss = float(binary_crossentropy(label_smoothing=0.7, reduction="sum")(truth, best))
    assert batch_loss == pytest.approx(41.43, abs=0.01)
    best = np.log(0.9 / 0.1) * (2 * truth - 1)
    assert round(float(binary_crossentropy(label_smoothing=0.2)(truth, best)), 4) == 0.3251


def test_certain_logits_give_a_finite_loss():
    loss = binary_crossentropy()(np.array([[1.0, 0.0]], "float32"), np.array([[-1e4, 1e4]], "float32"))
    assert float(loss) == 1e4


def test_binary_crossentropy_round_trips():
    loss = binary_crossentropy(label_smoothing=0.2, reduction="sum")
    again = keras.losses.deserialize(keras.losses.serialize(loss))
    assert again.get_config() == loss.get_config()
    assert again.get_config()["from_logits"] is True


# Focal


def test_focal_is_a_sum_over_the_classes():
    truth, logits = random_clips("mixed")
    expected = truth.shape[1] * per_clip(binary_crossentropy(), truth, logits)
    np.testing.assert_allclose(per_clip(Focal(gamma=0.0), truth, logits), expected, rtol=1e-5)


def test_focal_falls_where_the_network_is_right():
    truth, logits = np.ones((1, 1), "float32"), np.full((1, 1), np.log(9.0), "float32")  # p is 0.9
    focal, plain = float(Focal()(truth, logits)), float(Focal(gamma=0.0)(truth, logits))
    assert focal / plain == pytest.approx(0.01, rel=1e-4)


# F2Curriculum

A, B, BOTH, NONE = [1, 0, 0], [0, 1, 0], [1, 1, 0], [0, 0, 0]
CASES = [(A, A), (A, B), (A, BOTH), (BOTH, A), (BOTH, BOTH), (A, NONE), (NONE, A), (NONE, NONE)]
KEPT = np.array([labels != predicted or labels == NONE for labels, predicted in CASES])


def predictions(pairs, threshold=0.2):
    """Truth and logits of clips with given (labels, predicted classes)."""
    truth, predicted = np.array(pairs, "float32").transpose(1, 0, 2)
    distance = np.random.default_rng(0).uniform(0.01, 3, predicted.shape)
    edge = np.log(threshold / (1 - threshold))
    return truth, (edge + distance * (2 * predicted - 1)).astype("float32")


@pytest.mark.parametrize("threshold", [0.2, 0.6])
@pytest.mark.parametrize("base", ["binary_crossentropy", "focal"])
def test_only_clips_that_are_not_predicted_right_are_kept(base, threshold):
    truth, logits = predictions(CASES, threshold)
    losses = (crossentropy_by_hand if base == "binary_crossentropy" else focal_by_hand)(truth, logits)
    assert KEPT.tolist() == [f2_by_hand(np.array(labels), np.array(predicted)) < 1 for labels, predicted in CASES]
    for reduction, expected in {
        "sum_over_batch_size": losses[KEPT].mean(),
        "mean": losses[KEPT].mean(),
        "mean_with_sample_weight": losses[KEPT].mean(),
        "sum": losses[KEPT].sum(),
        "none": losses * KEPT,
    }.items():
        loss = F2Curriculum(base=base, threshold=threshold, reduction=reduction)
        np.testing.assert_allclose(loss(truth, logits), expected, rtol=1e-5)


def test_sample_weights_multiply_the_losses_of_kept_clips():
    truth, logits = predictions(CASES)
    weight = np.arange(1.0, 9.0)
    losses = (weight * crossentropy_by_hand(truth, logits))[KEPT]
    for shape in ((8,), (8, 1)):
        weights = weight.reshape(shape).astype("float32")
        assert float(F2Curriculum()(truth, logits, weights)) == pytest.approx(losses.mean(), rel=1e-5)
        by_weight = F2Curriculum(reduction="mean_with_sample_weight")(truth, logits, weights)
        assert float(by_weight) == pytest.approx(losses.sum() / weight[KEPT].sum(), rel=1e-5)


def test_dropped_clips_have_no_gradient_and_the_others_are_unaffected():
    truth, logits = predictions(CASES)
    ours = gradient(F2Curriculum(), truth, logits)
    assert not ours[~KEPT].any()
    np.testing.assert_allclose(ours[KEPT], gradient(binary_crossentropy(), truth[KEPT], logits[KEPT]), rtol=1e-5)


@pytest.mark.parametrize("published", [False, True])
@pytest.mark.parametrize("base", ["binary_crossentropy", "focal"])
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_the_loss_of_a_batch_that_is_predicted_right_is_zero(base, published, reduction):
    truth, logits = predictions([(A, A), (BOTH, BOTH)])
    loss = F2Curriculum(base=base, published=published, reduction=reduction)
    np.testing.assert_array_equal(loss(truth, logits), np.zeros(2 if reduction == "none" else ()))
    np.testing.assert_array_equal(gradient(loss, truth, logits), 0 * logits)


def test_probabilities_equal_to_soft_labels_are_right():
    truth = np.array([[0.7, 0.3, 0.0], [0.9, 0.1, 0.0], [0.7, 0.3, 0.0]], "float32")
    probability = np.array([[0.7, 0.3, 0.01], [0.9, 0.1, 0.01], [0.9, 0.1, 0.01]])
    kept = F2Curriculum().kept(truth, np.log(probability / (1 - probability)).astype("float32"))
    assert np.asarray(kept).tolist() == [False, False, True]


def test_as_published_clips_with_mixed_labels_are_never_dropped():
    truth = np.array([[0.7, 0.3, 0.0], [0.97, 0.03, 0.0], A, BOTH, NONE], "float32")
    for predicted in (BOTH, A, B, NONE):
        _, logits = predictions([(A, predicted)] * 5)
        kept = np.asarray(F2Curriculum(published=True).kept(truth, logits))
        expected = [f2_by_hand(labels.astype("float64"), np.array(predicted)) < 1 for labels in truth]
        assert kept.tolist() == expected
        assert kept[:2].all()


def test_as_published_with_cross_entropy_the_loss_of_every_clip_is_a_hundred_times_the_mean():
    truth, logits = predictions(CASES)
    loss = F2Curriculum(published=True)
    mean = 100 * crossentropy_by_hand(truth, logits).mean()
    assert float(loss(truth, logits)) == pytest.approx(mean, rel=1e-5)
    expected = 100 * gradient(binary_crossentropy(), truth, logits)
    np.testing.assert_allclose(gradient(loss, truth, logits), expected, rtol=1e-5)
    np.testing.assert_allclose(per_clip(loss, truth, logits), mean * KEPT, rtol=1e-5)


def test_as_published_with_focal_loss_clips_are_dropped():
    first, logits = predictions(CASES)
    second = first[::-1].copy()
    weight = np.float32([0.1, 0.2, 0.3, 0.4, 0.5, 0.4, 0.3, 0.2])[:, None]
    mixed = weight * first + (1 - weight) * second
    losses = weight[:, 0] * focal_by_hand(first, logits) + (1 - weight[:, 0]) * focal_by_hand(second, logits)
    predicted = expit(logits) > 0.2
    kept = np.array([f2_by_hand(labels.astype("float64"), row) < 1 for labels, row in zip(mixed, predicted)])
    assert 0 < kept.sum() <= 8
    loss = F2Curriculum(base="focal", published=True)
    assert float(loss(mixed, logits)) == pytest.approx(losses[kept].mean(), rel=1e-5)
    assert float(loss(first, logits)) == pytest.approx(focal_by_hand(first, logits)[KEPT].mean(), rel=1e-5)


def test_smoothing_changes_the_base_loss_but_not_which_clips_are_dropped():
    truth, logits = predictions([(A, A), (A, B)])
    smooth = F2Curriculum(label_smoothing=0.7, reduction="none")(truth, logits)
    np.testing.assert_allclose(smooth, [0, crossentropy_by_hand(truth, logits, 0.7)[1]], rtol=1e-5)


# CategoricalCrossentropy


def test_with_one_label_per_clip_categorical_crossentropy_equals_that_of_keras():
    truth, logits = np.eye(6, 20, dtype="float32"), random_clips("hard")[1]
    for smoothing in (0.0, 0.3):
        theirs = keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=smoothing)(truth, logits)
        assert float(CategoricalCrossentropy(label_smoothing=smoothing)(truth, logits)) == pytest.approx(
            float(theirs), rel=1e-5
        )


def test_the_target_of_several_classes_is_equal_probabilities():
    truth = np.array([[1, 1, 0, 0]], "float32")
    even = np.array([[0, 0, -50, -50]], "float32")
    assert float(CategoricalCrossentropy()(truth, even)) == pytest.approx(np.log(2), rel=1e-5)
    np.testing.assert_allclose(gradient(CategoricalCrossentropy(), truth, even), 0 * even, atol=1e-6)


# SoftBootstrapping


def test_with_constant_targets_only_the_size_of_the_gradient_differs_from_cross_entropy():
    truth, logits = random_clips("mixed")
    ours, theirs = gradient(SoftBootstrapping(beta=0.7), truth, logits), gradient(binary_crossentropy(), truth, logits)
    np.testing.assert_allclose(ours, 0.7 * theirs, rtol=1e-4, atol=1e-8)
    through = gradient(SoftBootstrapping(beta=0.7, through_targets=True), truth, logits)
    assert np.abs(through - ours).max() > 0.05 * np.abs(ours).max()


def test_constant_targets_do_not_change_the_value():
    truth, logits = random_clips("mixed")
    ours, through = SoftBootstrapping(), SoftBootstrapping(through_targets=True)
    np.testing.assert_array_equal(per_clip(ours, truth, logits), per_clip(through, truth, logits))


# Options


def test_an_invalid_smoothing_or_reduction_is_refused():
    for loss in (binary_crossentropy, Focal, F2Curriculum, CategoricalCrossentropy):
        for smoothing in (-0.1, 1.0):
            with pytest.raises(ValueError, match=f"from 0 to below 1. Received: label_smoothing={smoothing}"):
                loss(label_smoothing=smoothing)
    for loss in (binary_crossentropy, Focal, F2Curriculum, CategoricalCrossentropy, SoftBootstrapping):
        with pytest.raises(ValueError, match="(?s)Expected one of.*sum_over_batch_size.*Received: reduction=total"):
            loss(reduction="total")


@pytest.mark.parametrize(
    ("loss", "options", "message"),
    [
        (Focal, {"gamma": -1.0}, "gamma must be at least 0. Received: gamma=-1.0"),
        (Focal, {"alpha": 1.5}, "alpha must be from 0 to 1, or None. Received: alpha=1.5"),
        (F2Curriculum, {"base": "mae"}, 'base must be "binary_crossentropy" or "focal". Received: base=\'mae\''),
        (F2Curriculum, {"threshold": 1.0}, "threshold must be between 0 and 1. Received: threshold=1.0"),
        (SoftBootstrapping, {"beta": 1.1}, "beta must be from 0 to 1. Received: beta=1.1"),
    ],
)
def test_an_option_out_of_range_is_refused(loss, options, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        loss(**options)
