import keras
import numpy as np
import pytest

from audiotag.models.yamnet import yamnet

EXAMPLES = {"yamnet": ({"weights": None}, (64, None, 1))}
NUM_WEIGHTS = {"yamnet": 3_195_456 + 80 * 1025}  # 3,751,369 of the published network with its batch normalization
LENGTHS = {"yamnet": (144, 96, 97, 191, 200)}


def test_an_embedding_alone_and_in_a_batch_is_the_same():
    network = yamnet((64, None, 1), 3)
    embed = keras.Model(network.input, network.get_layer("embedding").output)
    images = np.random.default_rng(0).normal(-3, 2, (5, 64, 240, 1)).astype("float32")
    together = embed(images)
    for index in range(5):
        np.testing.assert_allclose(embed(images[index : index + 1])[0], together[index], rtol=0, atol=1e-6)


def test_the_embedding_of_a_clip_is_the_mean_over_its_patches():
    network = yamnet((64, None, 1), 3)
    outputs = [network.get_layer(name).output for name in ("patch_embeddings", "embedding")]
    image = np.random.default_rng(0).normal(-3, 2, (1, 64, 240, 1)).astype("float32")
    patches, embedding = map(np.array, keras.Model(network.input, outputs)(image))
    assert patches.shape == (1, 4, 1024)
    np.testing.assert_allclose(embedding, patches.mean(axis=1), atol=1e-6)
    for index in range(4):
        alone = network(image[:, :, 48 * index : 48 * index + 96])
        np.testing.assert_allclose(alone, network.get_layer("logits")(patches[:, index]), atol=1e-5)


@pytest.mark.parametrize("shape", [(128, None, 1), (64, None, 3), (None, None, 1)])
def test_images_of_another_front_end_are_refused(shape):
    with pytest.raises(ValueError) as error:
        yamnet(shape, 5)
    assert f"64 bands and one channel. Received: input_shape={shape}" in str(error.value)
    assert 'Use {"name": "yamnet_mel"} as the front end' in str(error.value)


def test_an_image_shorter_than_a_patch_is_refused():
    with pytest.raises(ValueError, match=r"at least 96 frames. Received: input_shape=\(64, 95, 1\). Leave out"):
        yamnet((64, 95, 1), 5)


def test_a_file_of_weights_is_not_ignored():
    with pytest.raises(ValueError, match=r"weights='yamnet.h5'. Build it with weights=None, then call .*load_pretra"):
        yamnet((64, None, 1), 5, weights="yamnet.h5")
