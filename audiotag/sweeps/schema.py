"""The schema of sweep files: seeds, folds and variations of an experiment.

A sweep is a list of trials. Each is an ordinary run, with a command of its own.
"""

import json
import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from audiotag.config.components import OneOrSeveral, Section
from audiotag.config.loading import load
from audiotag.config.schema import SCHEMA_VERSION, Experiment, SchemaVersion
from audiotag.config.validation import error_at
from audiotag.errors import ConfigError

Measure = Literal[
    "lwlrap", "MAP@3", "top_1_accuracy", "mAP", "AUC", "F", "F_top_1"
]  # as `evaluate` reports them; 1 is best
Seed = Annotated[int, Field(ge=0, lt=2**31)]
Changes = dict[str, Any]  # {key: value}, as --set KEY=VALUE


class SweepConfig(Section):
    """Seeds, folds and variations of one experiment; `sweeps/NAME.json` holds one."""

    schema_version: SchemaVersion = SCHEMA_VERSION
    about: str = ""
    expect: str = ""  # the result, and after how long
    experiment: str = Field(min_length=1)  # a file, or the name of an experiment that comes with audiotag
    seeds: tuple[Seed, ...] = Field(min_length=1)  # each variation is trained with each
    folds: tuple[Annotated[int, Field(ge=0)], ...] | None = Field(default=None, min_length=1)  # None: as the experiment
    records: OneOrSeveral[str] | None = None  # each variation is trained on each; None is that of the experiment
    # Named changes of the experiment, as --set makes them. The first, often {}, is what the others are compared with.
    variations: dict[str, Changes] = Field(min_length=1)
    quick: Changes = {}  # further changes for --quick, which tries the sweep in minutes
    measure: Measure = "lwlrap"  # decides which variation is best

    @model_validator(mode="after")
    def check_names(self) -> "SweepConfig":
        """Refuses variations, seeds and records whose runs would have the same name."""
        records = [Path(place).name for place in self.records or ()]
        lists = {"variations": map(folder_name, self.variations), "seeds": self.seeds, "records": records}
        for key, values in lists.items():
            names = [str(value).lower() for value in values]
            if "" in names:
                raise error_at(key, "a name without letters and digits. Expected one that can name a folder.")
            if len({*names}) < len(names):
                twice = next(name for number, name in enumerate(names) if name in names[:number])
                raise error_at(key, f"two of them would name their runs {twice!r}. Give each its own name.")
        return self


@dataclass(frozen=True, eq=False)
class Trial:
    """One run of a sweep.

    Args:
        variation: The name of its variation.
        seed: Its seed.
        records: The directory of its records.
        folder: The directory of the run.
        experiment: The experiment with all changes.
        command: The command that trains it alone.
    """

    variation: str
    seed: int
    records: str
    folder: Path
    experiment: Experiment
    command: str


def list_trials(config: SweepConfig, folder: Path, where: str | Path, *, quick: bool = False) -> list[Trial]:
    """The runs of a sweep: for each seed, each of the records and each variation one.

    Args:
        config: The sweep.
        folder: The directory of its runs.
        where: The sweep's file, for messages.
        quick: Make the changes of `quick`, too.

    Raises:
        ConfigError: A variation is not valid.
    """
    return [
        _trial(config, folder, where, variation=variation, seed=seed, records=records, quick=quick)
        for seed in config.seeds
        for records in config.records or (None,)
        for variation in config.variations
    ]


def _trial(config, folder, where, *, variation, seed, records, quick):
    """One run of a sweep, its experiment validated."""
    changes = config.variations[variation] | (config.quick if quick else {}) | {"seed": seed}
    changes |= {} if records is None else {"records": records}
    try:
        experiment = load(config.experiment, map(_as_override, changes.items()))
        if config.folds is not None:
            changes["validation"] = _validation(experiment, config.folds)
            experiment = load(config.experiment, map(_as_override, changes.items()))
    except ConfigError as error:
        raise ConfigError(f"{where}: variations.{variation}: {error}") from error
    parts = [folder_name(variation), *([Path(records).name] if records and len(config.records) > 1 else []), str(seed)]
    run = folder / "-".join(parts)
    options = [part for change in changes.items() for part in ("--set", _as_override(change))]
    command = shlex.join(["audiotag", "fit", config.experiment, "--run", str(run), *options])
    return Trial(variation, seed, experiment.records, run, experiment, command)


def _validation(experiment, folds):
    """The experiment's validation with other held-out folds."""
    if experiment.validation is None or experiment.validation.folds is None:
        raise ConfigError('"folds" needs an experiment whose validation has folds. Leave it out.')
    section = experiment.validation.folds.model_dump(mode="json") | {"held_out": folds}
    return {"folds": section}


def _as_override(change):
    """A change as a text for --set."""
    key, value = change
    return f"{key}={json.dumps(value)}"


def folder_name(name: str) -> str:
    """The part of a folder's name that stands for a variation.

    Example:
        >>> folder_name("no mixup, 2.5 s")
        'no-mixup-2.5-s'
    """
    return re.sub(r"[^A-Za-z0-9._]+", "-", name).strip("-.")
