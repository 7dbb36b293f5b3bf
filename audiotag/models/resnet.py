"""ResNet50, from scratch or from ImageNet weights."""

import keras

from audiotag.models.backbones import add_logits, backbone


def resnet50(input_shape: tuple[int | None, ...], num_classes: int, *, weights: str | None = None) -> keras.Model:
    """ResNet50 with one dense layer on top.

    The usual baseline, and one of the networks that A. Maji compared on
    FSDKaggle2019 (2020), from ImageNet weights. To train from scratch, prefer
    `xresnet50`.

    Reference: He et al., "Deep Residual Learning for Image Recognition", 2016, https://arxiv.org/abs/1512.03385.

    Args:
        input_shape: (M, T, C) of an image of at least 32x32; T and M may be None.
        num_classes: Number of logits.
        weights: Initial weights of the backbone: None for random ones, "imagenet" (C = 3), or the
            path of a weights file; see `audiotag.models.backbones.backbone`.

    Returns:
        A `keras.Model`: images [B, M, T, C] → logits [B, num_classes], float32.

    Raises:
        ValueError: The image is too small, or the weights are of another network or number of channels.
        OSError: The weights do not exist or cannot be downloaded.

    Example:
        >>> resnet50((64, None, 3), 80).count_params()
        23751632
    """
    return add_logits(backbone("ResNet50", input_shape, weights), num_classes, name="resnet50")
