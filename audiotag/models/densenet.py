"""DenseNet169, from scratch or from ImageNet weights."""

import keras

from audiotag.models.backbones import add_logits, backbone


def densenet169(input_shape: tuple[int | None, ...], num_classes: int, *, weights: str | None = None) -> keras.Model:
    """DenseNet169 with one dense layer on top.

    A large network for a large set of clips. Weights pretrained on photographs
    help although spectrograms look different: with 64x64 pixels of three channels
    and 80 classes, 12,776,080 parameters, A. Maji reached 0.47 lwlrap
    (FSDKaggle2019, 2020).

    Reference: Huang et al., "Densely Connected Convolutional Networks", 2017, https://arxiv.org/abs/1608.06993.

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
        >>> densenet169((64, 64, 3), 80).count_params()
        12776080
    """
    return add_logits(backbone("DenseNet169", input_shape, weights), num_classes, name="densenet169")
