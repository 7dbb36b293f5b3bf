"""A small convolutional network with skip connections, trained from scratch."""

import keras
from keras import layers, ops


def conv_skip(
    input_shape,
    num_classes,
    *,
    filters: tuple[int, ...] = (64, 128, 256, 512),
    leak: float = 0.1,
    dropout: float = 0.2,
):
    """Convolutions, leaky ReLUs and average pooling, with a way around every block.

    The network to begin with: it learns from a few hundred clips, on a CPU if
    need be with `filters=(16, 32, 64, 128)`, and takes pictures of any size.

    A. Maji's tagger of 2020 names these ingredients and no numbers. The numbers
    are our choice, after the networks its training settings come from (L. Romul
    and mhiro2, FSDKaggle2019): a block is two 3x3 convolutions with batch
    normalisation, then 2x2 average pooling; a 1x1 convolution of its own pooled
    input is added. The head takes the mean over the frequencies, then the mean
    plus the maximum over time, so that both a hum and a click are heard.

    Args:
        input_shape: (M, T, C) of a picture; T and M may be None.
        num_classes: How many logits.
        filters: Of each block. There are as many blocks as numbers, and each halves the picture.
        leak: Slope of the activations below zero.
        dropout: Share of the features hidden from the last layer while training.

    Returns:
        A `keras.Model`: pictures [B, M, T, C] → logits [B, num_classes], float32.

    Raises:
        ValueError: No filters, a leak below 0 or a dropout outside [0, 1).

    Example:
        >>> model = conv_skip((64, None, 1), 10, filters=(8, 16))
        >>> tuple(model(ops.zeros((2, 64, 100, 1))).shape)
        (2, 10)
    """
    if not filters or min(filters) < 1:
        raise ValueError(f"filters must be one number or more, each at least 1. Received: filters={filters}")
    if leak < 0:
        raise ValueError(f"leak must be at least 0. Received: leak={leak}")
    if not 0 <= dropout < 1:
        raise ValueError(f"dropout must be from 0 to below 1. Received: dropout={dropout}")
    picture = keras.Input(input_shape)
    x = picture
    for width in filters:
        skip = layers.Conv2D(width, 1)(layers.AveragePooling2D(2, padding="same")(x))  # [B, M / 2, T / 2, width]
        for _ in range(2):
            x = layers.Conv2D(width, 3, padding="same", use_bias=False, kernel_initializer="he_normal")(x)
            x = layers.BatchNormalization(momentum=0.9, epsilon=1e-5)(x)
            x = layers.LeakyReLU(negative_slope=leak)(x)
        x = layers.AveragePooling2D(2, padding="same")(x)
        x = layers.Add()([x, skip])  # [B, M / 2, T / 2, width]
    x = ops.mean(x, axis=1)  # [B, T, width]
    x = layers.Add()([layers.GlobalAveragePooling1D()(x), layers.GlobalMaxPooling1D()(x)])  # [B, width]
    x = layers.Dropout(dropout)(x)
    logits = layers.Dense(num_classes, dtype="float32", name="logits")(x)  # [B, K]
    return keras.Model(picture, logits, name="conv_skip")
