"""`audiotag fit` in separate steps: start the run, train, or export the SavedModel, which takes longest here."""

import os
import signal
import sys
from pathlib import Path

import click
import numpy as np

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
@click.option("--stop", type=int, help="Send a signal to itself in this step of the process, from 1.")
@click.option("--signal", "name", default="SIGTERM", help="Which.")
@click.option("--again", is_flag=True, help="Send it again while the state is written.")
@click.option("--begin", is_flag=True, help="Only restart the run, without training.")
@click.option("--export", is_flag=True, help="Only export the run.")
def train(experiment, folder, overrides, stop, name, again, begin, export):
    if begin:
        config = load(experiment, overrides)
        with start_run(folder, config, read_manifest(config.records), restart=True):
            return
    if export:
        write_saved_model(open_run(folder), Path(folder) / "saved_model")
        return
    signal.signal(signal.SIGINT, signal.default_int_handler)  # as in a terminal; shells ignore it in background jobs
    number, savez, steps = signal.Signals[name], np.savez, iter(range(1, 1_000_000))

    def count(callback, batch, logs=None):
        if next(steps) == stop:
            os.kill(os.getpid(), number)
            np.savez = stop_again if again else savez

    def stop_again(path, *arrays, **more):
        savez(path, *arrays, **more)
        os.truncate(path, os.path.getsize(path) // 2)
        os.kill(os.getpid(), number)

    SaveState.on_train_batch_begin = count
    fit(load(experiment, overrides), folder, say=click.echo)


if __name__ == "__main__":
    main(["train", *sys.argv[1:]])
