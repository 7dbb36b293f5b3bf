"""From an experiment to its model, with initial weights."""

import contextlib
import itertools
import math
from collections.abc import Iterator

import keras

from audiotag.config.custom import accepts, create, errors_of
from audiotag.config.schema import Experiment, Stage
from audiotag.errors import ConfigError, error_context
from audiotag.layers import (
    FRONTENDS,
    IMAGE_AUGMENTATIONS,
    IMAGE_PREPROCESSING,
    WAVEFORM_AUGMENTATIONS,
    RandomAugmentation,
    RawWaveform,
    ToImage,
)
from audiotag.models import MODELS
from audiotag.models.heads import HEADS, NetworkParts, pooled
from audiotag.models.label_groups import NUM_GROUPS, num_grouped_columns
from audiotag.models.tagger import Tagger
from audiotag.runs.directory import window_samples
from audiotag.runs.pretrained import load_pretrained, separate_weights

MOST_VALUES = 1 << 27  # of an image: half a gigabyte


def build_tagger(experiment: Experiment, *, sample_rate: int, num_classes: int, stage: Stage | None = None) -> Tagger:
    """The model of an experiment, with initial weights.

    It consists of a front end, preprocessing, augmentation and a network.

    Args:
        experiment: An `Experiment`.
        sample_rate: Sample rate of the waveforms in Hz.
        num_classes: K.
        stage: The `Stage` whose `augment`, if it has one, replaces the experiment's.

    Returns:
        A built `Tagger`.

    Raises:
        ConfigError: A component refuses its options, or does not fit the component before it.
    """
    num_samples = window_samples(experiment, sample_rate)
    if num_samples < 1:
        raise ConfigError(f"window.seconds: {experiment.window.seconds} s at {sample_rate} Hz have no sample.")
    full_clip = experiment.predict.windows == "full_clip"
    separate_subsets = experiment.noisy_head or (stage is not None and stage.noisy_loss is not None)
    num_labels = num_grouped_columns(num_classes) if separate_subsets else num_classes
    with _dtype_policy("float32"):
        augment = experiment.augment if stage is None or stage.augment is None else stage.augment
        preprocessor = _build_preprocessor(
            experiment, augment, None if full_clip else num_samples, num_labels, sample_rate
        )
        image, labels = preprocessor.outputs
        if (size := math.prod(filter(None, image.shape))) > MOST_VALUES:
            raise ConfigError(
                f"the image of a window has the shape {image.shape[1:]}, {size:,} values. Expected at most "
                f"{MOST_VALUES:,}: choose a shorter window, a longer frame_step or a smaller size."
            )
        if full_clip and image.shape[-2] is not None:
            raise ConfigError(
                f'predict.windows: "full_clip" needs images as long as their clip, but these always have '
                f"{image.shape[-2]} frames. Leave out the component that fixes their length, or choose other windows."
            )
        with error_context(f"model {experiment.model.name}"), _dtype_policy(experiment.dtype_policy):
            num_heads = NUM_GROUPS if experiment.noisy_head else labels.shape[1] // num_labels  # 4 for flips
            num_logits = num_heads * num_classes
            model, weights = separate_weights(experiment.model)
            network = create(model, MODELS, input_shape=image.shape[1:], num_classes=num_logits)
            _check_network(network, num_logits)
            if weights is not None:
                load_pretrained(network, weights)
        if experiment.head is not None:
            with error_context(f"head {experiment.head.name}"), _dtype_policy(experiment.dtype_policy):
                network = _with_head(network, experiment.head, num_logits)
    tagger = Tagger(
        preprocessor,
        network,
        num_classes=num_classes,
        window_samples=num_samples,
        pad=experiment.window.pad,
        window_layout=experiment.predict.windows,
        overlap=experiment.predict.overlap,
        num_windows=experiment.predict.num_windows,
        pool=experiment.predict.pool,
        flip_tta=experiment.predict.flip_tta,
        single_label=experiment.task == "single_label",
        separate_subsets=separate_subsets,
    )
    tagger.build((None, num_samples))
    return tagger


def _build_preprocessor(experiment, augment, num_samples, num_labels, sample_rate):
    """All components before the network: (waveform [B, N], labels [B, L]) → (image [B, M, T, C], labels)."""
    waveform = keras.Input((num_samples,), dtype="float32", name="waveform")  # [B, N]
    labels = keras.Input((num_labels,), dtype="float32", name="labels")  # [B, K], or [B, 2 (K + 1)]
    seeds = itertools.count(experiment.seed)
    augmented, changed = _chain(
        "waveform_augment", experiment.waveform_augment, WAVEFORM_AUGMENTATIONS, (waveform, labels), seeds
    )
    with error_context(f"frontend {experiment.frontend.name}"):
        front_end = create(experiment.frontend, FRONTENDS, sample_rate=sample_rate)
        with errors_of(experiment.frontend):
            image = front_end(augmented)  # [B, T, M]
        _check_output(image, "[B, T, M]", 3)
        if not isinstance(front_end, RawWaveform):  # its networks take [B, N, 1]
            image = ToImage()(image)  # [B, M, T, 1]
    table = IMAGE_PREPROCESSING | IMAGE_AUGMENTATIONS
    outputs = _chain("image_preprocess", experiment.image_preprocess, table, (image, changed), seeds)
    outputs = _chain("augment", augment, IMAGE_AUGMENTATIONS, outputs, seeds)
    return keras.Model((waveform, labels), outputs, name="preprocessor")


def _chain(where, components, table, inputs, seeds):
    """Applies the components of one list of an experiment in order: (inputs, labels) → (outputs, labels)."""
    outputs, labels = inputs
    for index, component in enumerate(components):
        with error_context(f"{where}[{index}] {component.name}"):
            seed = {"seed": next(seeds)} if accepts(component, table, "seed") else {}
            layer = create(component, table, **seed)
            with errors_of(component):
                if isinstance(layer, RandomAugmentation):
                    outputs, labels = layer((outputs, labels))
                else:
                    outputs = layer(outputs)
            _check_output(outputs, "of the rank of its input", len(inputs[0].shape))
            _check_output(labels, "labels [B, K]", 2)
    return outputs, labels


def _check_output(output, expected, rank):
    """Refuses what a layer returns if it is no tensor of a rank."""
    if not isinstance(output, keras.KerasTensor) or len(output.shape) != rank or not output.dtype.startswith("float"):
        found = (
            f"{output.dtype} {list(output.shape)}" if isinstance(output, keras.KerasTensor) else type(output).__name__
        )
        raise ValueError(f"returns {found}. Expected a float tensor {expected}.")


def _with_head(network, head, num_logits):
    """A network with other output layers."""
    embeddings = pooled(NetworkParts(network).features)  # [B, D]
    logits = create(head, HEADS, embeddings=embeddings, num_logits=num_logits)
    with errors_of(head):
        replaced = keras.Model(network.input, logits, name=network.name)
    _check_network(replaced, num_logits)
    return replaced


def _check_network(network, num_logits):
    """Refuses what is no functional model from an image to logits."""
    output = getattr(network, "output_shape", None) if isinstance(network, keras.Model) else None
    if output != (None, num_logits):
        found = type(network).__name__ if output is None else f"a model with the output {output}"
        raise ValueError(
            f"returns {found}. Expected a functional model, keras.Model(inputs, outputs), with the output "
            f"(None, {num_logits})."
        )


@contextlib.contextmanager
def _dtype_policy(name: str) -> Iterator[None]:
    """Layers that are created during the block have this dtype policy."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(name)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)
