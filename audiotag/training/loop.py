"""Trains an experiment: every stage of every held-out fold, one after the other."""

import contextlib
import functools
import json
import math
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import keras
import numpy as np
import pandas as pd
import tensorflow as tf

from audiotag import files
from audiotag.config import custom
from audiotag.config.loading import dump, parse
from audiotag.config.schema import SCHEMA_VERSION, Experiment, Stage, StartFrom, expand_rounds, stage_named, stage_of
from audiotag.crossval.distillation import open_teachers, stage_targets
from audiotag.crossval.fold_context import FoldContext
from audiotag.crossval.label_selection import best_round, stage_clips
from audiotag.crossval.out_of_fold import out_of_fold_scores
from audiotag.crossval.source_clips import check_source, keep_source
from audiotag.crossval.splits import (
    check_subset_names,
    check_subsets,
    how_split,
    keep_corrections,
    refuse_background,
    training_clips,
    untrained_classes,
    validation_clips,
)
from audiotag.data.clips import read_clips
from audiotag.data.labels import multi_hot
from audiotag.data.pipeline import Stopwatch, evaluation_batches, explain_damage, feature_batches, training_batches
from audiotag.data.records.manifest import Manifest, read_manifest, refuse_damage
from audiotag.data.records.offsets import find_offsets
from audiotag.data.sampling import sampling_probabilities
from audiotag.errors import ConfigError, DataError
from audiotag.models.label_groups import group_labels
from audiotag.models.tagger import Tagger
from audiotag.remote import is_url
from audiotag.runs.directory import (
    DESCRIPTIONS,
    RETRAIN,
    Run,
    StageFiles,
    StageResult,
    changed_keys,
    find_records,
    is_run,
    is_trained,
    num_cores,
    open_run,
    read_section,
    start_run,
    steps_per_epoch,
)
from audiotag.runs.models import load_tagger
from audiotag.runs.warm_start import Source, load_source, num_source_stages
from audiotag.runs.weights import load_weights, save_weights
from audiotag.training import tensorboard
from audiotag.training.baselines import compare_with_baselines, has_baselines, write_baselines
from audiotag.training.callbacks import (
    CheckRecords,
    CSVLogger,
    EvaluateAverage,
    FollowState,
    ModelCheckpoint,
    Progress,
    SaveState,
    SetEpoch,
    StopAtNan,
    WarnAtDivergence,
    signals_save,
)
from audiotag.training.compiling import check_stages, compile_tagger, set_class_weights, stage_callbacks, stage_tagger
from audiotag.training.devices import Devices, joined
from audiotag.training.embedding_cache import cached_features
from audiotag.training.initial_head import set_initial_head
from audiotag.training.state import forget_state, is_saved, restore_callbacks, resume, state_variables
from audiotag.training.traced_models import TracedModels


def fit(
    experiment: Experiment,
    folder: str | Path,
    *,
    fold: int | None = None,
    restart: bool = False,
    devices: Literal["all"] | int | None = None,
    say: Callable[[str], Any] = print,
) -> Run:
    """Trains all stages of an experiment, or resumes a run that was killed.

    For each held-out fold the stages are trained one after the other on the other folds, and its trusted
    clips validate every epoch; `validation` may name other clips, or none. The same experiment, seed and
    processor give the same weights, whether or not the run was killed in between.

    If the models of all folds together select the noisy clips of a stage, all folds are trained
    up to this stage before any continues.

    Args:
        experiment: An `Experiment`.
        folder: The directory of the run, runs/NAME.
        fold: Train this fold alone; None trains those of the experiment.
        restart: Discard what the directory holds.
        devices: As for `devices.joined`. Of several processes only process 0 uses the directory.
        say: Called with a sentence after each stage.

    Returns:
        The `Run`.

    Raises:
        ConfigError: A component refuses its options, or there are not so many devices.
        DataError: The records are damaged or have too few clips, the directory holds another run, or another process
            died.
        KeyboardInterrupt: By Ctrl-C, after the current step is done and saved; the same call continues from there.
    """
    with joined(devices) as group:
        if group is not None and group.index:
            return _follow(experiment, folder, group)
        run = _fit(experiment, folder, fold, restart, group, say)
        if group is not None:
            group.send(None)
    return run


