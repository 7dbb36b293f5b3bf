"""EfficientAT: MobileNetV3 of several widths for spectrograms."""

import keras
from keras import layers

from audiotag.models.yamnet import refuse_path

NUM_BANDS = 128
# Per block: kernel size, channels within, channels after it, squeeze and excitation, activation, stride. Channels are
# multiplied by the width.
BLOCKS = (
    (3, 16, 16, False, "relu", 1),
    (3, 64, 24, False, "relu", 2),
    (3, 72, 24, False, "relu", 1),
    (5, 72, 40, True, "relu", 2),
    (5, 120, 40, True, "relu", 1),
    (5, 120, 40, True, "relu", 1),
    (3, 240, 80, False, "hard_silu", 2),
    (3, 200, 80, False, "hard_silu", 1),
    (3, 184, 80, False, "hard_silu", 1),
    (3, 184, 80, False, "hard_silu", 1),
    (3, 480, 112, True, "hard_silu", 1),
    (3, 672, 112, True, "hard_silu", 1),
    (5, 672, 160, True, "hard_silu", 2),
    (5, 960, 160, True, "hard_silu", 1),
    (5, 960, 160, True, "hard_silu", 1),
)
STEM, LAST = 16, 1280  # channels of the first convolution and of the embedding
# Initial weights that keep the scale of the activations: there is no batch normalization.
KAIMING = {"class_name": "HeNormal", "config": {}}
LINEAR = {"class_name": "VarianceScaling", "config": {"scale": 1.0}}
RESIDUAL = {"class_name": "VarianceScaling", "config": {"scale": 0.1}}  # of a sum with the input


def mn04(
    input_shape: tuple[int | None, ...], num_classes: int, *, weights: str | None = None, dropout: float = 0.2
) -> keras.Model:
    """EfficientAT's mn04, trained on two million clips, with a new last layer.

    A third of YAMNet's weights, and better on AudioSet: 0.432 mAP, to YAMNet's 0.306.
    Needs records of 32 kHz, the front end `efficientat_mel` and no other
    preprocessing. It was trained on clips of 10 s.

    MobileNetV3 at 0.4 times its width, with batch normalization folded into the
    convolutions. A transformer taught it.

    Reference: Schmid et al., "Efficient Large-scale Audio Tagging via Transformer-to-CNN Knowledge Distillation",
    2023, https://arxiv.org/abs/2211.04772; https://github.com/fschmid56/EfficientAT (MIT).

    Args:
        input_shape: (128, T, 1) of an image; T may be None.
        num_classes: Number of logits.
        weights: Initial weights of the backbone, in an experiment: "audioset", the published ones, which are
            downloaded once; the path of the published file mn04_as_mAP_432.pt, or of a .weights.h5 of audiotag; None
            for random ones. In Python, load them with `audiotag.runs.pretrained.load_pretrained`.
        dropout: Fraction of the embedding that is dropped before the last layer.

    Returns:
        A `keras.Model`: images [B, 128, T, 1] → logits [B, num_classes], float32. The layer before them is
        `embedding` [B, 512].

    Raises:
        ValueError: The image has another size, or weights are given.

    Example:
        >>> mn04((128, None, 1), 527).count_params()
        978679
    """
    return _mobilenet_v3(input_shape, num_classes, weights, dropout, width=0.4, name="mn04")


def mn10(
    input_shape: tuple[int | None, ...], num_classes: int, *, weights: str | None = None, dropout: float = 0.2
) -> keras.Model:
    """EfficientAT's mn10, trained on two million clips, with a new last layer.

    As `mn04`, at the full width of MobileNetV3: five times the weights, 0.471 mAP on
    AudioSet.

    Args:
        input_shape, num_classes, dropout: As for `mn04`.
        weights: As for `mn04`; the published file is mn10_as_mAP_471.pt.

    Returns:
        A `keras.Model`: images [B, 128, T, 1] → logits [B, num_classes], float32. The layer before them is
        `embedding` [B, 1280].

    Raises:
        ValueError: The image has another size, or weights are given.

    Example:
        >>> mn10((128, None, 1), 10).get_layer("embedding").output.shape
        (None, 1280)
    """
    return _mobilenet_v3(input_shape, num_classes, weights, dropout, width=1.0, name="mn10")


