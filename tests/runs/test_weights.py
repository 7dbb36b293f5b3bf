import h5py
import keras
import numpy as np
import pytest

from audiotag import files
from audiotag.errors import DataError
from audiotag.runs.weights import check_weights, load_weights, save_weights


def network(width=6, *, seed=0):
    """A compiled network with weights, moving statistics and a random generator."""
    keras.utils.set_random_seed(seed)
    inputs = keras.Input((4,))
    x = keras.layers.Dropout(0.5)(keras.layers.BatchNormalization()(keras.layers.Dense(width)(inputs)))
    model = keras.Model(inputs, keras.layers.Dense(2)(x))
    model.compile(keras.optimizers.Adam(0.01), "mse")
    return model


def assert_same_weights(one, other):
    for a, b in zip(one.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.fixture
def weights(tmp_path):
    """A file of weights."""
    path = tmp_path / "best.weights.h5"
    assert save_weights(network(), path) == files.sha256(path)
    return path


def test_weights_are_loaded_as_they_were_saved(weights):
    other = network(seed=1)
    load_weights(other, weights)
    assert_same_weights(other, network())


def test_the_weights_that_were_there_may_be_kept(weights):
    kept = weights.with_name("previous-best.weights.h5")
    before = weights.read_bytes()
    save_weights(network(seed=1), weights, keep=kept)
    assert kept.read_bytes() == before != weights.read_bytes()


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


@pytest.mark.filterwarnings("ignore:Skipping nested container")  # Keras warns before it refuses
def test_weights_that_are_absent_damaged_or_of_another_network_are_refused(weights):
    with pytest.raises(DataError, match="nowhere.weights.h5: no weights for this network"):
        load_weights(network(), weights.with_name("nowhere.weights.h5"))
    with pytest.raises(DataError, match="best.weights.h5: no weights for this network"):
        load_weights(network(width=7), weights)
    complete = weights.read_bytes()
    for size in (0, 10, 500, len(complete) // 2, len(complete) - 1):
        weights.write_bytes(complete[:size])
        with pytest.raises(DataError, match="best.weights.h5: no weights for this network"):
            load_weights(network(), weights)


@pytest.mark.parametrize(
    ("add", "message"),
    [
        (lambda file: file.__setitem__("more", h5py.SoftLink("/layers")), "'more' is a link"),
        (lambda file: file.__setitem__("more", h5py.ExternalLink("other.h5", "/")), "'more' is a link"),
        (lambda file: file.__setitem__("more", file["layers"]), "is in several places, or there are too many arrays"),
        (lambda file: file.__setitem__("more", "text"), "'more' does not consist of numbers"),
        (
            lambda file: file.create_dataset("more", data=np.zeros(9), compression="gzip"),
            "'more' is compressed, or stored in another file",
        ),
        (
            lambda file: file.create_dataset("more", shape=9, dtype="f8", external=[("other.bin", 0, 72)]),
            "'more' is compressed, or stored in another file",
        ),
        (lambda file: file.create_dataset("more", shape=10**9, dtype="f8"), r"its header promises 80\d+ bytes of numb"),
    ],
    ids=["link", "external link", "twice", "text", "compressed", "external", "too large"],
)
def test_a_file_with_more_than_plain_numbers_is_refused(weights, add, message):
    with h5py.File(weights, "a") as file:
        add(file)
    with pytest.raises(DataError, match=rf"no weights for this network: .*{message}.* hold plain numbers only\."):
        check_weights(weights)
