"""The networks of `keras.applications` without their classification layers."""

import warnings
from collections.abc import Sequence
from pathlib import Path

import keras

LOADED_LATER = "\0later"  # cannot be a file name


def backbone(
    application: str,
    input_shape: Sequence[int | None],
    weights: str | None,
    *,
    any_size: bool = True,
    own_scale: bool = False,
) -> keras.Model:
    """One of Keras' networks up to the mean over the image.

    Without weights, its batch normalizations get a momentum of 0.9 instead of Keras' 0.99. With 0.99,
    the moving variances are still dominated by their initial 1 after a thousand steps, while that of a depthwise
    convolution is a thousandth, and at inference the network would predict nearly the same for every image.

    Args:
        application: Its name in `keras.applications`.
        input_shape: (M, T, C) of an image of at least 32 x 32; T and M may be None if `any_size` is true.
        weights: None for random weights; "imagenet" for the weights that Keras downloads (once; they need C = 3);
            or the path of a file of weights, .h5 or .weights.h5, of the same network with `include_top=False`.
            `LOADED_LATER` for a model whose trained weights are loaded afterwards: nothing is read or downloaded.
        any_size: Whether the network can be built for images of unknown size.
        own_scale: Whether the network scales its images itself, from pixels of 0 to 255. Images of audiotag are 0 to 1.

    Returns:
        A `keras.Model`: image [B, M, T, C] → features [B, D].

    Raises:
        ValueError: The image is too small or of unknown size, or the weights are for other channels or another
            network.
        OSError: The weights are not there and cannot be downloaded.

    Example:
        >>> backbone("MobileNet", (64, None, 1), None).output_shape
        (None, 1024)
    """
    channels = input_shape[-1]
    if any(size is not None and size < 32 for size in input_shape[:2]):
        raise ValueError(
            f"{application} needs images of at least 32 x 32. Received: input_shape={tuple(input_shape)}. "
            'Add {"name": "resize", "height": ..., "width": ...} to image_preprocess.'
        )
    if not any_size and None in input_shape:
        raise ValueError(
            f"{application} needs images of a known size. Received: input_shape={tuple(input_shape)}. "
            'Add {"name": "resize", "height": ..., "width": ...} to image_preprocess.'
        )
    if weights == "imagenet" and channels != 3:
        raise ValueError(
            f'weights="imagenet" need images of 3 channels. Received: input_shape={tuple(input_shape)}. '
            'Add {"name": "repeat_channels"} to image_preprocess, or use weights=None.'
        )
    if weights not in (None, LOADED_LATER, "imagenet") and not Path(weights).is_file():
        raise FileNotFoundError(
            f'weights must be None, "imagenet" or the path of a file of weights. Received: weights={weights!r}, '
            "which is not a file."
        )
    image = keras.Input(input_shape)
    pixels = keras.layers.Rescaling(255.0)(image) if own_scale else image
    try:
        with warnings.catch_warnings():
            # Keras warns of channels other than 1 or 3, and of weights for 224 x 224 at other sizes.
            warnings.simplefilter("ignore", UserWarning)
            network = getattr(keras.applications, application)(
                include_top=False,
                weights=None if weights == LOADED_LATER else weights,
                input_tensor=pixels,
                input_shape=input_shape,
                pooling="avg",
            )
    except Exception as error:  # Keras raises a bare Exception when a download fails
        if weights == "imagenet":
            raise OSError(
                f"The ImageNet weights of {application} could not be downloaded: {error}. Set weights to the path of "
                "a file of weights without the top that was downloaded elsewhere, or to None for random weights."
            ) from error
        if weights not in (None, LOADED_LATER):
            raise ValueError(
                f"{weights} does not hold the weights of {application} without its top for images of {channels} "
                f"channels: {error}"
            ) from error
        raise
    for layer in network.layers:
        if weights is None and isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = 0.9
    return keras.Model(image, network.output, name=application)


def add_logits(features: keras.Model, num_classes: int, *, name: str) -> keras.Model:
    """Adds one dense layer to a backbone.

    Args:
        features: A `keras.Model`: image [B, M, T, C] → features [B, D].
        num_classes: K.
        name: Of the new model.

    Returns:
        A `keras.Model`: image [B, M, T, C] → logits [B, K], float32.

    Example:
        >>> add_logits(backbone("MobileNet", (32, 32, 3), None), 80, name="tagger").output_shape
        (None, 80)
    """
    logits = keras.layers.Dense(num_classes, dtype="float32", name="logits")(features.output)  # [B, K]
    return keras.Model(features.input, logits, name=name)
