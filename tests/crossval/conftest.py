"""A run that selects noisy clips in two rounds on two folds."""

import dataclasses
import shutil

import pytest
from selection_runs import ROUNDS, fit

from audiotag.crossval.fold_context import FoldContext
from audiotag.crossval.splits import training_clips
from audiotag.data.clips import read_clips
from audiotag.data.records import read_manifest


@pytest.fixture(scope="session")
def verified(tiny, tmp_path_factory):
    """A run of self-verification in two rounds on two folds. Tests read it and must not write into it."""
    return fit(tiny(*ROUNDS), tmp_path_factory.mktemp("runs") / "verified")


@pytest.fixture
def again(verified, tmp_path):
    """A copy of it, to write into."""
    return dataclasses.replace(verified, folder=shutil.copytree(verified.folder, tmp_path / "again"))


@pytest.fixture(scope="session")
def context_of():
    """A function: a run, a fold, the name of a stage, a table of clips or None → the `FoldContext`."""

    def context_of(run, fold, stage, clips=None):
        manifest = read_manifest(run.experiment.records)
        if clips is None:
            clips = training_clips(run, read_clips(manifest.directory / "clips.csv"))
        return FoldContext(run, manifest, clips, fold, run.experiment.stages[0]).at_stage(stage)

    return context_of
