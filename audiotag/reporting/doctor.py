"""The findings of `audiotag doctor` about a dataset, records or a run."""

import functools
import itertools
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from audiotag import __version__, progress
from audiotag.crossval.splits import NO_FOLD, training_clips, untrained_classes
from audiotag.data.audio import worker_pool
from audiotag.data.audio.examination import Examination, examine
from audiotag.data.clips import TEST, csv_lines, read_clips
from audiotag.data.examined_records import examine_records
from audiotag.data.labels import split_labels
from audiotag.data.near_duplicates import Pair, find_near_duplicates
from audiotag.data.records.manifest import MANIFEST_FILE, read_manifest
from audiotag.data.records.shard_writing import entries
from audiotag.data.records.writing import check_records
from audiotag.data.sources import find_clips
from audiotag.files import from_cell
from audiotag.reporting.page import cells, write_page
from audiotag.runs.directory import find_records, is_run, open_run, with_records

SEVERITIES = ("error", "warning", "note")
COLUMNS = ("severity", "kind", "clip", "subset", "other", "found")
SILENCE_DB = -60.0
MOST_OFFSET = 0.01  # of full scale
LEAST_RUNS = 5  # flat peaks; fewer are a click
LOWEST_USUAL_HZ = 8_000
FEW_CLIPS = 5
SHOWN, SHOWN_ON_PAGE = 5, 300  # rows per kind
# {kind: (why it matters, what to do)}
KINDS = {
    "unreadable": ("It cannot be trained on.", "Replace it by an intact copy, convert it, or leave it out."),
    "truncated": ("The rest of the sound is missing.", "Download it again, or leave it out."),
    "damaged": ("Clips of these records are lost.", "Make the records again with --overwrite, or fetch them again."),
    "left out": ("No model trains on it.", "Replace the file and make the records again."),
    "silent": ("Its label teaches what silence sounds like.", "Replace it, label it as background, or leave it out."),
    "quiet": ("With 16 bits per sample it loses detail.", "Listen to it, and export it again at a higher level."),
    "clipped": ("Clipping adds overtones that the sound does not have.", "Use an unclipped take, if there is one."),
    "DC offset": (
        "It reduces the range of levels, and clicks at the start and end.",
        "Remove it with a high-pass filter.",
    ),
    "low rate": (
        "It lacks the high frequencies that other clips have.",
        "Check the rate; use a recording at a higher one.",
    ),
    "upsampled": (
        "If clips of one class have this more often, a model may learn it instead of the sound.",
        "Use the original, or make records at a lower sample rate.",
    ),
    "leak into test": ("Scores on test clips are too high.", "Remove one of the two, or move both to one subset."),
    "leak between folds": (
        "Validation scores are too high.",
        "Give both the same group, with the column group or --group-by, or remove one.",
    ),
    "copies in two subsets": (
        "A model may train on one and be validated on the other.",
        "Remove one, or give both the same group.",
    ),
    "copies": (
        "Random folds may separate them, and they count twice.",
        "Remove one, or give both the same group, with the column group or --group-by.",
    ),
    "contradicting labels": (
        "At most one of them is right.",
        "Listen, and correct the table or use a corrections file.",
    ),
    "class without training clips": ("It cannot be learned.", "Add clips, or remove the class from the vocabulary."),
    "class without test clips": ("Its scores cannot be measured.", "Move clips of it to the test subset."),
    "class with few clips": ("Its scores depend on chance.", "Add clips."),
    "class in one fold": (
        "The model that holds this fold out never trains on it.",
        "Add clips of other recordings, or choose other folds.",
    ),
    "group split by folds": (
        "A model trains on clips of recordings that validate it, so its scores are too high.",
        "Give all clips of a group one fold.",
    ),
    "group split by test": (
        "A model trains on recordings that test it, so its scores are too high.",
        "Move all clips of a group to one subset.",
    ),
    "not read": ("It may be missing from the dataset by mistake.", "Check that this is meant."),
}


@dataclass(frozen=True, eq=False)
class Dataset:
    """What is examined.

    Args:
        clips: A table of clips; its column `fold` is that which a model holds out, from 1, and 0 for none.
        vocabulary: The K class names.
        examinations: Of each clip.
        findings: Those that were made on the way.
        folds_are: What the folds are of, for messages.
    """

    clips: pd.DataFrame
    vocabulary: tuple[str, ...]
    examinations: list[Examination]
    findings: list[dict[str, Any]]
    folds_are: str = "the dataset"


