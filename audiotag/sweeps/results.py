"""Compares runs: means over seeds, differences with intervals, the best setting.

The best is chosen by validation clips. The test scores of the others are not computed unless that is asked for, because
the best of many test scores is too good by chance.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from audiotag import files
from audiotag.config.schema import expand_rounds
from audiotag.config.signatures import nearest
from audiotag.data.clips import TEST, read_clips
from audiotag.data.corrections import read_corrections, summarize_corrections
from audiotag.ensembling.members import predictions_and_thresholds
from audiotag.errors import ConfigError, DataError
from audiotag.evaluation.comparison import Measured, difference, estimate, mean_of, measure_recordings
from audiotag.evaluation.measures import MEASURES, WITHOUT_GROUP
from audiotag.runs.directory import DESCRIPTIONS, Run, find_records
from audiotag.sweeps.text import comparison_text

VALIDATION_CLIPS, TEST_CLIPS = "validation clips", "test clips"
NOT_COMPARED = DESCRIPTIONS | {"seed", "records", "schema_version"}  # runs that differ in these alone are one setting


@dataclass(frozen=True, eq=False)
class Entry:
    """A run in a comparison.

    Args:
        setting: What is compared, such as a variation. Runs of one setting differ only in their seed and records.
        run: The run.
        command: The command that trains it.
    """

    setting: str
    run: Run
    command: str = ""


@dataclass(frozen=True, eq=False, repr=False)
class Comparison:
    """What `compare` found, as tables. Printed, it is what the commands print.

    Args:
        table: A row per set of clips, setting and measure: the numbers of settings that were tried, and of runs, seeds,
            clips and recordings; over the seeds the mean, standard deviation, least and greatest value; the 95%
            interval of the mean (low, high); the paired difference to the first setting with its interval; minutes per
            run.
        runs: A row per set of clips and run: its setting, seed, folder, minutes, command and measures.
        differences: A row per key of the experiment that differs: its value in each setting, as JSON.
        measure: The measure that is printed first, and decides.
        best: The best of several settings by validation clips; None if there are no such clips.
        notes: Sentences about the table.
    """

    table: pd.DataFrame
    runs: pd.DataFrame
    differences: pd.DataFrame
    measure: str
    best: str | None
    notes: tuple[str, ...]

    def __str__(self) -> str:
        return comparison_text(self)

    __repr__ = __str__

    def write(self, folder: str | Path) -> None:
        """Writes table.csv, runs.csv, differences.csv and table.txt into a folder."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        for name in ("table", "runs", "differences"):
            files.write_text(folder / f"{name}.csv", files.csv_text(getattr(self, name)))
        files.write_text(folder / "table.txt", f"{self}\n")


def compare(
    entries: Sequence[Entry], *, measure: str = "lwlrap", test: bool = False, num_trials: int | None = None
) -> Comparison:
    """Compares trained runs.

    Args:
        entries: The runs. The others are compared with the setting of the first.
        measure: The measure that decides which setting is best, one of `MEASURES`.
        test: Measure all settings on the test clips. False measures only the best by validation clips on them.
        num_trials: How many settings were tried; None is the number of these.

    Raises:
        DataError: A run is not trained, or its records are missing or have no clips to measure on.
    """
    settings = [*dict.fromkeys(entry.setting for entry in entries)]
    num_trials = len(settings) if num_trials is None else num_trials
    measured: dict[str, dict[Entry, Measured]] = {}
    if all(entry.run.experiment.validation is not None for entry in entries):
        measured[VALIDATION_CLIPS] = {entry: _measure(entry.run, out_of_fold=True) for entry in entries}
    tables = [_table(clips, found, settings, num_trials) for clips, found in measured.items()]
    best = _best(tables[0], measure) if tables and len(settings) > 1 else None
    chosen = settings if test or len(settings) == 1 else [best] if best else []
    with_test = [entry for entry in entries if entry.setting in chosen and _has_test_clips(entry.run)]
    if with_test:
        measured[TEST_CLIPS] = {entry: _measure(entry.run, out_of_fold=False) for entry in with_test}
        tables.append(_table(TEST_CLIPS, measured[TEST_CLIPS], chosen, num_trials))
    if not tables:
        raise DataError(
            "no run has validation clips, so there is nothing to choose the best setting by. Measure all of them on "
            "the test clips with --test (in Python: test=True), if their records have some."
        )
    table = pd.concat(tables, ignore_index=True)
    runs = pd.concat([_runs(clips, found) for clips, found in measured.items()], ignore_index=True)
    notes = _notes(table, measured, settings, best, measure, num_trials)
    return Comparison(table, runs, _differences(entries), measure, best, notes)


