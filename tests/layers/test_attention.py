import keras
import numpy as np
import pytest
import tensorflow as tf
import torch

from audiotag.layers import SimpleSelfAttention

EXAMPLES = [(SimpleSelfAttention, {}, (None, 24, None, 4))]

CHANNELS = 6


def noise(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype("float32")


def attention(gamma=0.3, channels=CHANNELS):
    """A layer whose gamma is not 0."""
    keras.utils.set_random_seed(1)
    layer = SimpleSelfAttention()
    layer.build((None, None, None, channels))
    layer.gamma.assign(gamma)
    return layer


def arrays(*tensors):
    return [np.asarray(tensor, "float64") for tensor in tensors]


def published(image, w, sigma, gamma):
    """The published grouping x + gamma x (xᵀ (W / sigma) x), clip by clip: [B, H, W, C] float64."""
    outputs = []
    for clip in image.astype("float64"):
        x = clip.reshape(-1, clip.shape[-1]).T  # [C, H * W]
        attention_map = x.T @ (w / sigma @ x)  # [H * W, H * W]
        outputs.append((x + gamma * x @ attention_map).T.reshape(clip.shape))
    return np.array(outputs)


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (7, 5), (16, 12)])
def test_it_agrees_with_the_published_grouping(size):
    layer, image = attention(), noise(3, *size, CHANNELS)
    for training in (False, True):
        output = layer(image, training=training)
        kernel, u, v, gamma = arrays(layer.kernel, layer.u, layer.v, layer.gamma)
        w = kernel.T
        expected = published(image, w, (u @ w @ v.T).item(), gamma)
        np.testing.assert_allclose(output, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())


def test_spectral_normalization_and_gradients_agree_with_pytorch_for_several_steps():
    layer = attention()
    convolution = torch.nn.Conv1d(CHANNELS, CHANNELS, 1, bias=False)
    torch.nn.utils.spectral_norm(convolution)  # as in 2019; `parametrizations.spectral_norm` iterates u before v
    with torch.no_grad():
        convolution.weight_orig.copy_(torch.from_numpy(np.array(layer.kernel).T[:, :, None]))
        convolution.weight_u.copy_(torch.from_numpy(np.array(layer.u)[0]))
        convolution.weight_v.copy_(torch.from_numpy(np.array(layer.v)[0]))
    gamma = torch.nn.Parameter(torch.tensor(0.3))
    for step in range(4):
        training = step < 3
        convolution.train(training)
        image = noise(2, 5, 4, CHANNELS, seed=step)
        x = torch.from_numpy(image).reshape(2, -1, CHANNELS).mT.clone().requires_grad_()  # [B, C, H * W]
        theirs = x + gamma * (x @ (x.mT @ convolution(x)))  # [B, C, H * W]
        their_gradients = torch.autograd.grad((theirs**2).sum(), [x, convolution.weight_orig, gamma])
        with tf.GradientTape() as tape:
            image = tf.constant(image)
            tape.watch(image)
            ours = layer(image, training=training)
            loss = tf.reduce_sum(ours**2)
        gradients = tape.gradient(loss, [image, layer.kernel.value, layer.gamma.value])
        pairs = [(tf.reshape(ours, (2, -1, CHANNELS)), theirs.mT)]
        pairs += [(tf.reshape(gradients[0], (2, -1, CHANNELS)), their_gradients[0].mT)]
        pairs += [(gradients[1], their_gradients[1][:, :, 0].T), (gradients[2], their_gradients[2])]
        pairs += [(layer.u[0], convolution.weight_u), (layer.v[0], convolution.weight_v)]
        for actual, expected in pairs:
            expected = expected.detach().numpy()
            np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())
        layer.kernel.assign_sub(1e-4 * gradients[1])  # the next step starts from changed weights
        with torch.no_grad():
            convolution.weight_orig.sub_(1e-4 * their_gradients[1])


def test_only_training_steps_iterate_and_they_converge_to_the_largest_singular_value():
    layer, image = attention(), noise(1, 2, 2, CHANNELS)
    before = arrays(layer.u, layer.v)
    layer(image)
    np.testing.assert_array_equal(arrays(layer.u, layer.v), before)
    for _ in range(100):
        layer(image, training=True)
    kernel, u, v = arrays(layer.kernel, layer.u, layer.v)
    assert (v @ kernel @ u.T).item() == pytest.approx(np.linalg.svd(kernel)[1][0], rel=1e-5)


def test_it_starts_as_the_identity_with_unit_vectors():
    keras.utils.set_random_seed(1)
    layer = SimpleSelfAttention()
    image = noise(2, 4, 5, 64)
    for training in (False, True):
        np.testing.assert_array_equal(layer(image, training=training), image)
    assert [weight.name for weight in layer.trainable_variables] == ["kernel", "gamma"]
    assert layer.count_params() == 64 * 64 + 1 + 2 * 64
    fresh = SimpleSelfAttention()
    fresh.build((None, None, None, 64))
    assert np.linalg.norm(arrays(fresh.u, fresh.v), axis=-1) == pytest.approx(1)
    assert np.std(fresh.kernel) == pytest.approx(np.sqrt(2 / 64), rel=0.1)


def test_no_tensor_of_its_graph_grows_with_the_square_of_the_number_of_positions():
    graph = tf.function(attention(channels=4), input_signature=[tf.TensorSpec((2, 16, 16, 4))])
    operations = graph.get_concrete_function().graph.get_operations()
    sizes = [output.shape.num_elements() or 0 for operation in operations for output in operation.outputs]
    assert max(sizes) == 2 * 16 * 16 * 4


def test_half_precision_does_not_overflow():
    image = noise(1, 64, 64, 4).astype("float16") * 10
    layer = attention(gamma=1e-3, channels=4)
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_float16")
    try:
        half_precision = attention(gamma=1e-3, channels=4)
        output = half_precision(image)
    finally:
        keras.config.set_dtype_policy(before)
    assert np.square(image.astype("float32")).sum(axis=(1, 2)).max() > np.finfo("float16").max
    np.testing.assert_array_equal(output, layer(image.astype("float32")))
    assert np.isfinite(output).all()


def test_a_feature_map_with_a_different_number_of_channels_is_refused():
    with pytest.raises(ValueError, match="expected axis -1 of input shape to have value 6"):
        attention()(noise(1, 2, 2, CHANNELS + 1))
