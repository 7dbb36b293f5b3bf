import json

import keras
import numpy as np
import pytest

from audiotag.runs import weights
from audiotag.runs.building import build_tagger
from audiotag.schedules import OneCycle
from audiotag.training.callbacks import EvaluateAverage, ModelCheckpoint, SaveState
from audiotag.training.compiling import build_optimizer
from audiotag.training.state import load_state, resume

ADAM = {"name": "adam", "learning_rate": 0.01}
STEPS_PER_EPOCH = 4


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
    model.compile(build_optimizer(stage, model.trainable_variables, num_steps=STEPS_PER_EPOCH), "mse")
    return model


class Recorder(keras.callbacks.Callback):
    """Records the learning rate and beta_1 of every step."""

    def __init__(self):
        super().__init__()
        self.steps = []

    def on_train_batch_begin(self, batch, logs=None):
        optimizer = self.model.optimizer
        beta = getattr(optimizer, "beta_1", 0.0)
        self.steps.append((float(optimizer.learning_rate), float(beta)))


def fit(stage, folder, *, until):
    """Trains until an epoch, from the state in the folder if there is one: (model, recorded steps, history)."""
    folder.mkdir(exist_ok=True)
    path, recorder = folder / "training_state.npz", Recorder()
    model = compiled(stage, seed=int(path.is_file()))  # the state restores the weights
    callbacks = [ModelCheckpoint(folder / "best.weights.h5", monitor="val_loss", mode="min")]
    metadata = resume(path, model)
    inputs, truth = np.random.default_rng(0).normal(size=(2, 8 * STEPS_PER_EPOCH, 4))
    history = model.fit(
        inputs,
        truth[:, :2],
        batch_size=8,
        epochs=until,
        initial_epoch=metadata["epochs_done"],
        shuffle=False,
        validation_data=(inputs, truth[:, 2:]),
        callbacks=[recorder, *callbacks, EvaluateAverage(), SaveState(path, callbacks, metadata)],
        verbose=0,
    )
    return model, recorder.steps, history.history


# Schedules


def test_the_steps_of_a_stage_follow_its_schedule(stage, tmp_path):
    _, steps, _ = fit(stage(optimizer=ADAM, schedule={"name": "one_cycle"}), tmp_path, until=5)
    cycle = OneCycle(learning_rate=0.01, epochs=5, steps_per_epoch=STEPS_PER_EPOCH)
    assert len(steps) == 20
    np.testing.assert_allclose(steps, [(float(cycle(n)), float(cycle.momentum(n))) for n in range(20)], rtol=1e-6)
    assert steps[0] == pytest.approx((4e-4, 0.95)) and steps[6] == pytest.approx((0.01, 0.85))


