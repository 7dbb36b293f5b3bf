"""The page of `report`: training, evaluation and worst clips of a run."""

import dataclasses
import functools
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import expit

from audiotag import __version__
from audiotag.config.custom import create
from audiotag.config.loading import dump
from audiotag.config.schema import Stage, expand_rounds
from audiotag.config.validation import log_name
from audiotag.data.clips import TEST, read_clips, read_table
from audiotag.data.labels import multi_hot, split_labels
from audiotag.evaluation.measures import MEASURES, evaluation_tables, fit_thresholds, out_of_fold_thresholds
from audiotag.evaluation.robustness import measure_robustness
from audiotag.evaluation.scoring import how_validated, out_of_fold_predictions, score_test_clips
from audiotag.evaluation.thresholds import calibration_error
from audiotag.inference.predictor import mean_logits
from audiotag.layers import FRONTENDS, RawWaveform
from audiotag.metrics import lwlrap, per_clip_lwlrap
from audiotag.reporting.page import (
    cells,
    chart_column,
    column_chart,
    confusion_matrix,
    fraction_bar,
    interval_bar,
    line_chart,
    reliability_chart,
    sound_url,
    spectrogram,
    write_page,
)
from audiotag.reporting.sample_clips import waveforms_of_records
from audiotag.runs.directory import Run, find_records, steps_per_epoch
from audiotag.runs.metrics import direction
from audiotag.training.baselines import read_baselines

NUM_WORST = 6  # clips of each kind
SOUND_SECONDS = 10.0  # of audio per clip
MAX_PAIRS = 20
NUM_BINS = 100  # of the histograms of lengths
MAX_CLASSES = 50  # of the confusion matrix
OVERFITTING = 1.05  # a validation loss this many times its least value has risen
HEADLINES = {  # the measures on top of the page, by task
    "multi_label": ("lwlrap", "mAP", "F", "AUC"),
    "single_label": ("top_1_accuracy", "F_top_1", "lwlrap", "mAP"),
}


@dataclasses.dataclass(frozen=True)
class ScoredClips:
    """Clips and what a run predicts for them.

    Args:
        clips: A table of clips.
        logits: [clips, K].
        fold_logits: The logits of each fold's model, [clips, folds, K], whose mean `logits` are; None for out-of-fold
            predictions.
        clips_per_second: How fast they were scored; NaN if they were not scored now.
    """

    clips: pd.DataFrame
    logits: np.ndarray
    fold_logits: np.ndarray | None
    clips_per_second: float


def write_run_page(run: Run, path: str | Path, *, robustness: bool = False) -> None:
    """Writes the page of a run.

    The run is evaluated on the labeled test clips of its records, or without any on its out-of-fold predictions.

    Args:
        run: A `Run` with at least one trained fold.
        path: The HTML file to write.
        robustness: Also measure what is lost on changed test clips.

    Raises:
        DataError: No fold is fully trained, or there are neither labeled test clips nor held-out clips; for
            `robustness` there must be test clips.
    """
    oof = None if run.experiment.validation is None else out_of_fold_predictions(run)
    scored = _score_test_clips(run)
    thresholds: np.ndarray | None
    decided_at = "thresholds fitted to out-of-fold predictions" if oof else "1/2, as no clips were held out"
    if scored is None:
        clips, logits = oof or out_of_fold_predictions(run)  # which says that there are none
        scored = ScoredClips(clips, logits, None, float("nan"))
        thresholds, kind = out_of_fold_thresholds(clips, logits, run.vocabulary), "out-of-fold clips"
    else:
        thresholds, kind = fit_thresholds(*oof, run.vocabulary) if oof else None, "test clips"
    tables = evaluation_tables(scored.clips, scored.logits, run.vocabulary, thresholds=thresholds)
    matrix, left_out = _confusion_matrix(scored, run.vocabulary)
    counts = find_records(run).count_clips()
    clip_counts = ", ".join(f"{count:,} {subset}" for subset, count in counts.items())
    write_page(
        path,
        "run.html",
        version=__version__,
        title=f"Run {run.folder.resolve().name}",
        about=run.experiment.about,
        evaluated_on=f"{len(scored.clips):,} {kind}",
        validated=how_validated(run) if run.experiment.validation is not None else "No clips validated.",
        decided_at=decided_at,
        records=f"The records hold {clip_counts} clips of {len(run.vocabulary)} classes at {run.sample_rate:,} Hz.",
        cards=_cards(run, tables["overall"], scored),
        stages=cells(_stages(run)),
        curves=_curves(run) + _lengths(run),
        measures=_measures(tables["overall"]),
        meanings=[(name.replace("_", " "), meaning) for name, meaning in MEASURES.items()],
        robustness=cells(_robustness(measure_robustness(run, thresholds=thresholds))) if robustness else None,
        classes=cells(_classes(tables["classes"], run.experiment.task)),
        confusion_matrix=matrix,
        left_out=left_out,
        confusions=cells(_confusions(scored, run.vocabulary)),
        calibration_error=f"{calibration_error(tables['calibration']):.3f}",
        reliability=reliability_chart(tables["calibration"]),
        folds=_folds(run, scored),
        kinds=_worst_clips(run, scored, oof if kind == "test clips" else None),
        command=run.experiment.command,
        experiment=dump(run.experiment),
        environment=run.environment_file.read_text(encoding="utf-8"),
    )