def _fit(experiment, folder, fold, restart, devices, say):
    """As `fit`, in the only or first process."""
    num_folds = experiment.num_folds
    if fold is not None and not 0 <= fold < num_folds:
        raise ConfigError(f"there is no fold {fold}. Accepted: 0 to {num_folds - 1}.")
    if devices is not None:
        devices.check(experiment)
    manifest = _read_records(experiment, folder, restart, say)
    clips = read_clips(manifest.directory / "clips.csv")
    check_subset_names(experiment, manifest)
    refuse_background(experiment, clips, manifest.place)
    with custom.allowed():
        experiment = custom.with_checked_options(experiment)
        if restart or not is_trained(folder):
            check_stages(experiment, manifest, folds=None if fold is None else (fold,), folder=folder)
        with start_run(folder, experiment, manifest, restart=restart) as run:
            _report_other_cores(run, say)
            folds = experiment.held_out if fold is None else (fold,)
            _fit_folds(run, manifest, clips, folds, devices, say)
    return run


def _read_records(experiment: Experiment, folder: str | Path, restart: bool, say: Callable[[str], Any]) -> Manifest:
    """The records of an experiment; or, if its directory is gone, those of the run that continues."""
    if restart or not is_run(folder) or is_url(experiment.records) or Path(experiment.records).is_dir():
        return read_manifest(experiment.records)
    run = open_run(folder)
    manifest = find_records(run)
    if manifest.is_at(run.experiment.records):
        say(f"{experiment.records}: there is no such directory. {folder} continues on {manifest.place}.")
    return manifest


def _report_other_cores(run, say):
    """Says if a run continues on another number of cores, which changes the last bits of its weights."""
    before, now = json.loads(run.environment_file.read_text(encoding="utf-8"))["cores"], num_cores()
    if is_trained(run.folder) and before != now:
        say(
            f"{run.folder}: began on {before} cores and continues on {now}, so its weights will differ in the last "
            f"bits from those of an uninterrupted run."
        )


def _fit_folds(run, manifest, clips, folds, devices, say):
    """Trains all stages of some folds."""
    experiment = run.experiment
    if experiment.deterministic:
        tf.config.experimental.enable_op_determinism()
    keep_corrections(run)
    clips = training_clips(run, clips)
    check_subsets(run, clips)
    complete = all(_is_complete(run, fold) for fold in folds)
    offsets = None if complete else find_offsets(manifest)
    models = TracedModels()
    contexts = [FoldContext(run, manifest, clips, fold, experiment.stages[-1], offsets) for fold in folds]
    say = functools.cache(say)  # what is true of several folds is said once
    for context in contexts:
        _check_sources(context)
        if untrained := untrained_classes(run, clips, context.fold):
            shown = f"{', '.join(untrained[:5])}{', …' if len(untrained) > 5 else ''}"
            say(
                f"Fold {context.fold}: no clip of {len(untrained)} of {len(run.vocabulary)} classes is trained on, as "
                f"all are held out or there are none: {shown}."
            )
    if not complete:
        refuse_damage(manifest)
    with explain_damage(manifest):
        for group in _stage_groups(experiment):
            for context in contexts:
                _fit_group(context, group, models, devices, say)
            _choose_round(run, folds, group[-1][1], say)
        for context in contexts if experiment.validation is not None else ():
            with _exclusive_lock(run.fold_folder(context.fold)):
                out_of_fold_scores(context)


def _is_complete(run, fold):
    """Whether a fold has finished all stages and scored its validation clips, so that no clip is read."""
    experiment = run.experiment
    scores = run.stage_files(fold, experiment.stages[-1].name).oof_scores()
    is_scored = experiment.validation is None or scores.is_file()
    return is_scored and all(run.result(fold, stage.name) for stage in expand_rounds(experiment))


def _check_sources(context):
    """Refuses weights and teachers from outside the run that a stage of a fold that has not begun may not use."""
    for stage in expand_rounds(context.run.experiment):
        at_stage = context.at_stage(stage.name)
        begun = at_stage.files.result.is_file() or is_saved(at_stage.files.training_state)
        if not begun:
            open_teachers(at_stage)
            if isinstance(stage.start_from, StartFrom):
                check_source(at_stage)


