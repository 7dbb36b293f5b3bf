"""Self-attention over all positions of a feature map."""

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="audiotag")
class SimpleSelfAttention(keras.layers.Layer):
    """Adds self-attention over all positions of a feature map.

    A convolution covers a neighborhood, but a bark repeats a second later and the
    partials of a flute lie octaves apart. For one clip, with the H * W positions as
    the columns of x [C, H * W]:

        out = x + gamma (x xᵀ) (W x)

    W [C, C] is a 1x1 convolution under spectral normalization: it is divided by
    its largest singular value, estimated by one power iteration per training step;
    inference uses the vectors of the last step. gamma starts at 0, so the layer
    starts as the identity.

    The published grouping x (xᵀ W x) has the same value and (H * W)² elements per
    clip, 67 MB for a map of 64 x 64; here the largest product is C x C. There is no
    softmax and no division by H * W, so x xᵀ soon leaves the range of float16:
    whatever the dtype policy, the layer computes in float32.

    Reference: S. Doria, "SimpleSelfAttention", 2019, https://github.com/sdoria/SimpleSelfAttention, as in
    M. Pinto's tagger of 2019; Miyato et al., "Spectral Normalization for Generative Adversarial Networks",
    2018, https://arxiv.org/abs/1802.05957.

    Input shape: [B, H, W, C], any float type; H and W may differ from call to call.
    Output shape: that of the input, float32.

    Example:
        >>> features = keras.random.normal((2, 8, 12, 4))
        >>> attention = SimpleSelfAttention()
        >>> bool(ops.all(attention(features) == features))
        True
        >>> _ = attention.gamma.assign(0.1)
        >>> bool(ops.all(attention(features, training=True) == features))
        False
    """

    def __init__(self, **kwargs):
        super().__init__(**kwargs | {"dtype": "float32"})
        self.input_spec = keras.layers.InputSpec(ndim=4)

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Creates W, gamma and the two singular vectors."""
        channels = input_shape[-1]
        self.input_spec = keras.layers.InputSpec(ndim=4, axes={-1: channels})
        kaiming = keras.initializers.VarianceScaling(2.0, "fan_in", "untruncated_normal")
        self.kernel = self.add_weight(shape=(channels, channels), initializer=kaiming, name="kernel")  # W transposed
        self.gamma = self.add_weight(shape=(), initializer="zeros", name="gamma")
        for name in ("u", "v"):  # unit vectors of random direction
            vector = self.add_weight(shape=(1, channels), initializer="orthogonal", trainable=False, name=name)
            setattr(self, name, vector)

    def call(self, inputs, training=False):
        kernel = self.kernel / self._largest_singular_value(training)  # [C, C]
        gram = ops.einsum("bhwc,bhwd->bcd", inputs, inputs)  # [B, C, C]
        attended = ops.einsum("bhwc,bcd->bhwd", inputs, ops.matmul(kernel, gram))  # [B, H, W, C]
        return inputs + self.gamma * attended

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """The shape of the input."""
        return input_shape

    def _largest_singular_value(self, training):
        if training:
            v = ops.normalize(ops.matmul(self.u, ops.transpose(self.kernel)), epsilon=1e-12)  # [1, C]
            self.v.assign(ops.stop_gradient(v))
            self.u.assign(ops.stop_gradient(ops.normalize(ops.matmul(v, self.kernel), epsilon=1e-12)))
        return ops.sum(ops.matmul(self.v, self.kernel) * self.u)
