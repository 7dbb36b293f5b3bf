"""MobileNet and MobileNetV2, from scratch or from ImageNet weights."""

import keras

from audiotag.models.backbones import add_logits, backbone


def mobilenet(input_shape: tuple[int | None, ...], num_classes: int, *, weights: str | None = None) -> keras.Model:
    """MobileNet with one dense layer on top.

    For phones, or for first results in little time: a quarter of DenseNet169's
    parameters and a sixth of its operations. One of the networks that A. Maji
    compared on FSDKaggle2019 (2020).

    Reference: Howard et al., "MobileNets", 2017, https://arxiv.org/abs/1704.04861.

    Args:
        input_shape: (M, T, C) of an image of at least 32x32; T and M may be None.
        num_classes: Number of logits.
        weights: Initial weights of the backbone: None for random ones, "imagenet" (C = 3; the weights
            for 224x224 pixels unless the size is 128, 160 or 192 squared), or the path of a weights file;
            see `audiotag.models.backbones.backbone`.

    Returns:
        A `keras.Model`: images [B, M, T, C] → logits [B, num_classes], float32.

    Raises:
        ValueError: The image is too small, or the weights are of another network or number of channels.
        OSError: The weights do not exist or cannot be downloaded.

    Example:
        >>> mobilenet((64, None, 3), 80).count_params()
        3310864
    """
    return add_logits(backbone("MobileNet", input_shape, weights), num_classes, name="mobilenet")


def mobilenet_v2(input_shape: tuple[int | None, ...], num_classes: int, *, weights: str | None = None) -> keras.Model:
    """MobileNetV2 with one dense layer on top.

    Smaller than MobileNet and mostly better: sainathadapa's Keras tagger reached
    8th place in DCASE 2018 with it alone.

    Reference: Sandler et al., "MobileNetV2", 2018, https://arxiv.org/abs/1801.04381.

    Args:
        input_shape: (M, T, C) of an image of at least 32x32; M and T must be known.
        num_classes: Number of logits.
        weights: Initial weights of the backbone: None for random ones, "imagenet" (C = 3; the weights
            for 224x224 pixels unless the size is 96, 128, 160 or 192 squared), or the path of a weights file;
            see `audiotag.models.backbones.backbone`.

    Returns:
        A `keras.Model`: images [B, M, T, C] → logits [B, num_classes], float32.

    Raises:
        ValueError: The image is too small or of unknown size, or the weights are of another network or number
            of channels.
        OSError: The weights do not exist or cannot be downloaded.

    Example:
        >>> mobilenet_v2((64, 64, 3), 80).count_params()
        2360464
    """
    features = backbone("MobileNetV2", input_shape, weights, any_size=False)
    return add_logits(features, num_classes, name="mobilenet_v2")