def _stage_groups(experiment: Experiment) -> list[list[tuple[int, Stage]]]:
    """Groups of (index, stage): within a group, a fold does not wait for the other folds."""
    groups: list[list[tuple[int, Stage]]] = []
    for index, stage in enumerate(expand_rounds(experiment)):
        after_rounds = groups and "/" in groups[-1][-1][1].name  # all folds choose the best round together
        all_folds_select = stage.select is not None and experiment.split_noisy
        if not groups or after_rounds or all_folds_select:
            groups.append([])
        groups[-1].append((index, stage))
    return groups


def _fit_group(context, group, models, devices, say):
    """Trains the stages of a group for one fold."""
    run, fold = context.run, context.fold
    folder = run.fold_folder(fold)
    with _exclusive_lock(folder):
        for place in list(folder.glob("**/")):
            files.delete_unfinished(place)  # of killed processes
        for index, stage in group:
            at_stage = context.at_stage(stage.name)
            num_validation = _num_validation_clips(at_stage)
            result = run.result(fold, stage.name)
            if result is None:
                result = _fit_stage(at_stage, index, models, devices, say)
            forget_state(at_stage.files.training_state)
            name, value = result["monitor"].removeprefix("val_"), result["value"]
            where = f"{num_validation} validation clips" if num_validation else "the training clips"
            where += f", split {how_split(run.experiment, context.clips)}" if num_validation else ""
            when = f"epoch {result['best_epoch'] + 1} of {result['epochs']}"
            if initial := result["initial_head"]:
                options = ", ".join(f"{key} {number:.4g}" for key, number in initial.items() if key != "name")
                when += f", initial head {initial['name']} ({options})"
            say(f"{stage.name} stage, fold {fold}: {name} {value:.4f} on {where}, {when}.")
            for sentence in compare_with_baselines(run, fold, stage, result):
                say(sentence)


def _num_validation_clips(context):
    """The number of validation clips, 0 without validation."""
    run = context.run
    if run.experiment.validation is None:
        return 0
    return len(validation_clips(run, context.clips, context.fold, context.stage))


def _exclusive_lock(folder: Path) -> AbstractContextManager[None]:
    """A lock on the folder of a fold."""
    folder.mkdir(parents=True, exist_ok=True)
    return files.locked(
        folder / ".lock", f"{folder}: another fit is training here. Wait for it, or choose another --run."
    )


