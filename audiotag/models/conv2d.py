"""A small convolutional network for the cepstrum, a picture of one size."""

import keras
from keras import layers


def conv2d(input_shape, num_classes):
    """Four convolutions that are long in time, and two dense layers.

    A cepstrum has few rows and no octaves to move along, so its convolutions
    look at ten frames of four coefficients. What is flattened at the end keeps
    its place in time: the network takes pictures of one size only.

    The network of Maxwell_110's Keras kernel (FSDKaggle2019) for 40 MFCC of two
    seconds, 170,890 parameters for 74 classes. It was trained with the
    categorical crossentropy of softmax.

    Args:
        input_shape: (M, T, C) of a picture of at least 16x16, such as (40, 173, 1).
        num_classes: How many logits.

    Returns:
        A `keras.Model`: pictures [B, M, T, C] → logits [B, num_classes], float32.

    Raises:
        ValueError: A picture too small or of unknown size.

    Example:
        >>> conv2d((40, 173, 1), 80).count_params()
        171280
    """
    if None in input_shape or min(input_shape[:2]) < 16:
        raise ValueError(
            f"conv2d needs pictures of one known size, at least 16x16. Received: input_shape={tuple(input_shape)}. "
            'Add {"name": "resize", "height": ..., "width": ...} to the picture.'
        )
    picture = keras.Input(input_shape)
    x = picture
    for _ in range(4):
        x = layers.Conv2D(32, (4, 10), padding="same")(x)
        x = layers.ReLU()(layers.BatchNormalization()(x))
        x = layers.MaxPooling2D(2)(x)
    x = layers.Flatten()(x)  # [B, M / 16 * T / 16 * 32]
    x = layers.ReLU()(layers.BatchNormalization()(layers.Dense(64)(x)))  # [B, 64]
    logits = layers.Dense(num_classes, dtype="float32", name="logits")(x)  # [B, K]
    return keras.Model(picture, logits, name="conv2d")
