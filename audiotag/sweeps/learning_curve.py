"""What more training clips would bring, from trainings on parts of the clips.

runs/NAME/learning_curve/
  experiment.json              the experiment that the scores are of
  scores-fold-K-P-D.csv        out-of-fold scores of the model trained on 1/P of the clips, draw D
  training/                    the run of a part while it is trained
  curve.csv, classes.csv, fitted.csv, report.html

A killed command trains only the parts without scores.
"""

import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd

from audiotag import files
from audiotag.config.loading import dump
from audiotag.config.schema import Experiment
from audiotag.crossval.splits import training_clips, usable_clips
from audiotag.data.clips import read_clips
from audiotag.data.corrections import COLUMNS, read_corrections, write_corrections
from audiotag.data.folds import stratified_fraction
from audiotag.data.labels import multi_hot
from audiotag.errors import DataError
from audiotag.evaluation import forecasting
from audiotag.evaluation.bootstrap import draws
from audiotag.evaluation.measures import MEASURES, labeled, recordings_of, weighted_class_lwlrap, weighted_measures
from audiotag.evaluation.scoring import logits_of, out_of_fold_predictions, read_out_of_fold
from audiotag.evaluation.thresholds import DEFAULT_LOGIT
from audiotag.runs.directory import Run, find_records
from audiotag.sweeps.results import check_measure
from audiotag.training import loop

NUM_DRAWS = 3
NUM_HALVINGS = 3  # at most: 1/2, 1/4 and 1/8 of the clips
MIN_HALVINGS = 2  # a curve has three numbers
MIN_CLIPS = 8  # of the smallest part
FACTORS = (1.5, 2.0)  # of the clips, to forecast
NUM_POINTS = 40  # of the curve
HELPS, HARDLY_HELPS = 0.005, 0.01  # the gain is surely above the first, or surely below the second
NUM_SHOWN = 3  # classes in a sentence


@dataclass(frozen=True, eq=False, repr=False)
class Advice:
    """What `advise` found, as tables. Printed, it is what the command prints.

    Args:
        curve: A row per number of training clips: clips, part (of the run's clips), models (how many were trained; 0
            in a forecast), and the measure with its 95% interval: value, low, high.
        classes: A row per class, the largest gain first: clips (to train on), lwlrap, forecast for twice the clips,
            gain with its 95% interval: low, high.
        fitted: Points of the fitted curve with 95% intervals: clips, value, low, high.
        measure: The measure of `curve`.
        sentences: What it means, and how sure that is.
    """

    curve: pd.DataFrame
    classes: pd.DataFrame
    fitted: pd.DataFrame
    measure: str
    sentences: tuple[str, ...]

    def __str__(self) -> str:
        curve = self.curve.rename(columns={"value": self.measure})
        tables = [table.to_string(index=False, float_format="%.3f") for table in (curve, self.classes)]
        return "\n\n".join([*tables, "\n".join(self.sentences)])

    __repr__ = __str__

    def write(self, folder: Path) -> None:
        """Writes curve.csv, classes.csv and fitted.csv into a folder."""
        for name in ("curve", "classes", "fitted"):
            files.write_text(folder / f"{name}.csv", files.csv_text(getattr(self, name)))


@dataclass(frozen=True)
class Part:
    """A part of a fold's training clips.

    Args:
        fold: The fold that is held out.
        halvings: How often the clips were halved.
        draw: Which of several parts of this size, from 0.
        names: The clips.
    """

    fold: int
    halvings: int
    draw: int
    names: frozenset[str]

    @property
    def name(self) -> str:
        """It names files."""
        return f"fold-{self.fold}-{2**self.halvings}-{self.draw}"


def advise(
    run: Run, *, measure: str = "lwlrap", num_draws: int = NUM_DRAWS, say: Callable[[str], Any] = print
) -> Advice:
    """Forecasts what more training clips would bring to a run.

    Its experiment is trained on a half, a quarter and an eighth of the training clips of each trained fold, several
    times; the validation clips stay the same. Parts have their fraction of each class and subset, and of the recordings
    where known. A killed call resumes.

    Args:
        run: A trained `Run`.
        measure: The measure to forecast, one of `MEASURES`.
        num_draws: How many parts of each size, at least 2.
        say: Called with a sentence per training.

    Raises:
        DataError: The run has no validation clips, is not trained, or has too few clips.
        ConfigError: There is no such measure.
    """
    check_measure(measure)
    if num_draws < 2:
        raise DataError(f"{num_draws} draws. Expected 2 or more: their differences say how sure the forecast is.")
    _refuse(run)
    training = _training_clips(run)
    parts = list_parts(run, training, num_draws)
    run.changed_components()  # none of them may be forbidden
    clips, logits = out_of_fold_predictions(run)
    folder = run.learning_curve_folder
    folder.mkdir(exist_ok=True)
    with files.locked(folder / ".lock", f"{folder}: another advise is training here. Wait for it."):
        _forget_others(run)
        train_parts(run, parts, training, say)
    sizes, predictions = _predictions(run, parts, training, clips)
    return _advice(run, training, clips, [logits, *predictions], sizes, measure, num_draws)