def _fit_stage(
    context: FoldContext, index: int, models: TracedModels, devices: Devices | None, say: Callable[[str], Any]
) -> dict[str, Any]:
    """Trains a stage for one fold; its result."""
    run, stage, stage_files = context.run, context.stage, context.files
    stage_files.folder.mkdir(parents=True, exist_ok=True)
    clips = stage_clips(context)
    files.write_text(stage_files.training_clips, files.csv_text(clips[["name", "labels", "weight", "group", "sha256"]]))
    num_steps = steps_per_epoch(stage, len(clips))
    sampling = _sampling(run, clips, stage, num_steps)
    if stage.epochs and not sampling and len(clips) < stage.batch_size:
        raise ConfigError(
            f"stages.{stage_of(stage.name)}.batch_size: {len(clips)} clips do not fill a batch of "
            f"{stage.batch_size}. Give more clips or a smaller one."
        )
    state = stage_files.training_state
    resumed = is_saved(state)
    source = keep_source(context, say) if isinstance(stage.start_from, StartFrom) and not resumed else None
    targets = stage_targets(context, clips, resumed=resumed, say=say)
    index += num_source_stages(run, context.fold, stage.name)  # seeds are those of an uninterrupted row of stages
    tagger = _compiled_tagger(context, index, num_steps, source=source, say=say)
    set_class_weights(tagger, stage, clips["labels"], run.vocabulary)
    num_validation = _num_validation_clips(context)
    tagger = models.reuse(tagger, run.experiment, stage, num_steps=num_steps, num_validation=num_validation)
    callbacks = stage_callbacks(run.experiment, stage, stage_files, num_classes=len(run.vocabulary))
    batches = _batches(context, clips, targets, index, tagger)
    began = time.monotonic()
    resume(state, tagger)
    if stage.start_from is None and not resumed:
        tagger.adapt(lambda: (waveform for waveform, _ in batches(epochs=range(1))))
    if has_baselines(context) and not resumed:
        write_baselines(context, tagger, clips, say=say)
    has_new_head = stage.initial_head is not None and not resumed
    if has_new_head or stage.cache_embeddings:
        features = cached_features(context, tagger, clips, "training", say=say)
        if has_new_head:
            set_initial_head(context, tagger, clips, features, sampling.get("probabilities"))
        if stage.cache_embeddings:
            tagger.takes_features = True
            batches = functools.partial(batches, features=features)
    is_validated = run.experiment.validation is not None
    evaluated = validation_clips(run, context.clips, context.fold, stage) if is_validated else clips
    if stage.epochs == 0:
        batches = _evaluation_batches(context, tagger, evaluated, say)
        return _finish_untrained(context, tagger, batches, time.monotonic() - began)
    validation = _evaluation_batches(context, tagger, evaluated, say) if is_validated else None
    log_folders = tensorboard.log_folders(callbacks)
    if not resumed and not tagger.takes_features:
        for folder in log_folders:
            tensorboard.write_windows(folder, tagger, batches(epochs=range(1), **sampling), run.vocabulary)
    warn_at_divergence = WarnAtDivergence(stage_of(stage.name), context.fold, len(run.vocabulary))
    steps = _Steps(num_steps, num_validation, clips, targets, evaluated if is_validated else None, sampling)
    if tagger.takes_features:
        devices = None  # process 0 has the features, and training on them takes seconds
    while True:
        metadata = resume(state, tagger)
        epochs_done, steps_done = metadata["epochs_done"], metadata["steps_done"]
        if epochs_done > stage.epochs or steps_done >= num_steps:
            raise DataError(
                f"{state}: {epochs_done} epochs and {steps_done} steps are done, but the stage has {stage.epochs} "
                f"epochs of {num_steps} steps. {RETRAIN}"
            )
        if epochs_done == stage.epochs or metadata["stop_training"]:
            result = _finish_stage(context, tagger, callbacks, metadata, resumed)
            if log_folders and validation is not None:
                load_weights(tagger, stage_files.folder / result["weights"])
                for folder in log_folders:
                    tensorboard.write_confusions(folder, tagger, validation, run.vocabulary, step=result["best_epoch"])
            return result
        save_state = SaveState(state, callbacks, metadata)
        with signals_save(save_state):
            if devices is None:
                trained = tagger
            else:
                arrays = [keras.ops.convert_to_numpy(variable) for variable in state_variables(tagger)]
                devices.send(_job(context, index, steps, metadata), [*arrays, *metadata["metric_state"]])
                trained = _replica(context, index, steps, arrays, devices)
            last_callbacks = [warn_at_divergence, save_state]
            _train(context, trained, steps, batches, validation, callbacks, last_callbacks, devices, validator=tagger)


@dataclass(frozen=True, eq=False)
class _Steps:
    """What the steps of a stage are computed from, besides the stage and the weights.

    Args:
        num_steps: Batches per epoch.
        num_validation: Number of validation clips.
        clips: The training clips.
        targets: What the loss compares their predictions with, [n, K].
        evaluated: The validation clips; None without validation.
        sampling: What `_sampling` returns.
    """

    num_steps: int
    num_validation: int
    clips: pd.DataFrame
    targets: np.ndarray
    evaluated: pd.DataFrame | None
    sampling: dict[str, Any]


def _train(context, tagger, steps, batches, validation, callbacks, last_callbacks, devices, *, validator):
    """Trains the rest of an epoch that was interrupted, or all epochs that are left."""
    stage, metadata = context.stage, last_callbacks[-1].metadata
    epochs_done, steps_done = metadata["epochs_done"], metadata["steps_done"]
    epochs = epochs_done + 1 if steps_done else stage.epochs
    share = {} if devices is None else {"share": devices.share}
    dataset = batches(epochs=range(epochs_done, epochs), **steps.sampling, **share).skip(steps_done)
    dataset = dataset.map(lambda waveform, truth: ((waveform, truth), truth))  # labels are augmented, too
    stopwatch = Stopwatch()
    clips_of_step = functools.partial(_clips_of_step, context, steps.clips, batches.keywords | steps.sampling)
    shown = [Progress(f"{stage.name}, fold {context.fold}", stage.batch_size, stopwatch)]
    with contextlib.nullcontext() if devices is None else devices.training():
        tagger.fit(
            stopwatch.timed(dataset),
            epochs=epochs,
            initial_epoch=epochs_done,
            steps_per_epoch=steps.num_steps - steps_done,
            validation_freq=stage.validation_freq,
            validation_data=validation,
            callbacks=[
                *(devices.callbacks(validator) if devices is not None else ()),
                StopAtNan(context.files.folder, steps_done, clips_of_step),
                CheckRecords(context.manifest),
                SetEpoch(),
                *callbacks,
                EvaluateAverage(),
                *(shown if devices is None or devices.index == 0 else ()),
                *last_callbacks,
            ],
            shuffle=False,  # the pipeline shuffles
            verbose=0,
        )


