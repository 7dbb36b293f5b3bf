"""Trains an experiment: every stage of every fold that is held out, one after the other."""

import functools
import json
import math

import keras
import numpy as np
import tensorflow as tf

from audiotag import files
from audiotag.config.schema import passes, stage_named, stage_of
from audiotag.crossval.label_selection import best_round, heard_clips
from audiotag.crossval.out_of_fold import unheard_scores
from audiotag.crossval.splits import check_subsets, judging_clips, keep_corrections, training_clips
from audiotag.data.clips import read_clips
from audiotag.data.labels import multi_hot
from audiotag.data.pipeline import Stopwatch, damage_named, evaluation_batches, training_batches
from audiotag.data.records.manifest import read_manifest, refuse_damage
from audiotag.data.sampling import shares
from audiotag.errors import ConfigError, DataError
from audiotag.models.label_groups import kept_apart
from audiotag.runs.directory import is_trained, start_run
from audiotag.runs.models import load_tagger
from audiotag.runs.weights import save_weights
from audiotag.training.callbacks import (
    CheckRecords,
    JudgeAverage,
    Progress,
    SaveState,
    StopAtNan,
    TellEpoch,
    sigterm_heeded,
)
from audiotag.training.compiling import compile_tagger, stage_callbacks, stage_tagger, try_out
from audiotag.training.state import forget_state, is_saved, resume


def fit(experiment, folder, *, fold=None, restart=False, say=print):
    """Trains all stages of an experiment, or goes on where a killed run stopped.

    The curated clips are cut into folds; for each fold held out, the stages are
    trained one after the other on what is left, and the clips held out tell how
    good each epoch is. The same experiment, seed and processor give the same
    weights, killed in between or not.

    Where the models of all folds together select the noisy clips of a stage, all
    folds are trained up to there before any goes on.

    Args:
        experiment: An `Experiment`.
        folder: The directory of the run, runs/NAME.
        fold: Train this fold alone; None trains those of the experiment.
        restart: Throw away what the directory holds.
        say: Called with a sentence after each stage.

    Returns:
        The `Run`.

    Raises:
        ConfigError: A part of the experiment refuses its settings.
        DataError: The records are not whole, hold too few clips, or another run lies in the directory.
    """
    if fold is not None and not 0 <= fold < experiment.folds.count:
        raise ConfigError(f"there is no fold {fold}. Accepted: 0 to {experiment.folds.count - 1}.")
    manifest = read_manifest(experiment.records)
    clips = read_clips(manifest.directory / "clips.csv")
    if restart or not is_trained(folder):
        try_out(experiment, manifest)
    with start_run(folder, experiment, manifest, restart=restart) as run:
        _fit_folds(run, manifest, clips, experiment.folds.held_out if fold is None else (fold,), say)
    return run


def _fit_folds(run, manifest, clips, asked, say):
    """Trains all stages of the folds that are asked for."""
    experiment = run.experiment
    if experiment.deterministic:
        tf.config.experimental.enable_op_determinism()
    keep_corrections(run)
    clips = training_clips(run, clips)
    check_subsets(run, clips)
    if not all(run.finished(fold, stage.name) for fold in asked for stage in passes(experiment)):
        refuse_damage(manifest)
    with damage_named(manifest):
        for group in _together(experiment):
            for fold in asked:
                _fit_group(run, manifest, clips, fold, group, say)
            _settle_rounds(run, asked, group[-1][1], say)
        last = experiment.stages[-1].name
        for fold in asked:
            with _one_writer(run.folder / f"fold-{fold}"):
                unheard_scores(run, manifest, clips, fold, last, "curated")


def _together(experiment):
    """Groups of (index, pass): a fold goes through a group without waiting for the other folds."""
    groups = []
    for index, stage in enumerate(passes(experiment)):
        after_rounds = groups and "/" in groups[-1][-1][1].name  # all folds choose the best of them
        if not groups or after_rounds or (stage.select is not None and experiment.folds.noisy):
            groups.append([])
        groups[-1].append((index, stage))
    return groups


