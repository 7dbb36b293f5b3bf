"""Recordings without labels for `audiotag review`, and their table of labels."""

import os
import shlex
import sys
import unicodedata
from collections.abc import Sequence
from pathlib import Path, PurePath

import numpy as np
import pandas as pd
from scipy.special import expit
from tqdm import tqdm

from audiotag import files, progress
from audiotag.data.audio.decoding import first_samples, open_recording, resampled_blocks
from audiotag.data.clips import TEST, is_plain_path, read_clips, read_table
from audiotag.data.corrections import corrected, read_corrections
from audiotag.data.corrections_file import REVIEW_COLUMNS, Row
from audiotag.data.labels_file import LabelsFile
from audiotag.data.sources.files import find_audio
from audiotag.errors import DataError
from audiotag.inference.audio_files import score_each
from audiotag.inference.inputs import find_files
from audiotag.inference.label_next import margins
from audiotag.inference.long_recordings import seconds_of
from audiotag.reporting.review_clips import SOUND_SECONDS, ReviewClips, ReviewQueue, clips_of_records, training_queue
from audiotag.reporting.review_server import Review
from audiotag.runs.directory import RECORDS_FOLDER, Run, find_records
from audiotag.serving.saved_model import load_predictor

TABLE = "labels.csv"
USUAL = {"subset": "curated"}  # what a clip has without such a column
UNLABELED = ("unsure",)  # decisions after which a recording is predicted again


def open_file_review(
    run: Run, paths: Sequence[str], labels: str | Path | None = None, *, stage: str | None = None, who: str = ""
) -> Review:
    """The review of recordings without labels.

    Recordings that the table of labels has with labels of its own are left out, and so are files that cannot be read.
    A new table begins with the clips of the run if its folder holds their recordings, so that make-records reads these,
    too.

    Args:
        run: A `Run` with trained folds.
        paths: Recordings, folders and patterns, as for `find_files`; or CSV files with the column fname, such as those
            of `label-next`, whose order is kept. Others come in the order of `margins`.
        labels: The table; None is labels.csv in the first folder of `paths`, or beside the first file.
        stage: The stage whose models predict; None is the last.
        who: The name of the reviewer.

    Raises:
        DataError: There is no recording to label, the run is not trained, a recording is not in the folder of the
            table, or the table is not valid.
    """
    path = Path(labels if labels is not None else default_table(paths[0]))
    places = {_name(place, path): place for place in _listed(paths)}
    exists = path.is_file()
    table = LabelsFile(path, run.vocabulary, rows={} if exists else rows_of_run(run, path.parent))
    rows = table.rows()
    places = {name: place for name, place in places.items() if name not in rows or rows[name].get("why")}
    if not places:
        raise DataError(f"{path}: has labels of all these recordings. Give --files with others.")
    is_ordered = all(_is_table(given) for given in paths)
    queue = _scored(run, places, rows, stage=stage, is_ordered=is_ordered)
    note = f"It begins with the {len(rows)} clips of the run." if rows and not exists else ""
    return Review(
        ReviewClips(queue, run.vocabulary, run.sample_rate, lambda name: _beginning(places[name], run.sample_rate)),
        table,
        examples=_examples(run, stage),
        who=who,
        title=f"{run.folder.resolve().name}, unlabeled",
        single_label=run.experiment.task == "single_label",
        unlabeled=True,
        next_command=_next_command(run, path),
        note=note,
    )


def default_table(path: str) -> Path:
    """The table of labels for recordings at a path.

    Example:
        >>> default_table("next.csv").name, default_table("calls/1.wav").parent.name
        ('labels.csv', 'calls')
    """
    return (Path(path) if os.path.isdir(path) else Path(path).parent) / TABLE


def rows_of_run(run: Run, folder: Path) -> dict[str, Row]:
    """Rows of a table of labels with the clips of a run, as corrected.

    Args:
        run: A `Run`.
        folder: That of the table.

    Returns:
        {file relative to the folder: its row}; {} if the records are not there, or not all recordings are in the
        folder.
    """
    try:
        clips = read_clips(find_records(run).directory / "clips.csv").assign(weight=1.0)
        if run.corrections_file.is_file():
            is_test = clips["subset"] == TEST
            training = corrected(clips[~is_test], read_corrections(run.corrections_file, run.vocabulary))
            clips = pd.concat([training, clips[is_test]])
        rows: dict[str, Row] = {}
        for _, group in clips.groupby("subset"):
            place, names = find_audio(folder, group["name"])
            for clip in group.itertuples():
                rows[(place / names[clip.name]).relative_to(folder).as_posix()] = _row_of_clip(clip)
    except (DataError, KeyError):
        return {}
    used = {column for row in rows.values() for column, cell in row.items() if cell not in ("", USUAL.get(column))}
    used |= {"labels", *REVIEW_COLUMNS}
    return {name: {column: row[column] for column in row if column in used} for name, row in sorted(rows.items())}


