import json

import keras
import numpy as np
import pytest

from audiotag.runs import weights
from audiotag.runs.building import build_tagger
from audiotag.schedules import OneCycle
from audiotag.training.callbacks import JudgeAverage, ModelCheckpoint, SaveState
from audiotag.training.compiling import build_optimizer

ADAM = {"name": "adam", "learning_rate": 0.01}
STEPS = 4  # an epoch


@pytest.fixture
def stage(tiny):
    """A function: keys of a stage → the `Stage`, of five epochs."""

    def stage(**keys):
        sets = [f"stages.noisy.{key}={json.dumps(value)}" for key, value in ({"epochs": 5} | keys).items()]
        return tiny(*sets).stages[0]

    return stage


def network(seed=0):
    keras.utils.set_random_seed(seed)
    return keras.Sequential(
        [keras.Input((4,)), keras.layers.Dense(6), keras.layers.BatchNormalization(), keras.layers.Dense(2)]
    )


def compiled(stage, seed=0):
    model = network(seed)
    model.compile(build_optimizer(stage, model.trainable_variables, steps_per_epoch=STEPS), "mse")
    return model


class Watch(keras.callbacks.Callback):
    """Notes the rate, and beta_1, of every step."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def on_train_batch_begin(self, batch, logs=None):
        optimizer = self.model.optimizer
        beta = getattr(optimizer, "beta_1", 0.0)
        self.seen.append((float(optimizer.learning_rate), float(beta)))


def fit(stage, folder, *, until):
    """Trains up to an epoch, from the state in the folder if there is one: (the model, what was seen)."""
    folder.mkdir(exist_ok=True)
    state, watch = folder / "state.npz", Watch()
    model = compiled(stage, seed=int(state.is_file()))  # the state brings the weights
    callbacks = [ModelCheckpoint(folder / "best.weights.h5", monitor="val_loss", mode="min")]
    notes = state.load_state(state, model) if state.is_file() else state.FRESH
    inputs, truth = np.random.default_rng(0).normal(size=(2, 8 * STEPS, 4))
    history = model.fit(
        inputs,
        truth[:, :2],
        batch_size=8,
        epochs=until,
        initial_epoch=notes["epochs_done"],
        shuffle=False,
        validation_data=(inputs, truth[:, 2:]),
        callbacks=[watch, *callbacks, JudgeAverage(), SaveState(state, callbacks, notes)],
        verbose=0,
    )
    return model, watch.seen, history.history


# Schedules


def test_a_stages_steps_are_those_of_the_schedule(stage, tmp_path):
    _, seen, _ = fit(stage(optimizer=ADAM, schedule={"name": "one_cycle"}), tmp_path, until=5)
    cycle = OneCycle(learning_rate=0.01, epochs=5, steps_per_epoch=STEPS)
    assert len(seen) == 20
    np.testing.assert_allclose(seen, [(float(cycle(n)), float(cycle.momentum(n))) for n in range(20)], rtol=1e-6)
    assert seen[0] == pytest.approx((4e-4, 0.95)) and seen[6] == pytest.approx((0.01, 0.85))


@pytest.mark.parametrize(
    "schedule",
    [
        {"name": "one_cycle"},
        {"name": "hold_then_linear", "hold": 2},
        {"name": "cosine", "warm_up_epochs": 1.0, "cycles": 2},
        {"name": "constant", "warm_up_epochs": 3.0},
    ],
    ids=lambda schedule: schedule["name"],
)
def test_stopped_and_resumed_a_schedule_goes_on_where_it_was(stage, tmp_path, schedule):
    staged = stage(optimizer=ADAM | {"use_ema": True}, schedule=schedule)
    whole, all_seen, _ = fit(staged, tmp_path / "whole", until=5)
    _, seen, _ = fit(staged, tmp_path / "resumed", until=2)
    resumed, seen_later, _ = fit(staged, tmp_path / "resumed", until=5)
    assert seen + seen_later == all_seen
    assert len(set(seen)) > 1 or schedule["name"] == "hold_then_linear"
    assert len(set(seen_later)) > 2
    for a, b in zip(whole.get_weights(), resumed.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_without_a_schedule_the_rate_stands_still(stage, tmp_path):
    _, seen, _ = fit(stage(optimizer=ADAM), tmp_path, until=2)
    assert set(seen) == {(float(np.float32(0.01)), 0.9)}


def test_one_cycle_leaves_beta_1_alone_if_asked_to(stage, tmp_path):
    schedule = {"name": "one_cycle", "beta_1": None}
    _, seen, _ = fit(stage(optimizer=ADAM | {"beta_1": 0.7}, schedule=schedule), tmp_path / "adam", until=2)
    assert {beta for _, beta in seen} == {0.7}
    _, seen, _ = fit(stage(optimizer={"name": "sgd"}, schedule=schedule), tmp_path / "sgd", until=2)
    assert len({rate for rate, _ in seen}) == 8


def test_a_schedule_that_refuses_says_so(stage):
    with pytest.raises(ValueError, match="hold must be from 0 to below the stage's 5 epochs. Received: hold=5"):
        compiled(stage(optimizer=ADAM, schedule={"name": "hold_then_linear", "hold": 5}))


# Adam, by hand


def adam_by_hand(weight, gradients, rates, betas, *, beta_2, epsilon, decay):
    """Weights after each step, float64: decay before the step, bias corrected by the present beta_1."""
    mean, square = 0 * weight, 0 * weight
    for step, (gradient, rate, beta_1) in enumerate(zip(gradients, rates, betas), 1):
        weight = weight * (1 - rate * decay)
        mean = beta_1 * mean + (1 - beta_1) * gradient
        square = beta_2 * square + (1 - beta_2) * gradient**2
        corrected = rate * np.sqrt(1 - beta_2**step) / (1 - beta_1**step)
        weight = weight - corrected * mean / (np.sqrt(square) + epsilon)
    return weight


@pytest.mark.parametrize("jit_compile", [False, True])
@pytest.mark.parametrize("decayed", ["all", "kernels"])
@pytest.mark.parametrize("name", ["adam", "adamw"])
def test_one_cycle_with_decay_is_adam_by_hand(stage, name, decayed, jit_compile):
    import tensorflow as tf

    optimizer = {"name": name, "learning_rate": 0.1, "beta_2": 0.99, "epsilon": 1e-8, "weight_decay": 0.5}
    staged = stage(optimizer=optimizer, schedule={"name": "one_cycle"}, decayed_weights=decayed)
    model = network()
    weights = model.trainable_variables
    before = [weight.numpy().astype("float64") for weight in weights]
    built = build_optimizer(staged, weights, steps_per_epoch=STEPS)
    built.build(weights)
    gradients = [np.random.default_rng(0).normal(size=(20, *weight.shape)).astype("float32") for weight in weights]
    step = tf.function(lambda parts: built.apply(parts), jit_compile=jit_compile)
    for number in range(20):
        step([tf.constant(gradient[number]) for gradient in gradients])
    half = lambda a, b, done: b + (a - b) * (1 + np.cos(np.pi * done)) / 2
    rates = [half(0.004, 0.1, n / 6) for n in range(6)] + [half(0.1, 4e-7, n / 14) for n in range(14)]
    betas = [half(0.95, 0.85, n / 6) for n in range(6)] + [half(0.85, 0.95, n / 14) for n in range(14)]
    for weight, start, gradient in zip(weights, before, gradients):
        decay = 0.5 if decayed == "all" or weight.name == "kernel" else 0.0
        expected = adam_by_hand(start, gradient, rates, betas, beta_2=0.99, epsilon=1e-8, decay=decay)
        np.testing.assert_allclose(weight.numpy(), expected, rtol=1e-4, atol=1e-5, err_msg=weight.path)


# Trunk and head


@pytest.mark.parametrize("name", ["adam", "adamw", "sgd"])
def test_the_trunk_moves_and_shrinks_by_its_share(stage, name):
    import tensorflow as tf

    def after(model, trunk_rate, rate, steps=3):
        """What has become of a network after steps with gradients 1, in a graph."""
        optimizer = {"name": name, "learning_rate": rate, "weight_decay": 0.3}
        trunk = [weight for layer in model.layers[:2] for weight in layer.trainable_variables]
        weights = model.trainable_variables
        staged = stage(optimizer=optimizer, trunk_rate=trunk_rate)
        built = build_optimizer(staged, weights, steps_per_epoch=1, trunk=trunk)
        apply = tf.function(lambda: built.apply([tf.ones(weight.shape) for weight in weights], weights))
        for _ in range(steps):
            apply()
        assert len(built.variables) == 2 + len(weights) * (0 if name == "sgd" else 2)
        return [weight.numpy() for weight in weights]

    whole, slow, both = after(network(), 1.0, 0.1), after(network(), 1.0, 0.02), after(network(), 0.2, 0.1)
    for trunk, expected in zip(both[:4], slow[:4]):
        np.testing.assert_allclose(trunk, expected, rtol=1e-5, atol=1e-7)
    for head, expected in zip(both[4:], whole[4:]):
        np.testing.assert_array_equal(head, expected)
    assert np.all(whole[0] != slow[0])


def test_the_head_is_what_is_called_logits_or_head(tiny):
    tagger = build_tagger(tiny(), sample_rate=16_000, num_classes=5)
    trunk = {id(weight) for layer in tagger.trunk() for weight in layer.weights}
    head = [weight.path.split("/")[-2:] for weight in tagger.trainable_variables if id(weight) not in trunk]
    assert head == [["logits", "kernel"], ["logits", "bias"]]


# Moving average


def test_the_average_is_judged_and_kept_and_training_goes_on_from_the_weights(stage, tmp_path):
    plain = stage(optimizer=ADAM)
    averaged = stage(optimizer=ADAM | {"use_ema": True, "ema_momentum": 0.8})
    model, steps = compiled(plain), []
    inputs, truth = np.random.default_rng(0).normal(size=(2, 8 * STEPS, 4))
    for start in range(0, 8 * STEPS, 8):
        model.train_on_batch(inputs[start : start + 8], truth[start : start + 8, :2])
        steps.append([weight.numpy() for weight in model.trainable_variables])
    average = steps[0]
    for weights in steps[1:]:
        average = [0.8 * mean + 0.2 * weight for mean, weight in zip(average, weights)]

    trained, _, history = fit(averaged, tmp_path / "averaged", until=1)
    kept = network(seed=1)
    weights.load_weights(kept, tmp_path / "averaged" / "best.weights.h5")
    for ours, expected in zip(kept.trainable_variables, average, strict=True):
        np.testing.assert_allclose(ours, expected, rtol=1e-5, atol=1e-7)
    kept.compile("sgd", "mse")
    assert history["val_loss"][0] == pytest.approx(kept.evaluate(inputs, truth[:, 2:], verbose=0), rel=1e-5)
    for ours, expected in zip(trained.trainable_variables, average):  # Keras ends so
        np.testing.assert_allclose(ours, expected, rtol=1e-5, atol=1e-7)

    state = compiled(averaged)
    state.load_state(tmp_path / "averaged" / "state.npz", state)
    for ours, expected in zip(state.trainable_variables, steps[-1]):
        np.testing.assert_allclose(ours, expected, rtol=1e-5, atol=1e-7)


def test_without_an_average_nothing_is_put_in_its_place(stage, tmp_path):
    model, _, _ = fit(stage(optimizer=ADAM), tmp_path, until=1)
    kept = network(seed=1)
    weights.load_weights(kept, tmp_path / "best.weights.h5")
    for a, b in zip(model.get_weights(), kept.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_half_precision_keeps_an_average_too(stage):
    model = network()
    inner = build_optimizer(stage(optimizer=ADAM | {"use_ema": True}), model.trainable_variables, steps_per_epoch=1)
    model.compile(keras.optimizers.LossScaleOptimizer(inner), "mse")
    model.train_on_batch(np.ones((8, 4)), np.ones((8, 2)))
    judge = JudgeAverage()
    judge.set_model(model)
    inner._model_variables_moving_average[0].assign(np.full((4, 6), 7.0))
    before = model.get_weights()
    judge.on_test_begin()
    assert np.all(model.trainable_variables[0].numpy() == 7)
    judge.on_epoch_end(0)
    for a, b in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(a, b)


# Clipping


def test_clipping_is_keras_own(stage):
    weights = [keras.Variable([0.0, 0.0]), keras.Variable([0.0])]
    sgd = {"name": "sgd", "learning_rate": 1.0, "global_clipnorm": 1.0}
    optimizer = build_optimizer(stage(optimizer=sgd), weights, steps_per_epoch=1)
    optimizer.apply([np.array([3.0, 0.0]), np.array([4.0])], weights)
    np.testing.assert_allclose(np.concatenate([weight.numpy() for weight in weights]), [-0.6, 0, -0.8], rtol=1e-6)
