import json

import keras
import numpy as np
import pytest
from flips import bits, flipped

from audiotag.errors import ConfigError, DataError
from audiotag.runs.directory import previous
from audiotag.training.callbacks import CSVLogger, ModelCheckpoint
from audiotag.training.state import (
    INITIAL,
    forget_state,
    get_callback_state,
    is_saved,
    load_state,
    restore_callbacks,
    resume,
    save_state,
    set_callback_state,
)


def network(width=6, *, seed=0):
    """A compiled network with a random generator, moving statistics and variables of its optimizer."""
    keras.utils.set_random_seed(seed)
    inputs = keras.Input((4,))
    x = keras.layers.Dropout(0.5)(keras.layers.BatchNormalization()(keras.layers.Dense(width)(inputs)))
    model = keras.Model(inputs, keras.layers.Dense(2)(x))
    model.compile(keras.optimizers.Adam(0.01), "mse")
    return model


def train(model, steps):
    """Trains some of twelve steps."""
    batches = np.random.default_rng(0).normal(size=(12, 8, 6))
    for batch in batches[steps]:
        model.train_on_batch(batch[:, :4], batch[:, 4:])


def assert_same_weights(one, other):
    for a, b in zip(one.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.fixture
def state(tmp_path):
    """A file of the training state after five steps, which count as one epoch."""
    model = network()
    train(model, slice(5))
    save_state(tmp_path / "training_state.npz", model, [], [{"loss": 1.0}])
    return tmp_path / "training_state.npz"


def test_training_continues_as_if_it_had_never_stopped(state):
    never_stopped = network()
    train(never_stopped, slice(12))
    resumed = network(seed=1)
    metadata = load_state(state, resumed)
    train(resumed, slice(5, 12))
    assert_same_weights(resumed, never_stopped)
    for a, b in zip(resumed.optimizer.variables, never_stopped.optimizer.variables, strict=True):
        np.testing.assert_array_equal(a, b)
    assert set(metadata) == set(INITIAL)
    assert (metadata["epochs_done"], metadata["history"], metadata["stop_training"]) == (1, [{"loss": 1.0}], False)


def test_without_the_state_of_the_random_generators_it_would_not(state):
    never_stopped, resumed = network(), network(seed=1)
    train(never_stopped, slice(12))
    load_state(state, resumed)
    for layer in resumed.layers:
        if isinstance(layer, keras.layers.Dropout):
            layer.seed_generator.state.assign([7, 7])
    train(resumed, slice(5, 12))
    assert any(np.any(a != b) for a, b in zip(resumed.get_weights(), never_stopped.get_weights()))


def test_a_state_holds_whether_training_was_stopped(tmp_path):
    model = network()
    train(model, slice(1))
    model.stop_training = True
    save_state(tmp_path / "training_state.npz", model, [], [{"loss": 1.0}, {"loss": 0.5}])
    metadata = load_state(tmp_path / "training_state.npz", network())
    assert metadata["stop_training"] and metadata["epochs_done"] == 2


def test_callbacks_get_their_state_back_and_keep_their_settings(tmp_path):
    model = network()
    train(model, slice(1))
    stopping = keras.callbacks.EarlyStopping(monitor="loss", patience=3, min_delta=0.1, mode="min")
    plateau = keras.callbacks.ReduceLROnPlateau(monitor="loss", patience=2, cooldown=4)
    stopping.wait, stopping.best, stopping.best_epoch, stopping.min_delta = 2, np.float32(0.25), 7, -0.1
    plateau.wait, plateau.best, plateau.cooldown_counter = 1, float("inf"), 3
    save_state(tmp_path / "training_state.npz", model, [stopping, plateau], [{"loss": 1.0}])

    again = keras.callbacks.EarlyStopping(monitor="loss", patience=5, min_delta=0.1, mode="min")
    plateau = keras.callbacks.ReduceLROnPlateau(monitor="loss", patience=2, cooldown=4)
    path = tmp_path / "training_state.npz"
    restore_callbacks(path, [plateau, again], load_state(path, network())["callbacks"])
    assert (again.wait, again.best, again.best_epoch) == (2, 0.25, 7)
    assert (plateau.wait, plateau.best, plateau.cooldown_counter) == (1, float("inf"), 3)
    assert (again.patience, again.min_delta) == (5, 0.1)  # Keras flips the sign in place, once


@pytest.mark.parametrize(
    ("callback", "state"),
    [
        (keras.callbacks.EarlyStopping, {"wait": 2, "best": 0.5, "best_epoch": 7, "stopped_epoch": 9}),
        (keras.callbacks.EarlyStopping, {"wait": 0, "best": None, "best_epoch": 0, "stopped_epoch": 0}),
        (keras.callbacks.ReduceLROnPlateau, {"wait": 1, "best": float("inf"), "cooldown_counter": 3}),
        (lambda: CSVLogger("history.csv"), {"rows": [{"epoch": 0, "loss": 1.5}, {"epoch": 1, "loss": 0.25}]}),
        (lambda: ModelCheckpoint("best.weights.h5"), {"best": None, "best_epoch": None, "sha256": None}),
    ],
)
def test_a_callback_returns_the_state_that_it_was_given(callback, state):
    other = callback()
    set_callback_state(other, json.loads(json.dumps(state)))
    assert repr(get_callback_state(other)) == repr(state)  # 0 is not 0.0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"path": "/etc/passwd"},
            "EarlyStopping: unknown key 'path'. Accepted: wait, best, best_epoch, stopped_epoch.",
        ),
        ({"wait": "/etc/passwd"}, "EarlyStopping: wait: Input should be a valid integer, found '/etc/passwd'."),
        ({"wait": True}, "EarlyStopping: wait: Input should be a valid integer, found True."),
        ({"wait": -1}, "EarlyStopping: wait: Input should be greater than or equal to 0, found -1."),
        ({"best_epoch": 2**31}, "EarlyStopping: best_epoch: Input should be less than 2147483648, found 2147483648."),
        ({"best": 1e308}, "EarlyStopping: best: expected a number that float32 can hold, found 1e+308."),
        ({"best": [0.5]}, "EarlyStopping: best: Input should be a valid number, found (0.5,)."),
    ],
)
def test_a_state_of_a_callback_with_other_fields_or_types_is_refused(tmp_path, changes, message):
    path, callbacks = tmp_path / "training_state.npz", [keras.callbacks.EarlyStopping()]
    callbacks[0].on_train_begin()
    states = {"EarlyStopping": get_callback_state(callbacks[0]) | changes}
    with pytest.raises(DataError) as error:
        restore_callbacks(path, callbacks, states)
    remedy = "Damaged, or written by another version of audiotag. Retrain with --restart."
    assert str(error.value) == f"{path}: {message} {remedy}"
    assert callbacks[0].wait == 0


