"""`audiotag fit` in separate steps: start the run, train, or export the SavedModel, which takes longest here."""

import os
import signal
import sys
from pathlib import Path

import click

from audiotag.cli import Commands
from audiotag.config.loading import load
from audiotag.data.records.manifest import read_manifest
from audiotag.runs.directory import open_run, start_run
from audiotag.serving.saved_model import write_saved_model
from audiotag.training.callbacks import SaveState
from audiotag.training.loop import fit


@click.group(cls=Commands)
def main():
    pass


@main.command()
@click.argument("experiment")
@click.argument("folder")
@click.argument("overrides", nargs=-1)
@click.option("--sigterm", type=int, help="Send SIGTERM to itself in this step of the process, from 1.")
@click.option("--begin", is_flag=True, help="Only restart the run, without training.")
@click.option("--export", is_flag=True, help="Only export the run.")
def train(experiment, folder, overrides, sigterm, begin, export):
    if begin:
        config = load(experiment, overrides)
        with start_run(folder, config, read_manifest(config.records), restart=True):
            return
    if export:
        write_saved_model(open_run(folder), Path(folder) / "saved_model")
        return
    steps = iter(range(1, 1_000_000))

    def count(callback, batch, logs=None):
        if next(steps) == sigterm:
            os.kill(os.getpid(), signal.SIGTERM)

    SaveState.on_train_batch_begin = count
    fit(load(experiment, overrides), folder, say=click.echo)


if __name__ == "__main__":
    main(["train", *sys.argv[1:]])
