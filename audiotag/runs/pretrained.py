"""Published weights of networks that were trained on AudioSet."""

import csv
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np

from audiotag.errors import ConfigError, DataError, shortened
from audiotag.layers import FRONTENDS, ToImage
from audiotag.models import MODELS
from audiotag.models.backbones import LOADED_LATER
from audiotag.runs.tensor_files import file_format, read_hdf5, read_tflite, read_torch

# The weights of layers by name: kernel and bias, or what else `layer.weights` holds.
Weights = dict[str, list[np.ndarray]]

YAMNET_EPSILON, EFFICIENTAT_EPSILON = 1e-4, 1e-3  # of their batch normalization
# The classes of AudioSet that YAMNet leaves out, and their places among the 527.
OTHER_CLASSES = {
    1: "Male speech, man speaking",
    2: "Female speech, woman speaking",
    12: "Battle cry",
    32: "Male singing",
    33: "Female singing",
    277: "Funny music",
}


@dataclass(frozen=True)
class Published:
    """A network with published weights.

    Args:
        url: Where the weights are published.
        sha256: Of that file.
        frontend: The name of its front end.
        sample_rate: Of its waveforms, in Hz.
        input_shape: Of its images, [M, T, C].
        embeddings: The name of the layer that returns the embeddings, [B, D] or [B, W, D].
        other_classes: {place: name} of the classes that it has and YAMNet does not.
        formats: {format of a file: function of (path, layers of the network) that returns the weights in it}.
        expected: The files that the network accepts, for messages.
    """

    url: str
    sha256: str
    frontend: str
    sample_rate: int
    input_shape: tuple[int | None, ...]
    embeddings: str
    other_classes: Mapping[int, str]
    formats: Mapping[str, Callable[[str, Sequence[keras.layers.Layer]], Weights]]
    expected: str


def load_pretrained(network: keras.Model, weights: str, *, top: bool = False) -> None:
    """Gives a network published weights, by the names and shapes of its layers.

    Args:
        network: What `MODELS` makes for a name in `PUBLISHED`.
        weights: "audioset" for the published weights, which are downloaded once; or the path of a file: as
            published, or a .weights.h5 of audiotag.
        top: Whether the last layer gets the published weights, too; it then needs as many classes.

    Raises:
        ConfigError: There is no such file, or it cannot be downloaded.
        DataError: The file is damaged, or holds the weights of another network: says which layer differs first.

    Example:
        >>> network = MODELS["yamnet"]((64, None, 1), 10)
        >>> load_pretrained(network, "gone.h5")  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        audiotag.errors.ConfigError: gone.h5 is not a file. Expected "audioset", or the path of yamnet.h5, ...
    """
    published = PUBLISHED[network.name]
    path = _download(network.name) if weights == "audioset" else weights
    if not Path(path).is_file():
        raise ConfigError(f'{path} is not a file. Expected "audioset", or the path of {published.expected}.')
    layers = [layer for layer in network.layers if layer.weights and (top or not layer.name.startswith("logits"))]
    kind = file_format(path)
    if kind not in published.formats:
        what = "a pickle, which runs code when it is read" if kind == "pickle" else f"of the format {kind!r}"
        raise DataError(f"{path}: is {what}. Expected {published.expected}.")
    found = published.formats[kind](path, layers)
    for layer in layers:
        shapes, arrays = [tuple(weight.shape) for weight in layer.weights], found.get(layer.name, [])
        if [array.shape for array in arrays] != shapes:
            raise DataError(
                f"{path}: no weights of {network.name}: layer {layer.name!r} has {_shown(arrays)}. Expected "
                f"{' and '.join(map(str, shapes))}."
            )
        if not all(np.isfinite(array).all() for array in arrays):
            raise DataError(f"{path}: layer {layer.name!r} has a weight that is NaN or infinite. Download it again.")
    for layer in layers:
        layer.set_weights(found[layer.name])


def separate_weights(model: Any) -> tuple[Any, str | None]:
    """The network of an experiment without its file of weights, and that file.

    Only for networks whose weights `load_pretrained` reads; those of Keras read their files themselves.

    Args:
        model: The `model` section of an experiment.
    """
    weights = getattr(model, "weights", None)
    if model.name not in PUBLISHED or weights in (None, LOADED_LATER):
        return model, None
    return model.model_copy(update={"weights": LOADED_LATER}), weights


