"""The command line: doorways, no rooms. Nothing heavy is imported before it is needed."""

import math
import os
import re
from pathlib import Path

import click

from audiotag import __version__, files
from audiotag.errors import AudiotagError, DataError

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # TensorFlow's chatter would bury our own lines

FOLDER = click.Path(file_okay=False, path_type=Path)
FILE = click.Path(dir_okay=False, path_type=Path)
PATH = click.Path(path_type=Path)


class Output(click.Path):
    """A file to write: its name ends as what will be in it, and its folder is there before any work is done."""

    def __init__(self, *suffixes):
        super().__init__(dir_okay=False, path_type=Path)
        self.suffixes = suffixes

    def convert(self, value, param, ctx):
        """The path, once it may be written."""
        path = super().convert(value, param, ctx)
        if path.suffix not in self.suffixes:
            self.fail(f"{path}: expected a name that ends in {' or '.join(self.suffixes)}.", param, ctx)
        if path.suffix == ".parquet":
            from audiotag.evaluation.score_tables import check_parquet

            check_parquet(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        return path


TABLE = Output(".csv", ".parquet")
CSV, JSON, PAGE, PICTURE = Output(".csv"), Output(".json"), Output(".html"), Output(".png")
model_argument = click.argument("model", metavar="RUN|ENSEMBLE", type=PATH)
hear_option = click.option(
    "--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Hear in another way, as predict.pool=max."
)


class Commands(click.Group):
    """Prints a user's mistake as one line and exits with 1."""

    def invoke(self, context):
        try:
            return super().invoke(context)
        except (AudiotagError, OSError) as error:
            click.echo(f"Error: {error}", err=True)
            context.exit(1)
        except Exception as error:
            # By its name, since TensorFlow is not imported here. A full disk is ResourceExhaustedError too.
            full = type(error).__name__ == "ResourceExhaustedError"
            said = full and re.search("(OOM|[Oo]ut of memory).*", str(error))
            if not said:
                raise
            click.echo(f"Error: {said[0]}. In fit, a smaller batch_size of the stage needs less memory.", err=True)
            context.exit(1)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="audiotag")
def main():
    """Trains, scores and serves audio taggers on few trusted and many unreliable labels.

    \b
    A first run, on synthesised clips:
      audiotag make-demo demo
      audiotag make-records demo --sample-rate 16000
      audiotag fit experiments/demo.json
    """


@main.command("make-demo")
@click.argument("folder", type=FOLDER)
@click.option(
    "--seed", default=2019, show_default=True, type=click.IntRange(min=0), help="Another seed, another dataset."
)
def make_demo(folder, seed):
    """Synthesise a small dataset in FSDKaggle2019's layout into FOLDER.

    Example: audiotag make-demo demo
    """
    from audiotag.data import synthetic

    made = synthetic.make_demo(folder, seed=seed)
    click.echo(
        f"{made['curated']} curated, {made['noisy']} noisy ({made['wrong']} of them labelled wrongly) and "
        f"{made['test']} test clips, {made['seconds'] / 60:.0f} minutes: {folder}"
    )


