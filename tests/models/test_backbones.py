import h5py
import keras
import numpy as np
import pytest

from audiotag.models import MODELS
from audiotag.models.backbones import trunk

NAMES = ("densenet169", "resnet50", "mobilenet", "mobilenet_v2", "convnext_tiny")


def moved():
    """MobileNet as Keras has it, without its top, and a value of its own in every weight."""
    network = keras.applications.MobileNet(include_top=False, weights=None, input_shape=(32, 32, 3), pooling="avg")
    rng = np.random.default_rng(0)
    network.set_weights([weight + rng.uniform(0.01, 0.02, weight.shape) for weight in network.get_weights()])
    return network


def as_downloaded(network, path):
    """Writes weights as the files that Keras downloads hold them: layer after layer, in HDF5."""
    with h5py.File(path, "w") as file:
        layers = [layer for layer in network.layers if layer.weights]
        file.attrs["layer_names"] = [layer.name for layer in layers]
        for layer in layers:
            group = file.create_group(layer.name)
            weights = [*layer.trainable_weights, *layer.non_trainable_weights]
            group.attrs["weight_names"] = [f"{index}:0" for index in range(len(weights))]
            for index, weight in enumerate(weights):
                group.create_dataset(f"{index}:0", data=np.array(weight))


@pytest.fixture(scope="module")
def mobilenet(tmp_path_factory):
    """A file of weights of MobileNet, and its network."""
    network = moved()
    path = tmp_path_factory.mktemp("weights") / "mobilenet.weights.h5"
    network.save_weights(path)
    return path, network


def test_a_file_of_weights_is_where_it_begins(mobilenet):
    path, network = mobilenet
    model = MODELS["mobilenet"]((32, 32, 3), 5, weights=str(path))
    for ours, theirs in zip(model.get_weights()[:-2], network.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_from_scratch_statistics_are_soon_those_of_the_pictures(mobilenet):
    """Of the variance of 1 that they began with, nothing may be left where activations vary by a thousandth."""
    path, _ = mobilenet
    for weights, momentum in ((None, 0.9), (str(path), 0.99)):
        layers = trunk("MobileNet", (32, 32, 3), weights).layers
        assert {layer.momentum for layer in layers if hasattr(layer, "momentum")} == {momentum}
    scratch = trunk("MobileNet", (32, 32, 3), None)
    pictures = np.random.default_rng(0).uniform(0, 1, (16, 32, 32, 3)).astype("float32")
    for _ in range(100):
        scratch(pictures, training=True)
    assert np.std(scratch(pictures), axis=0).max() > 0.1 * np.std(scratch(pictures, training=True), axis=0).max()


def test_the_files_that_keras_downloads_are_understood(tmp_path, monkeypatch):
    network = moved()
    as_downloaded(network, tmp_path / "mobilenet.h5")
    asked = []

    def download(name, origin, **options):
        asked.append(origin)
        return str(tmp_path / "mobilenet.h5")

    monkeypatch.setattr("keras.src.applications.mobilenet.file_utils.get_file", download)
    for shape, weights in (((32, None, 3), "imagenet"), ((40, 50, 3), str(tmp_path / "mobilenet.h5"))):
        features = trunk("MobileNet", shape, weights)
        for ours, theirs in zip(features.get_weights(), network.get_weights(), strict=True):
            np.testing.assert_array_equal(ours, theirs)
    assert [address.split("/")[-1] for address in asked] == ["mobilenet_1_0_224_tf_no_top.h5"]


@pytest.mark.parametrize("channels", [1, 2])
def test_pictures_of_other_channels_are_heard_from_scratch(channels):
    assert trunk("MobileNet", (32, None, channels), None).input_shape == (None, 32, None, channels)


def test_weights_for_other_channels_are_refused(mobilenet):
    path, _ = mobilenet
    with pytest.raises(ValueError) as error:
        trunk("MobileNet", (32, 32, 1), str(path))
    assert f"{path} does not hold the weights of MobileNet without its top for pictures of 1 channels" in str(
        error.value
    )


def test_weights_of_another_network_are_refused(mobilenet):
    path, _ = mobilenet
    with pytest.raises(ValueError, match="mobilenet.weights.h5 does not hold the weights of MobileNetV2 without"):
        trunk("MobileNetV2", (32, 32, 3), str(path))


def test_a_file_that_holds_no_weights_is_refused(tmp_path):
    path = tmp_path / "text.weights.h5"
    path.write_text("no weights")
    with pytest.raises(ValueError, match="text.weights.h5 does not hold the weights of MobileNet"):
        trunk("MobileNet", (32, 32, 3), str(path))


def test_a_file_that_is_not_there_is_refused():
    with pytest.raises(FileNotFoundError, match="None, \"imagenet\" or the path .* Received: weights='nowhere.h5'"):
        trunk("MobileNet", (32, 32, 3), "nowhere.h5")


def test_weights_that_cannot_be_downloaded_say_the_way_out(monkeypatch):
    def offline(*arguments, **options):
        raise RuntimeError("URL fetch failure on https://...: None -- [Errno -2] Name or service not known")

    monkeypatch.setattr("keras.src.applications.mobilenet.file_utils.get_file", offline)
    with pytest.raises(OSError) as error:
        trunk("MobileNet", (32, 32, 3), "imagenet")
    assert "The ImageNet weights of MobileNet could not be downloaded: URL fetch failure" in str(error.value)
    assert "Give weights=... the path of a file of weights without the top" in str(error.value)


@pytest.mark.parametrize("name", NAMES)
def test_imagenet_needs_three_channels_and_says_how(name):
    with pytest.raises(ValueError) as error:
        MODELS[name]((64, 64, 1), 5, weights="imagenet")
    assert "need pictures of 3 channels. Received: input_shape=(64, 64, 1)" in str(error.value)
    assert '{"name": "repeat_channels"}' in str(error.value)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("shape", [(31, 64, 3), (64, 31, 3), (16, None, 3)])
def test_a_picture_too_small_is_refused_with_the_way_out(name, shape):
    with pytest.raises(ValueError) as error:
        MODELS[name](shape, 5)
    assert f"at least 32x32. Received: input_shape={shape}" in str(error.value)
    assert '{"name": "resize"' in str(error.value)


@pytest.mark.parametrize("shape", [(32, None, 3), (None, 32, 3)])
def test_a_picture_of_unknown_size_is_refused_where_it_must_be_known(shape):
    with pytest.raises(ValueError) as error:
        MODELS["mobilenet_v2"](shape, 5)
    assert f"MobileNetV2 must know the size of its pictures. Received: input_shape={shape}" in str(error.value)
    assert '{"name": "resize"' in str(error.value)
