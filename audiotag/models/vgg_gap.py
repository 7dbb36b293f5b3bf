"""A fully convolutional network in the style of VGG with global average pooling."""

import keras
from keras import layers

# After the first: filters as multiples of the width, size of the pool that follows (bands, frames), dropout after it.
CONVOLUTIONS = (
    (1, (2, 2), 0.3),
    (2, None, 0.0),
    (2, (2, 2), 0.3),
    (4, None, 0.3),
    (4, None, 0.3),
    (6, None, 0.3),
    (6, (2, 2), 0.3),
    (8, None, 0.0),
    (8, (1, 2), 0.3),
    (8, None, 0.0),
    (8, (1, 2), 0.3),
)
MAX_WIDTH = 256  # 240 million weights
MIN_BANDS, MIN_FRAMES = 47, 191  # leave a 3x3 feature map for the one convolution without padding


def vgg_gap(
    input_shape: tuple[int | None, ...], num_classes: int, *, width: int = 64, dropout_scale: float = 1.0
) -> keras.Model:
    """Fifteen convolutions and no dense layer, for spectrograms of any length.

    The last convolution has one channel per class, and their means over the image
    are the logits: train on two seconds, predict a minute. The last two pools
    halve only time, which is the longer axis.

    The network of 2nd place in DCASE 2018 (one model: 0.912 MAP@3), with 128
    bands, 384 frames and 41 classes: 14,865,124 parameters, 8,369,492 with
    width=48. It was trained with softmax and categorical crossentropy.

    Reference: Dorfer and Widmer, "Training General-Purpose Audio Tagging Networks with Noisy Labels and
    Iterative Self-Verification", 2018.

    Args:
        input_shape: (M, T, C) of an image of at least 47 bands and 191 frames; T and M may be None.
        num_classes: Number of logits.
        width: Filters of the first convolution, at most 256; the later ones have 1 to 8 times as many.
        dropout_scale: Multiplier of the published dropout rates, 0.3 and 0.5. Use 0 when training for minutes:
            batch statistics collected with dropout do not fit inference without it (Li et al.,
            "Understanding the disharmony between dropout and batch normalization", 2018), and only long
            training makes up for it.

    Returns:
        A `keras.Model`: images [B, M, T, C] → logits [B, num_classes], float32.

    Raises:
        ValueError: The image is too small, width is not from 1 to 256, or dropout_scale is outside 0 to 1.

    Example:
        >>> vgg_gap((128, None, 1), 41).count_params()
        14865124
    """
    if not 1 <= width <= MAX_WIDTH:
        raise ValueError(f"width must be from 1 to {MAX_WIDTH}. Received: width={width}")
    if not 0 <= dropout_scale <= 1:
        raise ValueError(f"dropout_scale must be from 0 to 1. Received: dropout_scale={dropout_scale}")
    for size, minimum in zip(input_shape, (MIN_BANDS, MIN_FRAMES)):
        if size is not None and size < minimum:
            raise ValueError(
                f"vgg_gap needs images of at least {MIN_BANDS} bands and {MIN_FRAMES} frames. Received: "
                f"input_shape={tuple(input_shape)}. Use more bands, a longer window or a shorter frame_step."
            )
    image = keras.Input(input_shape)
    x = layers.ZeroPadding2D(2)(image)  # as many zeros before as after; padding="same" would add more after
    x = layers.ReLU()(_convolution(x, width, 5, "layer1", strides=2))  # [B, M / 2, T / 2, width]
    for number, (multiple, pool, dropout) in enumerate(CONVOLUTIONS, start=2):
        x = layers.ReLU()(_convolution(x, multiple * width, 3, f"layer{number}", padding="same"))
        if pool:
            x = layers.MaxPooling2D(pool)(x)
        x = layers.Dropout(dropout_scale * dropout)(x)
    # [B, M / 16, T / 64, 8 * width]
    for number, kernel, dropout_name in ((13, 3, "layer13_dropout"), (14, 1, "head_dropout")):
        x = layers.ReLU()(_convolution(x, 8 * width, kernel, f"layer{number}"))
        x = layers.Dropout(dropout_scale * 0.5, name=dropout_name)(x)
    x = _convolution(x, num_classes, 1, "head")  # [B, M / 16 - 2, T / 64 - 2, K]
    logits = layers.GlobalAveragePooling2D(dtype="float32", name="logits")(x)  # [B, K]
    return keras.Model(image, logits, name="vgg_gap")


def _convolution(x, filters, kernel, name, **options):
    """A convolution, then batch normalization."""
    options |= {"use_bias": False, "kernel_initializer": "he_normal", "name": f"{name}_conv"}
    x = layers.Conv2D(filters, kernel, **options)(x)
    return layers.BatchNormalization(momentum=0.9, epsilon=1e-4, name=f"{name}_norm")(x)