def published_tagger(name: str, weights: str = "audioset") -> tuple[keras.Model, list[str]]:
    """A published network with all its weights and classes: an AudioSet tagger.

    To tag sounds without training, and to compare with it what was trained.

    Args:
        name: A name in `PUBLISHED`.
        weights: As for `load_pretrained`.

    Returns:
        (model, class names): a `keras.Model` from waveforms [B, N] at the network's sample rate to {"embeddings":
        [B, W, D], "scores": [B, W, K]}, probabilities of each class in each of W patches, one for networks that read
        the whole clip; and the K names.

    Raises:
        ConfigError, DataError: As for `load_pretrained`.
    """
    published = PUBLISHED[name]
    names = class_names(name)
    make: Any = MODELS[name]
    network = make(published.input_shape, len(names))
    load_pretrained(network, weights, top=True)
    backbone = keras.Model(network.input, network.get_layer(published.embeddings).output, name="backbone")
    waveform = keras.Input((None,), name="waveform")  # [B, N]
    front_end: Any = FRONTENDS[published.frontend]
    image = ToImage()(front_end(sample_rate=published.sample_rate)(waveform))  # [B, M, T, 1]
    embeddings = backbone(image)  # [B, W, D], or [B, D]
    if len(embeddings.shape) == 2:
        embeddings = keras.layers.Reshape((1, -1))(embeddings)
    scores = keras.layers.Activation("sigmoid", name="scores")(network.get_layer("logits")(embeddings))  # [B, W, K]
    return keras.Model(waveform, {"embeddings": embeddings, "scores": scores}, name=name), names


def published_top(name: str, weights: str, num_embeddings: int) -> list[np.ndarray]:
    """The published last layer of a network, from embeddings to logits.

    Args:
        name: A name in `PUBLISHED`.
        weights: As for `load_pretrained`.
        num_embeddings: D, the length of the embeddings.

    Returns:
        [kernel [D, P], bias [P]] for the P classes of `class_names`.

    Raises:
        ConfigError, DataError: As for `load_pretrained`.
    """
    embeddings = keras.Input((num_embeddings,))
    top = keras.layers.Dense(len(class_names(name)), kernel_initializer="zeros", dtype="float32", name="logits")
    load_pretrained(keras.Model(embeddings, top(embeddings), name=name), weights, top=True)
    return top.get_weights()


def class_names(name: str) -> list[str]:
    """The names of a published network's classes, in the order of its scores.

    The names are those of the AudioSet ontology (Google, CC BY 4.0).

    Example:
        >>> class_names("yamnet")[:2], len(class_names("yamnet"))
        (['Speech', 'Child speech, kid speaking'], 521)
    """
    with open(Path(__file__).with_name("yamnet_class_map.csv"), newline="", encoding="utf-8") as file:
        names = [row["display_name"] for row in csv.DictReader(file)]
    for place, other in PUBLISHED[name].other_classes.items():  # in ascending order
        names.insert(place, other)
    return names


def _download(name):
    """The path of the published weights, which are downloaded once."""
    published = PUBLISHED[name]
    try:
        return keras.utils.get_file(
            published.url.rpartition("/")[2],
            origin=published.url,
            file_hash=published.sha256,
            hash_algorithm="sha256",
            cache_subdir="audiotag",
        )
    except Exception as error:  # Keras raises a bare Exception when a download fails
        raise ConfigError(
            f'weights="audioset" of {name} could not be downloaded from {published.url}: {shortened(str(error))}. '
            "Download that file elsewhere and set weights to its path, or to null for random weights."
        ) from error


def _shown(arrays):
    return shortened(" and ".join(str(array.shape) for array in arrays)) if arrays else "none"


def _keras_weights(arrays, layers):
    """The weights of layers in a .weights.h5 of Keras 3."""
    return {
        layer.name: [
            arrays[key] for key in (f"{layer.name}/{index}" for index in range(len(layer.weights))) if key in arrays
        ]
        for layer in layers
    }


def _yamnet_hdf5(path, layers):
    """The weights of yamnet.h5, whose batch normalization is folded into its convolutions; or those of Keras 3."""
    arrays = read_hdf5(path)
    if all(name.rpartition("/")[2].isdigit() for name in arrays):
        return _keras_weights(arrays, layers)
    found = {}
    for layer in layers:
        if layer.name == "logits":  # called dense in later versions
            names = ("logits/logits", "dense/dense")
            found[layer.name] = [
                arrays[f"{name}/{key}:0"] for key in ("kernel", "bias") for name in names if f"{name}/{key}:0" in arrays
            ]
            continue
        place = "/".join(layer.name.split("_", 1))  # layer2/depthwise_conv
        kernel = "depthwise_kernel" if place.endswith("depthwise_conv") else "kernel"
        names = [f"{place}/{place}/{kernel}:0"]
        names += [f"{place}/bn/{place}/bn/{key}:0" for key in ("beta", "moving_mean", "moving_variance")]
        channels = layer.weights[1].shape
        shapes = [tuple(layer.weights[0].shape), channels, channels, channels]
        _check_shapes(path, arrays, dict(zip(names, shapes, strict=True)))
        found[layer.name] = fold_batch_norm(*(arrays[name] for name in names), epsilon=YAMNET_EPSILON)
    return found