def _refuse(run):
    """Refuses a run of which parts cannot be trained alone."""
    validation = run.experiment.validation
    if validation is None:
        raise DataError(
            f'{run.folder}: "validation" is null in its experiment, so there are no clips to measure a model on. Add '
            "validation to the experiment and train it."
        )
    if run.experiment.split_noisy:
        raise DataError(
            f'{run.folder}: its experiment has "split_noisy": true, so a fold cannot be trained alone. Train it '
            "without split_noisy."
        )


def _training_clips(run):
    """{fold: the clips that its model trains on}, of trained folds.

    Raises:
        DataError: There are none.
    """
    clips = training_clips(run, read_clips(find_records(run).directory / "clips.csv"))
    subsets = {subset for stage in run.experiment.stages for subset in stage.subset}
    clips = usable_clips(run, clips[clips["subset"].isin(subsets)])
    last = run.experiment.stages[-1].name
    folds = [fold for fold in range(run.experiment.num_folds) if run.stage_files(fold, last).oof_scores().is_file()]
    if not folds:
        raise DataError(f"{run.folder}: no fold is fully trained yet. Finish the run with: audiotag fit")
    return {fold: clips[clips["fold"] != fold] for fold in folds}


def list_parts(run: Run, training: dict[int, pd.DataFrame], num_draws: int) -> list[Part]:
    """The parts to train on, the smallest first.

    Args:
        run: A `Run`.
        training: {fold: its training clips}.
        num_draws: How many parts of each size.

    Raises:
        DataError: There are too few clips.
    """
    parts = []
    for fold, clips in training.items():
        for draw in range(num_draws):
            part = clips
            for halvings in range(1, NUM_HALVINGS + 1):
                part = half_of(part, seed=draw)
                if reason := _too_few(run.experiment, part):
                    if halvings <= MIN_HALVINGS:
                        raise DataError(
                            f"{run.folder}: fold {fold} has {len(clips)} training clips, {len(part)} in a part of "
                            f"1/{2**halvings}: {reason}. A learning curve needs parts down to 1/{2**MIN_HALVINGS}. "
                            f"Train on more clips first."
                        )
                    break
                parts.append(Part(fold, halvings, draw, frozenset(part["name"])))
    complete = min(  # the same sizes in all folds and draws
        max(part.halvings for part in parts if (part.fold, part.draw) == key)
        for key in {(part.fold, part.draw) for part in parts}
    )
    parts = [part for part in parts if part.halvings <= complete]
    return sorted(parts, key=lambda part: (-part.halvings, part.draw, part.fold))


def half_of(clips: pd.DataFrame, *, seed: int) -> pd.DataFrame:
    """Half of the clips of each subset, stratified by labels.

    Of a recording it has all clips or none.
    """
    halves = [
        of_subset[stratified_fraction(of_subset, 0.5, seed=seed, groups="group")]
        for _, of_subset in clips.groupby("subset")
        if recordings_of(of_subset).nunique() > 1
    ]
    return pd.concat(halves) if halves else clips[:0]


def _too_few(experiment: Experiment, clips: pd.DataFrame) -> str:
    """Why an experiment cannot be trained on so few clips; "" if it can."""
    if len(clips) < MIN_CLIPS:
        return f"fewer than {MIN_CLIPS}"
    for stage in experiment.stages:
        count = int(clips["subset"].isin(stage.subset).sum())
        drawn = stage.steps_per_epoch or stage.subset_sampling_weights or stage.class_balanced or stage.select
        if stage.epochs and not drawn and count < stage.batch_size:
            return f"{count} clips do not fill a batch of {stage.batch_size} of stage {stage.name!r}"
    return ""


