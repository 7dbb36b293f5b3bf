"""One stage in one fold of a run, as one object.

Training, label selection and out-of-fold prediction use it.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import pandas as pd

from audiotag.config.schema import Stage, expand_rounds
from audiotag.data.records.manifest import Manifest
from audiotag.data.records.offsets import Shards
from audiotag.runs.directory import Run, StageFiles


@dataclass(frozen=True, eq=False)
class FoldContext:
    """One stage in one fold of a run.

    Args:
        run: The `Run`.
        manifest: The `Manifest` of its records.
        clips: What `splits.training_clips` returns: every clip that may be trained on.
        fold: The fold that is held out.
        stage: A stage, or one of its rounds.
        offsets: What `find_offsets` returns for the records; None reads whole shards.
    """

    run: Run
    manifest: Manifest
    clips: pd.DataFrame
    fold: int
    stage: Stage
    offsets: Shards | None = None

    def at_stage(self, name: str) -> FoldContext:
        """The same fold at another stage, or at one of its rounds."""
        known = {stage.name: stage for stage in (*self.run.experiment.stages, *expand_rounds(self.run.experiment))}
        return dataclasses.replace(self, stage=known[name])

    def in_fold(self, fold: int) -> FoldContext:
        """The same stage with another fold held out."""
        return dataclasses.replace(self, fold=fold)

    @property
    def files(self) -> StageFiles:
        """The files of this stage in this fold."""
        return self.run.stage_files(self.fold, self.stage.name)
