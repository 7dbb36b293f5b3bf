"""`audiotag fit` without the export at its end, which takes longer than training does here."""

import os
import signal
import sys

import click

from audiotag.cli import Commands
from audiotag.experiment import load
from audiotag.training.callbacks import SaveState
from audiotag.training.fit import fit


@click.group(cls=Commands)
def main():
    pass


@main.command()
@click.argument("experiment")
@click.argument("folder")
@click.argument("overrides", nargs=-1)
@click.option("--sigterm", type=int, help="Send SIGTERM to itself in this step of its own, from 1.")
def train(experiment, folder, overrides, sigterm):
    steps = iter(range(1, 1_000_000))

    def begin(callback, batch, logs=None):
        if next(steps) == sigterm:
            os.kill(os.getpid(), signal.SIGTERM)

    SaveState.on_train_batch_begin = begin
    fit(load(experiment, overrides), folder, say=click.echo)


if __name__ == "__main__":
    main(["train", *sys.argv[1:]])
