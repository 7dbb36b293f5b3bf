"""DenseNet169, from scratch or from weights that have seen images."""

from audiotag.models.backbones import trunk, with_logits


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
        weights: Where the layers below the top begin: None at random, "imagenet" (C = 3), or the path of a
            file of weights; see `audiotag.models.pretrained.trunk`.

    Returns:
        A `keras.Model`: pictures [B, M, T, C] → logits [B, num_classes], float32.

    Raises:
        ValueError: A picture too small, weights for other channels or for another network.
        OSError: Weights that are not there and cannot be downloaded.

    Example:
        >>> densenet169((64, 64, 3), 80).count_params()
        12776080
    """
    return with_logits(trunk("DenseNet169", input_shape, weights), num_classes, name="densenet169")
