"""Letting every place of a picture answer to every other."""

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="audiotag")
class SimpleSelfAttention(keras.layers.Layer):
    """Lets every place of a picture answer to every other.

    A convolution sees a neighbourhood, but a dog barks again a second later and
    a flute sounds octaves above its lowest partial. For one clip, with its N
    places as the columns of x [C, N]:

        out = x + gamma (x xᵀ) (W x)

    W [C, C] is a 1x1 convolution under spectral normalisation: it is divided by
    its largest singular value, which one step of power iteration a training step
    follows; outside training the vectors of the last step serve. gamma starts at
    0, so the layer begins as the identity.

    The published grouping x (xᵀ W x) is the same number and holds N x N numbers a
    clip, 67 MB for a map of 64x64 places; here the largest is C x C. There is no
    softmax and nothing divides by N, so x xᵀ soon leaves the range of float16:
    whatever the dtype policy, the layer computes in float32.

    Reference: S. Doria, "SimpleSelfAttention", 2019, https://github.com/sdoria/SimpleSelfAttention, as in
    M. Pinto's tagger of 2019; Miyato et al., "Spectral Normalization for Generative Adversarial Networks",
    2018, https://arxiv.org/abs/1802.05957.

    Input shape: [B, H, W, C], any float type; H and W may differ from call to call.
    Output shape: that of the input, float32.

    Example:
        >>> picture = keras.random.normal((2, 8, 12, 4))
        >>> attention = SimpleSelfAttention()
        >>> bool(ops.all(attention(picture) == picture))
        True
        >>> _ = attention.gamma.assign(0.1)
        >>> bool(ops.all(attention(picture, training=True) == picture))
        False
    """

    def __init__(self, **kwargs):
        super().__init__(**kwargs | {"dtype": "float32"})
        self.input_spec = keras.layers.InputSpec(ndim=4)

    def build(self, input_shape):
        """Makes W, gamma and the two singular vectors."""
        channels = input_shape[-1]
        self.input_spec = keras.layers.InputSpec(ndim=4, axes={-1: channels})
        kaiming = keras.initializers.VarianceScaling(2.0, "fan_in", "untruncated_normal")
        self.kernel = self.add_weight(shape=(channels, channels), initializer=kaiming, name="kernel")  # W transposed
        self.gamma = self.add_weight(shape=(), initializer="zeros", name="gamma")
        for name in ("u", "v"):  # of length 1, in any direction
            vector = self.add_weight(shape=(1, channels), initializer="orthogonal", trainable=False, name=name)
            setattr(self, name, vector)

    def call(self, inputs, training=False):
        kernel = self.kernel / self._largest_singular_value(training)  # [C, C]
        gram = ops.einsum("bhwc,bhwd->bcd", inputs, inputs)  # [B, C, C]
        attended = ops.einsum("bhwc,bcd->bhwd", inputs, ops.matmul(kernel, gram))  # [B, H, W, C]
        return inputs + self.gamma * attended

    def compute_output_shape(self, input_shape):
        """The shape of the input."""
        return input_shape

    def _largest_singular_value(self, training):
        if training:
            v = ops.normalize(ops.matmul(self.u, ops.transpose(self.kernel)), epsilon=1e-12)  # [1, C]
            self.v.assign(ops.stop_gradient(v))
            self.u.assign(ops.stop_gradient(ops.normalize(ops.matmul(v, self.kernel), epsilon=1e-12)))
        return ops.sum(ops.matmul(self.v, self.kernel) * self.u)