def _replica(context, index, steps, arrays, devices):
    """The model of a stage whose variables, with these values, are on all devices."""
    with devices.building():
        replica = _built_tagger(context, index, steps.num_steps, steps.num_validation)
        set_class_weights(replica, context.stage, steps.clips["labels"], context.run.vocabulary)
        devices.prepare(replica)
        replica = devices.models.reuse(
            replica,
            context.run.experiment,
            context.stage,
            num_steps=steps.num_steps,
            num_validation=steps.num_validation,
        )
        variables = state_variables(replica)
        devices.assign(variables, arrays[: len(variables)])  # metrics have none before the first step
    return replica


def _job(context, index, steps, metadata):
    """What other processes need for `_train`, besides the arrays of the training state, as JSON."""
    tables = {"clips": steps.clips, "evaluated": steps.evaluated}
    return {
        "experiment": dump(context.run.experiment),
        "fingerprint": context.run.fingerprint,
        "fold": context.fold,
        "stage": context.stage.name,
        "index": index,
        "num_steps": steps.num_steps,
        "num_validation": steps.num_validation,
        **{name: table if table is None else table.to_dict("list") for name, table in tables.items()},
        "targets": None if context.stage.distill is None else steps.targets.tolist(),
        "sampling": {key: np.asarray(value).tolist() for key, value in steps.sampling.items()},
        "metadata": metadata | {"metric_state": []},
    }


def _follow(experiment: Experiment, folder: str | Path, devices: Devices) -> Run:
    """Trains with process 0, in another process, which writes nothing."""
    manifest = read_manifest(experiment.records)
    with custom.allowed():
        experiment = custom.with_checked_options(experiment)
        if experiment.deterministic:
            tf.config.experimental.enable_op_determinism()
        run = Run(Path(folder), experiment, manifest.audio_config, manifest.vocabulary, manifest.fingerprint)
        offsets = find_offsets(manifest)
        with explain_damage(manifest):
            while (job := devices.receive())[0] is not None:
                _refuse_other_experiment(run, job[0], devices)
                stage = {stage.name: stage for stage in expand_rounds(experiment)}[job[0]["stage"]]
                context = FoldContext(run, manifest, pd.DataFrame(), job[0]["fold"], stage, offsets)
                _train_with_first(context, *job, devices)
    return run


def _refuse_other_experiment(run, job, devices):
    """Refuses to train with a process that trains something else."""
    first = parse(json.loads(job["experiment"]), Experiment, "process 0")
    ours, theirs = (each.model_dump(exclude=DESCRIPTIONS | {"records"}) for each in (run.experiment, first))
    if changed := next(changed_keys(theirs, ours), None):
        raise DataError(f"process {devices.index} has another experiment than process 0: {changed} there.")
    if run.fingerprint != job["fingerprint"]:
        raise DataError(f"process {devices.index}: {run.experiment.records} has other records than process 0.")


def _train_with_first(context, job, arrays, devices):
    """The part of a process in what process 0 trains."""
    run, stage = context.run, context.stage
    clips, evaluated = (job[key] if job[key] is None else pd.DataFrame(job[key]) for key in ("clips", "evaluated"))
    sampling = dict(job["sampling"])
    if "probabilities" in sampling:
        sampling["probabilities"] = np.array(sampling["probabilities"])
    targets = multi_hot(clips["labels"], run.vocabulary) if job["targets"] is None else np.array(job["targets"])
    steps = _Steps(job["num_steps"], job["num_validation"], clips, targets.astype("float32"), evaluated, sampling)
    tagger = _replica(context, job["index"], steps, arrays, devices)
    writers = (CSVLogger, ModelCheckpoint, keras.callbacks.TensorBoard)
    callbacks = stage_callbacks(run.experiment, stage, context.files, num_classes=len(run.vocabulary))
    callbacks = [callback for callback in callbacks if not isinstance(callback, writers)]
    metadata = job["metadata"] | {"metric_state": arrays[len(state_variables(tagger)) :]}
    validation = None if evaluated is None else _evaluation_batches(context, tagger, evaluated, print)
    batches = _batches(context, clips, steps.targets, job["index"], tagger)
    follow_state = FollowState(callbacks, metadata)
    with signals_save(follow_state):
        _train(context, tagger, steps, batches, validation, callbacks, [follow_state], devices, validator=tagger)