@main.command("make-records")
@click.argument("source", type=click.Path(exists=True, path_type=Path))
@click.option("--out", type=FOLDER, help="Where to; tfrecords/ and the name of SOURCE by default.")
@click.option("--layout", default="auto", show_default=True, help="auto, kaggle2019, zenodo2019, esc, csv or folders.")
@click.option("--sample-rate", default=44_100, show_default=True, type=click.IntRange(4_000, 384_000), help="In Hz.")
@click.option(
    "--codec", default="pcm", show_default=True, help="pcm; flac (half the disk); source (Ogg and MP3 as they are)."
)
@click.option(
    "--trim",
    help="Cut silence off both ends of a clip: loudest (2048 samples --trim-db or more below the loudest, as librosa "
    "does) or level (20 ms below 0.15 % of full scale once the peak is at -0.1 dBFS, as SoX does). Off by default.",
)
@click.option("--trim-db", default=60.0, show_default=True, help="For --trim loudest, in dB.")
@click.option("--peak-db", type=float, help="Peak of every record in dBFS, as -0.1; by default the recordings' own.")
@click.option(
    "--workers",
    type=click.IntRange(min=0),
    help="Processes that decode; one a core by default. 0 decodes in this one, at the mercy of broken files.",
)
@click.option("--clips-per-shard", default=128, show_default=True, type=click.IntRange(min=1), help="At most.")
@click.option("--keep-known-bad", is_flag=True, help="Keep the six clips of FSDKaggle2019 that are known to be bad.")
@click.option(
    "--skip-bad", is_flag=True, help="Leave out clips that cannot be decoded, instead of stopping at the end."
)
@click.option("--overwrite", is_flag=True, help="Replace other records in the directory, once these are complete.")
def make_records(source, out, layout, **options):
    """Turn the recordings and label tables in SOURCE into records.

    SOURCE is FSDKaggle2019 as Kaggle or Zenodo have it, ESC-10 or ESC-50, a CSV file
    (fname,labels) beside a folder of audio, or a folder with a folder a class.

    Example: audiotag make-records FSDKaggle2019 --out tfrecords/fsdkaggle2019
    """
    from audiotag.data.records.writing import write_records
    from audiotag.data.sources.layouts import find_clips

    out = out or Path("tfrecords") / (source.stem if source.is_file() else source.resolve().name)
    manifest = write_records(find_clips(source, layout=layout), out, **options)
    counts = manifest.count_clips()
    click.echo(
        f"{', '.join(f'{count} {subset}' for subset, count in counts.items())} clips of "
        f"{len(manifest.vocabulary)} classes: {out}"
    )


@main.command("check-records")
@click.argument("directory", type=FOLDER)
def check_records(directory):
    """Read every byte of the records in DIRECTORY and name what is damaged.

    Example: audiotag check-records tfrecords/fsdkaggle2019
    """
    from audiotag.data.records.manifest import damage_error
    from audiotag.data.records.writing import check_records as find_damage

    if damage := list(find_damage(directory)):
        raise damage_error(damage)
    click.echo(f"{directory}: whole; every byte is as make-records wrote it.")


@main.command()
@click.argument("source", type=click.Path(exists=True, path_type=Path))
@click.option("--out", default="explore.html", show_default=True, type=PAGE, help="The page to write.")
@click.option("--workers", type=click.IntRange(min=1), help="Processes that decode; one a core by default.")
def explore(source, out, workers):
    """Show what is in SOURCE: classes, labels together, lengths, silence, clipping, doubles.

    SOURCE is records, recordings as make-records takes them, or FSDKaggle2019.meta, tables without sound.

    Example: audiotag explore tfrecords/fsdkaggle2019 --out explore.html
    """
    from audiotag.reporting import dataset_page

    clips, vocabulary = dataset_page.read_source(source, num_workers=workers)
    tables = dataset_page.explore(clips, vocabulary)
    dataset_page.write_exploration(out, source, clips, vocabulary, tables)
    click.echo(f"{dataset_page.in_words(tables)}\nPage: {out}")


@main.command()
@click.argument("experiment", type=FILE)
@click.option(
    "--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Replace a value, as stages.noisy.epochs=3."
)
@click.option("--run", "folder", type=FOLDER, help="Directory of the run; runs/ and the name of EXPERIMENT by default.")
@click.option("--fold", type=click.IntRange(min=0), help="Train the model of this fold alone.")
@click.option(
    "--resume/--restart", "resume", default=True, help="Go on with the run in the directory (default), or begin anew."
)
def fit(experiment, overrides, folder, fold, resume):
    """Train the model that the file EXPERIMENT describes, and export it.

    A run that was killed goes on after its last whole epoch.

    Example: audiotag fit experiments/densenet.json --set stages.noisy.epochs=3
    """
    from audiotag.config.loading import load

    plan = load(experiment, overrides)  # before TensorFlow starts: a wrong file fails at once
    from audiotag.runs.directory import held
    from audiotag.serving.saved_model import write_saved_model
    from audiotag.training.loop import fit

    run = fit(plan, folder or Path("runs") / experiment.stem, fold=fold, restart=not resume, say=click.echo)
    with held(run.folder):
        click.echo(f"SavedModel: {write_saved_model(run, run.folder / 'saved_model')}")


