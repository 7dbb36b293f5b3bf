import keras
import numpy as np
import pytest
from flips import bits, flipped

from audiotag.errors import DataError
from audiotag.runs.directory import previous
from audiotag.training.state import INITIAL, forget_state, is_saved, load_state, restore_callbacks, resume, save_state


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
    restore_callbacks([plateau, again], load_state(tmp_path / "training_state.npz", network())["callbacks"])
    assert (again.wait, again.best, again.best_epoch) == (2, 0.25, 7)
    assert (plateau.wait, plateau.best, plateau.cooldown_counter) == (1, float("inf"), 3)
    assert (again.patience, again.min_delta) == (5, 0.1)  # Keras flips the sign in place, once


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