def _clips_of_step(context, clips, options, epoch, step):
    """The names of the clips whose windows were in a step."""
    rows = np.arange(len(clips))[:, None]  # in place of the labels
    batches = training_batches(context.manifest, clips, rows, **options, epochs=range(epoch, epoch + 1))
    (chosen,) = (row.numpy()[:, 0].astype(int) for _, row in batches.skip(step).take(1))
    return clips["name"].iloc[chosen].tolist()


def _compiled_tagger(
    context: FoldContext,
    index: int,
    num_steps: int,
    *,
    source: Source | None = None,
    say: Callable[[str], Any] = print,
) -> Tagger:
    """The model that a stage starts with, compiled; with weights from outside unless it resumes."""
    run, stage = context.run, context.stage
    tagger = _built_tagger(context, index, num_steps, _num_validation_clips(context))
    if source is not None:
        for sentence in load_source(tagger, source, run.experiment, run.sample_rate, run.vocabulary):
            say(sentence)
    elif isinstance(stage.start_from, str):
        tagger.copy_weights_from(load_tagger(run, context.fold, stage.start_from))
    return tagger


def _built_tagger(context, index, num_steps, num_validation):
    """The model of a stage, compiled, with initial weights."""
    run, stage = context.run, context.stage
    keras.utils.set_random_seed(run.experiment.seed + 1000 * index + context.fold)
    tagger = stage_tagger(run.experiment, stage, sample_rate=run.sample_rate, num_classes=len(run.vocabulary))
    compile_tagger(tagger, run.experiment, stage, num_steps=num_steps, num_validation=num_validation)
    tagger.optimizer.build(tagger.trainable_variables)  # built in the first step, they would trace it twice
    return tagger


def _batches(context, clips, targets, index, tagger):
    """`training_batches` of a stage; epochs and sampling are still to be given."""
    run, stage, pad = context.run, context.stage, context.run.experiment.window.pad
    sliding = stage.windows == "sliding"
    return functools.partial(
        training_batches,
        context.manifest,
        clips,
        group_labels(targets, clips["trusted"]) if tagger.separate_subsets else targets,
        window_samples=run.window_samples,
        pad="zeros" if sliding and pad == "random_zeros" else pad,
        batch_size=stage.batch_size,
        seed=run.experiment.seed + index,
        offsets=context.offsets,
        hop=tagger.hop if sliding else None,
    )


def _sampling(run: Run, clips: pd.DataFrame, stage: Stage, num_steps: int) -> dict[str, Any]:
    """The options of `training_batches` that draw clips with replacement; empty if each clip is used once."""
    weights = stage.subset_sampling_weights
    if stage.steps_per_epoch is None and weights is None and not stage.class_balanced and (clips["weight"] == 1).all():
        return {}
    present = set(clips["subset"])  # a selection may have kept no noisy clip
    subset_weights: dict[str, float] | None = None
    if weights is not None:
        subset_weights = {subset: weight for subset, weight in weights.items() if subset in present}
    probabilities = sampling_probabilities(
        clips, run.vocabulary, subset_weights=subset_weights, class_balanced=stage.class_balanced
    )
    return {"probabilities": probabilities, "num_steps": num_steps}


def _evaluation_batches(context, tagger, clips, say):
    """Batches of (waveform, truth) of complete clips, or of the features of their windows."""
    run, batch_size, clips = context.run, context.stage.batch_size, clips.reset_index(drop=True)
    truth = tf.constant(multi_hot(clips["labels"], run.vocabulary))  # [clips, K]
    if tagger.takes_features:
        batches = feature_batches(cached_features(context, tagger, clips, "validation", say=say), batch_size=batch_size)
    else:
        batches = evaluation_batches(
            context.manifest,
            clips,
            window_samples=run.window_samples,
            batch_size=batch_size,
            offsets=context.offsets,
            repeated=True,
        )
    return batches.map(lambda inputs, row: (inputs, tf.gather(truth, row)))


