"""Trains the runs of a sweep, which several machines may share."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import keras

from audiotag.config import custom
from audiotag.errors import AudiotagError, ConfigError, DataError
from audiotag.files import Busy
from audiotag.runs.directory import is_run, open_run
from audiotag.sweeps.results import Comparison, Entry, compare
from audiotag.sweeps.schema import SweepConfig, Trial, list_trials
from audiotag.training import loop

SECONDS_TO_WAIT = 20.0  # before it looks again at runs that other processes train


def run_sweep(
    config: SweepConfig,
    folder: str | Path,
    where: str | Path,
    *,
    quick: bool = False,
    test: bool = False,
    say: Callable[[str], Any] = print,
) -> Comparison:
    """Trains the runs of a sweep, compares them and writes the tables.

    Args:
        config: The sweep.
        folder: The directory of its runs, and of table.csv, runs.csv, differences.csv and table.txt.
        where: The sweep's file, for messages.
        quick: Make the changes of `quick`, too.
        test: Measure all variations on the test clips, and not only the best by validation clips.
        say: Called with a sentence for each run and stage.

    Raises:
        ConfigError: A variation is not valid, or the directory is that of a run; nothing is trained then.
        DataError: Runs failed. The tables of the others are written.
        KeyboardInterrupt: By Ctrl-C; the same call continues from there.
    """
    if is_run(folder):
        raise ConfigError(
            f"{folder}: is the directory of a run, and a sweep needs its own. Choose another with --runs."
        )
    trials = list_trials(config, Path(folder), where, quick=quick)
    failed = train(trials, say)
    complete = [trial for trial in trials if trial not in failed]
    failures = [f"{trial.folder}: {error}" for trial, error in failed.items()]
    if not complete:
        raise DataError("\n".join(["all runs of the sweep failed:", *failures]))
    entries = [Entry(trial.variation, open_run(trial.folder), trial.command) for trial in complete]
    with custom.allowed():
        comparison = compare(entries, measure=config.measure, test=test, num_trials=len(config.variations))
    comparison.write(folder)
    if failed:
        say(str(comparison))
        raise DataError("\n".join([f"{len(failed)} of {len(trials)} runs failed:", *failures]))
    return comparison


def train(trials: Sequence[Trial], say: Callable[[str], Any] = print) -> dict[Trial, AudiotagError]:
    """Trains what is not trained yet of a sweep, one run after the other.

    A run that another process trains is left to it. When only such runs are left, it waits until they are complete, or
    continues one whose process was killed.

    Args:
        trials: The runs.
        say: Called with a sentence for each run and stage.

    Returns:
        The runs that failed, with their errors; the others are complete.
    """
    failed: dict[Trial, AudiotagError] = {}
    say = _said_once(say)
    pending = [*trials]
    while pending:
        busy = []
        for trial in pending:
            say(f"{trial.folder}: run {trials.index(trial) + 1} of {len(trials)}.")
            try:
                loop.fit(trial.experiment, trial.folder, say=say)
            except Busy:
                say(f"{trial.folder}: another process trains it.")
                busy.append(trial)
            except AudiotagError as error:  # such as a loss that is not finite; the other runs may be fine
                say(f"{trial.folder}: failed. {error}")
                failed[trial] = error
            keras.backend.clear_session()  # frees the memory of the last model
        if len(busy) == len(pending):
            time.sleep(SECONDS_TO_WAIT)
        pending = busy
    return failed


def _said_once(say):
    """`say` without what it has said before."""
    said = set()

    def say_once(sentence):
        if sentence not in said:
            said.add(sentence)
            say(sentence)

    return say_once