@pytest.mark.parametrize(
    "schedule",
    [
        {"name": "one_cycle"},
        {"name": "constant_then_linear", "constant_epochs": 2},
        {"name": "cosine", "warmup_epochs": 1.0, "cycles": 2},
        {"name": "constant", "warmup_epochs": 3.0},
    ],
    ids=lambda schedule: schedule["name"],
)
def test_a_resumed_stage_continues_its_schedule(stage, tmp_path, schedule):
    scheduled = stage(optimizer=ADAM | {"use_ema": True}, schedule=schedule)
    uninterrupted, all_steps, _ = fit(scheduled, tmp_path / "uninterrupted", until=5)
    _, first_steps, _ = fit(scheduled, tmp_path / "resumed", until=2)
    resumed, later_steps, _ = fit(scheduled, tmp_path / "resumed", until=5)
    assert first_steps + later_steps == all_steps
    assert len(set(first_steps)) > 1 or schedule["name"] == "constant_then_linear"
    assert len(set(later_steps)) > 2
    for a, b in zip(uninterrupted.get_weights(), resumed.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_without_a_schedule_the_rate_is_constant(stage, tmp_path):
    _, steps, _ = fit(stage(optimizer=ADAM), tmp_path, until=2)
    assert set(steps) == {(float(np.float32(0.01)), 0.9)}


def test_one_cycle_without_beta_1_keeps_that_of_the_optimizer(stage, tmp_path):
    schedule = {"name": "one_cycle", "beta_1": None}
    _, steps, _ = fit(stage(optimizer=ADAM | {"beta_1": 0.7}, schedule=schedule), tmp_path / "adam", until=2)
    assert {beta for _, beta in steps} == {0.7}
    _, steps, _ = fit(stage(optimizer={"name": "sgd"}, schedule=schedule), tmp_path / "sgd", until=2)
    assert len({rate for rate, _ in steps}) == 8


def test_an_invalid_schedule_is_refused(stage):
    message = "constant_epochs must be from 0 to below the stage's 5 epochs. Received: constant_epochs=5"
    with pytest.raises(ValueError, match=message):
        compiled(stage(optimizer=ADAM, schedule={"name": "constant_then_linear", "constant_epochs": 5}))


# Adam, by hand


def adam_by_hand(weight, gradients, rates, betas, *, beta_2, epsilon, decay):
    """Weights after all steps, float64: decay before each step, bias corrected with the beta_1 of the step."""
    mean, square = 0 * weight, 0 * weight
    for step, (gradient, rate, beta_1) in enumerate(zip(gradients, rates, betas), 1):
        weight = weight * (1 - rate * decay)
        mean = beta_1 * mean + (1 - beta_1) * gradient
        square = beta_2 * square + (1 - beta_2) * gradient**2
        corrected = rate * np.sqrt(1 - beta_2**step) / (1 - beta_1**step)
        weight = weight - corrected * mean / (np.sqrt(square) + epsilon)
    return weight


@pytest.mark.parametrize("jit_compile", [False, True])
@pytest.mark.parametrize("weight_decay_on", ["all", "kernels"])
@pytest.mark.parametrize("name", ["adam", "adamw"])
def test_one_cycle_with_weight_decay_equals_adam_by_hand(stage, name, weight_decay_on, jit_compile):
    import tensorflow as tf

    optimizer = {"name": name, "learning_rate": 0.1, "beta_2": 0.99, "epsilon": 1e-8, "weight_decay": 0.5}
    scheduled = stage(optimizer=optimizer, schedule={"name": "one_cycle"}, weight_decay_on=weight_decay_on)
    model = network()
    weights = model.trainable_variables
    before = [weight.numpy().astype("float64") for weight in weights]
    optimizer = build_optimizer(scheduled, weights, num_steps=STEPS_PER_EPOCH)
    optimizer.build(weights)
    gradients = [np.random.default_rng(0).normal(size=(20, *weight.shape)).astype("float32") for weight in weights]
    step = tf.function(lambda values: optimizer.apply(values), jit_compile=jit_compile)
    for number in range(20):
        step([tf.constant(gradient[number]) for gradient in gradients])
    half = lambda a, b, fraction: b + (a - b) * (1 + np.cos(np.pi * fraction)) / 2
    rates = [half(0.004, 0.1, n / 6) for n in range(6)] + [half(0.1, 4e-7, n / 14) for n in range(14)]
    betas = [half(0.95, 0.85, n / 6) for n in range(6)] + [half(0.85, 0.95, n / 14) for n in range(14)]
    for weight, start, gradient in zip(weights, before, gradients):
        decay = 0.5 if weight_decay_on == "all" or weight.name == "kernel" else 0.0
        expected = adam_by_hand(start, gradient, rates, betas, beta_2=0.99, epsilon=1e-8, decay=decay)
        np.testing.assert_allclose(weight.numpy(), expected, rtol=1e-4, atol=1e-5, err_msg=weight.path)


# Backbone and head


@pytest.mark.parametrize("name", ["adam", "adamw", "sgd"])
def test_learning_rate_and_decay_of_the_backbone_are_multiplied(stage, name):
    import tensorflow as tf

    def trained(model, backbone_lr_multiplier, rate, steps=3):
        """The weights of a network after steps with gradients of 1, in a graph."""
        optimizer = {"name": name, "learning_rate": rate, "weight_decay": 0.3}
        backbone = [weight for layer in model.layers[:2] for weight in layer.trainable_variables]
        weights = model.trainable_variables
        multipliers = {id(weight): backbone_lr_multiplier for weight in backbone}
        optimizer = build_optimizer(stage(optimizer=optimizer), weights, num_steps=1, multipliers=multipliers)
        apply = tf.function(lambda: optimizer.apply([tf.ones(weight.shape) for weight in weights], weights))
        for _ in range(steps):
            apply()
        assert len(optimizer.variables) == 2 + len(weights) * (0 if name == "sgd" else 2)
        return [weight.numpy() for weight in weights]

    fast, slow = trained(network(), 1.0, 0.1), trained(network(), 1.0, 0.02)
    both = trained(network(), 0.2, 0.1)
    for backbone, expected in zip(both[:4], slow[:4]):
        np.testing.assert_allclose(backbone, expected, rtol=1e-5, atol=1e-7)
    for head, expected in zip(both[4:], fast[4:]):
        np.testing.assert_array_equal(head, expected)
    assert np.all(fast[0] != slow[0])


def test_the_head_is_the_layer_named_logits(tiny):
    tagger = build_tagger(tiny(), sample_rate=16_000, num_classes=5)
    backbone = {id(weight) for layer in tagger.backbone() for weight in layer.weights}
    head = [weight.path.split("/")[-2:] for weight in tagger.trainable_variables if id(weight) not in backbone]
    assert head == [["logits", "kernel"], ["logits", "bias"]]


# Moving average


def test_the_average_is_evaluated_and_saved_and_training_continues_from_the_weights(stage, tmp_path):
    plain = stage(optimizer=ADAM)
    averaged = stage(optimizer=ADAM | {"use_ema": True, "ema_momentum": 0.8})
    model, steps = compiled(plain), []
    inputs, truth = np.random.default_rng(0).normal(size=(2, 8 * STEPS_PER_EPOCH, 4))
    for start in range(0, 8 * STEPS_PER_EPOCH, 8):
        model.train_on_batch(inputs[start : start + 8], truth[start : start + 8, :2])
        steps.append([weight.numpy() for weight in model.trainable_variables])
    average = steps[0]
    for values in steps[1:]:
        average = [0.8 * mean + 0.2 * value for mean, value in zip(average, values)]

    trained, _, history = fit(averaged, tmp_path / "averaged", until=1)
    best = network(seed=1)
    weights.load_weights(best, tmp_path / "averaged" / "best.weights.h5")
    for ours, expected in zip(best.trainable_variables, average, strict=True):
        np.testing.assert_allclose(ours, expected, rtol=1e-5, atol=1e-7)
    best.compile("sgd", "mse")
    assert history["val_loss"][0] == pytest.approx(best.evaluate(inputs, truth[:, 2:], verbose=0), rel=1e-5)
    for ours, expected in zip(trained.trainable_variables, average):  # Keras ends training with the average
        np.testing.assert_allclose(ours, expected, rtol=1e-5, atol=1e-7)

    resumed = compiled(averaged)
    load_state(tmp_path / "averaged" / "training_state.npz", resumed)
    for ours, expected in zip(resumed.trainable_variables, steps[-1]):
        np.testing.assert_allclose(ours, expected, rtol=1e-5, atol=1e-7)


def test_without_an_average_the_weights_are_saved(stage, tmp_path):
    model, _, _ = fit(stage(optimizer=ADAM), tmp_path, until=1)
    best = network(seed=1)
    weights.load_weights(best, tmp_path / "best.weights.h5")
    for a, b in zip(model.get_weights(), best.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_half_precision_has_an_average_too(stage):
    model = network()
    inner = build_optimizer(stage(optimizer=ADAM | {"use_ema": True}), model.trainable_variables, num_steps=1)
    model.compile(keras.optimizers.LossScaleOptimizer(inner), "mse")
    model.train_on_batch(np.ones((8, 4)), np.ones((8, 2)))
    callback = EvaluateAverage()
    callback.set_model(model)
    inner._model_variables_moving_average[0].assign(np.full((4, 6), 7.0))
    before = model.get_weights()
    callback.on_test_begin()
    assert np.all(model.trainable_variables[0].numpy() == 7)
    callback.on_epoch_end(0)
    for a, b in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(a, b)


# Clipping


def test_gradients_are_clipped_as_in_keras(stage):
    weights = [keras.Variable([0.0, 0.0]), keras.Variable([0.0])]
    sgd = {"name": "sgd", "learning_rate": 1.0, "global_clipnorm": 1.0}
    optimizer = build_optimizer(stage(optimizer=sgd), weights, num_steps=1)
    optimizer.apply([np.array([3.0, 0.0]), np.array([4.0])], weights)
    np.testing.assert_allclose(np.concatenate([weight.numpy() for weight in weights]), [-0.6, 0, -0.8], rtol=1e-6)
