import shutil

import pytest

from audiotag import files
from audiotag.config.loading import load
from audiotag.errors import ConfigError, DataError
from audiotag.runs.directory import open_run
from audiotag.sweeps import training
from audiotag.sweeps.schema import SweepConfig, list_trials
from audiotag.sweeps.training import run_sweep

UNEQUAL = ["minutes", "folder", "command"]  # of two trainings


@pytest.fixture
def own(swept, tmp_path):
    """A copy of the folder of the trained runs, to write into."""
    return shutil.copytree(swept[0], tmp_path / "tiny_sweep")


def silent(sentence):
    pass


def test_each_run_is_an_ordinary_one(swept, sweep, sweep_file):
    folder, _ = swept
    for trial in list_trials(sweep, folder, sweep_file):
        assert open_run(trial.folder).experiment == trial.experiment
    assert {path.name for path in folder.iterdir() if path.is_dir()} == {
        "as-it-is-1", "as-it-is-2", "no-masks-1", "no-masks-2"
    }  # fmt: skip


def test_a_sweep_that_was_killed_gives_the_same_table(swept, sweep, sweep_file, own):
    _, before = swept
    shutil.rmtree(own / "no-masks-1")  # killed before this run
    (own / "as-it-is-2" / "fold-0" / "curated" / "oof.csv").unlink()  # and at the end of this one
    again = run_sweep(sweep, own, sweep_file, say=silent)
    for name in ("table", "runs"):
        one, other = (getattr(each, name).drop(columns=UNEQUAL, errors="ignore") for each in (before, again))
        assert one.equals(other)
    assert (again.best, again.notes) == (before.best, before.notes)


def test_the_directory_of_a_run_is_refused(sweep, sweep_file, run):
    with pytest.raises(ConfigError, match="is the directory of a run, and a sweep needs its own"):
        run_sweep(sweep, run.folder, sweep_file, say=silent)


def test_a_run_that_another_process_trains_is_left_to_it(sweep, sweep_file, own, monkeypatch):
    waits, said = [], []
    lock = files.locked(own / "as-it-is-1" / "fold-0" / ".lock", "")
    monkeypatch.setattr(
        training.time, "sleep", lambda seconds: (waits.append(seconds), lock.__exit__(None, None, None))
    )
    trials = list_trials(sweep, own, sweep_file)
    lock.__enter__()
    assert not training.train(trials, said.append)
    places = [
        next(i for i, s in enumerate(said) if s.startswith(f"{own / name}: run "))
        for name in ("as-it-is-1", "no-masks-2")
    ]
    busy = said.index(f"{own / 'as-it-is-1'}: another process trains it.")
    assert places[0] < busy < places[1]  # it went on
    assert waits == [training.SECONDS_TO_WAIT]  # and waited when nothing else was left


def test_a_run_that_fails_is_named_after_the_table_of_the_others(sweep_file, tiny_file, own):
    config = load(sweep_file, kind=SweepConfig)
    too_large = config.variations["as it is"] | {"stages.curated.batch_size": 1000}
    config = config.model_copy(update={"variations": config.variations | {"too large": too_large}, "seeds": (1,)})
    said = []
    with pytest.raises(
        DataError, match="1 of 3 runs failed:\n.*too-large-1: stages.curated.batch_size: 32 clips do not"
    ):
        run_sweep(config, own, sweep_file, say=said.append)
    assert "no masks" in said[-1] and "too large" not in said[-1]
    assert (own / "table.txt").read_text() == said[-1] + "\n"
    assert "Best of 3 by" in said[-1]  # all trials count


def test_a_wrong_variation_fails_before_any_training(sweep, sweep_file, tmp_path):
    config = sweep.model_copy(update={"variations": sweep.variations | {"wrong": {"stages.curated.epochs": 0}}})
    with pytest.raises(ConfigError, match="variations.wrong: "):
        run_sweep(config, tmp_path / "runs", sweep_file, say=silent)
    assert not (tmp_path / "runs").exists()
