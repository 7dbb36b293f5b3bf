"""What came of a run, on one page: what was trained on what, how well it hears, and its worst clips to listen to."""

import dataclasses
import time
from collections import Counter

import numpy as np
import pandas as pd
from scipy.special import expit

from audiotag import __version__
from audiotag.config.loading import dump
from audiotag.config.schema import passes
from audiotag.data.clips import read_clips, read_table
from audiotag.data.labels import multi_hot, split_labels
from audiotag.data.pipeline import damage_named, evaluation_batches
from audiotag.data.records.manifest import read_manifest
from audiotag.evaluation.measures import fit_thresholds, fit_thresholds_across, judge
from audiotag.evaluation.scoring import held_out_answers, score_test_clips
from audiotag.evaluation.thresholds import calibration_error
from audiotag.inference.records import mean_logits
from audiotag.layers import LogMel
from audiotag.metrics import lwlrap, per_clip_lwlrap
from audiotag.reporting.page import (
    cells,
    drawn,
    interval_bar,
    line_chart,
    picture_url,
    reliability_chart,
    sound_url,
    write_page,
)

WORST = 6  # clips of each kind
SOUND_SECONDS = 10.0  # of a clip that can be listened to
MOST_PAIRS = 20


@dataclasses.dataclass(frozen=True)
class Judged:
    """Clips and what was thought of them: `members` are the folds' logits [clips, E, K], which `logits` combine."""

    clips: pd.DataFrame
    logits: np.ndarray
    members: np.ndarray | None
    clips_per_second: float


def write_report(run, path):
    """Writes the page of a run.

    It is judged by the labelled test clips of its records, or where there are none by the held-out clips.

    Args:
        run: A `Run`, trained to the end in one fold at least.
        path: The HTML file.

    Raises:
        DataError: No fold is trained to its end.
    """
    held_out = held_out_answers(run)
    judged = _hear_test_clips(run)
    if judged is None:
        clips, logits = held_out
        judged = Judged(clips, logits, None, float("nan"))
        thresholds, words = fit_thresholds_across(clips, logits, run.vocabulary), "held-out curated clips"
    else:
        thresholds, words = fit_thresholds(*held_out, run.vocabulary), "test clips"
    tables = judge(judged.clips, judged.logits, run.vocabulary, thresholds=thresholds)
    counts = read_manifest(run.experiment.records).count_clips()
    trained_on = ", ".join(f"{count:,} {subset}" for subset, count in counts.items())
    write_page(
        path,
        "report.html",
        version=__version__,
        title=f"What {run.folder.resolve().name} has learned",
        about=run.experiment.about,
        measured_on=f"{len(judged.clips):,} {words}",
        trained_on=f"Its records hold {trained_on} clips of {len(run.vocabulary)} classes at {run.sample_rate:,} Hz.",
        cards=_cards(run, tables["overall"], judged),
        stages=cells(_stages(run)),
        curves=_curves(run),
        overall=cells(tables["overall"]),
        classes=cells(_classes(tables["classes"])),
        confused=cells(_confused(judged, run.vocabulary)),
        calibration_error=f"{calibration_error(tables['calibration']):.3f}",
        reliability=reliability_chart(tables["calibration"]),
        members=_members(run, judged),
        kinds=_worst_clips(run, judged, held_out, words),
        command=run.experiment.command,
        experiment=dump(run.experiment),
        environment=(run.folder / "environment.json").read_text(),
    )


def _hear_test_clips(run):
    """The test clips, judged by each fold's model; None where the records hold no labelled ones."""
    folds = run.trained_folds(run.experiment.stages[-1].name)
    test = read_clips(read_manifest(run.experiment.records).directory / "clips.csv").query("subset == 'test'")
    if (test["labels"] == "").all():
        return None
    begun = time.perf_counter()
    answers = [score_test_clips(run, fold=fold) for fold in folds]
    rate = len(folds) * len(test) / (time.perf_counter() - begun)
    members = np.stack([logits for _, logits in answers], axis=1)  # [clips, E, K]
    return Judged(answers[0][0], mean_logits(members, axis=1), members, rate)