def check_measure(measure: str) -> None:
    """Raises ConfigError if there is no such measure."""
    if measure not in MEASURES:
        raise ConfigError(
            f"there is no measure {measure!r}. {nearest(measure, [*MEASURES])}Accepted: {', '.join(MEASURES)}."
        )


def entries_of(runs: Sequence[Run]) -> list[Entry]:
    """Entries of runs; those that differ only in seed and records are one setting.

    A setting has the name of the folder of its first run.
    """
    names: dict[str, str] = {}
    entries = []
    for run in runs:
        key = json.dumps(_compared(run), sort_keys=True)
        name = run.folder.name
        taken = any(other == name for known, other in names.items() if known != key)
        setting = names.setdefault(key, str(run.folder) if taken else name)
        entries.append(Entry(setting, run, f"audiotag fit {run.folder / 'experiment.json'} --run {run.folder}"))
    return entries


def _measure(run, *, out_of_fold):
    """The measures of a run on its validation or test clips."""
    clips, logits, thresholds = predictions_and_thresholds(run, out_of_fold=out_of_fold)
    return measure_recordings(clips, logits, run.vocabulary, thresholds=thresholds)


def _has_test_clips(run):
    """Whether the records of a run have labeled test clips."""
    clips = read_clips(find_records(run).directory / "clips.csv")
    return bool(((clips["subset"] == TEST) & (clips["labels"] != "")).any())


def _table(clips, measured, settings, num_trials):
    """The rows of `Comparison.table` for one set of clips."""
    by_seed = {setting: _by_seed(measured, setting) for setting in settings}
    rows = []
    for setting, seeds in by_seed.items():
        entries = [entry for entry in measured if entry.setting == setting]
        pairs = [] if setting == settings[0] else _pairs(seeds, by_seed[settings[0]])
        about = {
            "on": clips,
            "setting": setting,
            "trials": num_trials,
            "runs": len(entries),
            "seeds": len(seeds),
            "clips": len(frozenset().union(*(found.clips for found in seeds.values()))),
            "recordings": len(frozenset().union(*(found.recordings for found in seeds.values()))),
        }
        minutes = float(np.mean([minutes_of(entry.run) for entry in entries]))
        rows += [about | _row([*seeds.values()], pairs, name) | {"minutes": minutes} for name in MEASURES]
    return pd.DataFrame(rows)


def _row(seeds, pairs, measure):
    """The columns of a measure: over the seeds of a setting, and its paired difference."""
    values = pd.Series([found.values[measure] for found in seeds])
    mean = estimate(seeds, measure)
    nan = float("nan")
    low, high = np.clip([mean.low, mean.high], 0, 1)
    change = estimate(pairs, measure) if pairs else None
    return {
        "measure": measure,
        "mean": mean.mean,
        "sd": values.std(ddof=1),
        "least": values.min(),
        "greatest": values.max(),
        "low": low,
        "high": high,
        "difference": change.mean if change else nan,
        "difference_low": change.low if change else nan,
        "difference_high": change.high if change else nan,
    }


def _by_seed(measured, setting):
    """{seed: the mean of a setting's runs with it}."""
    seeds = {}
    for entry, found in measured.items():
        if entry.setting == setting:
            seeds.setdefault(entry.run.experiment.seed, []).append(found)
    return {seed: mean_of(several) for seed, several in sorted(seeds.items())}


def _pairs(seeds, first):
    """The differences between two settings, seed by seed; in the order of the seeds if they have none in common."""
    common = [seed for seed in seeds if seed in first]
    pairs = [(seeds[seed], first[seed]) for seed in common] or [*zip(seeds.values(), first.values())]
    return [difference(one, other) for one, other in pairs]


