"""A small convolutional network for MFCC images of one size."""

import keras
from keras import layers


def conv2d(input_shape: tuple[int | None, ...], num_classes: int) -> keras.Model:
    """Four convolutions with kernels long in time, and two dense layers.

    A cepstrum has few rows and no translation in pitch, so the kernels cover ten
    frames of four coefficients. The last feature map is flattened, which keeps
    positions in time: the network takes images of one size only.

    The network of Maxwell_110's Kaggle notebook (FSDKaggle2019) for 40 MFCC of two
    seconds, 170,890 parameters for 74 classes. It was trained with softmax and
    categorical crossentropy.

    Args:
        input_shape: (M, T, C) of an image of at least 16x16, such as (40, 173, 1).
        num_classes: Number of logits.

    Returns:
        A `keras.Model`: images [B, M, T, C] → logits [B, num_classes], float32.

    Raises:
        ValueError: The image is too small or of unknown size.

    Example:
        >>> conv2d((40, 173, 1), 80).count_params()
        171280
    """
    if None in input_shape or min(size or 0 for size in input_shape[:2]) < 16:
        raise ValueError(
            f"conv2d needs images of one known size, at least 16x16. Received: input_shape={tuple(input_shape)}. "
            'Add {"name": "resize", "height": ..., "width": ...} to image_preprocess.'
        )
    image = keras.Input(input_shape)
    x = image
    for _ in range(4):
        x = layers.Conv2D(32, (4, 10), padding="same")(x)
        x = layers.ReLU()(layers.BatchNormalization()(x))
        x = layers.MaxPooling2D(2)(x)
    x = layers.Flatten()(x)  # [B, M / 16 * T / 16 * 32]
    x = layers.ReLU()(layers.BatchNormalization()(layers.Dense(64)(x)))  # [B, 64]
    logits = layers.Dense(num_classes, dtype="float32", name="logits")(x)  # [B, K]
    return keras.Model(image, logits, name="conv2d")
