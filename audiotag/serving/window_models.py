"""Predictors that score windows of a fixed length, on any backend of Keras."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from keras import ops

from audiotag.backend import compiled
from audiotag.data.audio.audio_config import AudioConfig
from audiotag.ensembling.members import TrainedEnsemble
from audiotag.errors import DataError
from audiotag.inference.predictor import Predictor
from audiotag.models.tagger import Tagger
from audiotag.padding import full_clip_lengths
from audiotag.serving.converted_models import NUM_FLIPS, ConvertedModel, clip_logits


def window_settings(trained: TrainedEnsemble) -> ConvertedModel:
    """How the clips of a trained run are cut into windows and pooled.

    Raises:
        DataError: It is an ensemble, or its windows are random crops.
    """
    if len(trained.members) > 1 or trained.combine is not None:
        raise DataError("an ensemble predicts on TensorFlow only. Set KERAS_BACKEND=tensorflow.")
    [member] = trained.members
    tagger, predict, calibration = member.taggers[0], member.experiment.predict, trained.calibration
    if predict.windows == "random_crops":
        raise DataError("predict.windows random_crops predicts on TensorFlow only. Set KERAS_BACKEND=tensorflow.")
    return ConvertedModel(
        audio_config=AudioConfig(**trained.audio_config),
        vocabulary=trained.vocabulary,
        thresholds=None if calibration is None else calibration.thresholds,
        temperature=1.0 if calibration is None else calibration.temperature,
        num_models=len(member.taggers),
        window_samples=tagger.window_samples,
        hop=tagger.hop,
        pad="repeat" if tagger.pad == "repeat" else "zeros",
        windows=predict.windows,
        num_windows=predict.num_windows,
        pool=predict.pool,
        flip_tta=predict.flip_tta,
    )


def window_logits(taggers: Sequence[Tagger], windows: Any) -> Any:
    """The logits of windows by all models and flips.

    The shapes are float32 [W, n] → [W, M, K].
    """
    flips = range(NUM_FLIPS) if taggers[0].flip_tta else (0,)
    logits = [
        ops.reshape(tagger.window_logits(windows, flips=flips), (-1, len(flips), tagger.num_classes))
        for tagger in taggers
    ]
    return ops.concatenate(logits, axis=1)


def window_predictor(trained: TrainedEnsemble) -> Predictor:
    """The `Predictor` of a trained run on any backend.

    Raises:
        DataError: As for `window_settings`.
    """
    settings = window_settings(trained)
    taggers = trained.members[0].taggers
    score = _for_few_shapes(compiled(lambda windows: window_logits(taggers, windows), taggers))
    embed = _for_few_shapes(compiled(taggers[0].clip_embeddings, taggers[:1]))
    lengths = np.array(full_clip_lengths(settings.window_samples))

    def embeddings(waveform):
        longer = lengths[min(np.searchsorted(lengths, waveform.shape[1]), len(lengths) - 1)] - waveform.shape[1]
        return embed(np.pad(waveform, ((0, 0), (0, max(longer, 0)))))

    return Predictor(
        lambda waveform: clip_logits(settings, score, np.asarray(waveform, "float32")),
        trained.audio_config,
        trained.vocabulary,
        settings.window_samples,
        settings.hop,
        settings.pool,
        thresholds=settings.thresholds,
        embeddings=embeddings,
    )


def _for_few_shapes(function: Callable[[Any], Any]) -> Callable[[np.ndarray], np.ndarray]:
    """The same function of arrays [B, ...] for a number of rows that is a power of 2: JAX compiles for each shape."""

    def of_any_rows(inputs):
        missing = (1 << max(len(inputs) - 1, 0).bit_length()) - len(inputs)
        padded = np.pad(inputs, [(0, missing)] + [(0, 0)] * (inputs.ndim - 1))
        return ops.convert_to_numpy(function(padded))[: len(inputs)]

    return of_any_rows