def _score_test_clips(run):
    """The test clips scored by each fold's model; None if they have no labels."""
    folds = run.trained_folds(run.experiment.stages[-1].name) or [None]  # which says that none is
    test = read_clips(find_records(run).directory / "clips.csv").query("subset == 'test'")
    if (test["labels"] == "").all():
        return None
    started = time.perf_counter()
    predictions = [score_test_clips(run, fold=fold) for fold in folds]
    rate = len(folds) * len(test) / (time.perf_counter() - started)
    fold_logits = np.stack([logits for _, logits in predictions], axis=1)  # [clips, folds, K]
    return ScoredClips(predictions[0][0], mean_logits(fold_logits, axis=1), fold_logits, rate)


def _cards(run, overall, scored):
    """The headline measures of the task, the time of training, and the speed of scoring."""
    shown = HEADLINES[run.experiment.task]
    everything = overall[overall["split"] == "all"].set_index("measure")
    cards = [
        {"name": name.replace("_", " "), "value": f"{row.value:.3f}"}
        | {"more": f"{row.low:.3f} to {row.high:.3f}, chance {row.chance:.3f}", "meaning": MEASURES[name]}
        for name in shown
        if name in everything.index
        for row in [everything.loc[name]]
    ]
    minutes = sum(result["seconds"] for _, _, result in _results(run)) / 60
    cards.append({"name": "minutes of training", "value": f"{minutes:.1f}", "more": "all folds and stages"})
    if scored.fold_logits is not None:
        rate = f"{scored.clips_per_second:.0f}"
        cards.append({"name": "clips/s scored", "value": rate, "more": "on the machine that wrote this page"})
    return cards


def _measures(overall):
    """Measures as columns, splits as rows: {"names": [...], "rows": [(split, clips, [(value, interval)])]}."""
    names, rows = overall["measure"].unique().tolist(), []
    for split, table in overall.groupby("split", sort=False):
        by_name = table.set_index("measure").loc[names]
        cells = [(f"{row.value:.3f}", f"{row.low:.3f} to {row.high:.3f}") for row in by_name.itertuples()]
        rows.append((split, f"{table['clips'].iloc[0]:,}", cells))
    chance = overall[overall["split"] == "all"].set_index("measure")["chance"].loc[names]
    rows.append(("chance", "", [(f"{value:.3f}", "") for value in chance]))
    return {"names": [name.replace("_", " ") for name in names], "rows": rows}