@main.command()
@click.argument("experiment", type=FILE)
@click.argument("paths", metavar="FILES...", nargs=-1, required=True, type=FILE)
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Replace a value, as for fit.")
@click.option("--out", default="sheet.png", show_default=True, type=PICTURE, help="The picture to write.")
@click.option("--versions", default=3, show_default=True, type=click.IntRange(min=0), help="Disturbed ones a clip.")
@click.option("--sample-rate", type=click.IntRange(4_000, 384_000), help="In Hz; that of the records by default.")
def pictures(experiment, paths, overrides, out, versions, sample_rate):
    """Draw audio FILES as the network of EXPERIMENT sees them, step by step and disturbed.

    Example: audiotag pictures experiments/demo.json demo/test/*.wav --out sheet.png
    """
    from audiotag.config.loading import load

    plan = load(experiment, overrides)
    from audiotag.reporting.preview_sheet import draw_sheet

    draw_sheet(plan, paths, out, versions=versions, sample_rate=sample_rate)
    click.echo(f"{len(paths)} clips: {out}")


@main.command()
@click.argument("run", type=FOLDER)
@click.option("--out", type=PAGE, help="The page to write; report.html in RUN by default.")
def report(run, out):
    """Write what came of RUN as one page: curves, classes, confusions, calibration, the worst clips to listen to.

    Example: audiotag report runs/densenet
    """
    from audiotag.reporting.run_page import write_report
    from audiotag.runs.directory import open_run

    run = open_run(run)
    out = out or run.folder / "report.html"
    write_report(run, out)
    click.echo(f"Page: {out}")


@main.command()
@model_argument
@click.option("--stage", help="The stage whose weights to take; the last by default.")
@click.option("--records", type=FOLDER, help="Other records than the run was trained on.")
@click.option("--held-out", is_flag=True, help="Measure on the held-out curated clips of all folds trained so far.")
@click.option("--csv", "path", type=TABLE, help="Write what is measured class by class to this file.")
@click.option("--out", type=FOLDER, help="Write overall, classes, clips, calibration and scores into this folder.")
@click.option("--members", is_flag=True, help="Show what each member of an ensemble adds to it, and nothing else.")
@hear_option
def evaluate(model, stage, records, held_out, path, out, members, overrides):
    """Measure a run, or an ensemble of runs, on the labelled test clips of its records.

    Intervals of 95 % and what chance gets stand beside each number. Thresholds of
    yes and no are those that fit the clips held out from training best, or 1/2
    where these are not to be had.

    \b
    Example: audiotag evaluate runs/densenet --out runs/densenet/test
             audiotag evaluate ensembles/demo.json --held-out
    """
    if members and (stage or records or path or out):
        raise click.UsageError("--members goes with --held-out and --set alone: leave the other options out.")
    if held_out and records:
        raise click.UsageError("--held-out measures on the records that the run was trained on: leave --records out.")
    from audiotag.ensembling.members import answers_and_thresholds, effects_in_words, open_model
    from audiotag.evaluation import measures
    from audiotag.evaluation.score_tables import write_scores

    model = open_model(model, overrides)
    if members:
        click.echo(effects_in_words(model, held_out=held_out))
        return
    clips, logits, thresholds = answers_and_thresholds(model, records=records, stage=stage, held_out=held_out)
    tables = measures.judge(clips, logits, model.vocabulary, thresholds=thresholds)
    click.echo(measures.in_words(tables))
    if path:
        write_scores(path, tables["classes"])
    if out:
        measures.write_tables(out, tables)


@main.command()
@click.argument("run", type=FOLDER)
@click.option("--stage", help="The stage whose models judge; the last by default.")
@click.option("--top", default=20, show_default=True, type=click.IntRange(min=1), help="Clips to show.")
@click.option("--csv", "path", type=CSV, help="Write all to this file: a table of corrections, to be edited.")
def suspects(run, stage, top, path):
    """Rank the training clips of RUN by how much models that never heard them disagree with their labels.

    Edit the labels and weights of the file that --csv writes, name it as "corrections" in
    an experiment, and fit goes by it.

    Example: audiotag suspects runs/fsd_like --csv corrections.csv
    """
    from audiotag.crossval import label_issues
    from audiotag.runs.directory import open_run

    table = label_issues.suspects(open_run(run), stage=stage)
    for clip in table.head(top).itertuples():
        click.echo(f"{clip.clip}  given {clip.labels}: {clip.reason}")
    click.echo(f"{(table['margin'] > 0).sum()} of {len(table)} clips would rather have other labels.")
    if path:
        files.write_text(path, files.csv_text(table))


