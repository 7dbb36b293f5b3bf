"""YAMNet: MobileNet over patches of a spectrogram."""

import keras
from keras import layers

from audiotag.models.backbones import LOADED_LATER
from audiotag.models.patches import JoinPatches, SplitPatches

NUM_BANDS = 64
PATCH_FRAMES, PATCH_HOP = 96, 48
# Filters and stride of each block after the first convolution, of 32 filters and stride 2.
BLOCKS = (
    (64, 1),
    (128, 2),
    (128, 1),
    (256, 2),
    (256, 1),
    (512, 2),
    *[(512, 1)] * 5,
    (1024, 2),
    (1024, 1),
)
# Kaiming's distribution keeps the scale of the activations: there is no batch normalization.
KAIMING = {"class_name": "HeNormal", "config": {}}
DEPTHWISE = {"class_name": "RandomNormal", "config": {"stddev": (2 / 9) ** 0.5}}  # nine inputs per output


def yamnet(input_shape: tuple[int | None, ...], num_classes: int, *, weights: str | None = None) -> keras.Model:
    """YAMNet, trained on two million clips, with a dense layer on top.

    For few clips of your own: its embeddings tell apart most everyday sounds, so that
    a linear layer on them, trained in seconds, beats a network trained from scratch on
    a few hundred clips. Needs the front end `yamnet_mel` and no other preprocessing.

    MobileNet reads patches of 0.96 s, one every 0.48 s, and the embedding of a clip is
    the mean over them. Batch normalization is folded into the convolutions, as for
    inference. 3,195,456 weights without the top.

    Reference: M. Plakal and D. Ellis, "YAMNet", 2020, tensorflow/models, research/audioset/yamnet; Howard et al.,
    "MobileNets", 2017, https://arxiv.org/abs/1704.04861; Gemmeke et al., "Audio Set", 2017.

    Args:
        input_shape: (64, T, 1) of an image of at least 96 frames; T may be None.
        num_classes: Number of logits.
        weights: Initial weights of the backbone, in an experiment: "audioset", the published ones, which are
            downloaded once; the path of the published yamnet.h5, of its .tflite version or of a .weights.h5 of
            audiotag; None for random ones. In Python, load them with `audiotag.runs.pretrained.load_pretrained`.

    Returns:
        A `keras.Model`: images [B, 64, T, 1] → logits [B, num_classes], float32. Layers on the way:
        `patch_embeddings` [B, W, 1024] and `embedding` [B, 1024].

    Raises:
        ValueError: The image has another size, or weights are given.

    Example:
        >>> model = yamnet((64, None, 1), 10)
        >>> model.get_layer("embedding").output.shape
        (None, 1024)
    """
    if input_shape[0] != NUM_BANDS or input_shape[-1] != 1 or len(input_shape) != 3:
        raise ValueError(
            f"yamnet needs images of 64 bands and one channel. Received: input_shape={tuple(input_shape)}. "
            'Use {"name": "yamnet_mel"} as the front end, and no image_preprocess that changes the size.'
        )
    if input_shape[1] is not None and input_shape[1] < PATCH_FRAMES:
        raise ValueError(
            f"yamnet needs images of at least {PATCH_FRAMES} frames. Received: input_shape={tuple(input_shape)}. "
            "Leave out the component that shortens them."
        )
    refuse_path(weights)
    image = keras.Input(input_shape)  # [B, M, T, 1]
    x = SplitPatches(num_frames=PATCH_FRAMES, hop=PATCH_HOP, name="patches")(image)  # [B * W, 96, 64, 1]
    options = {"padding": "same", "activation": "relu"}
    x = layers.Conv2D(32, 3, strides=2, kernel_initializer=KAIMING, **options, name="layer1_conv")(x)
    for number, (filters, stride) in enumerate(BLOCKS, start=2):
        name = f"layer{number}"
        x = layers.DepthwiseConv2D(
            3, strides=stride, depthwise_initializer=DEPTHWISE, **options, name=f"{name}_depthwise_conv"
        )(x)
        x = layers.Conv2D(filters, 1, kernel_initializer=KAIMING, **options, name=f"{name}_pointwise_conv")(x)
    # [B * W, 3, 2, 1024]
    x = layers.GlobalAveragePooling2D(dtype="float32", name="patch_mean")(x)  # [B * W, 1024]
    patch_embeddings = JoinPatches(name="patch_embeddings")((x, image))  # [B, W, 1024]
    embedding = layers.GlobalAveragePooling1D(dtype="float32", name="embedding")(patch_embeddings)  # [B, 1024]
    logits = layers.Dense(num_classes, dtype="float32", name="logits")(embedding)  # [B, K]
    return keras.Model(image, logits, name="yamnet")


def refuse_path(weights: str | None) -> None:
    """Refuses a file of weights, which a network that imports only Keras cannot read.

    Raises:
        ValueError: `weights` is neither None nor `LOADED_LATER`.
    """
    if weights not in (None, LOADED_LATER):
        raise ValueError(
            f"the network reads no files. Received: weights={weights!r}. Build it with weights=None, then call "
            "audiotag.runs.pretrained.load_pretrained(network, weights)."
        )
