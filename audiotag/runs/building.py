"""From an experiment to its tagger, with fresh weights."""

import contextlib
import inspect
import itertools

import keras

from audiotag.config.components import options
from audiotag.errors import ConfigError, blamed_on
from audiotag.layers import AUGMENTS, FRONTENDS, LABELLED, PICTURES, WAVEFORMS, RawWave, ToPicture
from audiotag.models import MODELS
from audiotag.models.label_groups import SUBSETS, num_columns
from audiotag.models.tagger import Tagger


def build_tagger(experiment, *, sample_rate, num_classes, stage=None):
    """The network of an experiment, front end and disturbances included, with fresh weights.

    Args:
        experiment: An `Experiment`.
        sample_rate: Rate of the waveforms in Hz.
        num_classes: K.
        stage: The `Stage` whose `augment` takes the place of the experiment's, where it has one.

    Returns:
        A built `Tagger`.

    Raises:
        ConfigError: A part refuses its settings, or does not fit what comes before it.
    """
    window_samples = round(experiment.window.seconds * sample_rate)
    if window_samples < 1:
        raise ConfigError(f"window.seconds: {experiment.window.seconds} s at {sample_rate} Hz hold no sample.")
    whole = experiment.predict.windows == "whole"
    apart = experiment.noisy_head or (stage is not None and stage.noisy_loss is not None)
    num_labels = num_columns(num_classes) if apart else num_classes
    with _precision(experiment.precision):
        augment = experiment.augment if stage is None or stage.augment is None else stage.augment
        ear = _build_ear(experiment, augment, None if whole else window_samples, num_labels, sample_rate)
        picture, answers = ear.outputs
        if whole and picture.shape[-2] is not None:
            raise ConfigError(
                f'predict.windows: "whole" needs pictures as long as their sound, but these have {picture.shape[-2]} '
                "frames always. Leave out the step that fixes their length, or choose other windows."
            )
        with blamed_on(f"model {experiment.model.name}"):
            heads = len(SUBSETS) if experiment.noisy_head else answers.shape[1] // num_labels  # 4 for flips
            network = MODELS[experiment.model.name](picture.shape[1:], heads * num_classes, **options(experiment.model))
    tagger = Tagger(
        ear,
        network,
        num_classes=num_classes,
        window_samples=window_samples,
        short_clips=experiment.window.short_clips,
        laid=experiment.predict.windows,
        overlap=experiment.predict.overlap,
        count=experiment.predict.count,
        pool=experiment.predict.pool,
        flips=experiment.predict.flips,
        one_label=experiment.labels == "one",
        apart=apart,
    )
    tagger.build((None, window_samples))
    return tagger


def _build_ear(experiment, augment, window_samples, num_labels, sample_rate):
    """All that comes before the network: (window [B, n], labels [B, L]) → (picture [B, M, T, C], labels)."""
    window = keras.Input((window_samples,), dtype="float32", name="waveform")  # [B, n]
    labels = keras.Input((num_labels,), dtype="float32", name="labels")  # [B, K], or [B, 2 (K + 1)]
    seeds = itertools.count(experiment.seed)
    sound, answers = _chain("waveform", experiment.waveform, WAVEFORMS, (window, labels), seeds)
    with blamed_on(f"frontend {experiment.frontend.name}"):
        front_end = FRONTENDS[experiment.frontend.name](sample_rate=sample_rate, **options(experiment.frontend))
        heard = front_end(sound)  # [B, T, M]
        if not isinstance(front_end, RawWave):  # a network for raw waves takes [B, N, 1] as it is
            heard = ToPicture()(heard)  # [B, M, T, 1]
    picture = _chain("picture", experiment.picture, PICTURES | AUGMENTS, (heard, answers), seeds)
    picture = _chain("augment", augment, AUGMENTS, picture, seeds)
    return keras.Model((window, labels), picture, name="ear")


def _chain(where, parts, table, sound, seeds):
    """Puts the parts of one list of an experiment one after the other: (sound, labels) → (sound, labels)."""
    for index, part in enumerate(parts):
        with blamed_on(f"{where}[{index}] {part.name}"):
            kind = table[part.name]
            dice = {"seed": next(seeds)} if "seed" in inspect.signature(kind).parameters else {}
            layer = kind(**options(part), **dice)
            sound = layer(sound) if isinstance(layer, LABELLED) else (layer(sound[0]), sound[1])
    return sound


@contextlib.contextmanager
def _precision(policy):
    """Layers made inside compute in this precision."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)