def _forget_others(run):
    """Removes scores of another experiment, such as one with fewer stages."""
    folder = run.learning_curve_folder
    stored, now = folder / "experiment.json", dump(run.experiment)
    if not stored.is_file() or stored.read_text(encoding="utf-8") != now:
        for path in [*folder.glob("scores-*.csv"), folder / "training"]:
            files.remove(path)
        files.write_text(stored, now)


def _scores_file(run, part):
    return run.learning_curve_folder / f"scores-{part.name}.csv"


def train_parts(
    run: Run, parts: Sequence[Part], training: dict[int, pd.DataFrame], say: Callable[[str], Any] = print
) -> None:
    """Trains the parts that have no scores yet.

    Each is a run of its own, of which only the scores are kept.
    """
    folder = run.learning_curve_folder / "training"
    for number, part in enumerate(parts, 1):
        if _scores_file(run, part).is_file():
            continue
        clips = training[part.fold]
        say(f"Training {number} of {len(parts)}: fold {part.fold}, {len(part.names)} of {len(clips)} clips.")
        if folder.is_dir() and not (folder / part.name).is_dir():
            files.remove(folder)  # of a part that is complete
        experiment = _experiment_of(run, part, clips, folder)
        _share_embeddings(run, folder / part.name)
        trained = loop.fit(experiment, folder / part.name, fold=part.fold, say=lambda sentence: None)
        keras.backend.clear_session()  # frees the memory of the model
        scores = trained.stage_files(part.fold, experiment.stages[-1].name).oof_scores()
        files.write_text(_scores_file(run, part), scores.read_text(encoding="utf-8"))
        files.remove(folder)


def _experiment_of(run, part, clips, folder):
    """The experiment of the run; corrections of weight 0 leave out the fold's other training clips."""
    left_out = clips[~clips["name"].isin(part.names)]
    table = left_out.rename(columns={"name": "clip"}).assign(weight=0.0, reason="left out", source="advise")
    table = table[[*COLUMNS]]
    if run.corrections_file.is_file():
        before = read_corrections(run.corrections_file, run.vocabulary)
        table = pd.concat([before[~before["clip"].isin(table["clip"])], table], ignore_index=True)
    folder.mkdir(exist_ok=True)
    corrections = folder / f"{part.name}.csv"
    write_corrections(corrections, table)
    changes: dict[str, Any] = {"corrections": str(corrections), "records": str(find_records(run).directory)}
    validation = run.experiment.validation
    if validation.folds is not None:
        folds = validation.folds.model_copy(update={"held_out": (part.fold,)})
        changes["validation"] = validation.model_copy(update={"folds": folds})
    return run.experiment.model_copy(update=changes)


def _share_embeddings(run, folder):
    """Gives a run the embeddings that another has stored, without a copy where the file system has links."""
    for path in run.embeddings_folder.glob("*/[0-9]*.npz"):
        copy = folder / run.embeddings_folder.name / path.parent.name / path.name
        if copy.exists():
            continue
        copy.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(path, copy)
        except OSError:
            shutil.copy(path, copy)


def _predictions(run, parts, training, clips):
    """The numbers of clips of all sizes, and for each size but the first the logits [D, clips, K]."""
    vocabulary = list(run.vocabulary)
    sizes, predictions = [float(np.mean([len(each) for each in training.values()]))], []
    for halvings in sorted({part.halvings for part in parts}):
        of_size = [part for part in parts if part.halvings == halvings]
        sizes.append(float(np.mean([len(part.names) for part in of_size])))
        by_draw = []
        for draw in sorted({part.draw for part in of_size}):
            tables = [
                read_out_of_fold(_scores_file(run, part), _held_out(clips, part.fold), vocabulary)
                for part in of_size
                if part.draw == draw
            ]
            table = pd.concat(tables).set_index("name").loc[clips["name"]]
            by_draw.append(logits_of(table, vocabulary))
        predictions.append(np.stack(by_draw))
    return sizes, predictions


def _held_out(clips, fold):
    return set(clips["name"][clips["split"] == f"fold {fold}"])