def _robustness(table):
    """A row per change of the sound, what each measure loses by it as columns."""
    shown = {"change": list(dict.fromkeys(table["change"]))}
    for measure, rows in table.groupby("measure", sort=False):
        shown[measure] = [
            "not possible" if np.isnan(row.loss) else f"{row.loss:+.3f} ({row.low:+.3f} to {row.high:+.3f})"
            for row in rows.itertuples()
        ]
    return pd.DataFrame(shown)


def _results(run: Run) -> Iterator[tuple[int, Stage, dict[str, Any]]]:
    """(fold, stage, result) of every finished stage, each round by itself."""
    for fold in range(run.experiment.num_folds):
        for stage in expand_rounds(run.experiment):
            if result := run.result(fold, stage.name):
                yield fold, stage, result


def _stages(run):
    """A row per fold and finished stage: clips, epochs, monitored value and duration."""
    rows = []
    for fold, stage, result in _results(run):
        path, seconds = run.stage_files(fold, stage.name).training_clips, result["seconds"]
        num_clips = len(read_table(path, ["name"])) if path.is_file() else 0
        metric = result["monitor"].removeprefix("val_")
        num_windows = result["epochs"] * steps_per_epoch(stage, num_clips) * stage.batch_size
        rows.append(
            {
                "fold": fold,
                "stage": stage.name,
                "subset": " and ".join(stage.subset),
                "clips": num_clips or "–",
                "epochs": result["epochs"],
                "best_epoch": result["best_epoch"] + 1,
                f"validation_{metric}": result["value"],
                "minutes": seconds / 60,
                "resumed": "yes" if result["resumed"] else "no",
                "windows/s": num_windows / seconds if num_clips and seconds else float("nan"),
            }
        )
        if baselines := read_baselines(run, fold, stage):
            for key in ("by_names", "by_neighbors"):
                value = (baselines[key] or {"metrics": {}})["metrics"].get(metric)
                rows[-1][f"without_training,_{key}"] = float("nan") if value is None else value
    return pd.DataFrame(rows)


def _curves(run):
    """Charts of each stage: its metrics and the loss while training and on validation clips, the monitor first.

    With several folds the lines are means over them, with a band of one standard deviation.
    """
    charts = []
    monitor = run.experiment.monitored
    rises = direction(run.experiment, monitor, len(run.vocabulary)) == "max"
    for stage in expand_rounds(run.experiment):
        folds = [
            fold for fold in range(run.experiment.num_folds) if run.stage_files(fold, stage.name).history.is_file()
        ]
        histories = [pd.read_csv(run.stage_files(fold, stage.name).history) for fold in folds]
        results = [result for fold in folds if (result := run.result(fold, stage.name))]
        best = float(np.mean([result["best_epoch"] + 1 for result in results])) if results else None
        marks = {f"epoch {best:g}, which was kept": best} if best is not None else {}
        metrics = [f"val_{log_name(metric)}" for metric in run.experiment.metrics]
        for column in dict.fromkeys((monitor, *metrics, "val_loss")):
            name = column.removeprefix("val_")
            lines = {"training": _mean_line(histories, name), "validation": _mean_line(histories, f"val_{name}")}
            bounds = {"high": 1} if rises and column == monitor else {}
            title = f"{name.replace('_', ' ')} of the {stage.name} stage"
            chart = line_chart(
                {key: line for key, line in lines.items() if line}, x="epoch", y=title, marks=marks, **bounds
            )
            if chart:
                of_folds = f", mean of {len(folds)} folds" if len(folds) > 1 else ""
                charts.append({"title": title + of_folds, "chart": chart, "comment": ""})
        if charts and results:
            charts[-1]["comment"] = _comment(histories, best)
    return charts