@main.command()
@click.argument("model", metavar="RUN|ENSEMBLE|SAVEDMODEL", type=PATH)
@click.argument("paths", metavar="FILES...", nargs=-1, required=True, type=FILE)
@click.option("--top", default=3, show_default=True, type=click.IntRange(min=1), help="Classes to show a file.")
@click.option("--csv", type=TABLE, help="Write probabilities and logits of all classes to this file, .csv or .parquet.")
@click.option("--timeline", type=CSV, help="Write when each class is heard to this CSV file.")
@click.option("--threshold", default=0.5, show_default=True, type=click.FloatRange(0, 1), help="For --timeline.")
@click.option("--trust", is_flag=True, help="Run a SavedModel even if it does what audiotag's own never do.")
@hear_option
def predict(model, paths, top, csv, timeline, threshold, trust, overrides):
    """Tell what is heard in audio FILES of any length, rate and number of channels.

    \b
    Example: audiotag predict runs/demo/saved_model bell.wav street.mp3
             audiotag predict runs/demo day.flac --timeline day.csv --set predict.overlap=0
    """
    if math.isnan(threshold):
        raise click.UsageError("--threshold is no number. Expected 0 to 1.")
    if csv and timeline and csv.resolve() == timeline.resolve():
        raise click.UsageError("--csv and --timeline are the same file. Give each a name of its own.")
    for path in paths:
        if not files.is_utf8(path):
            raise DataError(f"the name {str(path)!r} has bytes that are not UTF-8. Rename it.")
    from audiotag.evaluation.score_tables import scores_table, write_scores
    from audiotag.inference import audio_files
    from audiotag.serving.saved_model import load_listener

    listener = load_listener(model, overrides, trust=trust)
    if timeline:
        logits, heard = audio_files.score_timelines(listener, paths, threshold=threshold)
        write_scores(timeline, heard)
    else:
        logits = audio_files.score_files(listener, paths)
    click.echo(audio_files.best_classes(paths, logits, listener.vocabulary, top))
    if csv:
        write_scores(csv, scores_table(paths, logits, listener.vocabulary))


@main.command()
@model_argument
@click.option("--out", type=CSV, help="The file to write; submission.csv in the run's directory by default.")
@click.option("--like", "sample", type=FILE, help="sample_submission.csv, whose order of rows to follow.")
@hear_option
def submit(model, out, sample, overrides):
    """Score the test clips of a run's, or an ensemble's, records for a competition.

    Example: audiotag submit runs/densenet --like FSDKaggle2019/sample_submission.csv
    """
    from scipy.special import expit

    from audiotag.data.clips import read_table
    from audiotag.ensembling.members import hear_test_clips, open_model
    from audiotag.serving.submission import write_submission

    if sample:
        read_table(sample, ["fname"])  # a wrong one is told before the clips are heard
    model = open_model(model, overrides)
    if not out:
        model.folder.mkdir(exist_ok=True)
        out = model.folder / "submission.csv"
    clips, logits = hear_test_clips(model)
    write_submission(out, clips, expit(logits), model.vocabulary, sample=sample)
    click.echo(f"{len(clips)} rows, {len(model.vocabulary)} classes: {out}")


@main.command()
@model_argument
@click.argument("folder", type=FOLDER)
@click.option("--overwrite", is_flag=True, help="Replace the folder if it is there.")
@hear_option
def export(model, folder, overwrite, overrides):
    """Write a run, or an ensemble of runs, as one SavedModel into FOLDER.

    Example: audiotag export runs/densenet serving/densenet/1
    """
    from audiotag.ensembling.members import open_model
    from audiotag.serving import saved_model

    saved = saved_model.export(open_model(model, overrides), folder, overwrite=overwrite)
    click.echo(f"SavedModel: {saved}")


@main.command()
@click.argument("runs", metavar="RUN...", nargs=-1, required=True, type=FOLDER)
@click.option("--out", required=True, type=JSON, help="The file to write, as ensembles/X.json.")
@click.option("--combine", default="arithmetic", show_default=True, help="Or geometric, ranks, ridge, learned.")
def ensemble(runs, out, combine):
    """Write a file in which RUNs answer as one; edit it for weights, stages and folds.

    Example: audiotag ensemble runs/densenet runs/resnet --combine geometric --out ensembles/two.json
    """
    from audiotag.ensembling.members import write_ensemble

    write_ensemble(out, runs, combine=combine)
    click.echo(f"Measure it: audiotag evaluate {out}")