def _best(table, measure):
    """The setting with the greatest mean of a measure; the first of equals."""
    rows = table[(table["measure"] == measure) & table["mean"].notna()]
    return None if rows.empty else rows["setting"].iloc[rows["mean"].argmax()]


def _runs(clips, measured):
    """The rows of `Comparison.runs` for one set of clips."""
    rows = []
    for entry, found in measured.items():
        experiment = entry.run.experiment
        about = {"on": clips, "setting": entry.setting, "seed": experiment.seed, "records": experiment.records}
        about |= {"folder": str(entry.run.folder), "minutes": minutes_of(entry.run), "clips": len(found.clips)}
        about |= {"recordings": len(found.recordings)}
        rows.append(about | found.values.to_dict() | {"command": entry.command})
    return pd.DataFrame(rows)


def minutes_of(run: Run) -> float:
    """The minutes that all stages and folds of a run took, with validation."""
    stages = [stage.name for stage in expand_rounds(run.experiment)]
    results = [run.result(fold, stage) for fold in range(run.experiment.num_folds) for stage in stages]
    return sum(result["seconds"] for result in results if result) / 60


def _compared(run):
    """What of a run's experiment makes its setting; in place of a file of corrections what that changes."""
    return run.experiment.model_dump(mode="json", exclude=NOT_COMPARED) | {"corrections": _corrections(run)}


def _corrections(run):
    """What a run's corrections change, for readers; None if they change nothing."""
    if not run.corrections_file.is_file():
        return None
    clips = read_clips(find_records(run).directory / "clips.csv")
    return summarize_corrections(clips, read_corrections(run.corrections_file, run.vocabulary)) or None


def _differences(entries):
    """The table of keys that differ between settings."""
    first = {}
    for entry in entries:
        first.setdefault(entry.setting, _compared(entry.run))
    rows = [
        {"key": place} | {setting: json.dumps(value, ensure_ascii=False) for setting, value in zip(first, values)}
        for place, values in differing_keys([*first.values()])
    ]
    return pd.DataFrame(rows, columns=["key", *first])


def differing_keys(values: Sequence[Any], place: str = "") -> Iterator[tuple[str, Sequence[Any]]]:
    """Yields what differs between several JSON values: (key, the value in each).

    Of lists of objects with different numbers of entries, these are the entries that not all have.

    Example:
        >>> [*differing_keys([{"a": {"b": 1}, "c": 2}, {"a": {"b": 3}, "c": 2}])]
        [('a.b', [1, 3])]
    """
    if all(value == values[0] for value in values):
        return
    if all(isinstance(value, Mapping) and value.keys() == values[0].keys() for value in values):
        for key in values[0]:
            yield from differing_keys([value[key] for value in values], f"{place}.{key}" if place else key)
    elif all(isinstance(value, list) and len(value) == len(values[0]) for value in values):
        for index, several in enumerate(zip(*values)):
            name = several[0].get("name", index) if isinstance(several[0], Mapping) else index
            yield from differing_keys(several, f"{place}.{name}")
    elif all(isinstance(value, list) and all(isinstance(entry, Mapping) for entry in value) for value in values):
        in_all = [entry for entry in values[0] if all(entry in value for value in values)]
        yield place, [[entry for entry in value if entry not in in_all] for value in values]
    else:
        yield place, values


def _notes(table, measured, settings, best, measure, num_trials):
    """What a reader must know to believe the table."""
    notes = []
    if (table["seeds"] == 1).any():
        notes.append("With one seed, intervals are about other recordings only, not about other seeds.")
    recordings = {name for found in measured.values() for each in found.values() for name in each.recordings}
    if any(name.startswith(WITHOUT_GROUP) for name in recordings):
        notes.append("Clips without a group in the table of clips count as recordings of their own.")
    if len(settings) == 1:
        return tuple(notes)
    if best is None:
        return (*notes, "There are no validation clips, so none of the settings is the best.")
    tested = {entry.setting for entry in measured.get(TEST_CLIPS, ())}
    if not tested:
        more = f"There are no test clips to measure it on; the score of the best of {num_trials} is too good by chance."
    elif tested == {best}:
        more = "It alone was measured on the test clips."
    else:
        more = "All were measured on the test clips, which must not choose between them."
    return (*notes, f"Best of {num_trials} by {measure} on validation clips: {best}. {more}")
