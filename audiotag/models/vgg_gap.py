"""A fully convolutional network in the manner of VGG, which ends in the mean over the picture."""

import keras
from keras import layers

# After the first: filters as multiples of the width, size of the pool that follows ([bands, frames]), dropout after it.
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
LEAST_BANDS, LEAST_FRAMES = 47, 191  # leave 3x3 places for the one convolution without padding


def vgg_gap(input_shape, num_classes, *, width: int = 64, dropout_scale: float = 1.0):
    """Fifteen convolutions and no dense layer, for spectrograms of any length.

    The last convolution has as many channels as there are classes, and their
    means over the picture are the logits: train on two seconds, listen to a
    minute. The last two pools halve time alone, of which there is more.

    The network of 2nd place in DCASE 2018 (one model: 0.912 MAP@3), with 128
    bands, 384 frames and 41 classes: 14,865,124 parameters, 8,369,492 with
    width=48. It was trained with the categorical crossentropy of softmax.

    Reference: Dorfer and Widmer, "Training General-Purpose Audio Tagging Networks with Noisy Labels and
    Iterative Self-Verification", 2018.

    Args:
        input_shape: (M, T, C) of a picture of at least 47 bands and 191 frames; T and M may be None.
        num_classes: How many logits.
        width: Filters of the first convolution; the later ones have 1 to 8 times as many.
        dropout_scale: Times the published shares of hidden features, 0.3 and 0.5. In trainings of minutes 0: the
            statistics that the normalisations gather while features are hidden do not fit when all are heard
            (Li et al., "Understanding the disharmony between dropout and batch normalization", 2018), and
            only long training makes up for it.

    Returns:
        A `keras.Model`: pictures [B, M, T, C] → logits [B, num_classes], float32.

    Raises:
        ValueError: A picture too small, a width below 1, or a dropout_scale outside 0 to 1.

    Example:
        >>> vgg_gap((128, None, 1), 41).count_params()
        14865124
    """
    if width < 1:
        raise ValueError(f"width must be at least 1. Received: width={width}")
    if not 0 <= dropout_scale <= 1:
        raise ValueError(f"dropout_scale must be from 0 to 1. Received: dropout_scale={dropout_scale}")
    for size, least in zip(input_shape, (LEAST_BANDS, LEAST_FRAMES)):
        if size is not None and size < least:
            raise ValueError(
                f"vgg_gap needs pictures of at least {LEAST_BANDS} bands and {LEAST_FRAMES} frames. Received: "
                f"input_shape={tuple(input_shape)}. Take more bands, a longer window or a shorter frame_step."
            )
    picture = keras.Input(input_shape)
    x = layers.ZeroPadding2D(2)(picture)  # as many zeros before as behind, where "same" would put more behind
    x = layers.ReLU()(_convolution(x, width, 5, "layer1", strides=2))  # [B, M / 2, T / 2, width]
    for number, (multiple, pool, share) in enumerate(CONVOLUTIONS, start=2):
        x = layers.ReLU()(_convolution(x, multiple * width, 3, f"layer{number}", padding="same"))
        if pool:
            x = layers.MaxPooling2D(pool)(x)
        x = layers.Dropout(dropout_scale * share)(x)
    # [B, M / 16, T / 64, 8 * width]
    for number, kernel in ((13, 3), (14, 1)):
        x = layers.ReLU()(_convolution(x, 8 * width, kernel, f"layer{number}"))
        x = layers.Dropout(dropout_scale * 0.5)(x)
    x = _convolution(x, num_classes, 1, "head")  # [B, M / 16 - 2, T / 64 - 2, K]
    logits = layers.GlobalAveragePooling2D(dtype="float32", name="logits")(x)  # [B, K]
    return keras.Model(picture, logits, name="vgg_gap")


def _convolution(x, filters, kernel, name, **options):
    """A convolution, then batch normalisation."""
    options |= {"use_bias": False, "kernel_initializer": "he_normal", "name": f"{name}_conv"}
    x = layers.Conv2D(filters, kernel, **options)(x)
    return layers.BatchNormalization(momentum=0.9, epsilon=1e-4, name=f"{name}_norm")(x)
