"""DenseNet169, from scratch or from weights that have seen images."""

from pathlib import Path

import keras


def densenet169(input_shape, num_classes, *, weights: str | None = None):
    """DenseNet169 with one dense layer on top.

    A large network for a large set of clips. Beginning with weights that were
    learned on images helps even though spectrograms are none: 64x64 pixels of
    three channels and 80 classes, 12,776,080 parameters, scored 0.47 lwlrap in
    A. Maji's hands (FSDKaggle2019, 2020).

    Reference: Huang et al., "Densely Connected Convolutional Networks", 2017, https://arxiv.org/abs/1608.06993.

    Args:
        input_shape: (M, T, C) of a picture of at least 32x32; T and M may be None.
        num_classes: How many logits.
        weights: Where the layers below the top begin: None at random, "imagenet" with the weights Keras
            downloads (once; they need C = 3), or the path of a file of weights, .h5 or .weights.h5, of
            `keras.applications.DenseNet169(include_top=False)`.

    Returns:
        A `keras.Model`: pictures [B, M, T, C] → logits [B, num_classes], float32.

    Raises:
        ValueError: A picture too small, weights for other channels or for another network.
        OSError: Weights that are not there and cannot be downloaded.

    Example:
        >>> densenet169((64, 64, 3), 80).count_params()
        12776080
    """
    channels = input_shape[-1]
    if any(size is not None and size < 32 for size in input_shape[:2]):
        raise ValueError(
            f"densenet169 needs pictures of at least 32x32. Received: input_shape={tuple(input_shape)}. "
            'Add {"name": "resize", "height": ..., "width": ...} to the picture.'
        )
    if weights == "imagenet" and channels != 3:
        raise ValueError(
            f'weights="imagenet" need pictures of 3 channels. Received: input_shape={tuple(input_shape)}. '
            'Add {"name": "repeat_channels"} to the picture, or use weights=None.'
        )
    if weights not in (None, "imagenet") and not Path(weights).is_file():
        raise FileNotFoundError(
            f'weights must be None, "imagenet" or the path of a file of weights. Received: weights={weights!r}, '
            "where there is no file."
        )
    try:
        trunk = keras.applications.DenseNet169(
            include_top=False, weights=weights, input_shape=input_shape, pooling="avg"
        )
    except Exception as error:  # Keras raises a bare Exception when a download fails
        if weights == "imagenet":
            raise OSError(
                f"The ImageNet weights of DenseNet169 could not be downloaded: {error}. Give weights=... the path of "
                "a file of weights without the top that was downloaded elsewhere, or None to begin at random."
            ) from error
        if weights is not None:
            raise ValueError(
                f"{weights} does not hold the weights of DenseNet169 without its top for pictures of {channels} "
                f"channels: {error}"
            ) from error
        raise
    logits = keras.layers.Dense(num_classes, dtype="float32", name="logits")(trunk.output)  # [B, K]
    return keras.Model(trunk.input, logits, name="densenet169")
