"""Weights in 8 bits: rounded per channel, and nothing else is."""

import numpy as np
import pytest
import tensorflow as tf
from waveforms import noise

from audiotag.serving.weight_quantization import quantize_weights

KERNEL, DEPTHWISE = noise(3, 3, 16, 32), noise(3, 3, 32, 4, seed=1)
DENSE, SMALL, LAST = noise(128, 40, seed=2), noise(40, 20, seed=3), noise(20, 60, seed=4) / 100
DENSE[:, 7] = 0


def network(images, kernel=KERNEL, depthwise=DEPTHWISE, dense=DENSE):
    """Images [1, 8, 8, 16] → [1, 60]. All but `SMALL` have 1,024 numbers or more."""
    x = tf.nn.relu(tf.nn.conv2d(images, kernel, 1, "SAME"))  # [1, 8, 8, 32]
    x = tf.nn.depthwise_conv2d(x, depthwise, (1, 1, 1, 1), "SAME")  # [1, 8, 8, 128]
    x = tf.nn.relu(tf.matmul(tf.reduce_mean(x, (1, 2)), dense))  # [1, 40]
    return tf.sigmoid(tf.matmul(tf.nn.relu(tf.matmul(x, SMALL)), LAST, name="logits"))


def run(content, images):
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_content=content, num_threads=1)
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], images)
    interpreter.invoke()
    return interpreter.get_tensor(interpreter.get_output_details()[0]["index"])


def rounded(weights):
    """Weights [..., C] rounded to 256 levels, from the smallest of a channel to its largest, or to 0."""
    others = tuple(range(weights.ndim - 1))
    low, high = np.minimum(weights.min(axis=others), 0), np.maximum(weights.max(axis=others), 0)
    step = np.maximum(high - low, 1e-9) / 255
    zero = np.rint(-low / step)
    return (((np.rint(weights / step) + zero).clip(0, 255) - zero) * step).astype("float32")


def test_only_large_weights_before_the_last_are_rounded_each_channel_by_itself():
    pytest.importorskip("ai_edge_quantizer")
    images = noise(1, 8, 8, 16, seed=5)
    function = tf.function(lambda images: network(images), input_signature=[tf.TensorSpec(images.shape)])
    content = tf.lite.TFLiteConverter.from_concrete_functions([function.get_concrete_function()]).convert()
    small = quantize_weights(content)
    assert len(content) - len(small) > 2.9 * (KERNEL.size + DEPTHWISE.size + DENSE.size) - 2_000
    depthwise = rounded(DEPTHWISE.reshape(3, 3, -1)).reshape(DEPTHWISE.shape)
    expected = network(images, rounded(KERNEL), depthwise, rounded(DENSE))
    np.testing.assert_allclose(run(small, images), expected, atol=1e-4)
    assert np.abs(expected - network(images)).max() > 1e-3
