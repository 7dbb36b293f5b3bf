"""EfficientNetV2-B0, from scratch or from weights that have seen images."""

from audiotag.models.pretrained import trunk, with_logits


def efficientnet_v2_b0(input_shape, num_classes, *, weights: str | None = None):
    """EfficientNetV2-B0 with one dense layer on top.

    Half of DenseNet169's parameters and, on ImageNet, two points better: what to
    begin with today where weights that have seen images are allowed. None of the
    published taggers used it.

    Reference: Tan and Le, "EfficientNetV2", 2021, https://arxiv.org/abs/2104.00298.

    Args:
        input_shape: (M, T, C) of a picture of at least 32x32; T and M may be None. Three channels of 0 to 1
            are normalised here as the pixels of ImageNet were.
        num_classes: How many logits.
        weights: Where the layers below the top begin: None at random, "imagenet" (C = 3), or the path of a
            file of weights; see `audiotag.models.pretrained.trunk`.

    Returns:
        A `keras.Model`: pictures [B, M, T, C] → logits [B, num_classes], float32.

    Raises:
        ValueError: A picture too small, weights for other channels or for another network.
        OSError: Weights that are not there and cannot be downloaded.

    Example:
        >>> efficientnet_v2_b0((64, None, 3), 80).count_params()
        6021792
    """
    features = trunk("EfficientNetV2B0", input_shape, weights, own_scale=True)
    return with_logits(features, num_classes, name="efficientnet_v2_b0")
