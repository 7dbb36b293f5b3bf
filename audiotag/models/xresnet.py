"""Residual networks as fastai builds them, with self-attention if asked for."""

import keras
from keras import layers

from audiotag.layers.attention import SimpleSelfAttention

# Kaiming's normal distribution, not cut off. A configuration and not an object: an object draws the same numbers for
# every layer of one shape.
KAIMING = {
    "class_name": "VarianceScaling",
    "config": {"scale": 2.0, "mode": "fan_in", "distribution": "untruncated_normal"},
}


def xresnet18(input_shape, num_classes, *, attention: bool = False):
    """An xresnet of 18 layers, 11 million parameters.

    The residual network to train from scratch. Other than in the ResNet of 2016,
    three 3x3 convolutions look at the picture first instead of one of 7x7; a
    shortcut that halves takes means before its 1x1 convolution instead of
    dropping three places of four; and every branch begins silent, its last scale
    at 0, so that the network starts shallow.

    With attention, the 18 and the 34 layers were the backbone of M. Pinto's
    tagger, 6th of FSDKaggle2019.

    Reference: He et al., "Bag of Tricks for Image Classification", 2019, https://arxiv.org/abs/1812.01187;
    fastai 1.0's xresnet.

    Args:
        input_shape: (M, T, C) of a picture of any size; T and M may be None.
        num_classes: How many logits.
        attention: Whether the branch of the first stage's last block ends in `SimpleSelfAttention`. The
            first convolutions have 32, 64 and 64 filters then, else 32, 32 and 64.

    Returns:
        A `keras.Model`: pictures [B, M, T, C] → logits [B, num_classes], float32.

    Example:
        >>> model = xresnet18((128, None, 3), 320, attention=True)
        >>> tuple(model(keras.ops.zeros((1, 128, 100, 3))).shape)
        (1, 320)
    """
    return _xresnet(input_shape, num_classes, blocks=(2, 2, 2, 2), attention=attention, name="xresnet18")


def xresnet34(input_shape, num_classes, *, attention: bool = False):
    """An xresnet of 34 layers, 21 million parameters: as `xresnet18`, with more blocks.

    Args:
        input_shape: (M, T, C) of a picture of any size; T and M may be None.
        num_classes: How many logits.
        attention: As in `xresnet18`.

    Returns:
        A `keras.Model`: pictures [B, M, T, C] → logits [B, num_classes], float32.

    Example:
        >>> xresnet34((128, None, 1), 80).output_shape
        (None, 80)
    """
    return _xresnet(input_shape, num_classes, blocks=(3, 4, 6, 3), attention=attention, name="xresnet34")


def xresnet50(input_shape, num_classes, *, attention: bool = False):
    """An xresnet of 50 layers, 24 million parameters: as `xresnet34`, with blocks of three convolutions.

    A block narrows to a quarter of its channels before its 3x3 convolution and
    widens after it.

    Args:
        input_shape: (M, T, C) of a picture of any size; T and M may be None.
        num_classes: How many logits.
        attention: As in `xresnet18`.

    Returns:
        A `keras.Model`: pictures [B, M, T, C] → logits [B, num_classes], float32.

    Example:
        >>> xresnet50((128, None, 1), 80).output_shape
        (None, 80)
    """
    return _xresnet(
        input_shape, num_classes, blocks=(3, 4, 6, 3), bottleneck=True, attention=attention, name="xresnet50"
    )


def _xresnet(input_shape, num_classes, *, blocks, bottleneck=False, attention, name):
    """`blocks` is how many there are in each stage."""
    picture = keras.Input(input_shape)
    x = picture
    for number, (filters, stride) in enumerate(((32, 2), (64 if attention else 32, 1), (64, 1)), start=1):
        x = layers.ReLU()(_convolution(x, filters, 3, stride, f"stem_{number}"))  # [B, M / 2, T / 2, filters]
    x = layers.MaxPooling2D(3, 2)(layers.ZeroPadding2D()(x))  # [B, M / 4, T / 4, 64]; zeros hide nothing after ReLU
    for stage, (count, width) in enumerate(zip(blocks, (64, 128, 256, 512)), start=1):
        for block in range(1, count + 1):
            x = _block(
                x,
                width,
                stride=2 if stage > 1 and block == 1 else 1,
                bottleneck=bottleneck,
                attends=attention and stage == 1 and block == count,
                name=f"stage{stage}_block{block}",
            )
    x = layers.GlobalAveragePooling2D()(x)  # [B, channels]
    logits = layers.Dense(num_classes, kernel_initializer=KAIMING, dtype="float32", name="logits")(x)  # [B, K]
    return keras.Model(picture, logits, name=name)


def _block(x, width, *, stride, bottleneck, attends, name):
    """A branch of convolutions, and a way around it."""
    steps = [(width, 3, stride), (width, 3, 1)]  # filters, kernel, stride
    if bottleneck:
        steps = [(width, 1, 1), (width, 3, stride), (4 * width, 1, 1)]
    *first, (channels, kernel, _) = steps
    branch = x
    for number, step in enumerate(first, start=1):
        branch = layers.ReLU()(_convolution(branch, *step, f"{name}_{number}"))
    branch = _convolution(branch, channels, kernel, 1, f"{name}_{len(steps)}", scale="zeros")
    if attends:
        branch = SimpleSelfAttention(name=f"{name}_attention")(branch)
    if stride == 2:
        x = layers.AveragePooling2D(2, padding="same")(x)  # a lone last row or column is its own mean
    if x.shape[-1] != channels:
        x = _convolution(x, channels, 1, 1, f"{name}_shortcut")
    return layers.ReLU(name=name)(layers.Add()([branch, x]))  # [B, M / stride, T / stride, channels]


def _convolution(x, filters, kernel, stride, name, scale="ones"):
    """A convolution, then batch normalisation that begins with this scale."""
    if stride == 2:  # as many zeros before as behind, where padding="same" would put more behind
        x = layers.ZeroPadding2D(kernel // 2)(x)
    x = layers.Conv2D(
        filters,
        kernel,
        stride,
        padding="same" if stride == 1 else "valid",
        use_bias=False,
        kernel_initializer=KAIMING,
        name=f"{name}_conv",
    )(x)
    return layers.BatchNormalization(momentum=0.9, epsilon=1e-5, gamma_initializer=scale, name=f"{name}_norm")(x)
