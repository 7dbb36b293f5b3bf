"""ConvNeXt-Tiny: a pretrained backbone, frozen by default, and a new head."""

import keras

from audiotag.models.backbones import add_logits, backbone


def convnext_tiny(
    input_shape: tuple[int | None, ...], num_classes: int, *, weights: str | None = None, frozen: bool = True
) -> keras.Model:
    """ConvNeXt-Tiny with a new layer normalization and a dense layer on top.

    For few clips and little time: a backbone pretrained on ImageNet turns a color
    image of the spectrogram into features, and only the head is trained, 63,056
    parameters for 80 classes. It scored 0.52 lwlrap this way (FSDKaggle2019).

    Keras' network without its top ends with the normalization of the top; the new
    normalization replaces it. There is no stochastic depth.

    Reference: Liu et al., "A ConvNet for the 2020s", 2022, https://arxiv.org/abs/2201.03545.

    Args:
        input_shape: (M, T, C) of an image of at least 32x32; T and M may be None. Three channels of 0 to 1
            are normalized here like ImageNet's pixels: do not normalize them before.
        num_classes: Number of logits.
        weights: Initial weights of the backbone: None for random ones, "imagenet" (C = 3), or the path of
            a weights file; see `audiotag.models.backbones.backbone`.
        frozen: Whether the backbone is not trained; only useful with pretrained weights.

    Returns:
        A `keras.Model`: images [B, M, T, C] → logits [B, num_classes], float32.

    Raises:
        ValueError: The image is too small, or the weights are of another network or number of channels.
        OSError: The weights do not exist or cannot be downloaded.

    Example:
        >>> model = convnext_tiny((64, None, 3), 80)
        >>> sum(weight.shape.num_elements() for weight in model.trainable_variables)
        63056
    """
    features = backbone("ConvNeXtTiny", input_shape, weights, own_scale=True)
    features.trainable = not frozen
    mean = features.layers[-1].input  # [B, 768], before Keras' own normalization
    normalized = keras.layers.LayerNormalization(epsilon=1e-6, name="head_norm")(mean)
    return add_logits(keras.Model(features.input, normalized), num_classes, name="convnext_tiny")