def _finish_stage(
    context: FoldContext,
    tagger: Tagger,
    callbacks: Sequence[keras.callbacks.Callback],
    metadata: dict[str, Any],
    resumed: bool,
) -> dict[str, Any]:
    """Decides which weights a stage ends with, and writes result.json."""
    stage, stage_files, monitor = context.stage, context.files, context.run.experiment.monitored
    history, state = metadata["history"], stage_files.training_state
    restore_callbacks(state, callbacks, metadata["callbacks"])
    best = next((callback for callback in callbacks if isinstance(callback, ModelCheckpoint)), None)
    epoch = best.best_epoch if best is not None and stage.keep == "best" else len(history) - 1
    if epoch is not None and (not 0 <= epoch < len(history) or monitor not in history[epoch]):
        raise DataError(f"{state}: the history has no {monitor} of epoch {epoch + 1}, with which to end. {RETRAIN}")
    if (epoch is None or not math.isfinite(history[epoch][monitor])) and math.isfinite(history[-1]["loss"]):
        raise ConfigError(
            f"{stage_files.folder}: the loss is finite, but {monitor} was NaN or infinite in every epoch, so none "
            f"is the best. Choose another monitor, or mend the metric, and retrain with --restart."
        )
    if epoch is None or not math.isfinite(history[epoch][monitor]):
        raise ConfigError(
            f"{stage_files.folder}: training diverged to NaN. Lower the learning rate and retrain with --restart."
        )
    if best is not None and stage.keep == "best":
        weights, sha256 = stage_files.best_weights, best.sha256
    else:
        weights = stage_files.last_weights
        tagger.optimizer.finalize_variable_values(tagger.trainable_variables)  # their moving average, if it keeps one
        sha256 = save_weights(tagger, weights)
    return _write_result(
        stage_files,
        weights=weights.name,
        sha256=sha256,
        epochs=metadata["epochs_done"],
        best_epoch=epoch,
        monitor=monitor,
        value=history[epoch][monitor],
        seconds=round(metadata["seconds"], 1),
        resumed=resumed,
    )


def _finish_untrained(context, tagger, batches, seconds):
    """Ends a stage of no epoch with its initial head."""
    stage_files, monitor = context.files, context.run.experiment.monitored
    value = tagger.evaluate(batches, return_dict=True, verbose=0)[monitor.removeprefix("val_")]
    if not math.isfinite(value):
        raise ConfigError(f"{stage_files.folder}: {monitor} is NaN or infinite. Choose another monitor.")
    return _write_result(
        stage_files,
        weights=stage_files.last_weights.name,
        sha256=save_weights(tagger, stage_files.last_weights),
        epochs=0,
        best_epoch=-1,
        monitor=monitor,
        value=float(value),
        seconds=round(seconds, 1),
        resumed=False,
    )


def _choose_round(run: Run, folds: Sequence[int], stage: Stage, say: Callable[[str], Any]) -> None:
    """After the last round of a stage, writes its result.json for some folds: that of the best round."""
    name, _, number = stage.name.partition("/")
    if stage.select is None or not number or int(number) < stage.select.rounds:
        return
    best = best_round(run, run.experiment.held_out, stage_named(run.experiment, name))
    for fold in folds:
        result = read_section(run.stage_files(fold, f"{name}/{best}").result, StageResult) | {"round": best}
        files.write_text(run.stage_files(fold, name).result, json.dumps(result, indent=2) + "\n")
    say(f"{name} stage: round {best} of {number} is the best.")


def _write_result(stage_files: StageFiles, **values: Any) -> dict[str, Any]:
    """Writes result.json, with these and the other keys of a `StageResult`, and returns its content."""
    initial = stage_files.initial_head
    chosen = json.loads(initial.read_text(encoding="utf-8")) if initial.is_file() else None
    result = {"schema_version": SCHEMA_VERSION, **values, "round": None, "initial_head": chosen}
    files.write_text(stage_files.result, json.dumps(result, indent=2) + "\n")
    return result
