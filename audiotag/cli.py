"""The command line.

Commands parse options and print results. Heavy packages are imported only by the commands that need them.
"""

import gc
import importlib
import json
import logging
import math
import os
import re
import signal
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from audiotag import __version__, files
from audiotag.config.signatures import component_names
from audiotag.errors import AudiotagError, DataError
from audiotag.quiet import without_startup_lines
from audiotag.remote import is_url

if TYPE_CHECKING:
    from audiotag.beam import Beam
    from audiotag.inference.predictor import Predictor

# TensorFlow's log lines would hide our own, and some of level 2 (errors) report only that there is no GPU. What fails
# still raises an exception. Set to 0, it shows all lines.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# GPU memory is taken as it is needed, so that other programs can use the rest.
os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")

FOLDER = click.Path(file_okay=False, path_type=Path)
FILE = click.Path(dir_okay=False, path_type=Path)
PATH = click.Path(path_type=Path)
CONVERTED = (".onnx", ".tflite")  # models that predict without TensorFlow


class Output(click.Path):
    """A file to write: checks its suffix and creates its folder before any work."""

    def __init__(self, *suffixes: str):
        super().__init__(dir_okay=False, path_type=Path)
        self.suffixes = suffixes

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        """The path, with an existing folder and an accepted suffix."""
        path = Path(str(super().convert(value, param, ctx)))
        if path.suffix not in self.suffixes:
            self.fail(f"{path}: expected a name that ends in {' or '.join(self.suffixes)}.", param, ctx)
        if path.suffix == ".parquet":
            from audiotag.evaluation.score_tables import check_parquet

            check_parquet(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        return path


class Place(click.Path):
    """A directory, or a URL such as s3://bucket/records, which stays a text."""

    def __init__(self, *, exists: bool = False):
        super().__init__(file_okay=False, exists=exists, path_type=Path)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The path, or the URL."""
        return str(value) if is_url(value) else super().convert(value, param, ctx)


class ModelPath(click.Path):
    """A run, or another model; a run at a URL is copied into the cache."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        """The path, or that of the copy."""
        if is_url(value):
            from audiotag.runs.mirror import local_run

            return local_run(str(value))
        return Path(str(super().convert(value, param, ctx)))


class DeviceCount(click.ParamType):
    """A number of devices, or all of them."""

    name = "devices"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Literal["all"] | int:
        """ "all", or a number from 1."""
        return "all" if value == "all" else click.IntRange(min=1).convert(value, param, ctx)


def _allow_components(context):
    """Allows components from outside audiotag until the command ends."""
    from audiotag.config import custom

    context.with_resource(custom.allowed())


def check_model(path: Path) -> None:
    """Refuses what is no run, ensemble or SavedModel, before TensorFlow starts.

    Raises:
        DataError: The path does not exist, or is a directory or a file of another kind.
    """
    if path.suffix in CONVERTED:
        raise DataError(f"{path}: only predict takes ONNX and LiteRT files. Give the directory of its run.")
    if not path.exists():
        raise DataError(f"{path}: does not exist. Train a run with: audiotag fit EXPERIMENT")
    if path.is_dir() and not (path / "saved_model.pb").is_file():
        from audiotag.runs.directory import open_run

        open_run(path)


def begin_predicting(model: Path) -> None:
    """Refuses what is no model, and imports TensorFlow if the model needs it."""
    if model.suffix not in CONVERTED:
        check_model(model)
        import_tensorflow()


def load_any_model(model: Path, overrides: tuple[str, ...], allow_unsafe: bool, *, thresholds: bool) -> "Predictor":
    """The `Predictor` of a run, an ensemble, a SavedModel, or an ONNX or LiteRT file.

    Args:
        model: Its path.
        overrides: Those of `predict` settings.
        allow_unsafe: Whether components from outside audiotag are imported.
        thresholds: Whether the thresholds of each class are needed.
    """
    if model.suffix in CONVERTED:
        from audiotag.serving.converted_models import load_converted

        return load_converted(model, overrides)
    from audiotag.config import custom
    from audiotag.serving.saved_model import load_predictor

    with custom.allowed(allow_unsafe):
        return load_predictor(model, overrides, allow_unsafe=allow_unsafe, thresholds=thresholds)


def beam_of(runner: str | None, options: tuple[str, ...]) -> "Beam | None":
    """The `Beam` that is asked for, if any; it is checked.

    Raises:
        UsageError: Options without a runner.
    """
    if runner is None:
        if options:
            raise click.UsageError("--beam-option needs --beam-runner. Add it, or leave the option out.")
        return None
    from audiotag.beam import Beam

    beam = Beam(runner, options)
    beam.check()
    return beam


def import_tensorflow(*, models: bool = True) -> None:
    """Imports TensorFlow without garbage collection and without its start-up lines.

    Collections would look at the many objects of its modules again and again, which takes a quarter of the import.

    Args:
        models: Whether what builds and loads models is imported, too.
    """
    if "tensorflow" in sys.modules:
        return
    gc.disable()
    try:
        with without_startup_lines():
            importlib.import_module("tensorflow")
        if os.environ["TF_CPP_MIN_LOG_LEVEL"] != "0":  # it warns of each new model after the fifth
            logging.getLogger("tensorflow").setLevel(logging.ERROR)
        if models:
            importlib.import_module("audiotag.serving.saved_model")
    finally:
        gc.freeze()  # modules stay until the process ends
        gc.enable()


LAYOUTS = component_names("audiotag.data.sources.finding", "LAYOUTS")  # read from source: pandas stays unloaded
DETECTED_FROM = "A class is predicted if its probability is at least this."
BLOCKS_PER_SECOND = 20  # of a signal that is read while it is recorded
TABLE, ARRAYS = Output(".csv", ".parquet"), Output(".npz", ".parquet")
CSV, JSON, HTML, PNG = Output(".csv"), Output(".json"), Output(".html"), Output(".png")
experiment_argument = click.argument("experiment", type=PATH)  # a file, or the name of a shipped experiment
run_argument = click.argument("folder", metavar="RUN", type=ModelPath(file_okay=False))
model_argument = click.argument("model", metavar="RUN|ENSEMBLE", type=ModelPath())
allow_unsafe_option = click.option(
    "--allow-unsafe",
    is_flag=True,
    expose_value=False,
    callback=lambda context, option, value: _allow_components(context) if value else None,
    help="Import components from outside audiotag that a run or experiment names.",
)
run_unsafe_option = click.option(
    "--allow-unsafe",
    is_flag=True,
    help="Run the program of a SavedModel that audiotag did not export, and import components from outside audiotag.",
)
experiment_overrides = click.option(
    "--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Change a value, as stages.noisy.epochs=3."
)
vocabulary_option = click.option("--vocabulary", type=FILE, help="A file that lists the classes, one per line.")
group_by_option = click.option(
    "--group-by",
    metavar="REGEX",
    help="Finds the group of each clip in its name, as the speaker: clips of a group never train and validate a model.",
)
order_option = click.option(
    "--order",
    default="suspicion",
    show_default=True,
    type=click.Choice(["suspicion", "usefulness"]),
    help="The most doubtful labels first, or those whose correction is expected to help most.",
)
by_option = click.option(
    "--by",
    default="margin",
    show_default=True,
    type=click.Choice(["margin", "cleanlab"]),
    help="How to measure doubt: by the margin between classes, or by the library cleanlab.",
)
moved_records = click.option("--records", type=Place(), help="Where the run's records are now, if they were moved.")
test_option = click.option(
    "--test", is_flag=True, help="Measure all on the test clips, too, and not only the best by validation clips."
)
beam_runner_option = click.option(
    "--beam-runner", metavar="NAME", help="Run on Apache Beam with this runner, as DirectRunner or DataflowRunner."
)
beam_options_option = click.option(
    "--beam-option",
    "beam_options",
    multiple=True,
    metavar="KEY=VALUE",
    help="A pipeline option of Beam, as direct_num_workers=4; may be given several times.",
)
predict_overrides = click.option(
    "--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Predict with other settings, as predict.pool=max."
)


class Commands(click.Group):
    """Commands that print a user's error without a traceback and exit with 1.

    After Ctrl-C they exit with 130.
    """

    def invoke(self, context):
        try:
            return super().invoke(context)
        except (AudiotagError, OSError) as error:
            click.echo(f"Error: {error}", err=True)
            context.exit(1)
        except KeyboardInterrupt:
            context.exit(128 + signal.SIGINT)
        except Exception as error:
            # By its name, since TensorFlow is not imported here. TensorFlow raises it for a full disk too.
            exhausted = type(error).__name__ == "ResourceExhaustedError"
            out_of_memory = exhausted and re.search("(OOM|[Oo]ut of memory).*", str(error))
            if not out_of_memory:
                raise
            click.echo(f"Error: {out_of_memory[0]}. To train with less memory, lower the stage's batch_size.", err=True)
            context.exit(1)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="audiotag")
def main() -> None:
    """Trains and serves audio taggers on few reliable and many noisy labels.

    \b
    A first run, on synthetic clips:
      audiotag make-demo demo
      audiotag make-records demo --sample-rate 16000
      audiotag fit demo

    \b
    On your own, in the folder mysounds:
      audiotag make-records mysounds --sample-rate 16000
      audiotag new mysounds
      audiotag fit mysounds.json
    """


@main.command("make-demo")
@click.argument("folder", type=FOLDER)
@click.option("--seed", default=2019, show_default=True, type=click.IntRange(min=0), help="Of the random numbers.")
def make_demo(folder: Path, seed: int) -> None:
    """Write a small synthetic dataset in FSDKaggle2019's layout into FOLDER.

    Example: audiotag make-demo demo
    """
    from audiotag.data import synthetic

    made = synthetic.make_demo(folder, seed=seed)
    click.echo(
        f"{made['curated']} curated, {made['noisy']} noisy ({made['wrong']} of them with wrong labels) and "
        f"{made['test']} test clips, {made['seconds'] / 60:.0f} minutes: {folder}"
    )


@main.command("make-records")
@click.argument("source", type=click.Path(exists=True, path_type=Path))
@click.option(
    "--out", type=Place(), help="The directory or URL to write; tfrecords/ and the name of SOURCE by default."
)
@click.option("--layout", default="auto", show_default=True, help=f"One of auto, {', '.join(LAYOUTS)}.")
@click.option("--sample-rate", default=44_100, show_default=True, type=click.IntRange(200, 1_000_000), help="In Hz.")
@click.option(
    "--codec", default="pcm", show_default=True, help="pcm; flac (half the disk); source (Ogg and MP3 unchanged)."
)
@click.option(
    "--trim",
    help="Cut silence off both ends of a clip: relative (2048 samples --trim-db or more below the loudest, as librosa "
    "does) or absolute (20 ms below 0.15% of full scale once the peak is at -0.1 dBFS, as SoX does). Off by default.",
)
@click.option("--trim-db", default=60.0, show_default=True, help="For --trim relative, in dB.")
@click.option("--peak-db", type=float, help="Scale every clip to this peak in dBFS, as -0.1; by default unchanged.")
@click.option(
    "--workers",
    type=click.IntRange(min=0),
    help="Processes that decode; one per core by default. With 0, this process decodes, and a broken file may end it.",
)
@click.option("--clips-per-shard", default=128, show_default=True, type=click.IntRange(min=1), help="At most.")
@click.option("--keep-known-bad", is_flag=True, help="Keep the six clips of FSDKaggle2019 that are known to be bad.")
@click.option("--skip-bad", is_flag=True, help="Leave out clips that cannot be decoded, instead of failing at the end.")
@click.option("--overwrite", is_flag=True, help="Replace other records in the directory.")
@click.option("--follow-links", type=FOLDER, help="Read recordings that are links to files below this folder, too.")
@vocabulary_option
@group_by_option
@click.option(
    "--background",
    multiple=True,
    metavar="LABEL",
    help="A label, or class folder, of clips with none of the classes; may be given several times.",
)
@beam_runner_option
@beam_options_option
def make_records(
    source: Path,
    out: Path | str | None,
    layout: str,
    follow_links: Path | None,
    vocabulary: Path | None,
    group_by: str | None,
    background: tuple[str, ...],
    beam_runner: str | None,
    beam_options: tuple[str, ...],
    **options: Any,
) -> None:
    """Convert the recordings and label tables in SOURCE to records.

    SOURCE is for example FSDKaggle2019 as Kaggle or Zenodo distribute it, ESC-10 or ESC-50, a
    CSV file (fname,labels) beside a folder of audio, or a folder with one folder per class.

    Example: audiotag make-records FSDKaggle2019 --out tfrecords/fsdkaggle2019
    """
    from audiotag.data.clips import csv_lines
    from audiotag.data.records import write_records
    from audiotag.data.sources import find_clips

    beam = beam_of(beam_runner, beam_options)
    out = out or Path("tfrecords") / (source.stem if source.is_file() else source.resolve().name)
    found = find_clips(
        source,
        layout=layout,
        follow_links=follow_links,
        vocabulary=vocabulary,
        group_by=group_by,
        background=background,
    )
    for note in found.notes:
        click.echo(note, err=True)
    import_tensorflow(models=False)
    manifest = write_records(found, out, beam=beam, **options)
    counts = manifest.count_clips()
    rejects = manifest.directory / "rejects.csv"
    num_rejects = sum(1 for _ in csv_lines(rejects)) - 1
    left_out = f"; {num_rejects} left out, see {rejects}" if num_rejects else ""
    if background:
        left_out = f", {int((found.clips['labels'] == '').sum())} of them background{left_out}"
    click.echo(
        f"{', '.join(f'{count} {subset}' for subset, count in counts.items())} clips of "
        f"{len(manifest.vocabulary)} classes{left_out}: {out}"
    )


@main.command("check-records")
@click.argument("directory", type=Place())
def check_records(directory: Path | str) -> None:
    """Read every byte of the records in DIRECTORY and report what is damaged.

    Example: audiotag check-records tfrecords/fsdkaggle2019
    """
    from audiotag.data import records
    from audiotag.data.records.manifest import damage_error, read_manifest

    read_manifest(directory)
    import_tensorflow(models=False)

    if damage := list(records.check_records(directory)):
        raise damage_error(damage)
    click.echo(f"{directory}: complete; every byte is as make-records wrote it.")


@main.command()
@click.argument("source", type=click.Path(exists=True, path_type=Path))
@click.option("--out", default="explore.html", show_default=True, type=HTML, help="The page to write.")
@click.option("--workers", type=click.IntRange(min=1), help="Processes that decode; one per core by default.")
@click.option("--layout", default="auto", show_default=True, help=f"One of auto, {', '.join(LAYOUTS)}.")
@vocabulary_option
def explore(source: Path, out: Path, workers: int | None, layout: str, vocabulary: Path | None) -> None:
    """Summarize the dataset SOURCE on a page.

    The page shows classes, co-occurring labels, durations, sample clips, silence, clipping and duplicates.
    SOURCE is a directory of records, a source of make-records, or FSDKaggle2019.meta, the tables without audio.

    Example: audiotag explore tfrecords/fsdkaggle2019 --out explore.html
    """
    from audiotag.data.records.manifest import MANIFEST_FILE
    from audiotag.reporting import dataset_page, sample_clips

    clips, classes = dataset_page.read_source(
        source, num_workers=workers, layout=layout, vocabulary=vocabulary, say=partial(click.echo, err=True)
    )
    tables = dataset_page.dataset_tables(clips, classes)
    if (source / MANIFEST_FILE).is_file():
        import_tensorflow(models=False)
    samples = sample_clips.sample_cards(source, clips)
    dataset_page.write_dataset_page(out, source, clips, classes, tables, samples=samples)
    click.echo(f"{dataset_page.summary(tables)}\nPage: {out}")


@main.command()
@click.argument("path", metavar="[SOURCE|RECORDS|RUN]", required=False, type=click.Path(exists=True, path_type=Path))
@click.option("--csv", "csv_path", type=CSV, help="Write all findings to this file.")
@click.option("--page", default="doctor.html", show_default=True, type=HTML, help="The page to write.")
@click.option("--top", default=5, show_default=True, type=click.IntRange(min=1), help="Findings to show of each kind.")
@click.option("--workers", type=click.IntRange(min=1), help="Processes that decode; one per core by default.")
@click.option("--layout", default="auto", show_default=True, help=f"One of auto, {', '.join(LAYOUTS)}.")
@vocabulary_option
@group_by_option
@moved_records
def doctor(path: Path | None, csv_path: Path | None, page: Path, top: int, workers: int | None, **options: Any) -> None:
    """Find what is wrong with a dataset, with records, or with the folds of a run.

    It finds unreadable, truncated, silent or clipped clips, classes without clips, and groups split by folds. It
    finds the same sound in training and test clips, in two folds, or with other labels, also at another level, in
    another format, or without its start or end. Findings are errors, warnings or notes; the exit code is 1 if there
    are errors.

    Without an argument it prints versions, memory and GPU, and which package to install for which feature.

    \b
    Example: audiotag doctor mysounds --csv findings.csv
             audiotag doctor runs/demo
             audiotag doctor
    """
    if path is None:
        import_tensorflow(models=False)
        from audiotag.reporting.environment_check import check_environment

        lines, missing = check_environment()
        click.echo("\n".join([*lines, *(f"{severity}: {sentence}" for severity, sentence in missing)]))
        return
    from audiotag.data.records.manifest import MANIFEST_FILE
    from audiotag.runs.directory import is_run

    if is_run(path) or (path / MANIFEST_FILE).is_file():
        import_tensorflow(models=False)
    from audiotag.reporting import doctor as report

    findings = report.examine_dataset(path, num_workers=workers, **options)
    report.write_doctor_page(page, path, findings)
    if csv_path:
        files.write_text(csv_path, files.csv_text(findings))
    click.echo(f"{report.summary(findings, most=top)}\nPage: {page}")
    if (findings["severity"] == "error").any():
        sys.exit(1)


@main.command()
@click.argument("name", type=PATH)
@click.option("--template", default="simple", show_default=True, help="The experiment of audiotag's to start from.")
@click.option("--records", type=FOLDER, help="The directory of records; tfrecords/ and NAME by default.")
def new(name: Path, template: str, records: Path | None) -> None:
    """Write NAME.json, a short experiment to start from.

    It has what you may want to think about; everything else keeps its default. "audiotag components"
    lists what it can name, and "audiotag schema" helps editors to complete it.

    Example: audiotag new mysounds --records tfrecords/mysounds
    """
    from audiotag.config.starter import next_commands, write_starter
    from audiotag.data.records.manifest import MANIFEST_FILE, read_manifest

    made = records or Path("tfrecords") / name.stem
    sample_rate = read_manifest(made).sample_rate if (made / MANIFEST_FILE).is_file() else None
    path = write_starter(name, template=template, records=records, sample_rate=sample_rate)
    click.echo(f"Experiment: {path}. Next:\n{next_commands(path)}")


@main.command()
@click.argument("name", required=False)
def components(name: str | None) -> None:
    """List what an experiment can name, or explain the component NAME.

    \b
    Example: audiotag components mixup
             audiotag components
    """
    from audiotag.config.component_help import explain_component, list_components

    click.echo(explain_component(name) if name else list_components())


@main.command()
@click.argument("kind", default="experiment", type=click.Choice(["experiment", "sweep"]))
def schema(kind: str) -> None:
    """Print the JSON schema of experiment files, or of sweep files.

    Editors complete and check a file with it. In VS Code, name it under "json.schemas" in the settings.

    Example: audiotag schema > experiment.schema.json
    """
    from audiotag.config.json_schema import json_schema
    from audiotag.config.schema import Experiment
    from audiotag.sweeps.schema import SweepConfig

    click.echo(json.dumps(json_schema(SweepConfig if kind == "sweep" else Experiment), indent=2))


@main.command()
@experiment_argument
@experiment_overrides
@click.option(
    "--run", "folder", type=Place(), help="Directory or URL of the run; runs/ and the name of EXPERIMENT by default."
)
@click.option("--fold", type=click.IntRange(min=0), help="Train only the model of this fold.")
@click.option(
    "--resume/--restart", "resume", default=True, help="Resume the run in the directory (default), or replace it."
)
@click.option(
    "--records",
    type=Place(exists=True),
    help="Where the records are, if not where EXPERIMENT says.",
)
@click.option(
    "--devices", type=DeviceCount(), metavar="all|N", help="Train on all GPUs of this machine, or on N of them."
)
def fit(
    experiment: Path,
    overrides: tuple[str, ...],
    folder: Path | str | None,
    fold: int | None,
    resume: bool,
    records: Path | str | None,
    devices: Literal["all"] | int | None,
) -> None:
    """Train the model that EXPERIMENT describes, and export it.

    EXPERIMENT is a file, or the name of an experiment that comes with audiotag, such as demo.
    A run that was killed resumes after its last complete epoch. Ctrl-C ends the
    current step and saves, and the same command continues from there; a second
    Ctrl-C stops at once.

    Example: audiotag fit experiments/densenet.json --set stages.noisy.epochs=3
    """
    from audiotag import api

    config = api.load_experiment(experiment, overrides)
    if records is not None:
        config = config.model_copy(update={"records": str(records)})
    import_tensorflow()
    api.fit(config, folder or Path("runs") / experiment.stem, fold=fold, restart=not resume, devices=devices)


@main.command()
@experiment_argument
@experiment_overrides
@click.option("--stage", help="The stage to measure; the first by default.")
@click.option("--steps", default=10, show_default=True, type=click.IntRange(min=1), help="Steps per measurement.")
@click.option("--rounds", default=5, show_default=True, type=click.IntRange(min=1), help="Measurements of each part.")
def bench(experiment: Path, overrides: tuple[str, ...], stage: str | None, steps: int, rounds: int) -> None:
    """Measure where a training step of EXPERIMENT spends its time.

    The parts are data, front end, augmentation, network, optimizer and validation. They are
    measured on this machine with the records of EXPERIMENT; nothing is kept.

    Example: audiotag bench experiments/densenet.json
    """
    from audiotag import api

    config = api.load_experiment(experiment, overrides)
    import_tensorflow()
    from audiotag.training import bench as benchmark

    click.echo(benchmark.bench(config, stage=stage, num_steps=steps, num_rounds=rounds))


@main.command()
@experiment_argument
@click.argument("paths", metavar="FILES...", nargs=-1, required=True, type=FILE)
@experiment_overrides
@click.option("--out", default="sheet.png", show_default=True, type=PNG, help="The image file to write.")
@click.option("--versions", default=3, show_default=True, type=click.IntRange(min=0), help="Augmented images per clip.")
@click.option("--sample-rate", type=click.IntRange(200, 1_000_000), help="In Hz; that of the records by default.")
@allow_unsafe_option
def preview(
    experiment: Path,
    paths: tuple[Path, ...],
    overrides: tuple[str, ...],
    out: Path,
    versions: int,
    sample_rate: int | None,
) -> None:
    """Draw audio FILES after each preprocessing step of EXPERIMENT, and augmented.

    Example: audiotag preview experiments/demo.json demo/test/*.wav --out sheet.png
    """
    from audiotag.config.loading import load

    config = load(experiment, overrides)
    import_tensorflow()
    from audiotag.reporting.preview_sheet import draw_preview

    draw_preview(config, paths, out, versions=versions, sample_rate=sample_rate)
    click.echo(f"{len(paths)} clips: {out}")


@main.command()
@run_argument
@click.option("--out", type=HTML, help="The page to write; report.html in RUN by default.")
@click.option("--robustness", is_flag=True, help="Also show what is lost on louder, softer, noisy, … test clips.")
@allow_unsafe_option
@moved_records
def report(folder: Path, out: Path | None, records: Path | str | None, robustness: bool) -> None:
    """Write a page about RUN.

    It shows learning curves, classes, confusions, calibration, and the worst clips with audio.

    Example: audiotag report runs/densenet
    """
    check_model(folder)
    import_tensorflow()
    from audiotag.reporting.run_page import write_run_page
    from audiotag.runs.directory import open_run, with_records

    run = with_records(open_run(folder), records)
    out = out or run.report
    write_run_page(run, out, robustness=robustness)
    click.echo(f"Page: {out}")


@main.command()
@model_argument
@click.option("--stage", help="The stage whose weights to use; the last by default.")
@click.option("--records", type=Place(), help="Other records than the run was trained on, or where these are now.")
@click.option("--out-of-fold", is_flag=True, help="Evaluate the out-of-fold predictions of all trained folds.")
@click.option("--csv", "csv_path", type=TABLE, help="Write the measures per class to this file.")
@click.option("--out", type=FOLDER, help="Write overall, classes, clips, calibration and scores into this folder.")
@click.option("--leave-one-out", is_flag=True, help="Only show an ensemble's score without each of its members.")
@click.option("--robustness", is_flag=True, help="Also show what a run loses on louder, softer, noisy, … clips.")
@predict_overrides
@allow_unsafe_option
def evaluate(
    model: Path,
    stage: str | None,
    records: Path | str | None,
    out_of_fold: bool,
    csv_path: Path | None,
    out: Path | None,
    leave_one_out: bool,
    robustness: bool,
    overrides: tuple[str, ...],
) -> None:
    """Evaluate a run, or an ensemble of runs, on labeled test clips.

    Each measure comes with its 95% interval and its chance level. Decision
    thresholds are fitted to out-of-fold predictions, or are probability 1/2
    if there are none.

    \b
    Example: audiotag evaluate runs/densenet --out runs/densenet/test
             audiotag evaluate ensembles/demo.json --out-of-fold
    """
    if leave_one_out and (stage or records or csv_path or out or robustness):
        raise click.UsageError("--leave-one-out accepts only --out-of-fold and --set. Leave out the other options.")
    check_model(model)
    import_tensorflow()
    from audiotag import api
    from audiotag.ensembling import members
    from audiotag.evaluation.measures import write_tables
    from audiotag.evaluation.score_tables import write_scores

    if leave_one_out:
        click.echo(members.leave_one_out(members.open_model(model, overrides), out_of_fold=out_of_fold))
        return
    evaluation = api.evaluate(
        model, records=records, stage=stage, out_of_fold=out_of_fold, robustness=robustness, overrides=overrides
    )
    click.echo(evaluation)
    if csv_path:
        write_scores(csv_path, evaluation.classes)
    if out:
        tables = {name: table for name, table in vars(evaluation).items() if name != "note" and table is not None}
        write_tables(out, tables)


@main.command()
@click.argument("path", metavar="SWEEP", type=FILE)
@click.option("--runs", "folder", type=FOLDER, help="Directory of the runs, by default runs/NAME-sweep.")
@click.option("--quick", is_flag=True, help='Make the changes of the file\'s "quick", too; in runs/NAME-sweep-quick.')
@test_option
def sweep(path: Path, folder: Path | None, quick: bool, test: bool) -> None:
    """Train all runs of the file SWEEP and compare them.

    The file names an experiment, its seeds and folds, and variations of it. A
    sweep that was killed continues with the same command. Several machines may
    share the directory: each trains what no other does. Differences to the
    first variation come with 95% intervals over seeds and recordings. Tables
    and the page report.html are written into the directory.

    Example: audiotag sweep sweeps/esc10.json
    """
    import_tensorflow()
    from audiotag import api

    name = f"{path.stem}-sweep-quick" if quick else f"{path.stem}-sweep"
    click.echo(f"\n{api.sweep(path, folder or Path('runs') / name, quick=quick, test=test)}")


@main.command()
@click.argument("folders", metavar="RUN...", nargs=-1, required=True, type=ModelPath(file_okay=False))
@click.option(
    "--measure",
    default="lwlrap",
    show_default=True,
    help="Or MAP@3, top_1_accuracy, mAP, AUC, F, F_top_1: what decides.",
)
@click.option("--out", type=FOLDER, help="Write the tables as CSV and text, and a page, into this folder.")
@test_option
@click.option("--records", multiple=True, type=Place(), help="Where records are now, if they were moved; repeatable.")
@allow_unsafe_option
def compare(
    folders: tuple[Path, ...], measure: str, out: Path | None, test: bool, records: tuple[Path | str, ...]
) -> None:
    """Compare trained RUNs: what differs in their experiments, and their measures.

    Runs that differ only in seed and records are one setting. The others are
    compared with that of the first run.

    Example: audiotag compare runs/demo runs/other --out comparison
    """
    for folder in folders:
        check_model(folder)
    import_tensorflow()
    from audiotag import api

    comparison = api.compare(folders, measure=measure, test=test, records=records)
    click.echo(comparison)
    if out:
        from audiotag.reporting.comparison_page import write_comparison_page

        comparison.write(out)
        write_comparison_page(comparison, out / "report.html", title="Comparison")


@main.command()
@run_argument
@click.option(
    "--measure",
    default="lwlrap",
    show_default=True,
    help="The measure to forecast: lwlrap, MAP@3, top_1_accuracy, mAP, AUC, F or F_top_1.",
)
@click.option(
    "--draws", default=3, show_default=True, type=click.IntRange(min=2), help="Trainings per number of clips."
)
@allow_unsafe_option
@moved_records
def advise(folder: Path, measure: str, draws: int, records: Path | str | None) -> None:
    """Forecast what more training clips would bring to RUN.

    It trains the experiment of RUN on a half, a quarter and an eighth of its training clips, and fits a
    curve to the scores on the validation clips. It forecasts the scores with 1.5 and 2 times the clips,
    overall and per class, with 95% intervals. Tables and a page are written into RUN/learning_curve; a
    killed command continues.

    Example: audiotag advise runs/demo
    """
    check_model(folder)
    import_tensorflow()
    from audiotag import api

    click.echo(f"\n{api.advise(folder, measure=measure, num_draws=draws, records=records)}")
    click.echo(f"Page: {folder / 'learning_curve' / 'report.html'}")


@main.command("label-issues")
@run_argument
@click.option("--stage", help="The stage whose models to use; the last by default.")
@click.option("--top", default=20, show_default=True, type=click.IntRange(min=1), help="Clips to show.")
@order_option
@by_option
@click.option("--csv", "csv_path", type=CSV, help="Write all clips to this file: a table of corrections, to be edited.")
@allow_unsafe_option
@moved_records
def label_issues(
    folder: Path,
    stage: str | None,
    top: int,
    order: Literal["suspicion", "usefulness"],
    by: Literal["margin", "cleanlab"],
    csv_path: Path | None,
    records: Path | str | None,
) -> None:
    """Rank the training clips of RUN by how doubtful their labels are.

    The first clips are those whose out-of-fold predictions disagree most with their labels. Edit the
    labels and weights in the file that --csv writes, name it as "corrections" in an experiment, and fit
    trains with them.

    Example: audiotag label-issues runs/densenet --csv corrections.csv
    """
    check_model(folder)
    import_tensorflow()
    from audiotag.crossval.label_issues import rank_label_issues
    from audiotag.runs.directory import open_run, with_records

    table = rank_label_issues(with_records(open_run(folder), records), stage=stage, order=order, by=by)
    for clip in table.head(top).itertuples():
        click.echo(f"{clip.clip}  given {clip.labels}: {clip.reason}")
    click.echo(f"The models prefer other labels for {(table['margin'] > 0).sum()} of {len(table)} clips.")
    if csv_path:
        files.write_text(csv_path, files.csv_text(table))


@main.command()
@run_argument
@click.option(
    "--corrections",
    type=CSV,
    help="The file of decisions, continued if it exists.  [default: that of the experiment, or corrections.csv]",
)
@click.option(
    "--files",
    "unlabeled",
    multiple=True,
    metavar="FILE|FOLDER|TABLE",
    help="Show recordings without labels instead: a file, a folder, a pattern, or a table with the column fname, as "
    "label-next writes it. May be given several times.",
)
@click.option(
    "--labels",
    type=CSV,
    help="With --files: the table of labels to fill, continued if it exists.  [default: labels.csv in that folder, or "
    "beside that file]",
)
@click.option("--stage", help="The stage whose models to use; the last by default.")
@order_option
@by_option
@click.option("--worst-test", is_flag=True, help="Show the test clips instead of the training clips, read-only.")
@click.option(
    "--edit-test", is_flag=True, help="With --worst-test: accept decisions, by default in test_corrections.csv."
)
@click.option("--who", help="Your name in the column who; that of your account by default.")
@click.option("--port", default=0, type=click.IntRange(0, 65535), help="The port of the page; a free one by default.")
@click.option("--browser/--no-browser", default=True, help="Open the page in a browser (default).")
@allow_unsafe_option
@moved_records
def review(
    folder: Path,
    corrections: Path | None,
    unlabeled: tuple[str, ...],
    labels: Path | None,
    stage: str | None,
    order: Literal["suspicion", "usefulness"],
    by: Literal["margin", "cleanlab"],
    worst_test: bool,
    edit_test: bool,
    who: str | None,
    port: int,
    browser: bool,
    records: Path | str | None,
) -> None:
    """Correct the labels of RUN on a page, by keyboard, the most doubtful first.

    Each decision is saved in the file of corrections before the next clip is shown. Ctrl-C ends the command; the
    same command continues where you stopped. Only a browser on this computer can open the page. With --files it
    shows recordings without labels, whose labels make-records reads from the table of --labels.

    Example: audiotag review runs/densenet --corrections corrections.csv
    """
    if unlabeled and (worst_test or corrections):
        raise click.UsageError("--files is for recordings without labels. Leave out --worst-test and --corrections.")
    if labels and not unlabeled:
        raise click.UsageError("--labels is for recordings without labels. Add --files, or leave it out.")
    if edit_test and not worst_test:
        raise click.UsageError("--edit-test is for test clips. Add --worst-test, or leave it out.")
    check_model(folder)
    from audiotag.serving.converted_models import import_extra

    for package in ("starlette", "uvicorn"):
        import_extra(package, "review")
    import_tensorflow()
    import getpass
    import unicodedata
    import webbrowser

    from audiotag.reporting.review_files import open_file_review
    from audiotag.reporting.review_server import open_review, open_socket, serve
    from audiotag.runs.directory import open_run, with_records

    with open_socket(port) as listening:  # a port in use is an error before the clips are scored
        run = with_records(open_run(folder), records)
        who = unicodedata.normalize("NFC", who or getpass.getuser())
        if unlabeled:
            opened = open_file_review(run, unlabeled, labels, stage=stage, who=who)
        else:
            opened = open_review(
                run, corrections, stage=stage, worst_test=worst_test, edit_test=edit_test, who=who, order=order, by=by
            )

        def show(address):
            note = f" {opened.note}" if opened.note else ""
            click.echo(f"Decisions go to {opened.corrections.path}.{note} Ctrl-C ends the command. The page: {address}")
            if browser:
                webbrowser.open(address)

        serve(opened, listening, show=show)
    click.echo(opened.ending())


@main.command()
@click.argument("model", metavar="RUN|ENSEMBLE|SAVEDMODEL|ONNX|LITERT", type=ModelPath())
@click.argument("paths", metavar="FILES...", nargs=-1, required=True)
@click.option("--top", default=3, show_default=True, type=click.IntRange(min=1), help="Classes to show per file.")
@click.option("--csv", "csv_path", type=TABLE, help="Write probabilities and logits of all classes to this file.")
@click.option("--labels", "labels_path", type=TABLE, help="Write the predicted classes of each file to this file.")
@click.option("--events", "events_path", type=TABLE, help="Write when each class is detected to this file.")
@click.option("--raven", type=FOLDER, help="Write a selection table of Raven per file into this folder.")
@click.option("--audacity", type=FOLDER, help="Write a label track of Audacity per file into this folder.")
@click.option(
    "--threshold",
    type=click.FloatRange(0, 1),
    help=f"{DETECTED_FROM}  [default: the model's own of each class, or 0.5]",
)
@click.option(
    "--event-settings",
    type=FILE,
    help="How detections become events: a JSON file, as fit-events writes it. Its thresholds replace --threshold for "
    "events.",
)
@run_unsafe_option
@predict_overrides
@beam_runner_option
@beam_options_option
def predict(
    model: Path,
    paths: tuple[str, ...],
    top: int,
    csv_path: Path | None,
    labels_path: Path | None,
    events_path: Path | None,
    raven: Path | None,
    audacity: Path | None,
    threshold: float | None,
    event_settings: Path | None,
    allow_unsafe: bool,
    overrides: tuple[str, ...],
    beam_runner: str | None,
    beam_options: tuple[str, ...],
) -> None:
    """Predict the classes in audio FILES.

    They may have any length, sample rate and number of channels. A folder stands for the audio files below it, a quoted
    pattern for what matches it, and - for the files that standard input lists. A file that cannot be predicted is a row
    of a table of rejects beside the first output, and the command ends with 1. After a kill the same command
    continues.

    \b
    Example: audiotag predict runs/demo/saved_model bell.wav street.mp3
             audiotag predict runs/demo recordings --csv scores.parquet --labels labels.csv
             audiotag predict runs/demo day.flac --events events.csv --set predict.overlap=0
    """
    if threshold is not None and math.isnan(threshold):
        raise click.UsageError("--threshold is not a number. Expected 0 to 1.")
    if event_settings and not (events_path or raven or audacity):
        raise click.UsageError("--event-settings is for events. Add --events, --raven or --audacity, or leave it out.")
    beam = beam_of(beam_runner, beam_options)
    if beam and not any((csv_path, labels_path, events_path, raven, audacity)):
        raise click.UsageError("--beam-runner needs a file to write. Add --csv, --labels or --events.")
    given = [path.resolve() for path in (csv_path, labels_path, events_path) if path]
    if len(set(given)) < len(given):
        raise click.UsageError("--csv, --labels and --events: two are the same file. Give them different names.")
    for path in paths:
        if not files.is_utf8(path):
            raise DataError(f"the name {path!r} has bytes that are not UTF-8. Rename the file.")
    begin_predicting(model)
    from audiotag.inference.inputs import LIST, find_files

    names = find_files(paths, map(os.fsdecode, sys.stdin.buffer) if LIST in paths else ())
    from audiotag.inference.audio_files import top_classes
    from audiotag.inference.events import AS_THEY_ARE, read_event_settings
    from audiotag.serving.many_files import Outputs, predict_files

    outputs = Outputs(csv_path, labels_path, events_path, raven, audacity)
    settings = read_event_settings(event_settings) if event_settings else AS_THEY_ARE
    thresholds = outputs.decides and threshold is None
    predictor = load_any_model(model, overrides, allow_unsafe, thresholds=thresholds)
    if model.suffix in CONVERTED:
        identity = files.sha256(model)
    else:
        from audiotag.serving import saved_model

        identity = saved_model.identity(model)
    predict_files(
        predictor,
        names,
        outputs,
        key={"model": identity, "overrides": overrides},
        threshold=threshold,
        settings=settings,
        show=lambda name, logits: click.echo(top_classes([name], logits[None], predictor.vocabulary, top)),
        beam=beam,
        load=partial(load_any_model, model.resolve(), overrides, allow_unsafe, thresholds=thresholds),
    )


@main.command()
@click.argument("model", metavar="RUN|ENSEMBLE|SAVEDMODEL|ONNX|LITERT", type=ModelPath())
@click.option(
    "--sample-rate", type=click.IntRange(min=200), help="Sample rate of the signal in Hz.  [default: the model's]"
)
@click.option("--threshold", type=click.FloatRange(0, 1), help=f"{DETECTED_FROM}  [default: the model's, or 0.5]")
@click.option(
    "--json", "probabilities", is_flag=True, help="Print the probabilities of all classes, one JSON object per window."
)
@run_unsafe_option
@predict_overrides
def listen(
    model: Path,
    sample_rate: int | None,
    threshold: float | None,
    probabilities: bool,
    allow_unsafe: bool,
    overrides: tuple[str, ...],
) -> None:
    """Predict the classes of a signal while it is recorded.

    It reads raw samples from standard input: 16 bits, little-endian, mono, from a microphone or any program. It prints
    a line per window, as soon as the last sample of the window has arrived. Ctrl-C ends the command.

    \b
    Example: audiotag listen runs/demo < samples.raw
             arecord -q -t raw -f S16_LE -r 16000 | audiotag listen runs/demo
             ffmpeg -i URL -f s16le -ac 1 -ar 16000 - | audiotag listen runs/demo --json
    """
    if sys.stdin.isatty():
        raise click.UsageError("standard input is a terminal. Expected raw samples: arecord ... | audiotag listen RUN")
    begin_predicting(model)
    from audiotag.inference.streams import as_json, as_line, predict_stream, read_pcm

    predictor = load_any_model(model, overrides, allow_unsafe, thresholds=threshold is None and not probabilities)
    describe = as_json(predictor) if probabilities else as_line(predictor, threshold)
    rate = predictor.audio_config["sample_rate"] if sample_rate is None else sample_rate
    blocks = read_pcm(sys.stdin.buffer, block=max(1, rate // BLOCKS_PER_SECOND))
    try:
        for window in predict_stream(predictor, blocks, sample_rate=rate):
            click.echo(describe(*window))
    except KeyboardInterrupt:
        pass  # the usual end of a signal from a microphone


@main.command()
@click.argument("model", metavar="RUN|SAVEDMODEL", type=ModelPath())
@click.argument("paths", metavar="FILES...", nargs=-1, required=True)
@click.option("--out", required=True, type=ARRAYS, help="The file to write: NAME.npz or NAME.parquet.")
@click.option("--per", default="window", show_default=True, type=click.Choice(["window", "clip"]), help="Rows.")
@click.option("--stage", help="The stage of a run; the last by default.")
@click.option("--fold", type=int, help="The fold of a run whose model to use; the first that is trained by default.")
@click.option(
    "--allow-unsafe",
    is_flag=True,
    help="Import components from outside audiotag that the model names.",
)
def embed(
    model: Path,
    paths: tuple[str, ...],
    out: Path,
    per: Literal["window", "clip"],
    stage: str | None,
    fold: int | None,
    allow_unsafe: bool,
) -> None:
    """Write embeddings of audio FILES, for classifiers or searches of your own.

    An embedding is what the network makes of a window before its output layers. FILES are files, folders,
    patterns, or - for a list on standard input, as for predict.

    \b
    Example: audiotag embed runs/demo bell.wav recordings --out embeddings.npz
             audiotag embed runs/demo/saved_model day.flac --out day.parquet --per clip
    """
    check_model(model)
    import_tensorflow()
    from audiotag.config import custom
    from audiotag.inference.embedding_files import embed_files, write_embeddings
    from audiotag.inference.inputs import LIST, find_files
    from audiotag.serving.saved_model import load_predictor

    names = find_files(paths, map(os.fsdecode, sys.stdin.buffer) if LIST in paths else ())
    for name in names:
        if not files.is_utf8(name):
            raise DataError(f"the name {name!r} has bytes that are not UTF-8. Rename the file.")
    with custom.allowed(allow_unsafe):
        predictor = load_predictor(model, stage=stage, fold=fold, allow_unsafe=allow_unsafe)
    count = write_embeddings(out, embed_files(predictor, [*map(Path, names)], per=per))
    click.echo(f"{out}: {count} embeddings.")


@main.command("label-next")
@click.argument("model", metavar="RUN|SAVEDMODEL", type=ModelPath())
@click.argument("paths", metavar="FILES...", nargs=-1, required=True)
@click.option("--top", default=50, show_default=True, type=click.IntRange(min=1), help="How many files to choose.")
@click.option("--csv", "csv_path", type=CSV, help="Write the table to this file.")
@run_unsafe_option
def label_next(model: Path, paths: tuple[str, ...], top: int, csv_path: Path | None, allow_unsafe: bool) -> None:
    """Choose which of FILES, without labels, to label next.

    It chooses files of whose class the model is least sure and that are unlike each other. FILES are files,
    folders, patterns, or - for a list on standard input, as for predict. Label the chosen files, make
    records of all labeled ones, and train again.

    Example: audiotag label-next runs/demo recordings --top 20 --csv next.csv
    """
    check_model(model)
    import_tensorflow()
    from audiotag import api
    from audiotag.inference.inputs import LIST, find_files
    from audiotag.inference.label_next import labeling_text

    names = find_files(paths, map(os.fsdecode, sys.stdin.buffer) if LIST in paths else ())
    table = api.label_next(model, names, top=top, allow_unsafe=allow_unsafe)
    click.echo(labeling_text(table))
    if csv_path:
        files.write_text(csv_path, files.csv_text(table))


@main.command("fit-events")
@click.argument("model", metavar="RUN|ENSEMBLE|SAVEDMODEL", type=ModelPath())
@click.argument("table", type=FILE)
@click.option("--out", required=True, type=JSON, help="The file to write, for predict --event-settings.")
@click.option(
    "--collar",
    default=0.2,
    show_default=True,
    type=click.FloatRange(0, min_open=True),
    help="How many seconds from an annotated onset a found one may be.",
)
@click.option(
    "--max-false",
    default=0.35,
    show_default=True,
    type=click.FloatRange(0),
    help="The most false events, as a fraction of those at a threshold of 0.5; other recordings have a few more.",
)
@predict_overrides
@run_unsafe_option
def fit_events(
    model: Path,
    table: Path,
    out: Path,
    collar: float,
    max_false: float,
    allow_unsafe: bool,
    overrides: tuple[str, ...],
) -> None:
    """Fit how events are found to recordings with annotated events.

    TABLE is a CSV file beside the recordings, with the columns fname, start, end (seconds) and class; a
    recording without events has one row with its name only. The model must not have trained on them.
    Thresholds, smoothing, gaps and durations get the values that find the most events, with at most --max-false
    of the false events that there are at a threshold of 0.5 without other settings.

    Example: audiotag fit-events runs/demo field/events.csv --set predict.overlap=0.9 --out events.json
    """
    check_model(model)
    import_tensorflow()
    from audiotag.config import custom
    from audiotag.evaluation import event_fitting
    from audiotag.evaluation.event_measures import read_events
    from audiotag.inference.events import EventSettings
    from audiotag.serving.saved_model import load_predictor

    with custom.allowed(allow_unsafe):
        predictor = load_predictor(model, overrides, allow_unsafe=allow_unsafe)
    recordings = event_fitting.score_recordings(predictor, read_events(table, predictor.vocabulary), table.parent)
    fitted = event_fitting.fit_event_settings(
        recordings, predictor.vocabulary, collar_seconds=collar, max_false=max_false
    )
    files.write_text(out, fitted.model_dump_json(indent=2) + "\n")
    for name, settings in (("threshold 0.5", EventSettings()), ("fitted", fitted)):
        by_event, by_segment = event_fitting.measure_events(
            recordings, predictor.vocabulary, settings, collar_seconds=collar
        )
        click.echo(
            f"{name}: {by_event.hits} events found, {by_event.missed} missed, {by_event.false} false; F1 "
            f"{by_event.f1:.3f}; F1 of segments of 1 s {by_segment.f1:.3f}"
        )
    click.echo(f"Event settings: {out}")


@main.command("make-submission")
@model_argument
@click.option("--out", type=CSV, help="The file to write; submission.csv in the run's directory by default.")
@click.option("--template", type=FILE, help="sample_submission.csv, whose order of rows to follow.")
@click.option(
    "--top", type=click.IntRange(min=1), help="Write this many labels per clip, best first, in place of scores."
)
@click.option("--fold", type=click.IntRange(min=0), help="The only fold of a run to use; the mean of all by default.")
@predict_overrides
@allow_unsafe_option
@moved_records
def make_submission(
    model: Path,
    out: Path | None,
    template: Path | None,
    top: int | None,
    fold: int | None,
    records: Path | str | None,
    overrides: tuple[str, ...],
) -> None:
    """Write the scores of the test clips for a competition.

    \b
    Example: audiotag make-submission runs/densenet --template FSDKaggle2019/sample_submission.csv
             audiotag make-submission runs/mfcc --top 3 --fold 0 --out fold_0.csv
    """
    check_model(model)
    import_tensorflow()
    from scipy.special import expit

    from audiotag.data.clips import read_table
    from audiotag.ensembling.members import open_model, predict_test_clips
    from audiotag.serving.submission import write_submission

    if template:
        read_table(template, ["fname"])  # a wrong one fails before the clips are scored
    opened = open_model(model, overrides)
    if not out:
        out = opened.submission
        out.parent.mkdir(exist_ok=True)
    clips, logits = predict_test_clips(opened, records=records, fold=fold)
    kept = write_submission(out, clips, expit(logits), opened.vocabulary, template=template, top=top)
    others = f", {kept} more as in the template, whose clips are not in the records" if kept else ""
    click.echo(f"{len(clips)} rows, {len(opened.vocabulary)} classes{others}: {out}")


@main.command()
@model_argument
@click.argument("path", type=PATH)
@click.option(
    "--format",
    "form",
    type=click.Choice(["saved_model", "onnx", "litert"]),
    help="By default onnx for a name that ends in .onnx, litert for .tflite, and saved_model, a folder, for others.",
)
@click.option(
    "--quantize", is_flag=True, help="For LiteRT: store weights in 8 bits, and print lwlrap before and after."
)
@click.option("--overwrite", is_flag=True, help="Replace the folder or the file if it exists.")
@click.option("--license", "license_name", metavar="SPDX", help="The model's license for its model card, as CC-BY-4.0.")
@predict_overrides
@allow_unsafe_option
def export(
    model: Path,
    path: Path,
    form: str | None,
    quantize: bool,
    overwrite: bool,
    license_name: str | None,
    overrides: tuple[str, ...],
) -> None:
    """Write a run as a SavedModel, or as an ONNX or a LiteRT file.

    "audiotag predict" runs ONNX and LiteRT files without TensorFlow. An ensemble can only be a SavedModel.

    \b
    Example: audiotag export runs/densenet serving/densenet/1
             audiotag export runs/densenet densenet.onnx
             audiotag export runs/densenet densenet.tflite --quantize
    """
    suffixes = {"onnx": ".onnx", "litert": ".tflite"}
    named = {suffix: name for name, suffix in suffixes.items()}.get(path.suffix, "saved_model")
    if form not in (None, named):
        expected = f"ends in {suffixes[form]}" if form in suffixes else "has no such suffix"
        raise click.UsageError(f"{path}: expected a name that {expected}, for --format {form}.")
    if quantize and named != "litert":
        raise click.UsageError("--quantize is for LiteRT. Give a name that ends in .tflite, or leave it out.")
    if license_name and named != "saved_model":
        raise click.UsageError("--license is for the model card of a SavedModel. Leave it out.")
    check_model(model)
    import_tensorflow()
    from audiotag.backend import on_tensorflow, run_in_tensorflow
    from audiotag.ensembling.members import open_model

    if not on_tensorflow():
        return run_in_tensorflow(sys.argv[1:])
    opened = open_model(model, overrides)
    if named == "saved_model":
        from audiotag.serving import saved_model

        saved = saved_model.export(opened, path, overwrite=overwrite, license_name=license_name)
        click.echo(f"SavedModel: {saved}")
    else:
        from audiotag.serving.conversion import convert

        click.echo(convert(opened, path, quantize=quantize, overwrite=overwrite))
        click.echo(f"{'ONNX' if named == 'onnx' else 'LiteRT'}: {path}")


@main.command()
@click.argument("runs", metavar="RUN...", nargs=-1, required=True, type=FOLDER)
@click.option("--out", required=True, type=JSON, help="The file to write, as ensembles/X.json.")
@click.option(
    "--combiner", default="mean", show_default=True, help="Or geometric_mean, rank_mean, ridge, logit_weights."
)
def ensemble(runs: tuple[Path, ...], out: Path, combiner: str) -> None:
    """Write the file of an ensemble of RUNs.

    Edit it to set weights, stages and folds.

    Example: audiotag ensemble runs/densenet runs/resnet --combiner geometric_mean --out ensembles/two.json
    """
    for run in runs:
        check_model(run)
    import_tensorflow()
    from audiotag.ensembling.members import write_ensemble

    write_ensemble(out, runs, combiner=combiner)
    click.echo(f"Evaluate it: audiotag evaluate {out}")
