import keras
import numpy as np
import pytest

from audiotag.losses import binary_crossentropy

REDUCTIONS = {
    "sum_over_batch_size": np.mean,
    "mean": np.mean,
    "mean_with_sample_weight": np.mean,
    "sum": np.sum,
    "none": lambda losses: losses,
}


def by_hand(truth, logits, smoothing):
    """The loss of each clip in float64: [B]."""
    probability = 1 / (1 + np.exp(-logits.astype("float64")))
    target = truth * (1 - smoothing) + smoothing / 2
    return -(target * np.log(probability) + (1 - target) * np.log(1 - probability)).mean(axis=1)


@pytest.mark.parametrize("smoothing", [0.0, 0.2, 0.7])
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_it_agrees_with_the_formula(smoothing, reduction):
    rng = np.random.default_rng(0)
    truth, logits = rng.integers(0, 2, (6, 80)).astype("float32"), rng.normal(0, 3, (6, 80)).astype("float32")
    loss = binary_crossentropy(label_smoothing=smoothing, reduction=reduction)
    expected = REDUCTIONS[reduction](by_hand(truth, logits, smoothing))
    np.testing.assert_allclose(loss(truth, logits), expected, rtol=1e-5)


def test_seventy_percent_smoothing_has_the_published_floor():
    truth = np.eye(64, 80, dtype="float32")
    best = np.log(0.65 / 0.35) * (2 * truth - 1)
    assert round(float(binary_crossentropy(label_smoothing=0.7)(truth, best)), 4) == 0.6474


def test_certain_logits_give_a_finite_loss():
    loss = binary_crossentropy()(np.array([[1.0, 0.0]], "float32"), np.array([[-1e4, 1e4]], "float32"))
    assert float(loss) == 1e4


def test_a_weight_of_zero_leaves_a_clip_out():
    truth, logits = np.eye(2, dtype="float32"), np.array([[1.0, 2.0], [3.0, 4.0]], "float32")
    loss = binary_crossentropy(reduction="sum")
    assert float(loss(truth, logits, sample_weight=np.array([1.0, 0.0]))) == pytest.approx(
        float(loss(truth[:1], logits[:1]))
    )


def test_round_trip():
    loss = binary_crossentropy(label_smoothing=0.2, reduction="sum")
    again = keras.losses.deserialize(keras.losses.serialize(loss))
    assert again.get_config() == loss.get_config()
    assert again.get_config()["from_logits"] is True


def test_a_smoothing_or_a_reduction_out_of_range_is_refused():
    for smoothing in (-0.1, 1.0):
        with pytest.raises(ValueError, match=f"from 0 to below 1. Received: label_smoothing={smoothing}"):
            binary_crossentropy(label_smoothing=smoothing)
    with pytest.raises(ValueError, match="(?s)Expected one of.*sum_over_batch_size.*Received: reduction=total"):
        binary_crossentropy(reduction="total")
