"""Residual networks as in fastai, optionally with self-attention."""

import keras
from keras import layers

from audiotag.layers.attention import SimpleSelfAttention

# Kaiming's normal distribution, not truncated. A config, not an object: an object draws the same numbers for every
# layer of one shape.
KAIMING = {
    "class_name": "VarianceScaling",
    "config": {"scale": 2.0, "mode": "fan_in", "distribution": "untruncated_normal"},
}


def xresnet18(input_shape: tuple[int | None, ...], num_classes: int, *, attention: bool = False) -> keras.Model:
    """An xresnet of 18 layers, 11 million parameters.

    The residual network to train from scratch. It differs from the ResNet of 2016:
    the stem is three 3x3 convolutions instead of one of 7x7; a shortcut that
    halves the image averages before its 1x1 convolution instead of dropping three
    pixels of four; and the last scale of every branch is initialized to 0, so each
    block starts as its shortcut alone.

    With attention, 18 and 34 layers were the backbones of M. Pinto's tagger, 6th of
    FSDKaggle2019.

    Reference: He et al., "Bag of Tricks for Image Classification", 2019, https://arxiv.org/abs/1812.01187;
    fastai 1.0's xresnet.

    Args:
        input_shape: (M, T, C) of an image of any size; T and M may be None.
        num_classes: Number of logits.
        attention: Whether the branch of the first stage's last block ends in `SimpleSelfAttention`. The
            stem then has 32, 64 and 64 filters instead of 32, 32 and 64.

    Returns:
        A `keras.Model`: images [B, M, T, C] → logits [B, num_classes], float32.

    Example:
        >>> model = xresnet18((128, None, 3), 320, attention=True)
        >>> tuple(model(keras.ops.zeros((1, 128, 100, 3))).shape)
        (1, 320)
    """
    return _xresnet(input_shape, num_classes, blocks=(2, 2, 2, 2), attention=attention, name="xresnet18")


def xresnet34(input_shape: tuple[int | None, ...], num_classes: int, *, attention: bool = False) -> keras.Model:
    """An xresnet of 34 layers and 21 million parameters.

    It is like `xresnet18`, with more blocks.

    Args:
        input_shape: (M, T, C) of an image of any size; T and M may be None.
        num_classes: Number of logits.
        attention: As in `xresnet18`.

    Returns:
        A `keras.Model`: images [B, M, T, C] → logits [B, num_classes], float32.

    Example:
        >>> xresnet34((128, None, 1), 80).output_shape
        (None, 80)
    """
    return _xresnet(input_shape, num_classes, blocks=(3, 4, 6, 3), attention=attention, name="xresnet34")


def xresnet50(input_shape: tuple[int | None, ...], num_classes: int, *, attention: bool = False) -> keras.Model:
    """An xresnet of 50 layers and 24 million parameters.

    It is like `xresnet34`, with blocks of three convolutions. A block reduces its channels to a
    quarter before its 3x3 convolution and restores them after it.

    Args:
        input_shape: (M, T, C) of an image of any size; T and M may be None.
        num_classes: Number of logits.
        attention: As in `xresnet18`.

    Returns:
        A `keras.Model`: images [B, M, T, C] → logits [B, num_classes], float32.

    Example:
        >>> xresnet50((128, None, 1), 80).output_shape
        (None, 80)
    """
    return _xresnet(
        input_shape, num_classes, blocks=(3, 4, 6, 3), bottleneck=True, attention=attention, name="xresnet50"
    )


def _xresnet(input_shape, num_classes, *, blocks, bottleneck=False, attention, name):
    """The network with this many blocks in each stage."""
    image = keras.Input(input_shape)
    x = image
    for number, (filters, stride) in enumerate(((32, 2), (64 if attention else 32, 1), (64, 1)), start=1):
        x = layers.ReLU()(_convolution(x, filters, 3, stride, f"stem_{number}"))  # [B, M / 2, T / 2, filters]
    # Zeros change no maximum after ReLU.
    x = layers.MaxPooling2D(3, 2)(layers.ZeroPadding2D()(x))  # [B, M / 4, T / 4, 64]
    for stage, (count, width) in enumerate(zip(blocks, (64, 128, 256, 512)), start=1):
        for block in range(1, count + 1):
            x = _block(
                x,
                width,
                stride=2 if stage > 1 and block == 1 else 1,
                bottleneck=bottleneck,
                attention=attention and stage == 1 and block == count,
                name=f"stage{stage}_block{block}",
            )
    x = layers.GlobalAveragePooling2D()(x)  # [B, channels]
    logits = layers.Dense(num_classes, kernel_initializer=KAIMING, dtype="float32", name="logits")(x)  # [B, K]
    return keras.Model(image, logits, name=name)


def _block(x, width, *, stride, bottleneck, attention, name):
    """A residual block: a branch of convolutions plus its shortcut."""
    convolutions = [(width, 3, stride), (width, 3, 1)]  # filters, kernel size, stride
    if bottleneck:
        convolutions = [(width, 1, 1), (width, 3, stride), (4 * width, 1, 1)]
    *first, (channels, kernel_size, _) = convolutions
    branch = x
    for number, convolution in enumerate(first, start=1):
        branch = layers.ReLU()(_convolution(branch, *convolution, f"{name}_{number}"))
    branch = _convolution(branch, channels, kernel_size, 1, f"{name}_{len(convolutions)}", scale="zeros")
    if attention:
        branch = SimpleSelfAttention(name=f"{name}_attention")(branch)
    if stride == 2:
        x = layers.AveragePooling2D(2, padding="same")(x)  # the mean of a single last row or column is itself
    if x.shape[-1] != channels:
        x = _convolution(x, channels, 1, 1, f"{name}_shortcut")
    return layers.ReLU(name=name)(layers.Add()([branch, x]))  # [B, M / stride, T / stride, channels]


def _convolution(x, filters, kernel_size, stride, name, scale="ones"):
    """A convolution, then batch normalization with this initial scale."""
    if stride == 2:  # as many zeros before as after; padding="same" would add more after
        x = layers.ZeroPadding2D(kernel_size // 2)(x)
    x = layers.Conv2D(
        filters,
        kernel_size,
        stride,
        padding="same" if stride == 1 else "valid",
        use_bias=False,
        kernel_initializer=KAIMING,
        name=f"{name}_conv",
    )(x)
    return layers.BatchNormalization(momentum=0.9, epsilon=1e-5, gamma_initializer=scale, name=f"{name}_norm")(x)