def fold_batch_norm(
    kernel: np.ndarray,
    beta: np.ndarray,
    mean: np.ndarray,
    variance: np.ndarray,
    *,
    gamma: np.ndarray | float = 1.0,
    epsilon: float,
) -> list[np.ndarray]:
    """A convolution and the batch normalization after it as one convolution.

    Args:
        kernel: [h, w, inputs, C], or [h, w, C, 1] of a depthwise convolution.
        beta, mean, variance: [C], of the batch normalization.
        gamma: [C], its scale.
        epsilon: Added to the variance.

    Returns:
        [kernel, bias [C]], float32.

    Example:
        >>> kernel, bias = fold_batch_norm(np.ones((1, 1, 1, 2)), np.ones(2), np.ones(2), np.full(2, 4.0), epsilon=0.0)
        >>> kernel.ravel().tolist(), bias.tolist()
        ([0.5, 0.5], [0.5, 0.5])
    """
    scale = np.asarray(gamma / np.sqrt(variance.astype("float64") + epsilon))  # [C]
    depthwise = kernel.shape[-1] == 1 and kernel.shape[-2] == len(scale)
    folded = kernel * (scale[:, None] if depthwise else scale)
    return [folded.astype("float32"), (beta - mean * scale).astype("float32")]


def _yamnet_tflite(path, layers):
    """The weights of a TensorFlow Lite version of YAMNet: its convolutions in their order, and its last layer."""
    operations = [constants for constants in read_tflite(path) if len(constants) == 2]
    kernels = [constants for constants in operations if constants[0].ndim == 4]
    tops = [constants for constants in operations if constants[0].ndim == 2]
    found = {}
    for layer in layers:
        weights = tops if layer.name == "logits" else kernels
        if not weights:
            continue
        kernel, bias = weights.pop(-1 if layer.name == "logits" else 0)  # other matrices belong to the front end
        found[layer.name] = [kernel.T if kernel.ndim == 2 else kernel.transpose(1, 2, 3, 0), bias]
    return found


def _keras_hdf5(path, layers):
    """The weights of a .weights.h5 of audiotag."""
    return _keras_weights(read_hdf5(path), layers)


def _efficientat_torch(path, layers):
    """The weights of a checkpoint of EfficientAT, whose batch normalization is folded into its convolutions."""
    arrays, found = read_torch(path), {}
    for layer in layers:
        place = {"embedding": "classifier.2", "logits": "classifier.5"}.get(layer.name, layer.name.replace("_", "."))
        dense = layer.name in ("embedding", "logits") or "fc" in layer.name
        place = place.replace(".fc", ".conc_se_layers.0.fc")
        keys = ("weight", "bias") if dense else ("0.weight", "1.bias", "1.running_mean", "1.running_var", "1.weight")
        names = [f"{place}.{key}" for key in keys]
        kernel, channels = tuple(layer.weights[0].shape), tuple(layer.weights[1].shape)
        depthwise = isinstance(layer, keras.layers.DepthwiseConv2D)
        axes = (1, 0) if dense else (2, 3, 0, 1) if depthwise else (2, 3, 1, 0)  # from PyTorch's order to that of Keras
        shape = tuple(np.array(kernel)[np.argsort(axes)].tolist())
        _check_shapes(path, arrays, dict(zip(names, [shape, *[channels] * (len(names) - 1)], strict=True)))
        weight, *others = (arrays[name] for name in names)
        weight = weight.transpose(axes)
        if dense:
            found[layer.name] = [weight, *others]
        else:
            beta, mean, variance, gamma = others
            found[layer.name] = fold_batch_norm(weight, beta, mean, variance, gamma=gamma, epsilon=EFFICIENTAT_EPSILON)
    return found


def _check_shapes(path, arrays, shapes):
    """Refuses a file in which an array of {name: shape} is missing or has another shape."""
    for name, shape in shapes.items():
        if name not in arrays or arrays[name].shape != shape:
            other = f"has the shape {arrays[name].shape}" if name in arrays else "is missing"
            raise DataError(f"{path}: no weights of this network: {name} {other}. Expected the shape {shape}.")


def _efficientat(file, sha256):
    """What is published of one of EfficientAT's networks."""
    return Published(
        url=f"https://github.com/fschmid56/EfficientAT/releases/download/v0.0.1/{file}",
        sha256=sha256,
        frontend="efficientat_mel",
        sample_rate=32_000,
        input_shape=(128, None, 1),
        embeddings="embedding",
        other_classes=OTHER_CLASSES,
        formats={"hdf5": _keras_hdf5, "zip": _efficientat_torch},
        expected=f"{file} or of a .weights.h5 file of audiotag",
    )


PUBLISHED = {
    "yamnet": Published(
        url="https://storage.googleapis.com/audioset/yamnet.h5",
        sha256="13c3308955bbfaef262f175ac9c40e47b134573a93984f009220dd7cc12a1744",
        frontend="yamnet_mel",
        sample_rate=16_000,
        input_shape=(64, None, 1),
        embeddings="patch_embeddings",
        other_classes={},
        formats={"hdf5": _yamnet_hdf5, "tflite": _yamnet_tflite},
        expected="yamnet.h5, of its .tflite version or of a .weights.h5 file of audiotag",
    ),
    "mn04": _efficientat("mn04_as_mAP_432.pt", "899a8c6217063f6941793102a2780b3dd788ab11fce468d9cf5f0577c453321c"),
    "mn10": _efficientat("mn10_as_mAP_471.pt", "0bd7dc2443af498c289a2e739f02ebb515d6aa3fd3ab9db539c86123ae368a4e"),
}
