"""ResNet50, from scratch or from weights that have seen images."""

from audiotag.models.backbones import trunk, with_logits


def resnet50(input_shape, num_classes, *, weights: str | None = None):
    """ResNet50 with one dense layer on top.

    The network that others are measured by, and one of those A. Maji compared on
    FSDKaggle2019 (2020), from the weights of ImageNet. To train from scratch,
    prefer `xresnet50`.

    Reference: He et al., "Deep Residual Learning for Image Recognition", 2016, https://arxiv.org/abs/1512.03385.

    Args:
        input_shape: (M, T, C) of a picture of at least 32x32; T and M may be None.
        num_classes: How many logits.
        weights: Where the layers below the top begin: None at random, "imagenet" (C = 3), or the path of a
            file of weights; see `audiotag.models.pretrained.trunk`.

    Returns:
        A `keras.Model`: pictures [B, M, T, C] → logits [B, num_classes], float32.

    Raises:
        ValueError: A picture too small, weights for other channels or for another network.
        OSError: Weights that are not there and cannot be downloaded.

    Example:
        >>> resnet50((64, None, 3), 80).count_params()
        23751632
    """
    return with_logits(trunk("ResNet50", input_shape, weights), num_classes, name="resnet50")
