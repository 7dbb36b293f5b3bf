"""What a model of another run trained on, if a stage starts with its weights.

No fold may hold out a clip that its model knows from another run: its scores would not be out-of-fold.
"""

import json
from collections.abc import Callable
from typing import Any

import pandas as pd

from audiotag import files
from audiotag.crossval.fold_context import FoldContext
from audiotag.crossval.out_of_fold import trained_clips
from audiotag.errors import ConfigError, shortened
from audiotag.runs.directory import read_section
from audiotag.runs.warm_start import Source, WarmStart, find_source


def check_source(context: FoldContext) -> tuple[Source, pd.DataFrame | None]:
    """Finds the weights from outside with which a stage of a fold starts.

    Args:
        context: The fold, and a stage that starts from such weights.

    Returns:
        (the `Source`, the clips that its model trained on as `out_of_fold.trained_clips` returns them, with the names
        that they have in the records of this run; None for a file of weights, which does not say).

    Raises:
        ConfigError: The weights are not there, or their model trained on a clip that the fold holds out.
        DataError: The other run is not trained, or is damaged.
    """
    source = find_source(context.stage, context.fold, folder=context.run.folder)
    if source.run is None or source.record.fold is None:
        return source, None
    table = _with_own_names(trained_clips(source.run, source.record.fold, source.record.stage), context.clips)
    names = set(table["name"]) - {""}
    recordings = set(table["group"]) - {""} if names else set()
    held_out = context.clips[context.clips["fold"] == context.fold]
    leaked = held_out["name"][held_out["name"].isin(names) | held_out["group"].isin(recordings)]
    if len(leaked):
        other = source.run.experiment
        settings = f'"seed": {other.seed}, "validation": {json.dumps(other.model_dump(mode="json")["validation"])}'
        raise ConfigError(
            f"{source.where}: fold {source.record.fold} of {source.name} trained on clip {leaked.iloc[0]!r} and "
            f"{len(leaked) - 1} others that fold {context.fold} of this run holds out, or on clips of their "
            f"recordings. Use the records, seed and validation of {source.name}: {shortened(settings)}. Train only "
            "folds that it has trained."
        )
    return source, table


def _with_own_names(trained, clips):
    """A table of clips of another run with their names in a table of this run, "" if it has no such clip.

    A clip is the same if its recording is, and where several clips have this recording, its name too.
    """
    own = set(zip(clips["name"], clips["sha256"]))
    same = trained[[clip in own for clip in zip(trained["name"], trained["sha256"])]]
    others = trained.drop(same.index)
    renamed = others.drop(columns="name").merge(clips[["name", "sha256"]], on="sha256", how="left")
    return pd.concat([same, renamed[trained.columns].fillna("")], ignore_index=True)


def keep_source(context: FoldContext, say: Callable[[str], Any]) -> Source:
    """Checks the source of a stage that begins, and stores it with the stage.

    Stored are which weights these are, and the clips that their model trained on.

    Args:
        context: The fold, and a stage that starts from such weights.
        say: Called with a sentence if the source has changed since this stage or another fold began.
    """
    run, stage, stage_files = context.run, context.stage, context.files
    source, table = check_source(context)
    record = source.record
    for fold in range(run.experiment.num_folds):
        path = run.stage_files(fold, stage.name).start_from
        before = WarmStart(**read_section(path, WarmStart)) if path.is_file() else record
        same_file = (before.weights, before.run) == (record.weights, record.run)
        if before.run_sha256 != record.run_sha256 or same_file and before.sha256 != record.sha256:
            say(
                f"{source.where}: {source.name} has changed since stage {stage.name!r} of fold {fold} started from it. "
                f"Fold {context.fold} starts from the weights that are there now."
            )
    if table is not None:
        files.write_text(stage_files.source_clips, files.csv_text(table))
    files.write_text(stage_files.start_from, record.model_dump_json(indent=2) + "\n")
    return source