def test_the_state_of_other_callbacks_is_refused(tmp_path):
    path, callbacks = tmp_path / "training_state.npz", [keras.callbacks.EarlyStopping()]
    with pytest.raises(DataError, match="the state of the callbacks none, expected EarlyStopping. Retrain with --re"):
        restore_callbacks(path, callbacks, {})
    with pytest.raises(DataError, match="of the callbacks CSVLogger, expected none. Retrain with --restart."):
        restore_callbacks(path, [keras.callbacks.TerminateOnNaN()], {"CSVLogger": {"path": "/etc/passwd"}})


def test_a_state_of_a_checkpoint_or_a_log_with_a_path_is_refused():
    with pytest.raises(ConfigError, match="ModelCheckpoint: unknown key 'path'.*Accepted: best, best_epoch, sha256."):
        ModelCheckpoint("best.weights.h5").set_state({"path": "/etc/passwd"})
    with pytest.raises(ConfigError, match="ModelCheckpoint: best, best_epoch and sha256 must be null together or not"):
        ModelCheckpoint("best.weights.h5").set_state({"best": 0.5, "best_epoch": 1, "sha256": None})
    with pytest.raises(ConfigError, match=r"CSVLogger: rows.*pattern.*, found '=cmd\(\)'"):
        CSVLogger("history.csv").set_state({"rows": [{"=cmd()": 0.5}]})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"epochs_done": "1"}, "metadata: epochs_done: Input should be a valid integer, found '1'."),
        ({"epochs_done": 2}, "metadata: 2 epochs are done, but the history has 1."),
        ({"history": [{"loss": "low"}]}, "metadata: history[0].loss: Input should be a valid number, found 'low'."),
        ({"seconds": float("nan")}, "metadata: seconds: Input should be a finite number, found nan."),
        ({"class_name": "os.system"}, "metadata: unknown key 'class_name'."),
    ],
)
def test_metadata_with_other_fields_or_types_are_refused(state, monkeypatch, changes, message):
    valid = json.dumps
    monkeypatch.setattr(json, "dumps", lambda metadata, **options: valid(metadata | changes))
    save_state(state, network(), [], [{"loss": 1.0}])
    with pytest.raises(DataError) as error:
        load_state(state, network())
    assert str(error.value).startswith(f"{state}: {message}")
    assert str(error.value).endswith("Retrain with --restart.")


