"""A small convolutional network with skip connections, trained from scratch."""

import itertools

import keras
from keras import layers, ops

MOST_WEIGHTS = 200_000_000  # 3 GB with their gradients and Adam's moments


def conv_skip(
    input_shape: tuple[int | None, ...],
    num_classes: int,
    *,
    filters: tuple[int, ...] = (64, 128, 256, 512),
    leak: float = 0.1,
    dropout: float = 0.2,
) -> keras.Model:
    """Convolutions, leaky ReLUs, average pooling and skip connections.

    The network to start with: it learns from a few hundred clips, on a CPU with
    `filters=(16, 32, 64, 128)`, and takes images of any size.

    A. Maji's tagger of 2020 names these layers without numbers. The numbers are
    our choice, after the networks that its training settings come from (L. Romul
    and mhiro2, FSDKaggle2019): a block is two 3x3 convolutions with batch
    normalization, then 2x2 average pooling; a 1x1 convolution of its pooled
    input is added. After the last block it takes the mean over frequency, then the
    mean plus the maximum over time, so that both a hum and a click are detected.

    Args:
        input_shape: (M, T, C) of an image; T and M may be None.
        num_classes: Number of logits.
        filters: Number of filters of each block; each block halves the image.
        leak: Slope of the leaky ReLUs below zero.
        dropout: Fraction of the features that dropout sets to zero before the last layer.

    Returns:
        A `keras.Model`: images [B, M, T, C] → logits [B, num_classes], float32.

    Raises:
        ValueError: There are no filters, or too many, leak is below 0, or dropout is outside [0, 1).

    Example:
        >>> model = conv_skip((64, None, 1), 10, filters=(8, 16))
        >>> tuple(model(ops.zeros((2, 64, 100, 1))).shape)
        (2, 10)
    """
    if not filters or min(filters) < 1:
        raise ValueError(f"filters must be one or more numbers, each at least 1. Received: filters={filters}")
    num_weights = sum(9 * width * (before + width) for before, width in itertools.pairwise((0, *filters)))
    if num_weights > MOST_WEIGHTS:
        raise ValueError(f"filters must have at most {MOST_WEIGHTS} weights. Received: filters={filters}")
    if leak < 0:
        raise ValueError(f"leak must be at least 0. Received: leak={leak}")
    if not 0 <= dropout < 1:
        raise ValueError(f"dropout must be from 0 to below 1. Received: dropout={dropout}")
    image = keras.Input(input_shape)
    x = image
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
    x = layers.Dropout(dropout, name="head_dropout")(x)
    logits = layers.Dense(num_classes, dtype="float32", name="logits")(x)  # [B, K]
    return keras.Model(image, logits, name="conv_skip")