def examine_dataset(
    path: str | Path,
    *,
    num_workers: int | None = None,
    layout: str = "auto",
    vocabulary: str | Path | None = None,
    group_by: str | None = None,
    records: str | Path | None = None,
) -> pd.DataFrame:
    """The findings about a dataset, records or a run, the worst first.

    Every clip is decoded once, in worker processes. A few kilobytes per clip are kept to find near-duplicates.

    Args:
        path: A source of make-records, a directory of records, or one of a run, whose records and folds are examined.
        num_workers: Processes that decode; None is one per core.
        layout: As for `find_clips`, and so are `vocabulary` and `group_by`.
        records: Where the records of a run are, if they were moved.

    Returns:
        A table with a row per finding: `severity` (error, warning or note), `kind`, `clip`, `subset`, `other` (the clip
        with the same sound, a class or a group), `found`, `why` it matters and what to do, `remedy`.

    Raises:
        DataError: It is none of these, or its tables are invalid.
    """
    path, workers = Path(path), num_workers or os.cpu_count() or 1
    if is_run(path):
        dataset = _run(path, workers, records)
    elif (path / MANIFEST_FILE).is_file():
        dataset = _records(read_manifest(path), workers)
    else:
        dataset = _source(path, workers, layout=layout, vocabulary=vocabulary, group_by=group_by)
    return findings_of(dataset, num_workers=workers)


def _source(path, workers, **options):
    """The `Dataset` of recordings."""
    found = find_clips(path, **options)
    results = worker_pool.in_order(examine, entries(found.clips), workers=workers)
    results = progress.bar(results, total=len(found.clips), unit="clip", label="doctor")
    examinations = [examination or Examination(fault=reason) for examination, reason in results]
    known = ("The ", "Classes without")  # how the dataset is used, and what is found below
    notes = [_finding("note", "not read", note) for note in found.notes if not note.startswith(known)]
    return Dataset(found.clips, found.vocabulary, examinations, notes)


def _records(manifest, workers):
    """The `Dataset` of records."""
    findings = [_finding("error", "damaged", sentence) for sentence in check_records(manifest.directory)]
    for _, cells_ in itertools.islice(csv_lines(manifest.directory / "rejects.csv"), 1, None):
        name, subset, reason = map(from_cell, cells_)
        findings.append(_finding("warning", "left out", reason, clip=name, subset=subset))
    clips = read_clips(manifest.directory / "clips.csv")
    if any(finding["kind"] == "damaged" for finding in findings):
        return Dataset(clips, manifest.vocabulary, [Examination()] * len(clips), findings)
    examinations = examine_records(manifest, clips, num_workers=workers, label="doctor")
    return Dataset(clips, manifest.vocabulary, examinations, findings)


def _run(path, workers, records):
    """The `Dataset` of a run's records, with its folds and corrected labels."""
    run = with_records(open_run(path), records)
    manifest = find_records(run)
    dataset = _records(manifest, workers)
    trained = training_clips(run, dataset.clips)
    own = trained.set_index("name")
    names = dataset.clips["name"]
    clips = dataset.clips.assign(
        fold=names.map(own["fold"]).fillna(NO_FOLD).astype(int) + 1,
        labels=names.map(own["labels"]).fillna(dataset.clips["labels"]),
    )
    kept = names.isin(own.index) | (clips["subset"] == TEST)
    for fold in range(run.experiment.num_folds):
        for label in untrained_classes(run, trained, fold):
            found = f"the models of fold {fold} train on no clip of {label}"
            dataset.findings.append(_finding("error", "class without training clips", found, other=label))
    examinations = [each for each, keep in zip(dataset.examinations, kept) if keep]
    clips = clips[kept].reset_index(drop=True)
    return Dataset(clips, dataset.vocabulary, examinations, dataset.findings, f"the run {path.name}")