@pytest.mark.check("D10")
def test_a_save_that_dies_in_the_middle_leaves_the_old_state(state, monkeypatch):
    before = state.read_bytes()

    def die(path, *arrays, **more):
        path.write_bytes(before[: len(before) // 2])
        raise OSError("No space left on device")

    monkeypatch.setattr(np, "savez", die)
    with pytest.raises(OSError, match="No space left on device"):
        save_state(state, network(), [], [])
    assert state.read_bytes() == before
    assert [path.name for path in state.parent.iterdir()] == [state.name]


def damaged_versions(complete):
    """The bytes of a file with every 997th bit flipped, one at a time, and cut short."""
    for bit in bits(complete, every=997):
        yield flipped(complete, bit)
    for size in (0, 10, len(complete) // 2, len(complete) - 1):
        yield complete[:size]
    yield b"no state at all"


def test_a_damaged_state_is_refused_or_harmless(state):
    complete, refused = state.read_bytes(), 0
    expected = network()
    load_state(state, expected)
    for number, data in enumerate(damaged_versions(complete)):
        state.write_bytes(data)
        loaded = network(seed=1)
        try:
            load_state(state, loaded)
        except DataError as error:
            refused += 1
            assert "unsafely" not in str(error)
            assert "state.npz: the training state is damaged (" in str(error) and "Retrain with --restart" in str(error)
        else:  # a bit without a meaning, as of a date
            assert_same_weights(loaded, expected)
    assert refused > 0.6 * number


def test_a_damaged_state_is_replaced_by_its_previous_version_with_a_message(state, capsys):
    model = network()
    load_state(state, model)
    earlier = model.get_weights()
    train(model, slice(5, 8))
    save_state(state, model, [], [{"loss": 1.0}, {"loss": 0.5}])
    assert load_state(state, network())["epochs_done"] == 2
    assert capsys.readouterr().err == ""
    for damage in (lambda: state.write_bytes(state.read_bytes()[:-100]), state.unlink):
        damage()
        resumed = network(seed=1)
        assert resume(state, resumed)["epochs_done"] == 1
        for ours, theirs in zip(resumed.get_weights(), earlier, strict=True):
            np.testing.assert_array_equal(ours, theirs)
        assert "state.npz: damaged (" in (message := capsys.readouterr().err)
        assert message.endswith("Training resumes from previous-training_state.npz.\n")
    previous(state).write_bytes(b"")
    with pytest.raises(DataError, match="state.npz: the training state is damaged .* there is no usable previous vers"):
        resume(state, network())


def test_without_a_state_training_begins_and_a_forgotten_one_leaves_nothing(state):
    assert is_saved(state)
    best = state.with_name("best.weights.h5")
    for path in (previous(state), best, previous(best)):
        path.write_bytes(b"")
    forget_state(state)
    assert [path.name for path in state.parent.iterdir()] == [best.name]
    assert not is_saved(state)
    assert resume(state, network()) == INITIAL


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_weights_that_are_not_finite_are_not_saved(state, bad):
    model, saved = network(), state.read_bytes()
    load_state(state, model)
    model.layers[-1].kernel.assign(np.full(model.layers[-1].kernel.shape, bad))
    with pytest.raises(FloatingPointError, match="a weight is NaN or infinite"):
        save_state(state, model, [], [{"loss": 1.0}, {"loss": 0.5}])
    assert state.read_bytes() == saved


def test_within_an_epoch_the_variables_of_the_metrics_are_part_of_the_state(tmp_path):
    model = network()
    train(model, slice(3))
    save_state(tmp_path / "training_state.npz", model, [], [], steps_done=3)
    other = network(seed=1)
    metadata = load_state(tmp_path / "training_state.npz", other)
    assert (metadata["epochs_done"], metadata["steps_done"]) == (0, 3)
    for ours, theirs in zip(metadata["metric_state"], model.metrics_variables, strict=True):
        np.testing.assert_array_equal(ours, theirs.numpy())


def test_a_state_without_metadata_is_refused(tmp_path):
    np.savez(tmp_path / "training_state.npz", np.zeros(3))
    with pytest.raises(DataError, match="state.npz: the training state is damaged"):
        load_state(tmp_path / "training_state.npz", network())


def test_the_state_of_another_network_is_refused(state):
    deeper = keras.Sequential([keras.Input((4,)), keras.layers.Dense(6), keras.layers.Dense(2)])
    deeper.compile(keras.optimizers.Adam(), "mse")
    for other in (network(width=7), deeper):
        with pytest.raises(DataError, match="state.npz: the training state of another network. Retrain with --re"):
            load_state(state, other)