def _mobilenet_v3(input_shape, num_classes, weights, dropout, *, width, name):
    """The layers have the names of the published weights, with _ for the points."""
    if input_shape[0] != NUM_BANDS or input_shape[-1] != 1 or len(input_shape) != 3:
        raise ValueError(
            f"{name} needs images of 128 bands and one channel. Received: input_shape={tuple(input_shape)}. "
            'Use {"name": "efficientat_mel"} as the front end, and no image_preprocess that changes the size.'
        )
    refuse_path(weights)
    image = keras.Input(input_shape)  # [B, M, T, 1]
    x = layers.ZeroPadding2D(1, name="features_0_pad")(image)
    filters = _channels(STEM, width)
    x = layers.Conv2D(filters, 3, strides=2, activation="hard_silu", kernel_initializer=KAIMING, name="features_0")(x)
    for number, (kernel, within, after, excite, activation, stride) in enumerate(BLOCKS, start=1):
        shortcut, before, within, filters = x, filters, _channels(within, width), _channels(after, width)
        place, step = f"features_{number}_block", 0
        if within != before:
            options = {"activation": activation, "kernel_initializer": KAIMING}
            x = layers.Conv2D(within, 1, **options, name=f"{place}_{step}")(x)
            step += 1
        x = layers.ZeroPadding2D(kernel // 2, name=f"{place}_{step}_pad")(x)  # on all sides, also for a stride of 2
        fan_in = {"class_name": "RandomNormal", "config": {"stddev": (2 / kernel**2) ** 0.5}}
        options = {"activation": activation, "depthwise_initializer": fan_in}
        x = layers.DepthwiseConv2D(kernel, strides=stride, **options, name=f"{place}_{step}")(x)
        step += 1
        if excite:
            x = _excite(x, within, f"{place}_{step}")
            step += 1
        is_residual = stride == 1 and before == filters
        x = layers.Conv2D(filters, 1, kernel_initializer=RESIDUAL if is_residual else LINEAR, name=f"{place}_{step}")(x)
        if is_residual:
            x = layers.Add(name=f"features_{number}_add")([x, shortcut])
    x = layers.Conv2D(
        6 * filters, 1, activation="hard_silu", kernel_initializer=KAIMING, name=f"features_{len(BLOCKS) + 1}"
    )(x)  # [B, M / 32, T / 32, D]
    x = layers.GlobalAveragePooling2D(dtype="float32", name="mean")(x)
    units = _channels(LAST, width)
    x = layers.Dense(units, activation="hard_silu", kernel_initializer=KAIMING, dtype="float32", name="embedding")(
        x
    )  # [B, D]
    x = layers.Dropout(dropout, dtype="float32", name="head_dropout")(x)
    logits = layers.Dense(num_classes, dtype="float32", name="logits")(x)  # [B, K]
    return keras.Model(image, logits, name=name)


def _excite(x, channels, name):
    """Squeeze and excitation: scales each channel by a number that depends on the means of all."""
    scale = layers.GlobalAveragePooling2D(keepdims=True, name=f"{name}_mean")(x)  # [B, 1, 1, C]
    scale = layers.Dense(_divisible(channels // 4), activation="relu", name=f"{name}_fc1")(scale)
    scale = layers.Dense(channels, activation="sigmoid", name=f"{name}_fc2")(scale)
    return layers.Multiply(name=f"{name}_scale")([x, scale])


def _channels(channels, width):
    return _divisible(channels * width)


def _divisible(size):
    """The multiple of 8 that is nearest to a size, and no more than a tenth below it."""
    nearest = max(8, int(size + 4) // 8 * 8)
    return nearest + 8 if nearest < 0.9 * size else nearest