def findings_of(dataset: Dataset, *, num_workers: int = 0) -> pd.DataFrame:
    """The findings about a dataset, as `examine_dataset` returns them."""
    pairs = find_near_duplicates(
        [each.fingerprint for each in dataset.examinations],
        [each.sha256 for each in dataset.examinations],
        num_workers=num_workers,
    )
    rows = [
        *dataset.findings,
        *_sound_findings(dataset),
        *_copy_findings(dataset, pairs),
        *_class_findings(dataset),
        *_group_findings(dataset),
    ]
    table = pd.DataFrame(rows, columns=[*COLUMNS]).drop_duplicates(ignore_index=True)
    order = (
        {name: number for number, name in enumerate(SEVERITIES)},
        {name: number for number, name in enumerate(KINDS)},
    )
    table = table.assign(
        rank=table["severity"].map(order[0]),
        place=table["kind"].map(order[1]),
        why=[KINDS[kind][0] for kind in table["kind"]],
        remedy=[KINDS[kind][1] for kind in table["kind"]],
    )
    table = table.sort_values(["rank", "place", "clip", "other"], kind="stable", ignore_index=True)
    return table.drop(columns=["rank", "place"])


def _finding(severity, kind, found, *, clip="", subset="", other=""):
    return dict(zip(COLUMNS, (severity, kind, clip, subset, other, found)))


def _sound_findings(dataset):
    """Faults of single clips."""
    rates = Counter(each.sample_rate for each in dataset.examinations if each.sample_rate)
    usual = rates.most_common(1)[0][0] if rates else 0
    for clip, each in zip(dataset.clips.itertuples(), dataset.examinations):
        about = functools.partial(_finding, clip=clip.name, subset=clip.subset)
        if each.fault:
            kind = "truncated" if "cut short" in each.fault else "unreadable"
            yield about("error", kind, each.fault)
        if not each.sample_rate:
            continue
        level = 20 * np.log10(max(each.rms, 1e-9))
        if each.peak == 0:
            yield about("error", "silent", f"all {each.seconds:.2f} s are zero")
        elif level < SILENCE_DB:
            yield about("warning", "quiet", f"its level is {level:.0f} dBFS, below {SILENCE_DB:g}")
        if each.clipped >= LEAST_RUNS:
            yield about("warning", "clipped", f"{each.clipped} peaks are flat, at {20 * np.log10(each.peak):.1f} dBFS")
        if abs(each.mean) > MOST_OFFSET:
            yield about("note", "DC offset", f"the mean of its samples is {each.mean:.3f} of full scale")
        if each.sample_rate < min(LOWEST_USUAL_HZ, usual) or each.sample_rate <= usual / 2:
            yield about("note", "low rate", f"{each.sample_rate} Hz; most clips have {usual} Hz")
        if each.bandwidth_hz:
            found = f"nothing above {each.bandwidth_hz:.0f} Hz, at a rate of {each.sample_rate} Hz"
            yield about("note", "upsampled", found)


def _copy_findings(dataset: Dataset, pairs: Sequence[Pair]) -> Iterator[dict[str, Any]]:
    """Clips with the same sound: leaks, copies and contradicting labels."""
    clips = list(dataset.clips.itertuples())
    for pair in pairs:
        one, other = clips[pair.first], clips[pair.second]
        how = "the same samples as" if pair.similarity == 1.0 else f"the same sound ({pair.similarity:.2f}) as"
        where = f", which begins {abs(pair.offset_seconds):.2f} s {'later' if pair.offset_seconds > 0 else 'earlier'}"
        found = f"{how} {other.name} ({other.subset}){where if abs(pair.offset_seconds) >= 0.05 else ''}"
        severity, kind = _leak(one, other)
        yield _finding(severity, kind, found, clip=one.name, subset=one.subset, other=other.name)
        given = set(split_labels(one.labels)), set(split_labels(other.labels))
        if given[0] != given[1] and TEST not in {clip.subset for clip in (one, other) if not clip.labels}:
            found = f"{one.labels or 'no label'}; {other.labels or 'no label'} for the same sound in {other.name}"
            yield _finding("warning", "contradicting labels", found, clip=one.name, subset=one.subset, other=other.name)


def _leak(one, other):
    """(severity, kind) of two clips with the same sound."""
    if (one.subset == TEST) != (other.subset == TEST):
        return "error", "leak into test"
    if one.fold != other.fold and one.subset != TEST:
        return "error", "leak between folds"
    if one.subset != other.subset:
        return "warning", "copies in two subsets"
    return "note", "copies"