def _cards(run, overall, judged):
    whole = overall[overall["part"] == "all"]
    cards = [
        {"name": row.measure, "value": f"{row.value:.3f}"}
        | {"more": f"{row.low:.3f} to {row.high:.3f}, chance {row.chance:.3f}"}
        for row in whole.itertuples()
        if row.measure in ("lwlrap", "MAP@3", "mAP", "F")
    ]
    minutes = [minutes for _, _, minutes in _timed(run)]
    if all(minutes):
        more = {"value": f"{sum(minutes):.1f}", "more": "by the times of its files"}
        cards.append({"name": "minutes of training"} | more)
    if judged.members is not None:
        rate = f"{judged.clips_per_second:.0f}"
        cards.append({"name": "clips/s heard", "value": rate, "more": "while this was written"})
    return cards


def _timed(run):
    """Yields (fold, stage, minutes) of every finished stage; None where it was resumed, or the files' times are odd."""
    for fold in range(run.experiment.folds.count):
        for stage in passes(run.experiment):
            folder = run.stage_folder(fold, stage.name)
            if run.finished(fold, stage.name):
                begun, ended = folder / "heard.csv", folder / "finished.json"
                seconds = ended.stat().st_mtime - begun.stat().st_mtime if begun.is_file() else 0
                yield fold, stage, seconds / 60 if seconds > 0 and not (folder / "resumed").exists() else None