def _fit_group(run, manifest, clips, fold, group, say):
    """Takes one fold through the passes of a group."""
    judges, folder = len(judging_clips(run, clips, fold)), run.folder / f"fold-{fold}"
    with _one_writer(folder):
        for place in list(folder.glob("**/")):
            files.sweep(place)  # what a kill has left
        for index, stage in group:
            known = run.finished(fold, stage.name)
            if known is None:
                known = _fit_stage(run, manifest, clips, fold, index, stage)
            forget_state(run.stage_folder(fold, stage.name) / "state.npz")
            say(
                f"{stage.name} stage, fold {fold}: lwlrap {known['val_lwlrap']:.4f} on {judges} held-out curated "
                f"clips, epoch {known['best_epoch'] + 1} of {known['epochs']}."
            )


def _one_writer(folder):
    """A lock on the folder of a fold."""
    folder.mkdir(parents=True, exist_ok=True)
    return files.locked(
        folder / ".lock", f"{folder}: another fit is training here. Wait for it, or choose another --run."
    )


def _fit_stage(run, manifest, clips, fold, index, stage):
    """Trains one of the passes for one fold; what is known of it then."""
    folder = run.stage_folder(fold, stage.name)
    folder.mkdir(parents=True, exist_ok=True)
    heard = heard_clips(run, manifest, clips, fold, stage)
    files.write_text(folder / "heard.csv", files.csv_text(heard[["name", "labels", "weight"]]))
    steps = stage.steps if stage.steps is not None else max(1, len(heard) // stage.batch_size)
    draws = _draws(run, heard, stage, steps)
    if not draws and len(heard) < stage.batch_size:
        raise ConfigError(
            f"stages.{stage_of(stage.name)}.batch_size: {len(heard)} clips do not fill a batch of "
            f"{stage.batch_size}. Give more clips or a smaller one."
        )
    tagger = _compiled_tagger(run, fold, index, stage, steps)
    callbacks = stage_callbacks(stage, folder)
    state = folder / "state.npz"
    if is_saved(state):
        (folder / "resumed").touch()  # so nobody takes the time since for that of the whole stage
    batches = _batches(run, manifest, heard, index, stage, apart=tagger.apart)
    judges = _judged_by(run, manifest, judging_clips(run, clips, fold), stage.batch_size)
    while True:
        notes = resume(state, tagger)
        done, begun = notes["epochs_done"], notes["steps_done"]
        if done == stage.epochs or notes["stop_training"]:
            return _finish_stage(folder, tagger, notes)
        if stage.start_from is None and not done and not begun:
            tagger.adapt(lambda: (waveform for waveform, _ in batches(epochs=range(1))))
        epochs = done + 1 if begun else stage.epochs  # the rest of an epoch that was left half done, first
        heard_now = batches(epochs=range(done, epochs), **draws).skip(begun)
        heard_now = heard_now.map(lambda waveform, truth: ((waveform, truth), truth))  # labels go where sound goes
        waiting = Stopwatch()
        progress = Progress(f"{stage.name}, fold {fold}", stage.batch_size, waiting)
        watch = StopAtNan(folder, begun, functools.partial(_clips_of_step, manifest, heard, batches.keywords | draws))
        save = SaveState(state, callbacks, notes)
        with sigterm_heeded(save):
            tagger.fit(
                waiting.timed(heard_now),
                epochs=epochs,
                initial_epoch=done,
                steps_per_epoch=steps - begun,
                validation_freq=stage.validation_freq,
                validation_data=judges,
                callbacks=[watch, CheckRecords(manifest), TellEpoch(), *callbacks, JudgeAverage(), progress, save],
                shuffle=False,  # the pipeline does it
                verbose=0,
            )


def _clips_of_step(manifest, heard, how, epoch, step):
    """The names of the clips whose windows were in a step."""
    rows = np.arange(len(heard))[:, None]  # in the place of the truth
    batches = training_batches(manifest, heard, rows, **how, epochs=range(epoch, epoch + 1))
    (named,) = (truth.numpy()[:, 0].astype(int) for _, truth in batches.skip(step).take(1))
    return heard["name"].iloc[named].tolist()


def _compiled_tagger(run, fold, index, stage, steps):
    """The model as a stage begins with it, compiled for so many steps an epoch."""
    keras.utils.set_random_seed(run.experiment.seed + 1000 * index + fold)
    tagger = stage_tagger(run.experiment, stage, sample_rate=run.sample_rate, num_classes=len(run.vocabulary))
    if stage.start_from is not None:
        tagger.take_over(load_tagger(run, fold, stage.start_from))
    compile_tagger(tagger, run.experiment, stage, steps=steps)
    tagger.optimizer.build(tagger.trainable_variables)  # made in the first step, they would have it traced twice
    return tagger


def _batches(run, manifest, heard, index, stage, *, apart):
    """`training_batches` of a stage, with all but the epochs and the draws told."""
    experiment = run.experiment
    truth = multi_hot(heard["labels"], run.vocabulary)
    return functools.partial(
        training_batches,
        manifest,
        heard,
        kept_apart(truth, heard["subset"]) if apart else truth,
        window_samples=round(experiment.window.seconds * run.sample_rate),
        short_clips=experiment.window.short_clips,
        batch_size=stage.batch_size,
        seed=experiment.seed + index,
    )


def _draws(run, heard, stage, steps):
    """What tells `training_batches` to draw clips with replacement, where the stage asks for it."""
    if stage.steps is None and stage.shares is None and not stage.balanced and (heard["weight"] == 1).all():
        return {}
    present = set(heard["subset"])  # a selection may have taken none
    subsets = stage.shares and {subset: share for subset, share in stage.shares.items() if subset in present}
    return {"shares": shares(heard, run.vocabulary, subsets=subsets, balanced=stage.balanced), "steps": steps}


def _judged_by(run, manifest, judges, batch_size):
    """Batches of (waveform, truth) of the held-out clips, whole."""
    judges = judges.reset_index(drop=True)
    truth = tf.constant(multi_hot(judges["labels"], run.vocabulary))  # [clips, K]
    window_samples = round(run.experiment.window.seconds * run.sample_rate)
    batches = evaluation_batches(manifest, judges, window_samples=window_samples, batch_size=batch_size)
    return batches.map(lambda waveform, row: (waveform, tf.gather(truth, row)))


def _finish_stage(folder, tagger, notes):
    """Settles which weights a stage ends with, and writes finished.json."""
    best = notes["callbacks"].get("ModelCheckpoint")
    epoch = best["best_epoch"] if best else notes["epochs_done"] - 1
    if epoch is None or not math.isfinite(notes["history"][epoch]["val_lwlrap"]):
        raise ConfigError(f"{folder}: training diverged to NaN. Lower the learning rate and begin anew with --restart.")
    weights = folder / ("best.weights.h5" if best else "last.weights.h5")
    if not best:
        tagger.optimizer.finalize_variable_values(tagger.trainable_variables)  # their moving average, if it keeps one
        sha256 = save_weights(tagger, weights)
    elif not weights.is_file() or (sha256 := files.sha256(weights)) != best["sha256"]:
        raise DataError(
            f"{weights}: missing or damaged: its SHA-256 is not that in the training state. Train anew with --restart."
        )
    known = {"weights": weights.name, "sha256": sha256, "epochs": notes["epochs_done"]}
    known |= {"best_epoch": epoch, "val_lwlrap": notes["history"][epoch]["val_lwlrap"]}
    files.write_text(folder / "finished.json", json.dumps(known, indent=2) + "\n")
    return known


def _settle_rounds(run, asked, stage, say):
    """After the last round of a stage, writes its finished.json for each fold asked for: that of the best round."""
    name, _, number = stage.name.partition("/")
    if not number or int(number) < stage.select.rounds:
        return
    folds = run.experiment.folds.held_out
    best = best_round(run, folds, stage_named(run.experiment, name))
    for fold in asked:
        known = run.finished(fold, f"{name}/{best}") | {"round": best}
        files.write_text(run.stage_folder(fold, name) / "finished.json", json.dumps(known, indent=2) + "\n")
    say(f"{name} stage: round {best} of {number} is the best.")
