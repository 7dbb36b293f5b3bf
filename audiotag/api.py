"""The Python API: the functions that `import audiotag` offers.

Each does what the command of its name does, and returns the result. What is heavy is imported by
the function that needs it.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias

from audiotag.errors import ConfigError, DataError
from audiotag.remote import is_url

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

    from audiotag.config.schema import Experiment
    from audiotag.inference.predictor import Predictor
    from audiotag.runs.directory import Run
    from audiotag.sweeps.learning_curve import Advice
    from audiotag.sweeps.results import Comparison

    FilePath: TypeAlias = str | Path


@dataclass(frozen=True, eq=False, repr=False)
class Evaluation:
    """What `evaluate` measured, as tables.

    Printed, it is what the command prints. Every measure comes with its 95% interval (low, high) and its chance level.

    Args:
        overall: A row per measure, for all clips and for each split: split, clips, recordings, measure,
            value, low, high, chance.
        classes: A row per class: clips, lwlrap, average precision, AUC, threshold, precision, recall, …
        clips: A row per clip, the worst first: name, labels, lwlrap, chance, top_3.
        calibration: A row per range of probabilities: the mean probability, and the fraction that is right.
        scores: A row per clip: fname, K probabilities, K logits.
        note: How validation clips were split, if they are what was measured.
        robustness: If it was asked for, a row per change of the sound and measure: change, measure, value, loss, low,
            high.

    Example:
        evaluation = audiotag.evaluate("runs/demo")
        worst = evaluation.classes.sort_values("lwlrap").head(3)
    """

    overall: pd.DataFrame
    classes: pd.DataFrame
    clips: pd.DataFrame
    calibration: pd.DataFrame
    scores: pd.DataFrame
    note: str = ""
    robustness: pd.DataFrame | None = None

    def __str__(self) -> str:
        from audiotag.evaluation.measures import summary
        from audiotag.evaluation.robustness import robustness_summary

        changed = "" if self.robustness is None else f"\n{robustness_summary(self.robustness)}"
        return "\n".join([summary(vars(self)), *filter(None, [self.note, changed])])

    __repr__ = __str__


def load_experiment(path: FilePath, overrides: str | Iterable[str] = ()) -> Experiment:
    """Reads an experiment file, with every default filled in.

    Args:
        path: A JSON file as in experiments/, or the name of one that comes with audiotag, such as "demo".
        overrides: Changes as for --set, one text or several.

    Raises:
        ConfigError: The file cannot be read, or is not valid.

    Example:
        experiment = audiotag.load_experiment("experiments/demo.json", ["stages.noisy.epochs=2"])
        assert experiment.stages[0].epochs == 2
    """
    from audiotag.config.loading import load

    return load(path, _several(overrides))


def fit(
    experiment: Experiment | FilePath,
    run_dir: FilePath,
    *,
    fold: int | None = None,
    restart: bool = False,
    devices: Literal["all"] | int | None = None,
    quiet: bool = False,
) -> Run:
    """Trains the model of an experiment, or resumes it, and exports it.

    The SavedModel is `run.saved_model`. Progress is shown on standard error. If the experiment is `deterministic`, so
    are TensorFlow's operations in this process afterwards.

    Args:
        experiment: What `load_experiment` returns, or an experiment file.
        run_dir: The directory of the run, or a URL such as s3://bucket/runs/demo. One that was killed resumes after its
            last complete epoch.
        fold: The only fold to train; None trains those of the experiment.
        restart: Replace the run in the directory.
        devices: Train on so many devices of this process, or on "all". None trains on one. Of several processes with
            JAX, only the first writes the run.
        quiet: Print no results.

    Raises:
        ConfigError: The experiment is not valid, or there are not so many devices.
        DataError: The records are damaged or have too few clips, the directory holds another run, or another process
            of those that train together died.
        KeyboardInterrupt: By Ctrl-C, after the current step is done and saved; the same call continues from there.

    Example:
        run = audiotag.fit("experiments/demo.json", "runs/demo")
        history = run.history(stage="noisy")  # a row per epoch
    """
    from audiotag.config.schema import Experiment

    if isinstance(experiment, (str, os.PathLike)):
        experiment = load_experiment(experiment)  # before TensorFlow starts: a wrong file fails at once
    if not isinstance(experiment, Experiment):
        raise TypeError(
            f"found {type(experiment).__name__}, expected an experiment. Give what audiotag.load_experiment returns, "
            "or the path of an experiment file."
        )
    from audiotag.training.devices import PROCESS_ID, is_first_process

    if is_url(run_dir) and os.environ.get(PROCESS_ID, "0") == "0":  # other processes write nothing
        from audiotag.runs.mirror import trained_at

        with trained_at(str(run_dir)) as folder:
            return fit(experiment, folder, fold=fold, restart=restart, devices=devices, quiet=quiet)
    from audiotag.backend import on_tensorflow, run_in_tensorflow
    from audiotag.config import custom
    from audiotag.runs.directory import shared_lock
    from audiotag.serving.saved_model import write_saved_model
    from audiotag.training import loop

    say = (lambda sentence: None) if quiet else functools.partial(print, flush=True)
    run = loop.fit(experiment, Path(run_dir), fold=fold, restart=restart, devices=devices, say=say)
    if not is_first_process():
        return run
    if not on_tensorflow():
        run_in_tensorflow(["export", str(run.folder), str(run.saved_model), "--overwrite", "--allow-unsafe"])
        return run
    with shared_lock(run.folder), custom.allowed():
        say(f"SavedModel: {write_saved_model(run, run.saved_model)}")
    return run


def open_run(folder: FilePath) -> Run:
    """Opens a run: its experiment, class names, training histories and files.

    Args:
        folder: Its directory, or a URL.

    Raises:
        DataError: There is no run, or it is damaged.

    Example:
        run = audiotag.open_run("runs/demo")
        best = run.history(fold=0)["val_lwlrap"].max()
    """
    from audiotag.runs import directory

    return directory.open_run(_local(folder))


def load_model(
    run: Run | FilePath,
    *,
    stage: str | None = None,
    fold: int | None = None,
    overrides: str | Iterable[str] = (),
    allow_unsafe: bool = False,
) -> Predictor:
    """Loads a trained model, ready to predict.

    Args:
        run: A run, its directory, an ensemble's file, or what `fit` and `export` write: a SavedModel, or an ONNX or
            LiteRT file, which needs no TensorFlow.
        stage: The stage of a run whose weights to load; None is the last.
        fold: The only fold of a run to load; None is the mean of all trained folds.
        overrides: Other settings for a run, such as "predict.pool=max".
        allow_unsafe: Run the program of a SavedModel that audiotag did not export, and import components from outside
            audiotag that the model names.

    Returns:
        A `Predictor`: its function `logits` takes waveforms float32 [B, N] of -1 to 1 at the rate
        `audio_config["sample_rate"]` and returns logits [B, K] of the classes `vocabulary`.

    Raises:
        DataError: There is no such model, or it is not trained, or damaged, or not safe.
        ConfigError: An option does not fit the model.

    Example:
        model = audiotag.load_model("runs/demo", stage="noisy")
        silence = np.zeros((1, 16_000), "float32")
        logits = model.logits(silence)
    """
    from audiotag.serving.converted_models import is_converted, load_converted

    if isinstance(run, (str, os.PathLike)) and is_converted(run):
        return load_converted(
            run, [*_several(overrides), *(str(option) for option in (stage, fold) if option is not None)]
        )
    _check_model(run)
    run = _local(run)
    from audiotag.config import custom
    from audiotag.serving.saved_model import load_predictor

    with custom.allowed(allow_unsafe):
        return load_predictor(run, _several(overrides), stage=stage, fold=fold, allow_unsafe=allow_unsafe)


def predict(
    model: Predictor | Run | FilePath, files: FilePath | Iterable[FilePath], *, allow_unsafe: bool = False
) -> pd.DataFrame:
    """Predicts the classes in audio files of any length, rate and channels.

    To predict with another stage, one fold or other settings, give what `load_model` returns for these.

    Args:
        model: What `load_model` returns, or what it takes.
        files: One file or several.
        allow_unsafe: As for `load_model`.

    Returns:
        A row per file: fname, then per class its probability ("Bark") and its logit ("Bark logit").

    Raises:
        DataError: A file cannot be read, or there is none; or the model cannot be loaded.

    Example:
        table = audiotag.predict("runs/demo/saved_model", ["bell.wav", "street.wav"])
        classes = list(audiotag.load_model("runs/demo").vocabulary)
        best = table[classes].idxmax(axis="columns")
    """
    from audiotag.evaluation.score_tables import scores_table
    from audiotag.inference.audio_files import score_files
    from audiotag.inference.predictor import Predictor

    paths = [Path(path) for path in _several(files)]
    if not paths:
        raise DataError("there are no files to predict. Expected one audio file or more.")
    predictor = model if isinstance(model, Predictor) else load_model(model, allow_unsafe=allow_unsafe)
    return scores_table(paths, score_files(predictor, paths), predictor.vocabulary)


def embed(
    model: Predictor | Run | FilePath,
    files: FilePath | Iterable[FilePath],
    *,
    per: Literal["window", "clip"] = "window",
    allow_unsafe: bool = False,
) -> tuple[pd.DataFrame, np.ndarray]:
    """Computes embeddings of audio files.

    They are what the backbone makes of windows, before the head: inputs for classifiers, searches and clusterings of
    your own. Of a run with several folds they are those of the first; for another, give what `load_model` returns with
    `fold`.

    Args:
        model: What `load_model` returns, or what it takes.
        files: One file or several, of any length, rate and channels; they are not trimmed.
        per: A row per "window", or per "clip": the mean over the windows of a file.
        allow_unsafe: As for `load_model`.

    Returns:
        (table with a row per window or file: fname, start and end in seconds; float32 array [rows, D]).

    Raises:
        DataError: A file cannot be read, or there is none; or the model has no embeddings or cannot be loaded.

    Example:
        table, embeddings = audiotag.embed("runs/demo", ["bell.wav", "street.wav"], per="clip")
        distance = np.linalg.norm(embeddings[0] - embeddings[1])
    """
    import numpy as np
    import pandas as pd

    from audiotag.inference.embedding_files import embed_files
    from audiotag.inference.predictor import Predictor

    paths = [Path(path) for path in _several(files)]
    if not paths:
        raise DataError("there are no files to embed. Expected one audio file or more.")
    predictor = model if isinstance(model, Predictor) else load_model(model, allow_unsafe=allow_unsafe)
    tables, vectors = zip(*embed_files(predictor, paths, per=per))
    return pd.concat(tables, ignore_index=True), np.concatenate(vectors)


def label_next(
    model: Predictor | Run | FilePath,
    files: FilePath | Iterable[FilePath],
    *,
    top: int = 50,
    allow_unsafe: bool = False,
) -> pd.DataFrame:
    """Ranks recordings without labels: which to label next.

    They are those of whose class a model is least sure, and unlike each other. A file that cannot be read is
    named on standard error and left out.

    Args:
        model: What `load_model` returns, or what it takes; an ensemble has no embeddings.
        files: One file or several, of any length, rate and channels; they are not trimmed.
        top: How many to choose.
        allow_unsafe: As for `load_model`.

    Returns:
        A row per chosen file, the least sure first: fname, margin (between the probabilities of the two most probable
        classes), predicted.

    Raises:
        DataError: No file can be read, or there is none; or the model has no embeddings or cannot be loaded.

    Example:
        table = audiotag.label_next("runs/demo", ["bell.wav", "street.wav"], top=1)
        first = table["fname"][0]
    """
    from audiotag.inference.label_next import rank_to_label
    from audiotag.inference.predictor import Predictor

    paths = [Path(path) for path in _several(files)]
    if not paths:
        raise DataError("there are no files to rank. Expected one audio file or more.")
    predictor = model if isinstance(model, Predictor) else load_model(model, allow_unsafe=allow_unsafe)
    return rank_to_label(predictor, paths, top=top)


def evaluate(
    run: Run | FilePath,
    *,
    records: FilePath | None = None,
    stage: str | None = None,
    out_of_fold: bool = False,
    robustness: bool = False,
    overrides: str | Iterable[str] = (),
    allow_unsafe: bool = False,
) -> Evaluation:
    """Measures a run, or an ensemble of runs, on labeled test clips.

    Decision thresholds are fitted to out-of-fold predictions, or are probability 1/2 if there are none.

    Args:
        run: A run, its directory, or an ensemble's file.
        records: Other records than the run was trained on, or the place to which these were moved.
        stage: The stage whose weights to use; None is the last.
        out_of_fold: Measure the out-of-fold predictions of all trained folds instead.
        robustness: Also measure what a run loses on the same clips louder, softer, without high frequencies, after
            MP3, with noise and with reverberation.
        overrides: Other settings, such as "predict.pool=max".
        allow_unsafe: Import components from outside audiotag that a run names.

    Raises:
        DataError: The run is not trained, or there are no labeled clips.
        ConfigError: An option does not fit.

    Example:
        evaluation = audiotag.evaluate("runs/demo")
        print(evaluation)
        lwlrap = evaluation.overall.query("split == 'all'").set_index("measure").loc["lwlrap", "value"]
    """
    _check_model(run)
    run = _local(run)
    from audiotag.config import custom
    from audiotag.ensembling.members import EnsemblePredictor, open_model, predictions_and_thresholds
    from audiotag.evaluation.measures import evaluation_tables
    from audiotag.evaluation.robustness import measure_robustness
    from audiotag.evaluation.scoring import how_validated
    from audiotag.runs.directory import Run, with_records

    model = open_model(run, _several(overrides))
    if robustness and not isinstance(model, Run):
        raise ConfigError("robustness is measured of a single run. Give a run, not an ensemble.")
    with custom.allowed(allow_unsafe):
        clips, logits, thresholds = predictions_and_thresholds(
            model, records=records, stage=stage, out_of_fold=out_of_fold
        )
        runs = model.runs if isinstance(model, EnsemblePredictor) else (model,)
        moved = [with_records(each, records) for each in runs] if out_of_fold else []
        note = " ".join(dict.fromkeys(map(how_validated, moved)))
        changed = None
        if robustness and isinstance(model, Run):
            changed = measure_robustness(
                model, records=records, stage=stage, out_of_fold=out_of_fold, thresholds=thresholds
            )
    tables = evaluation_tables(clips, logits, model.vocabulary, thresholds=thresholds)
    return Evaluation(**tables, note=note, robustness=changed)


def sweep(
    path: FilePath, folder: FilePath, *, quick: bool = False, test: bool = False, quiet: bool = False
) -> Comparison:
    """Trains all runs of a sweep file, or resumes them, and compares them.

    Several machines may call it for the same folder: each trains what no other does.

    Args:
        path: A JSON file: an experiment, and its seeds, folds and variations.
        folder: The directory of the runs. table.csv, runs.csv, differences.csv, table.txt and report.html are written
            into it.
        quick: Make the changes of the file's "quick", too.
        test: Measure all variations on the test clips. False measures only the best by validation clips on them.
        quiet: Print no results of stages.

    Returns:
        A `Comparison`: table, runs, differences, best. Printed, it is what the command prints.

    Raises:
        ConfigError: The file, or an experiment with its changes, is not valid; nothing is trained then.
        DataError: Runs failed. The tables of the others are written.
        KeyboardInterrupt: By Ctrl-C; the same call continues from there.

    Example:
        comparison = audiotag.sweep("sweeps/demo.json", "runs/demo_sweep")
        print(comparison)
        means = comparison.table.query("measure == 'lwlrap'").set_index("setting")["mean"]
    """
    from audiotag.config.loading import load
    from audiotag.sweeps.schema import SweepConfig

    config = load(path, kind=SweepConfig)
    from audiotag.sweeps.training import run_sweep

    say = (lambda sentence: None) if quiet else functools.partial(print, flush=True)
    comparison = run_sweep(config, folder, path, quick=quick, test=test, say=say)
    from audiotag.reporting.comparison_page import write_comparison_page

    write_comparison_page(comparison, Path(folder) / "report.html", title=f"Sweep {Path(folder).resolve().name}")
    return comparison


def compare(
    runs: Iterable[Run | FilePath],
    *,
    measure: str = "lwlrap",
    test: bool = False,
    records: Iterable[FilePath] = (),
    allow_unsafe: bool = False,
) -> Comparison:
    """Compares trained runs: what differs in their experiments, and their measures.

    Runs whose experiments differ only in seed and records are one setting.

    Args:
        runs: Runs, or their directories. The others are compared with the setting of the first.
        measure: The measure that decides which setting is best: lwlrap, MAP@3, top_1_accuracy, mAP, AUC, F or F_top_1.
        test: Measure all settings on the test clips. False measures only the best by validation clips on them.
        records: Where records of the runs are now, if they were moved.
        allow_unsafe: Import components from outside audiotag that a run names.

    Returns:
        A `Comparison`: table, runs, differences, best. Printed, it is what the command prints.

    Raises:
        DataError: A run is not trained, or there are no clips to measure on.
        ConfigError: There is no such measure.

    Example:
        comparison = audiotag.compare(["runs/demo", "runs/other"])
        differing = comparison.differences.set_index("key")
    """
    from audiotag.config import custom
    from audiotag.runs.directory import Run, with_records_among
    from audiotag.sweeps import results

    opened = with_records_among((run if isinstance(run, Run) else open_run(run) for run in runs), records)
    results.check_measure(measure)
    with custom.allowed(allow_unsafe):
        return results.compare(results.entries_of(opened), measure=measure, test=test)


def advise(
    run: Run | FilePath,
    *,
    measure: str = "lwlrap",
    num_draws: int = 3,
    records: FilePath | None = None,
    allow_unsafe: bool = False,
    quiet: bool = False,
) -> Advice:
    """Forecasts what more training clips would bring to a run, overall and per class.

    The run's experiment is trained on a half, a quarter and an eighth of its training clips, several times, and a curve
    that saturates is fitted to the scores on the validation clips. A call that was killed resumes. Tables and the page
    report.html are written into the folder learning_curve of the run.

    Args:
        run: A run, or its directory.
        measure: What to forecast: lwlrap, MAP@3, top_1_accuracy, mAP, AUC, F or F_top_1.
        num_draws: How many parts of each size to train on, at least 2.
        records: Where the records of the run are now, if they were moved.
        allow_unsafe: Import components from outside audiotag that the run names.
        quiet: Print no sentences.

    Returns:
        An `Advice`: curve, classes, fitted, measure, sentences. Printed, it is what the command prints.

    Raises:
        DataError: The run is not trained, or has no validation clips or too few clips.
        ConfigError: There is no such measure.

    Example:
        advice = audiotag.advise("runs/demo", num_draws=2, quiet=True)
        twice = advice.curve.iloc[-1]  # clips, value, low, high
    """
    from audiotag.config import custom
    from audiotag.reporting.learning_curve_page import write_learning_curve_page
    from audiotag.runs.directory import Run, with_records
    from audiotag.sweeps import learning_curve

    opened = with_records(run if isinstance(run, Run) else open_run(run), records)
    say = (lambda sentence: None) if quiet else functools.partial(print, flush=True)
    with custom.allowed(allow_unsafe):
        advice = learning_curve.advise(opened, measure=measure, num_draws=num_draws, say=say)
    advice.write(opened.learning_curve_folder)
    write_learning_curve_page(advice, opened.learning_curve_folder / "report.html", title=opened.folder.resolve().name)
    return advice


def explore(source: FilePath, *, num_workers: int | None = None) -> dict[str, pd.DataFrame]:
    """Describes a dataset: classes, co-occurring labels, durations, faults.

    Recordings are decoded in other processes, so a script must call it below `if __name__ == "__main__":`.

    Args:
        source: A directory of records, a source of make-records, or FSDKaggle2019.meta, the tables without audio.
        num_workers: Processes that decode recordings; None is one per core.

    Returns:
        {name: table}: subsets, labels_per_clip, classes and pairs; with audio also durations, histogram, outliers,
        faults and duplicates.

    Raises:
        DataError: The source is none of these.

    Example:
        tables = audiotag.explore("tfrecords/demo")
        hours = tables["subsets"].set_index("subset")["hours"]
    """
    from audiotag.reporting.dataset_page import dataset_tables, read_source

    return dataset_tables(*read_source(Path(source), num_workers=num_workers))


def _several(texts):
    """A text or path as a tuple of one, or several as a tuple."""
    return (texts,) if isinstance(texts, (str, os.PathLike)) else tuple(texts)


def _local(run):
    """What it is given, or the local copy of a run at a URL."""
    if not isinstance(run, (str, os.PathLike)):
        return run
    if not is_url(run):
        return Path(run)
    from audiotag.runs.mirror import local_run

    return local_run(str(run))


def _check_model(model):
    """Refuses what is neither a run nor a path."""
    from audiotag.runs.directory import Run

    if not isinstance(model, (str, os.PathLike, Run)):
        raise TypeError(
            f"found {type(model).__name__}, expected a run. Give what audiotag.fit returns, or the path of a model."
        )
