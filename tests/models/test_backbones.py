import h5py
import keras
import numpy as np
import pytest
import tensorflow as tf

from audiotag.models import MODELS
from audiotag.models.backbones import backbone

EXAMPLES = {
    "densenet169": ({"weights": None}, (32, None, 3)),
    "resnet50": ({"weights": None}, (32, None, 3)),
    "mobilenet": ({"weights": None}, (32, None, 3)),
    "mobilenet_v2": ({"weights": None}, (32, 40, 3)),
}
NUM_WEIGHTS = {"densenet169": 12_776_080, "resnet50": 23_751_632, "mobilenet": 3_310_864, "mobilenet_v2": 2_360_464}

NAMES = ("densenet169", "resnet50", "mobilenet", "mobilenet_v2", "convnext_tiny")


def perturbed_mobilenet():
    """Keras' MobileNet without its top; every weight has a different value."""
    network = keras.applications.MobileNet(include_top=False, weights=None, input_shape=(32, 32, 3), pooling="avg")
    rng = np.random.default_rng(0)
    network.set_weights([weight + rng.uniform(0.01, 0.02, weight.shape) for weight in network.get_weights()])
    return network


def write_as_downloaded(network, path):
    """Writes weights in the HDF5 layout of the files that Keras downloads: a group per layer."""
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
    network = perturbed_mobilenet()
    path = tmp_path_factory.mktemp("weights") / "mobilenet.weights.h5"
    network.save_weights(path)
    return path, network


def test_a_model_starts_with_the_weights_of_a_file(mobilenet):
    path, network = mobilenet
    model = MODELS["mobilenet"]((32, 32, 3), 5, weights=str(path))
    for ours, theirs in zip(model.get_weights()[:-2], network.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_without_weights_batch_statistics_soon_become_those_of_the_images(mobilenet):
    """Where activations vary by a thousandth, nothing may remain of the initial variance of 1."""
    path, _ = mobilenet
    for weights, momentum in ((None, 0.9), (str(path), 0.99)):
        layers = backbone("MobileNet", (32, 32, 3), weights).layers
        assert {layer.momentum for layer in layers if hasattr(layer, "momentum")} == {momentum}
    scratch = backbone("MobileNet", (32, 32, 3), None)
    images = np.random.default_rng(0).uniform(0, 1, (16, 32, 32, 3)).astype("float32")
    update = tf.function(lambda: scratch(images, training=True))
    for _ in range(100):
        update()
    assert np.std(scratch(images), axis=0).max() > 0.1 * np.std(scratch(images, training=True), axis=0).max()


def test_the_files_that_keras_downloads_can_be_loaded(tmp_path, monkeypatch):
    network = perturbed_mobilenet()
    write_as_downloaded(network, tmp_path / "mobilenet.h5")
    addresses = []

    def download(name, origin, **options):
        addresses.append(origin)
        return str(tmp_path / "mobilenet.h5")

    monkeypatch.setattr("keras.src.applications.mobilenet.file_utils.get_file", download)
    for shape, weights in (((32, None, 3), "imagenet"), ((40, 50, 3), str(tmp_path / "mobilenet.h5"))):
        features = backbone("MobileNet", shape, weights)
        for ours, theirs in zip(features.get_weights(), network.get_weights(), strict=True):
            np.testing.assert_array_equal(ours, theirs)
    assert [address.split("/")[-1] for address in addresses] == ["mobilenet_1_0_224_tf_no_top.h5"]


@pytest.mark.parametrize("channels", [1, 2])
def test_without_weights_images_may_have_any_number_of_channels(channels):
    assert backbone("MobileNet", (32, None, channels), None).input_shape == (None, 32, None, channels)


def test_weights_for_other_channels_are_refused(mobilenet):
    path, _ = mobilenet
    with pytest.raises(ValueError) as error:
        backbone("MobileNet", (32, 32, 1), str(path))
    assert f"{path} does not hold the weights of MobileNet without its top for images of 1 channels" in str(error.value)


def test_weights_of_another_network_are_refused(mobilenet):
    path, _ = mobilenet
    with pytest.raises(ValueError, match="mobilenet.weights.h5 does not hold the weights of MobileNetV2 without"):
        backbone("MobileNetV2", (32, 32, 3), str(path))


def test_a_file_without_weights_is_refused(tmp_path):
    path = tmp_path / "text.weights.h5"
    path.write_text("no weights")
    with pytest.raises(ValueError, match="text.weights.h5 does not hold the weights of MobileNet"):
        backbone("MobileNet", (32, 32, 3), str(path))


def test_a_missing_file_is_refused():
    with pytest.raises(FileNotFoundError, match="None, \"imagenet\" or the path .* Received: weights='nowhere.h5'"):
        backbone("MobileNet", (32, 32, 3), "nowhere.h5")


def test_a_failed_download_of_weights_names_the_alternatives(monkeypatch):
    def offline(*arguments, **options):
        raise RuntimeError("URL fetch failure on https://...: None -- [Errno -2] Name or service not known")

    monkeypatch.setattr("keras.src.applications.mobilenet.file_utils.get_file", offline)
    with pytest.raises(OSError) as error:
        backbone("MobileNet", (32, 32, 3), "imagenet")
    assert "The ImageNet weights of MobileNet could not be downloaded: URL fetch failure" in str(error.value)
    assert "Set weights to the path of a file of weights without the top" in str(error.value)


@pytest.mark.parametrize("name", NAMES)
def test_imagenet_weights_need_three_channels(name):
    with pytest.raises(ValueError) as error:
        MODELS[name]((64, 64, 1), 5, weights="imagenet")
    assert "need images of 3 channels. Received: input_shape=(64, 64, 1)" in str(error.value)
    assert 'Add {"name": "repeat_channels"} to image_preprocess, or use weights=None.' in str(error.value)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("shape", [(31, 64, 3), (64, 31, 3), (16, None, 3)])
def test_an_image_that_is_too_small_is_refused(name, shape):
    with pytest.raises(ValueError) as error:
        MODELS[name](shape, 5)
    assert f"at least 32 x 32. Received: input_shape={shape}" in str(error.value)
    assert '{"name": "resize"' in str(error.value)


@pytest.mark.parametrize("shape", [(32, None, 3), (None, 32, 3)])
def test_an_image_of_unknown_size_is_refused_if_the_network_needs_the_size(shape):
    with pytest.raises(ValueError) as error:
        MODELS["mobilenet_v2"](shape, 5)
    assert f"MobileNetV2 needs images of a known size. Received: input_shape={shape}" in str(error.value)
    assert '{"name": "resize"' in str(error.value)