def _class_findings(dataset):
    """Classes without clips, with few, or with all of them in one fold."""
    clips = dataset.clips.assign(label=dataset.clips["labels"].map(split_labels)).explode("label")
    training, test = clips[clips["subset"] != TEST], clips[clips["subset"] == TEST]
    counts, tested = training["label"].value_counts(), set(test["label"].dropna())
    folded = training[training["fold"] > 0]
    for label in dataset.vocabulary:
        count = int(counts.get(label, 0))
        about = functools.partial(_finding, other=label)
        if not count:
            yield about("error", "class without training clips", f"{label} has no training clip")
        elif count < FEW_CLIPS:
            yield about("note", "class with few clips", f"{label} has {count} training clip{'s' * (count > 1)}")
        if tested and label not in tested:
            yield about("warning", "class without test clips", f"{label} has no test clip")
        own = folded[folded["label"] == label]["fold"]
        if folded["fold"].nunique() > 1 and len(own) == count and own.nunique() == 1:
            yield about(
                "warning", "class in one fold", f"all clips of {label} are in fold {own.iloc[0]} of {dataset.folds_are}"
            )


def _group_findings(dataset):
    """Groups with clips in several folds, or in training and test."""
    for group, clips in dataset.clips[dataset.clips["group"] != ""].groupby("group"):
        is_test = clips["subset"] == TEST
        first = clips.iloc[0]
        about = functools.partial(_finding, "error", clip=first["name"], subset=first["subset"], other=group)
        if is_test.any() and not is_test.all():
            found = f"{is_test.sum()} of {len(clips)} clips of the group {group} are test clips"
            yield about("group split by test", found)
        folds = sorted(set(clips["fold"][~is_test]))
        if len(folds) > 1:
            named = ", ".join(str(fold) if fold else "none" for fold in folds)
            yield about(
                "group split by folds", f"clips of the group {group} are in the folds {named} of {dataset.folds_are}"
            )


def summary(findings: pd.DataFrame, *, most: int = SHOWN) -> str:
    """The findings as text for a terminal: a part per kind, with its first rows."""
    parts = []
    for (severity, kind), rows in findings.groupby(["severity", "kind"], sort=False):
        why, remedy = KINDS[kind]
        lines = [f"{severity}: {kind} ({len(rows)}). {why} {remedy}"]
        lines += [
            f"  {clip}: {found}" if clip else f"  {found}" for clip, found in zip(rows["clip"][:most], rows["found"])
        ]
        if len(rows) > most:
            lines.append(f"  and {len(rows) - most} more")
        parts.append("\n".join(lines))
    return "\n".join([*parts, counts_text(findings)])


def counts_text(findings: pd.DataFrame) -> str:
    """How many findings there are of each severity, as a sentence."""
    counts = findings["severity"].value_counts()
    texts = [f"{counts.get(name, 0)} {name}{'' if counts.get(name, 0) == 1 else 's'}" for name in SEVERITIES]
    return f"{', '.join(texts)}."


def write_doctor_page(path: str | Path, source: str | Path, findings: pd.DataFrame) -> None:
    """Writes the page of findings."""
    sections = []
    for (severity, kind), rows in findings.groupby(["severity", "kind"], sort=False):
        why, remedy = KINDS[kind]
        shown = rows[["clip", "subset", "other", "found"]].head(SHOWN_ON_PAGE)
        shown = shown.loc[:, [column for column in shown if column == "found" or (shown[column] != "").any()]]
        sections.append(
            {"severity": severity, "kind": kind, "count": len(rows), "why": why, "remedy": remedy, "rows": cells(shown)}
            | {"id": f"{severity}-{kind}".replace(" ", "-")}
        )
    counts = findings["severity"].value_counts()
    write_page(
        path,
        "doctor.html",
        title=f"Findings about {Path(source).resolve().name}",
        source=str(source),
        version=__version__,
        cards=[{"name": f"{name}s", "value": f"{counts.get(name, 0):,}"} for name in SEVERITIES],
        sections=sections,
        shown=SHOWN_ON_PAGE,
    )
