from pathlib import Path

import pytest
from experiment_files import FILE

from audiotag.config import shipped
from audiotag.config.loading import load
from audiotag.errors import ConfigError

EXPERIMENTS = Path(__file__).parents[2] / "experiments"


def test_the_shipped_experiments_are_the_files_of_the_clone():
    assert shipped.shipped_experiments() == {path.stem: path for path in sorted(EXPERIMENTS.glob("*.json"))}


def test_an_installation_uses_the_copies_inside_the_package(tmp_path, monkeypatch):
    (tmp_path / "audiotag" / "experiments").mkdir(parents=True)
    (tmp_path / "audiotag" / "experiments" / "bells.json").write_text("{}")
    monkeypatch.setattr(shipped.signatures, "PACKAGE", tmp_path / "audiotag")
    assert list(shipped.shipped_experiments.__wrapped__()) == ["bells"]


def test_a_name_alone_is_a_shipped_experiment(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "demo").mkdir()  # as after make-demo
    assert load("demo") == load(EXPERIMENTS / "demo.json")
    assert load("demo", ["seed=7"]).seed == 7


def test_a_file_precedes_a_shipped_experiment(write, tmp_path, monkeypatch):
    write(FILE).rename(tmp_path / "demo")
    monkeypatch.chdir(tmp_path)
    assert load("demo").about == FILE["about"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("dmo", "dmo: neither a file nor a shipped experiment. Did you mean 'demo'? Accepted: conv1d, "),
        ("experiments/demo.json", "experiments/demo.json: does not exist. To use the experiment that comes with "),
        ("bells.json", "bells.json: cannot be read: No such file or directory."),
    ],
)
def test_what_is_neither_is_refused(tmp_path, monkeypatch, name, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError) as error:
        load(name)
    assert str(error.value).startswith(message)
