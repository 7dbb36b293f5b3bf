"""ConvNeXt-Tiny: what it learned on images held fast, with a new head to learn."""

import keras

from audiotag.models.backbones import trunk, with_logits


def convnext_tiny(input_shape, num_classes, *, weights: str | None = None, frozen: bool = True):
    """ConvNeXt-Tiny with a new layer normalisation and a dense layer on top.

    Where there are few clips and little time: a trunk that has seen ImageNet
    describes a colour picture of the spectrogram, and only the head learns,
    63,056 parameters for 80 classes. So it scored 0.52 lwlrap (FSDKaggle2019).

    Keras' network without its top ends with the normalisation of the top, which
    is left out here: the new one takes its place. There is no stochastic depth.

    Reference: Liu et al., "A ConvNet for the 2020s", 2022, https://arxiv.org/abs/2201.03545.

    Args:
        input_shape: (M, T, C) of a picture of at least 32x32; T and M may be None. Three channels of 0 to 1
            are normalised here as the pixels of ImageNet were: do not do it twice.
        num_classes: How many logits.
        weights: Where the trunk begins: None at random, "imagenet" (C = 3), or the path of a file of
            weights; see `audiotag.models.pretrained.trunk`.
        frozen: Whether the trunk stays as it begins, which needs weights that have learned something.

    Returns:
        A `keras.Model`: pictures [B, M, T, C] → logits [B, num_classes], float32.

    Raises:
        ValueError: A picture too small, weights for other channels or for another network.
        OSError: Weights that are not there and cannot be downloaded.

    Example:
        >>> model = convnext_tiny((64, None, 3), 80)
        >>> sum(weight.shape.num_elements() for weight in model.trainable_variables)
        63056
    """
    features = trunk("ConvNeXtTiny", input_shape, weights, own_scale=True)
    features.trainable = not frozen
    mean = features.layers[-1].input  # [B, 768], before Keras' own normalisation
    normalised = keras.layers.LayerNormalization(epsilon=1e-6, name="head_norm")(mean)
    return with_logits(keras.Model(features.input, normalised), num_classes, name="convnext_tiny")
