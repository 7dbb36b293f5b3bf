"""The networks of `keras.applications` without their tops, from scratch or from weights that have seen images."""

import warnings
from pathlib import Path

import keras

LATER = "\0later"  # no name of a file


def trunk(application, input_shape, weights, *, any_size=True, own_scale=False):
    """One of Keras' networks up to the mean over the picture.

    From scratch its batch normalisations keep a shorter memory than Keras gives them, 0.9 for 0.99: a thousand steps
    of a small training later they would still remember the variance of 1 that they began with, where that of a
    depthwise convolution is a thousandth, and all pictures would look alike to the finished network.

    Args:
        application: Its name in `keras.applications`.
        input_shape: (M, T, C) of a picture of at least 32x32; T and M may be None where `any_size` is true.
        weights: Where it begins: None at random, "imagenet" with the weights Keras downloads (once; they
            need C = 3), or the path of a file of weights, .h5 or .weights.h5, of the same network with
            `include_top=False`. `LATER` is as these, for one whose finished weights are loaded over it: nothing is
            read or downloaded.
        any_size: Whether the network can be built for a picture of unknown size.
        own_scale: Whether the network scales its pictures itself, from pixels of 0 to 255. Ours are 0 to 1.

    Returns:
        A `keras.Model`: pictures [B, M, T, C] → [B, features].

    Raises:
        ValueError: A picture too small or of unknown size, weights for other channels or for another network.
        OSError: Weights that are not there and cannot be downloaded.

    Example:
        >>> trunk("MobileNet", (64, None, 1), None).output_shape
        (None, 1024)
    """
    channels = input_shape[-1]
    if any(size is not None and size < 32 for size in input_shape[:2]):
        raise ValueError(
            f"{application} needs pictures of at least 32x32. Received: input_shape={tuple(input_shape)}. "
            'Add {"name": "resize", "height": ..., "width": ...} to the picture.'
        )
    if not any_size and None in input_shape:
        raise ValueError(
            f"{application} must know the size of its pictures. Received: input_shape={tuple(input_shape)}. "
            'Add {"name": "resize", "height": ..., "width": ...} to the picture.'
        )
    if weights == "imagenet" and channels != 3:
        raise ValueError(
            f'weights="imagenet" need pictures of 3 channels. Received: input_shape={tuple(input_shape)}. '
            'Add {"name": "repeat_channels"} to the picture, or use weights=None.'
        )
    if weights not in (None, LATER, "imagenet") and not Path(weights).is_file():
        raise FileNotFoundError(
            f'weights must be None, "imagenet" or the path of a file of weights. Received: weights={weights!r}, '
            "where there is no file."
        )
    picture = keras.Input(input_shape)
    pixels = keras.layers.Rescaling(255.0)(picture) if own_scale else picture
    try:
        with warnings.catch_warnings():
            # That pictures have 1 or 3 channels "usually", and the weights of 224x224 are taken for other sizes.
            warnings.simplefilter("ignore", UserWarning)
            network = getattr(keras.applications, application)(
                include_top=False,
                weights=None if weights == LATER else weights,
                input_tensor=pixels,
                input_shape=input_shape,
                pooling="avg",
            )
    except Exception as error:  # Keras raises a bare Exception when a download fails
        if weights == "imagenet":
            raise OSError(
                f"The ImageNet weights of {application} could not be downloaded: {error}. Give weights=... the path of "
                "a file of weights without the top that was downloaded elsewhere, or None to begin at random."
            ) from error
        if weights not in (None, LATER):
            raise ValueError(
                f"{weights} does not hold the weights of {application} without its top for pictures of {channels} "
                f"channels: {error}"
            ) from error
        raise
    for layer in network.layers:
        if weights is None and isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = 0.9
    return keras.Model(picture, network.output, name=application)


def with_logits(features, num_classes, *, name):
    """A trunk with one dense layer on top.

    Args:
        features: A `keras.Model`: pictures [B, M, T, C] → [B, features].
        num_classes: How many logits.
        name: Of the new model.

    Returns:
        A `keras.Model`: pictures [B, M, T, C] → logits [B, num_classes], float32.

    Example:
        >>> with_logits(trunk("MobileNet", (32, 32, 3), None), 80, name="tagger").output_shape
        (None, 80)
    """
    logits = keras.layers.Dense(num_classes, dtype="float32", name="logits")(features.output)  # [B, K]
    return keras.Model(features.input, logits, name=name)
