"""MobileNet and MobileNetV2, from scratch or from weights that have seen images."""

from audiotag.models.backbones import trunk, with_logits


def mobilenet(input_shape, num_classes, *, weights: str | None = None):
    """MobileNet with one dense layer on top.

    For a telephone, or for a first answer in little time: a quarter of
    DenseNet169's parameters and a sixth of its work. One of those that A. Maji
    compared on FSDKaggle2019 (2020).

    Reference: Howard et al., "MobileNets", 2017, https://arxiv.org/abs/1704.04861.

    Args:
        input_shape: (M, T, C) of a picture of at least 32x32; T and M may be None.
        num_classes: How many logits.
        weights: Where the layers below the top begin: None at random, "imagenet" (C = 3; those of 224x224
            pixels for every other size than 128, 160 and 192 squared), or the path of a file of weights;
            see `audiotag.models.pretrained.trunk`.

    Returns:
        A `keras.Model`: pictures [B, M, T, C] → logits [B, num_classes], float32.

    Raises:
        ValueError: A picture too small, weights for other channels or for another network.
        OSError: Weights that are not there and cannot be downloaded.

    Example:
        >>> mobilenet((64, None, 3), 80).count_params()
        3310864
    """
    return with_logits(trunk("MobileNet", input_shape, weights), num_classes, name="mobilenet")


def mobilenet_v2(input_shape, num_classes, *, weights: str | None = None):
    """MobileNetV2 with one dense layer on top.

    Smaller than MobileNet and mostly better: alone it took sainathadapa's Keras
    tagger to 8th place in DCASE 2018.

    Reference: Sandler et al., "MobileNetV2", 2018, https://arxiv.org/abs/1801.04381.

    Args:
        input_shape: (M, T, C) of a picture of at least 32x32; M and T must be known.
        num_classes: How many logits.
        weights: Where the layers below the top begin: None at random, "imagenet" (C = 3; those of 224x224
            pixels for every other size than 96, 128, 160 and 192 squared), or the path of a file of weights;
            see `audiotag.models.pretrained.trunk`.

    Returns:
        A `keras.Model`: pictures [B, M, T, C] → logits [B, num_classes], float32.

    Raises:
        ValueError: A picture too small or of unknown size, weights for other channels or for another network.
        OSError: Weights that are not there and cannot be downloaded.

    Example:
        >>> mobilenet_v2((64, 64, 3), 80).count_params()
        2360464
    """
    features = trunk("MobileNetV2", input_shape, weights, any_size=False)
    return with_logits(features, num_classes, name="mobilenet_v2")