def _advice(run, training, clips, predictions, sizes, measure, num_draws):
    """The tables and sentences, from logits [clips, K] or [D, clips, K] of each size."""
    scores, class_scores = _measured(clips, predictions, run.vocabulary, measure)
    found = forecasting.forecast(sizes, scores)
    now = sizes[0]
    curve = [
        {"clips": round(n), "part": "all" if n == now else f"1/{2**index}", "models": of_size.shape[1]}
        | dict(zip(("value", "low", "high"), values))
        for index, (n, of_size, values) in enumerate(zip(sizes, scores, zip(*found.measured())))
    ][::-1]
    curve += [
        {"clips": round(factor * now), "part": f"{factor:g} times", "models": 0}
        | dict(zip(("value", "low", "high"), found.at(factor * now)))
        for factor in FACTORS
    ]
    places = np.geomspace(sizes[-1], FACTORS[-1] * now, NUM_POINTS)
    values = [forecasting.interval(found.laws(place)) for place in places]
    fitted = pd.DataFrame(values, columns=["value", "low", "high"]).astype(float)
    fitted.insert(0, "clips", places)
    classes = _classes(run, training, sizes, class_scores, found)
    num_recordings = recordings_of(clips).nunique()
    table = pd.DataFrame(curve)
    return Advice(table, classes, fitted, measure, _sentences(table, classes, found, measure, num_recordings))


def _measured(clips, predictions, vocabulary, measure):
    """The measure [R, D] and the lwlrap of classes [R, D, K] of each size, on clips and on R - 1 drawings of them."""
    truth = labeled(clips, predictions[0], vocabulary).astype("float64")
    recordings, column = recordings_of(clips).to_numpy(), [*MEASURES].index(measure)
    weights = np.concatenate([np.ones((1, len(clips))), *draws(len(clips), groups=recordings)])  # [R, clips]
    scores, class_scores = [], []
    for of_size in predictions:
        values, of_classes = [], []
        for logits in of_size.reshape(-1, *truth.shape):
            thresholds = np.full(truth.shape, DEFAULT_LOGIT)
            values.append(weighted_measures(truth, logits, thresholds)(weights)[:, column])
            of_classes.append(weighted_class_lwlrap(truth, logits)(weights))
        scores.append(np.stack(values, axis=1))
        class_scores.append(np.stack(of_classes, axis=1))
    return scores, class_scores


def _classes(run, training, sizes, class_scores, found):
    """The table of classes, whose curves have the exponent of the whole."""
    training_sd = forecasting.one_training_sd(np.asarray(sizes), class_scores)  # [K]
    means = forecasting.mean_over_draws(class_scores, training_sd, np.random.default_rng(0))  # [R, K, S]
    laws = forecasting.fit_power_laws(sizes, means, found.laws.c[:, None])
    twice = FACTORS[-1] * sizes[0]
    gain, low, high = forecasting.interval(forecasting.gains(laws, twice))
    counts = np.mean(
        [multi_hot(clips["labels"], run.vocabulary).sum(axis=0) for clips in training.values()], axis=0
    )  # [K]
    table = pd.DataFrame(
        {
            "class": run.vocabulary,
            "clips": counts.round().astype(int),
            "lwlrap": laws(sizes[0])[0],
            "forecast": np.clip(laws(twice)[0], 0, 1),
            "gain": gain,
            "low": low,
            "high": high,
        }
    )
    return table.sort_values(["gain", "class"], ascending=[False, True], ignore_index=True)


def _sentences(curve, classes, found, measure, num_recordings) -> tuple[str, ...]:
    """What the tables mean, and how sure that is."""
    now, twice = curve[curve["models"] > 0].iloc[-1], curve.iloc[-1]
    gain, low, high = found.gain(FACTORS[-1] * found.num_clips[0])
    if low > HELPS:
        answer = "More clips like these help."
    elif high < HARDLY_HELPS:
        answer = "More clips like these would hardly help."
    else:
        answer = "How much more clips would help is not sure."
    sentences = [
        f"{answer} Twice the training clips, {twice['clips']:,} in place of {now['clips']:,}, change {measure} by "
        f"{gain:+.3f} on average (95% interval {low:+.3f} to {high:+.3f}); one training would reach "
        f"{twice['value']:.3f} ({twice['low']:.3f} to {twice['high']:.3f}), now {now['value']:.3f}."
    ]
    best = classes[classes["gain"] >= HELPS].head(NUM_SHOWN)
    if len(best):
        named = "; ".join(
            f"{label} {gain:+.3f} ({low:+.3f} to {high:+.3f})"
            for label, gain, low, high in best[["class", "gain", "low", "high"]].itertuples(index=False)
        )
        sentences.append(f"Most for the lwlrap of {named}.")
    sentences.append(
        f"The intervals are about other training clips, {num_recordings:,} other validation recordings, and another "
        "training. They assume that new clips are of the same kind, in the same proportions of classes, and that the "
        "settings of the experiment stay the same."
    )
    return tuple(sentences)