def _stages(run):
    rows = []
    for fold, stage, minutes in _timed(run):
        known, heard = run.finished(fold, stage.name), run.stage_folder(fold, stage.name) / "heard.csv"
        clips = len(read_table(heard, ["name"])) if heard.is_file() else None
        steps = stage.steps or max(1, (clips or 0) // stage.batch_size)  # in an epoch, as `fit` has it
        rate = known["epochs"] * steps * stage.batch_size / (60 * minutes) if clips and minutes else float("nan")
        rows.append(
            {
                "fold": fold,
                "stage": stage.name,
                "subset": " and ".join(stage.subset),
                "clips": clips if clips is not None else "–",
                "epochs": known["epochs"],
                "best_epoch": known["best_epoch"] + 1,
                "held_out_lwlrap": known["val_lwlrap"],
                "minutes": float("nan") if minutes is None else minutes,
                "windows/s": rate,
            }
        )
    return pd.DataFrame(rows)


def _curves(run):
    """For each stage its held-out lwlrap and its losses over the epochs, a line a fold."""
    curves = []
    for stage in passes(run.experiment):
        paths = {fold: run.stage_folder(fold, stage.name) / "history.csv" for fold in range(run.experiment.folds.count)}
        histories = {fold: pd.read_csv(path) for fold, path in paths.items() if path.is_file()}
        for column, words, ends in (("val_lwlrap", "held-out lwlrap", {"high": 1}), ("val_loss", "held-out loss", {})):
            lines = {
                f"fold {fold}": (history["epoch"] + 1, history[column])
                for fold, history in histories.items()
                if column in history
            }
            if lines:
                chart = line_chart(lines, x="epoch", y=words, **ends)
                curves.append({"title": f"{stage.name}: {words}", "chart": chart})
    return curves


def _classes(classes):
    classes = classes.sort_values("lwlrap", kind="stable", ignore_index=True)
    shown = ["class", "clips", "lwlrap", "low", "high", "chance", "average_precision", "auc", "threshold", "precision"]
    table = classes[[*shown, "recall", "f", "chance_f"]].copy()
    bars = [interval_bar(row.lwlrap, row.low, row.high, row.chance) for row in classes.itertuples()]
    table.insert(2, "", drawn(bars))
    return table


def _confused(judged, vocabulary):
    pairs, given = Counter(), Counter()
    for labels, row in zip(judged.clips["labels"].map(split_labels), judged.logits):
        given.update(labels)
        answer = vocabulary[row.argmax()]
        if labels and answer not in labels:
            pairs.update((label, answer) for label in labels)
    rows = [
        {"given": label, "heard": answer, "clips": count, "of_given": count / given[label]}
        for (label, answer), count in sorted(pairs.items(), key=lambda item: (-item[1], item[0]))[:MOST_PAIRS]
    ]
    return pd.DataFrame(rows, columns=["given", "heard", "clips", "of_given"])


def _members(run, judged):
    """What each fold's model adds; None for one alone."""
    if judged.members is None or judged.members.shape[1] < 2:
        return None
    truth, rows = multi_hot(judged.clips["labels"], run.vocabulary), []
    for index, fold in enumerate(run.trained_folds(run.experiment.stages[-1].name)):
        rest = np.delete(judged.members, index, axis=1)
        alone, without = lwlrap(truth, judged.members[:, index]), lwlrap(truth, mean_logits(rest, axis=1))
        rows.append({"fold": f"fold {fold}", "alone": alone, "without_it": without})
    everyone = lwlrap(truth, judged.logits)
    return cells(pd.DataFrame([*rows, {"fold": "all", "alone": everyone, "without_it": float("nan")}]), digits=4)


def _worst_clips(run, judged, held_out, words):
    """Kinds of mistakes, and the worst clips of each with what is needed to see and hear them."""
    clips, logits = judged.clips, judged.logits
    truth = multi_hot(clips["labels"], run.vocabulary).astype(bool)
    labelled = truth.any(axis=1)
    missed = np.where(labelled, per_clip_lwlrap(truth, logits), 2.0) + 1e-3 * expit(logits.max(axis=1))
    false = np.where(labelled, np.where(truth, -np.inf, logits).max(axis=1), -np.inf)
    kinds = [
        ("Missed", f"{words.capitalize()} whose given labels were ranked lowest.", clips, logits, np.argsort(missed)),
        ("False alarms", "A class that was not given, heard with most certainty.", clips, logits, np.argsort(-false)),
    ]
    if words == "test clips":
        clips, logits = held_out
        disputed = per_clip_lwlrap(multi_hot(clips["labels"], run.vocabulary), logits)
        what = "Held-out curated clips that their model ranks worst: is the label right?"
        kinds.append(("Disputed labels", what, clips, logits, np.argsort(disputed, kind="stable")))
    waveforms = _waveforms(run, {name for *_, clips, _, order in kinds for name in clips["name"].iloc[order[:WORST]]})
    return [
        {
            "title": title,
            "what": what,
            "clips": [_shown(run, clips.iloc[i], logits[i], waveforms[clips["name"].iloc[i]]) for i in order[:WORST]],
        }
        for title, what, clips, logits, order in kinds
    ]


def _shown(run, clip, logits, waveform):
    """One clip as the page shows it."""
    truth = multi_hot([clip["labels"]], run.vocabulary)
    best = np.argsort(-logits, kind="stable")[:3]
    limit = round(SOUND_SECONDS * run.sample_rate)
    mel = LogMel(
        sample_rate=run.sample_rate, num_bands=96, fft_length=1024, frame_step=max(64, len(waveform[:limit]) // 400),
        low_hz=50, high_hz=run.sample_rate / 2,
    )  # fmt: skip
    return {
        "name": clip["name"],
        "given": clip["labels"].replace(",", ", "),
        "heard": ", ".join(f"{run.vocabulary[label]} {expit(logits[label]):.2f}" for label in best),
        "lwlrap": f"{per_clip_lwlrap(truth, logits[None])[0]:.2f}",
        "cut": f"{SOUND_SECONDS:g}" if len(waveform) > limit else "",
        "picture": picture_url(mel(waveform[None, :limit])[0]),
        "sound": sound_url(waveform[:limit], run.sample_rate),
    }


def _waveforms(run, names):
    """{name: float32 [N]} of some clips of the run's records."""
    manifest = read_manifest(run.experiment.records)
    clips = read_clips(manifest.directory / "clips.csv")
    clips = clips[clips["name"].isin(names)].reset_index(drop=True)
    window = round(run.experiment.window.seconds * run.sample_rate)
    waveforms = {}
    with damage_named(manifest):
        for batch, rows in evaluation_batches(manifest, clips, window_samples=window, batch_size=8):
            for waveform, row in zip(batch.numpy(), rows.numpy()):
                waveforms[clips["name"][row]] = waveform[: clips["num_samples"][row]]
    return waveforms