def _lengths(run):
    """Histograms of the clips' lengths in frames of the front end, if that is one of ours and has frames."""
    kind = FRONTENDS.get(run.experiment.frontend.name)
    if kind in (None, RawWaveform):
        return []
    front_end = create(run.experiment.frontend, FRONTENDS, sample_rate=run.sample_rate)
    frames_of = functools.cache(lambda num_samples: front_end.compute_output_shape((1, num_samples))[1])
    clips = read_clips(find_records(run).directory / "clips.csv")
    frames, is_test = clips["num_samples"].map(frames_of), clips["subset"] == TEST
    window = f"A window has {frames_of(run.window_samples)} frames."
    charts = []
    for title, chosen in (("training and validation", frames[~is_test]), ("test", frames[is_test])):
        counts, edges = np.histogram(chosen, NUM_BINS, (0, frames.max()))
        if len(chosen):
            chart = column_chart(0, counts, right=edges[-1], x="frames", y=f"Number of {title} clips")
            charts.append({"title": f"frames of the {title} clips", "chart": chart, "comment": window})
    return charts


def _mean_line(histories, column):
    """The mean over folds of a column of their histories, (epochs, means, standard deviations); None without it."""
    columns = [history.set_index("epoch")[column] for history in histories if column in history]
    if not columns:
        return None
    values = pd.concat(columns, axis=1)
    return values.index + 1, values.mean(axis=1), values.std(axis=1) if len(columns) > 1 else np.zeros(len(values))


def _comment(histories, best):
    """One sentence on over- and underfitting, from the mean loss over folds; "" without validation."""
    validation, training = _mean_line(histories, "val_loss"), _mean_line(histories, "loss")
    if validation is None or validation[1].notna().sum() < 3:
        return ""
    losses = validation[1].dropna()
    least, last, epochs = losses.min(), losses.iloc[-1], int(losses.index[-1]) + 1
    if best > 0.9 * epochs:
        return f"The weights of epoch {best:g} of {epochs} were kept: more epochs may improve it further."
    if last > OVERFITTING * least and training[1].iloc[-1] < training[1].loc[losses.idxmin()]:
        return (
            f"Overfitting: after epoch {losses.idxmin() + 1} the validation loss rose by "
            f"{100 * (last / least - 1):.0f} % while the training loss fell. More augmentation, more data or a "
            "smaller network may help."
        )
    return (
        f"It stopped improving after epoch {best:g} of {epochs}, without overfitting: the validation loss did not rise."
    )


def _classes(classes, task):
    classes = classes.sort_values("lwlrap", kind="stable", ignore_index=True)
    bars = [interval_bar(row.lwlrap, row.low, row.high, row.chance) for row in classes.itertuples()]
    columns = ["class", "clips", "lwlrap", "average_precision", "auc", "threshold", "precision", "recall", "f"]
    table = classes[[*columns, *(["f_top_1"] if task == "single_label" else [])]].copy()
    table.insert(2, "", chart_column(bars))
    if task == "single_label":
        table["f_top_1_bar"] = chart_column(fraction_bar(value) for value in table["f_top_1"])
    return table


def _confusion_matrix(scored, vocabulary):
    """The matrix of given labels and most probable classes, and what it leaves out."""
    truth = multi_hot(scored.clips["labels"], vocabulary).astype(int)
    top = np.eye(len(vocabulary), dtype=int)[scored.logits.argmax(axis=1)]  # [clips, K]
    right = truth * top
    counts = np.diag(right.sum(axis=0)) + (truth * (1 - right.sum(axis=1, keepdims=True))).T @ top  # [K, K]
    wrong = counts - np.diag(np.diag(counts))
    shown = np.sort(np.argsort(-(wrong.sum(axis=0) + wrong.sum(axis=1)), kind="stable")[:MAX_CLASSES])
    left_out = f" The {len(shown)} classes with the most confusions." if len(shown) < len(vocabulary) else ""
    return confusion_matrix(counts[np.ix_(shown, shown)], [vocabulary[label] for label in shown]), left_out


def _confusions(scored, vocabulary):
    """Pairs of a given label and the most probable class, if that is not given."""
    pairs, given = Counter(), Counter()
    for labels, row in zip(scored.clips["labels"].map(split_labels), scored.logits):
        given.update(labels)
        top = vocabulary[row.argmax()]
        if labels and top not in labels:
            pairs.update((label, top) for label in labels)
    rows = [
        {"given": label, "predicted": top, "clips": count, "fraction_of_given": count / given[label]}
        for (label, top), count in sorted(pairs.items(), key=lambda item: (-item[1], item[0]))[:MAX_PAIRS]
    ]
    return pd.DataFrame(rows, columns=["given", "predicted", "clips", "fraction_of_given"])


