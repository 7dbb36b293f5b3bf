import keras
import numpy as np
import pytest
from flips import bits, flipped

from audiotag.errors import DataError
from audiotag.runs.weights import load_weights, save_weights
from audiotag.training.state import FRESH, before, load_state, restore_callbacks, resume, save_state


def network(width=6, *, seed=0):
    """A compiled network with dice, statistics and slow variables of its optimizer."""
    keras.utils.set_random_seed(seed)
    inputs = keras.Input((4,))
    x = keras.layers.Dropout(0.5)(keras.layers.BatchNormalization()(keras.layers.Dense(width)(inputs)))
    model = keras.Model(inputs, keras.layers.Dense(2)(x))
    model.compile(keras.optimizers.Adam(0.01), "mse")
    return model


def train(model, steps):
    """Takes some of twelve steps."""
    batches = np.random.default_rng(0).normal(size=(12, 8, 6))
    for batch in batches[steps]:
        model.train_on_batch(batch[:, :4], batch[:, 4:])


def assert_same_weights(one, other):
    for a, b in zip(one.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.fixture
def weights(tmp_path):
    """A file of weights."""
    path = tmp_path / "best.weights.h5"
    save_weights(network(), path)
    return path


@pytest.fixture
def state(tmp_path):
    """A file of the state after five steps, called one epoch."""
    model = network()
    train(model, slice(5))
    save_state(tmp_path / "state.npz", model, [], [{"loss": 1.0}])
    return tmp_path / "state.npz"


# Weights


def test_weights_come_back(weights):
    other = network(seed=1)
    load_weights(other, weights)
    assert_same_weights(other, network())


@pytest.mark.check("D10")
def test_a_save_that_dies_in_the_middle_leaves_the_old_file(weights, monkeypatch):
    before = weights.read_bytes()

    def die(path):
        path.write_bytes(before[: len(before) // 2])
        raise OSError("No space left on device")

    model = network(seed=1)
    monkeypatch.setattr(model, "save_weights", die)
    with pytest.raises(OSError, match="No space left on device"):
        save_weights(model, weights)
    assert weights.read_bytes() == before
    load_weights(network(seed=1), weights)
    assert [path.name for path in weights.parent.iterdir()] == [weights.name]


@pytest.mark.filterwarnings("ignore:Skipping nested container")  # Keras says so before it refuses
def test_weights_that_are_absent_damaged_or_of_another_network_are_refused(weights):
    with pytest.raises(DataError, match="nowhere.weights.h5: no weights for this network"):
        load_weights(network(), weights.with_name("nowhere.weights.h5"))
    with pytest.raises(DataError, match="best.weights.h5: no weights for this network"):
        load_weights(network(width=7), weights)
    whole = weights.read_bytes()
    for size in (0, 10, 500, len(whole) // 2, len(whole) - 1):
        weights.write_bytes(whole[:size])
        with pytest.raises(DataError, match="best.weights.h5: no weights for this network"):
            load_weights(network(), weights)


# The whole state


def test_training_goes_on_as_if_it_had_never_stopped(state):
    never_stopped = network()
    train(never_stopped, slice(12))
    resumed = network(seed=1)
    notes = load_state(state, resumed)
    train(resumed, slice(5, 12))
    assert_same_weights(resumed, never_stopped)
    for a, b in zip(resumed.optimizer.variables, never_stopped.optimizer.variables, strict=True):
        np.testing.assert_array_equal(a, b)
    assert set(notes) == set(FRESH)
    assert (notes["epochs_done"], notes["history"], notes["stop_training"]) == (1, [{"loss": 1.0}], False)


def test_without_the_dice_it_would_not(state):
    never_stopped, resumed = network(), network(seed=1)
    train(never_stopped, slice(12))
    load_state(state, resumed)
    for layer in resumed.layers:
        if isinstance(layer, keras.layers.Dropout):
            layer.seed_generator.state.assign([7, 7])
    train(resumed, slice(5, 12))
    assert any(np.any(a != b) for a, b in zip(resumed.get_weights(), never_stopped.get_weights()))


def test_a_state_knows_that_training_was_stopped(tmp_path):
    model = network()
    train(model, slice(1))
    model.stop_training = True
    save_state(tmp_path / "state.npz", model, [], [{"loss": 1.0}, {"loss": 0.5}])
    notes = load_state(tmp_path / "state.npz", network())
    assert notes["stop_training"] and notes["epochs_done"] == 2


def test_callbacks_get_their_numbers_back_and_keep_their_settings(tmp_path):
    model = network()
    train(model, slice(1))
    stopping = keras.callbacks.EarlyStopping(monitor="loss", patience=3, min_delta=0.1, mode="min")
    plateau = keras.callbacks.ReduceLROnPlateau(monitor="loss", patience=2, cooldown=4)
    stopping.wait, stopping.best, stopping.best_epoch, stopping.min_delta = 2, np.float32(0.25), 7, -0.1
    plateau.wait, plateau.best, plateau.cooldown_counter = 1, float("inf"), 3
    save_state(tmp_path / "state.npz", model, [stopping, plateau], [{"loss": 1.0}])

    again = keras.callbacks.EarlyStopping(monitor="loss", patience=5, min_delta=0.1, mode="min")
    plateau = keras.callbacks.ReduceLROnPlateau(monitor="loss", patience=2, cooldown=4)
    restore_callbacks([plateau, again], load_state(tmp_path / "state.npz", network())["callbacks"])
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


def flips_and_cuts(whole):
    """Every 997th bit of a file flipped, and the file cut short."""
    for bit in bits(whole, every=997):
        yield flipped(whole, bit)
    for size in (0, 10, len(whole) // 2, len(whole) - 1):
        yield whole[:size]
    yield b"no state at all"


def test_a_damaged_state_is_refused_or_harmless(state):
    whole, refused = state.read_bytes(), 0
    expected = network()
    load_state(state, expected)
    for number, data in enumerate(flips_and_cuts(whole)):
        state.write_bytes(data)
        loaded = network(seed=1)
        try:
            load_state(state, loaded)
        except DataError as error:
            refused += 1
            assert "unsafely" not in str(error)
            assert "state.npz: the training state is damaged (" in str(error) and "anew with --restart" in str(error)
        else:  # a bit that says nothing, as a date
            assert_same_weights(loaded, expected)
    assert refused > 0.6 * number


def test_a_damaged_state_falls_back_to_the_one_before_and_says_so(state, capsys):
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
        assert "state.npz: damaged (" in (said := capsys.readouterr().err)
        assert said.endswith("Training goes on from before-state.npz.\n")
    before(state).write_bytes(b"")
    with pytest.raises(DataError, match="state.npz: the training state is damaged .* no whole one before it"):
        resume(state, network())


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_weights_that_are_not_finite_are_not_saved(state, bad):
    model, saved = network(), state.read_bytes()
    load_state(state, model)
    model.layers[-1].kernel.assign(np.full(model.layers[-1].kernel.shape, bad))
    with pytest.raises(FloatingPointError, match="a weight is NaN or infinite"):
        save_state(state, model, [], [{"loss": 1.0}, {"loss": 0.5}])
    assert state.read_bytes() == saved


def test_within_an_epoch_the_sums_of_the_metrics_are_part_of_the_state(tmp_path):
    model = network()
    train(model, slice(3))
    save_state(tmp_path / "state.npz", model, [], [], steps_done=3)
    other = network(seed=1)
    notes = load_state(tmp_path / "state.npz", other)
    assert (notes["epochs_done"], notes["steps_done"]) == (0, 3)
    for ours, theirs in zip(notes["measured"], model.metrics_variables, strict=True):
        np.testing.assert_array_equal(ours, theirs.numpy())


def test_a_state_without_notes_is_refused(tmp_path):
    np.savez(tmp_path / "state.npz", np.zeros(3))
    with pytest.raises(DataError, match="state.npz: the training state is damaged"):
        load_state(tmp_path / "state.npz", network())


def test_the_state_of_another_network_is_refused(state):
    deeper = keras.Sequential([keras.Input((4,)), keras.layers.Dense(6), keras.layers.Dense(2)])
    deeper.compile(keras.optimizers.Adam(), "mse")
    for other in (network(width=7), deeper):
        with pytest.raises(DataError, match="state.npz: the training state of another network. Start this run anew"):
            load_state(state, other)