def _row_of_clip(clip):
    """The row of a clip of records; the column `why` says that corrections leave it out."""
    row = {"labels": clip.labels, "subset": clip.subset, "usage": clip.usage}
    row |= {"fold": str(clip.fold) if clip.fold else "", "group": clip.group}
    return row | dict.fromkeys(REVIEW_COLUMNS, "") | ({} if clip.weight else {"why": "removed"})


def _listed(paths):
    """The recordings that the paths mean, each once."""
    listed: dict[str, None] = {}
    for path in paths:
        if not _is_table(path):
            listed.update(dict.fromkeys(find_files([path])))
            continue
        folder = Path(path).parent
        for name in read_table(path, ["fname"])["fname"].map(files.from_cell):
            listed[name if os.path.exists(name) else str(folder / name)] = None
    return list(listed)


def _is_table(path):
    return path.lower().endswith(".csv")


def _name(place, table):
    """The name of a recording in a table: its path from the table's folder."""
    try:
        name = PurePath(os.path.relpath(os.path.abspath(place), os.path.abspath(table.parent))).as_posix()
    except ValueError:  # another drive of Windows
        name = ""
    name = unicodedata.normalize("NFC", name)
    if not is_plain_path(name):
        raise DataError(
            f"{place}: is not in the folder of {table}, or has a backslash or a control character in its name. Give "
            "--labels a table in a folder that holds all recordings, or rename the file."
        )
    return name


def _scored(run, places, rows, *, stage, is_ordered):
    """The `ReviewQueue` of recordings; those that are decided are not predicted again."""
    why = {name: rows.get(name, {}).get("why", "") for name in places}
    open_ = [name for name in places if not why[name] or why[name] in UNLABELED]
    predictor = load_predictor(run, stage=stage)
    logits, bad = {}, set()
    scores = score_each(predictor, [places[name] for name in open_])
    for name, each in zip(open_, progress.bar(scores, total=len(open_), unit="file", label="review")):
        if each.rejected is None:
            logits[name] = each.logits
        else:
            tqdm.write(f"Left out: {each.rejected}", file=sys.stderr)
            bad.add(name)
    names = [name for name in places if name not in bad]
    if not names:
        raise DataError(f"none of {len(places)} files can be read, so there is nothing to label.")
    unknown = np.full(len(run.vocabulary), np.nan)
    table = np.stack([logits.get(name, unknown) for name in names])  # [files, K]
    if not is_ordered:
        order = np.argsort(margins(table) if table.shape[1] > 1 else np.abs(table[:, 0]), kind="stable")  # NaN last
        names, table = [names[row] for row in order], table[order]
    clips = pd.DataFrame({"clip": names, "labels": "", "subset": "", "fold": -1, "margin": np.nan})
    return ReviewQueue(clips, expit(table), f"review of recordings with {run.folder.resolve().name}")


def _examples(run, stage):
    """The training clips of a run, to compare with; None without out-of-fold predictions or records."""
    try:
        return clips_of_records(run, training_queue(run, stage=stage))
    except DataError:
        return None


def _beginning(path, sample_rate):
    """What a `Reader` returns for a recording, which is neither trimmed nor scaled."""
    try:
        with open_recording(path) as (header, blocks):
            if header.sample_rate != sample_rate:
                blocks = resampled_blocks(blocks, rate=header.sample_rate, sample_rate=sample_rate, path=path)
            waveform = first_samples(blocks, round(SOUND_SECONDS * sample_rate))
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}.") from error
    return waveform, max(seconds_of(path), len(waveform) / sample_rate)


def _next_command(run, table):
    """The commands that train with a table of labels, one per line."""
    name, audio = f"{run.folder.resolve().name}-labeled", run.audio_config
    records = Path(RECORDS_FOLDER) / name
    make = ["audiotag", "make-records", table, "--out", records, "--sample-rate", audio["sample_rate"]]
    if audio["trim"] is not None:
        make += ["--trim", audio["trim"], *(["--trim-db", audio["trim_db"]] if audio["trim_db"] is not None else [])]
    if audio["peak_db"] is not None:
        make += ["--peak-db", audio["peak_db"]]
    fit = ["audiotag", "fit", run.folder / "experiment.json", "--run", run.folder.with_name(name)]
    fit += ["--set", f"records={records}"]
    fit += ["--set", "corrections=null"] if run.experiment.corrections else []  # the table has them
    return "\n".join(shlex.join(map(str, words)) for words in (make, fit))
