import keras
import numpy as np
import pytest
import tensorflow as tf
import torch

from audiotag.layers import SimpleSelfAttention

CHANNELS = 6


def noise(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype("float32")


def attention(gamma=0.3, channels=CHANNELS):
    """A layer that is no longer silent."""
    keras.utils.set_random_seed(1)
    layer = SimpleSelfAttention()
    layer.build((None, None, None, channels))
    layer.gamma.assign(gamma)
    return layer


def numbers(*tensors):
    return [np.asarray(tensor, "float64") for tensor in tensors]


def written_out(picture, w, sigma, gamma):
    """x + gamma x (xᵀ (W / sigma) x) for every clip, N x N numbers and all: [B, H, W, C] float64."""
    answer = []
    for clip in picture.astype("float64"):
        x = clip.reshape(-1, clip.shape[-1]).T  # [C, N]
        likeness = x.T @ (w / sigma @ x)  # [N, N]
        answer.append((x + gamma * x @ likeness).T.reshape(clip.shape))
    return np.array(answer)


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (7, 5), (16, 12)])
def test_it_is_the_product_of_all_places_with_all_places(size):
    layer, picture = attention(), noise(3, *size, CHANNELS)
    for training in (False, True):
        answer = layer(picture, training=training)
        kernel, u, v, gamma = numbers(layer.kernel, layer.u, layer.v, layer.gamma)
        w = kernel.T
        expected = written_out(picture, w, (u @ w @ v.T).item(), gamma)
        np.testing.assert_allclose(answer, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())


def test_it_is_pytorchs_spectral_normalisation_step_after_step():
    layer = attention()
    convolution = torch.nn.Conv1d(CHANNELS, CHANNELS, 1, bias=False)
    torch.nn.utils.spectral_norm(convolution)  # that of 2019; `parametrizations.spectral_norm` iterates u before v
    with torch.no_grad():
        convolution.weight_orig.copy_(torch.from_numpy(np.array(layer.kernel).T[:, :, None]))
        convolution.weight_u.copy_(torch.from_numpy(np.array(layer.u)[0]))
        convolution.weight_v.copy_(torch.from_numpy(np.array(layer.v)[0]))
    gamma = torch.nn.Parameter(torch.tensor(0.3))
    for step in range(4):
        training = step < 3
        convolution.train(training)
        picture = noise(2, 5, 4, CHANNELS, seed=step)
        x = torch.from_numpy(picture).reshape(2, -1, CHANNELS).mT.clone().requires_grad_()  # [B, C, N]
        theirs = x + gamma * (x @ (x.mT @ convolution(x)))  # [B, C, N]
        their_gradients = torch.autograd.grad((theirs**2).sum(), [x, convolution.weight_orig, gamma])
        with tf.GradientTape() as tape:
            picture = tf.constant(picture)
            tape.watch(picture)
            ours = layer(picture, training=training)
            loss = tf.reduce_sum(ours**2)
        gradients = tape.gradient(loss, [picture, layer.kernel.value, layer.gamma.value])
        pairs = [(tf.reshape(ours, (2, -1, CHANNELS)), theirs.mT)]
        pairs += [(tf.reshape(gradients[0], (2, -1, CHANNELS)), their_gradients[0].mT)]
        pairs += [(gradients[1], their_gradients[1][:, :, 0].T), (gradients[2], their_gradients[2])]
        pairs += [(layer.u[0], convolution.weight_u), (layer.v[0], convolution.weight_v)]
        for mine, other in pairs:
            other = other.detach().numpy()
            np.testing.assert_allclose(mine, other, rtol=1e-4, atol=1e-5 * np.abs(other).max())
        layer.kernel.assign_sub(1e-4 * gradients[1])  # the weights move on, and the vectors follow
        with torch.no_grad():
            convolution.weight_orig.sub_(1e-4 * their_gradients[1])


def test_training_finds_the_largest_singular_value_and_nothing_else_looks_for_it():
    layer, picture = attention(), noise(1, 2, 2, CHANNELS)
    before = numbers(layer.u, layer.v)
    layer(picture)
    np.testing.assert_array_equal(numbers(layer.u, layer.v), before)
    for _ in range(100):
        layer(picture, training=True)
    kernel, u, v = numbers(layer.kernel, layer.u, layer.v)
    assert (v @ kernel @ u.T).item() == pytest.approx(np.linalg.svd(kernel)[1][0], rel=1e-5)


def test_it_begins_as_the_identity_with_vectors_of_length_one():
    keras.utils.set_random_seed(1)
    layer = SimpleSelfAttention()
    picture = noise(2, 4, 5, 64)
    for training in (False, True):
        np.testing.assert_array_equal(layer(picture, training=training), picture)
    assert [weight.name for weight in layer.trainable_variables] == ["kernel", "gamma"]
    assert layer.count_params() == 64 * 64 + 1 + 2 * 64
    fresh = SimpleSelfAttention()
    fresh.build((None, None, None, 64))
    assert np.linalg.norm(numbers(fresh.u, fresh.v), axis=-1) == pytest.approx(1)
    assert np.std(fresh.kernel) == pytest.approx(np.sqrt(2 / 64), rel=0.1)


def test_nothing_in_its_graph_is_as_large_as_all_places_by_all_places():
    graph = tf.function(attention(channels=4), input_signature=[tf.TensorSpec((2, 16, 16, 4))])
    operations = graph.get_concrete_function().graph.get_operations()
    sizes = [output.shape.num_elements() or 0 for operation in operations for output in operation.outputs]
    assert max(sizes) == 2 * 16 * 16 * 4


def test_half_precision_does_not_overflow():
    picture = noise(1, 64, 64, 4).astype("float16") * 10
    layer = attention(gamma=1e-3, channels=4)
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_float16")
    try:
        halved = attention(gamma=1e-3, channels=4)
        answer = halved(picture)
    finally:
        keras.config.set_dtype_policy(before)
    assert np.square(picture.astype("float32")).sum(axis=(1, 2)).max() > np.finfo("float16").max
    np.testing.assert_array_equal(answer, layer(picture.astype("float32")))
    assert np.isfinite(answer).all()


def test_a_map_of_other_channels_is_refused():
    with pytest.raises(ValueError, match="expected axis -1 of input shape to have value 6"):
        attention()(noise(1, 2, 2, CHANNELS + 1))
