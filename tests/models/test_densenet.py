import keras
import numpy as np
import pytest

from audiotag.models.densenet import densenet169


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A file of weights of the network without its top."""
    trunk = keras.applications.DenseNet169(include_top=False, weights=None, input_shape=(32, 32, 3), pooling="avg")
    path = tmp_path_factory.mktemp("weights") / "densenet169.weights.h5"
    trunk.save_weights(path)
    return path, trunk


def test_the_weights_are_as_many_as_published():
    model = densenet169((64, 64, 3), 80)
    assert model.count_params() == 12_776_080
    assert sum(np.prod(weight.shape) for weight in model.trainable_variables) == 12_617_680


def test_a_file_of_weights_is_where_it_begins(weights):
    path, trunk = weights
    model = densenet169((32, 32, 3), 5, weights=str(path))
    for ours, theirs in zip(model.get_weights()[:-2], trunk.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_weights_for_other_channels_are_refused(weights):
    path, _ = weights
    with pytest.raises(ValueError) as error:
        densenet169((32, 32, 1), 5, weights=str(path))
    assert f"{path} does not hold the weights of DenseNet169 without its top for pictures of 1 channels" in str(
        error.value
    )


def test_a_file_that_holds_no_weights_is_refused(tmp_path):
    path = tmp_path / "text.weights.h5"
    path.write_text("no weights")
    with pytest.raises(ValueError, match="text.weights.h5 does not hold the weights of DenseNet169"):
        densenet169((32, 32, 3), 5, weights=str(path))


def test_a_file_that_is_not_there_is_refused():
    with pytest.raises(FileNotFoundError, match="None, \"imagenet\" or the path .* Received: weights='nowhere.h5'"):
        densenet169((32, 32, 3), 5, weights="nowhere.h5")


def test_weights_that_cannot_be_downloaded_say_the_way_out(monkeypatch):
    def offline(**options):
        raise RuntimeError("URL fetch failure on https://...: None -- [Errno -2] Name or service not known")

    monkeypatch.setattr(keras.applications, "DenseNet169", offline)
    with pytest.raises(OSError) as error:
        densenet169((32, 32, 3), 5, weights="imagenet")
    assert "could not be downloaded: URL fetch failure" in str(error.value)
    assert "Give weights=... the path of a file of weights without the top" in str(error.value)


def test_imagenet_needs_three_channels_and_says_how():
    with pytest.raises(ValueError) as error:
        densenet169((64, 64, 1), 5, weights="imagenet")
    assert "need pictures of 3 channels. Received: input_shape=(64, 64, 1)" in str(error.value)
    assert '{"name": "repeat_channels"}' in str(error.value)


@pytest.mark.parametrize("shape", [(31, 64, 3), (64, 31, 3), (16, None, 3)])
def test_a_picture_too_small_is_refused_with_the_way_out(shape):
    with pytest.raises(ValueError) as error:
        densenet169(shape, 5)
    assert f"at least 32x32. Received: input_shape={shape}" in str(error.value)
    assert '{"name": "resize"' in str(error.value)