def _folds(run, scored):
    """lwlrap of each fold's model alone, and of the others; None for one fold."""
    fold_logits = scored.fold_logits
    if fold_logits is None or fold_logits.shape[1] < 2:
        return None
    truth, rows = multi_hot(scored.clips["labels"], run.vocabulary), []
    for index, fold in enumerate(run.trained_folds(run.experiment.stages[-1].name)):
        others = np.delete(fold_logits, index, axis=1)  # [clips, E - 1, K]
        alone, without = lwlrap(truth, fold_logits[:, index]), lwlrap(truth, mean_logits(others, axis=1))
        rows.append({"fold": f"fold {fold}", "alone": alone, "without_it": without})
    mean = lwlrap(truth, scored.logits)
    return cells(pd.DataFrame([*rows, {"fold": "all", "alone": mean, "without_it": float("nan")}]), digits=4)


def _worst_clips(run, scored, oof):
    """Kinds of errors with their worst clips; wrong labels are looked for in `oof`, (clips, logits) or None."""
    clips, logits = scored.clips, scored.logits
    truth = multi_hot(clips["labels"], run.vocabulary).astype(bool)
    labeled = truth.any(axis=1)
    lwlraps = per_clip_lwlrap(truth, logits)
    missed = np.argsort(lwlraps + 1e-3 * expit(logits.max(axis=1)))
    other = np.where(truth, -np.inf, logits).max(axis=1)  # [clips], the logit of the most probable class not given
    false_alarms = np.argsort(-other)
    is_alarm = other > np.where(labeled, np.where(truth, logits, -np.inf).max(axis=1), 0)
    kinds = [
        ("Missed", "The given labels are ranked lowest.", clips, logits, missed[(labeled & (lwlraps < 1))[missed]]),
        (
            "False alarms",
            "A class that was not given is most probable.",
            clips,
            logits,
            false_alarms[is_alarm[false_alarms]],
        ),
    ]
    if oof is not None:
        clips, logits = oof
        truth = multi_hot(clips["labels"], run.vocabulary)
        order = np.argsort(per_clip_lwlrap(truth, logits), kind="stable")
        what = "Clips that models rank worst without having trained on them: their labels may be wrong."
        kinds.append(("Disputed labels", what, clips, logits, order[truth.any(axis=1)[order]]))
    names = {name for *_, clips, _, order in kinds for name in clips["name"].iloc[order[:NUM_WORST]]}
    waveforms = waveforms_of_records(find_records(run), names)
    return [
        {
            "title": title,
            "what": what,
            "clips": [
                _clip_card(run, clips.iloc[row], logits[row], waveforms[clips["name"].iloc[row]])
                for row in order[:NUM_WORST]
            ],
        }
        for title, what, clips, logits, order in kinds
    ]


def _clip_card(run, clip, logits, waveform):
    """A clip's labels, predictions, image and audio for the page."""
    truth = multi_hot([clip["labels"]], run.vocabulary)
    top = np.argsort(-logits, kind="stable")[:3]
    limit = round(SOUND_SECONDS * run.sample_rate)
    return {
        "name": clip["name"],
        "given": clip["labels"].replace(",", ", ") or "no class",
        "predicted": ", ".join(f"{run.vocabulary[label]} {expit(logits[label]):.2f}" for label in top),
        "lwlrap": f"{per_clip_lwlrap(truth, logits[None])[0]:.2f}" if truth.any() else "undefined",
        "cut": f"{SOUND_SECONDS:g}" if len(waveform) > limit else "",
        **spectrogram(waveform[:limit], run.sample_rate),
        "sound": sound_url(waveform[:limit], run.sample_rate),
    }
