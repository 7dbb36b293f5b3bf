"""The package of examples/custom_components, installed with pip."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from kills import arrays_in

EXAMPLE = Path(__file__).parents[1] / "examples/custom_components"
# Runs a command of audiotag and prints which modules or files of the package were imported or opened.
AUDITED = """
import sys
seen = set()
sys.addaudithook(lambda event, args: seen.add((event, str(args[0]))) if event in ("import", "open") else None)
from audiotag.cli import main
try:
    main(sys.argv[1:])
finally:
    print("imported:", sorted(name for _, name in seen if "sound_parts/" in name or "sound_parts." in name))
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """A folder into which pip installed the package."""
    place = tmp_path_factory.mktemp("installed")
    source = shutil.copytree(EXAMPLE, place / "source", ignore=shutil.ignore_patterns("build", "*.egg-info"))
    options = ["--quiet", "--no-index", "--no-deps", "--no-build-isolation", "--target", str(place / "site")]
    subprocess.run([sys.executable, "-m", "pip", "install", *options, str(source)], check=True)
    shutil.rmtree(source)
    return place / "site"


@pytest.fixture(scope="module")
def experiment(records, tmp_path_factory):
    """The experiment of the package, on small records."""
    content = json.loads((EXAMPLE / "experiment.json").read_text()) | {"records": str(records)}
    path = tmp_path_factory.mktemp("experiment") / "own.json"
    path.write_text(json.dumps(content))
    return path


@pytest.fixture(scope="module")
def begin(start, installed):
    """A function that starts a command where the package is installed: a `Job`."""
    return lambda *command, **options: start(*command, path=[installed], **options)


@pytest.fixture(scope="module")
def call(begin):
    """A function that runs a command where the package is installed: its output and error lines."""

    def call(*command, code=0, **options):
        job = begin(*command, **options)
        assert job.wait() == code, job.output()
        return job.output()

    return call


@pytest.fixture(scope="module")
def trained(experiment, begin, call, tmp_path_factory):
    """Two runs of the experiment: one without interruption, and one that was killed after an epoch and resumed."""
    folder = tmp_path_factory.mktemp("runs")
    call("fit", experiment, "--run", folder / "whole")
    assert begin("fit", experiment, "--run", folder / "killed").kill_at(r"curated, fold 0 1/3") == -9
    assert not (folder / "killed/fold-0/curated/result.json").exists()
    call("fit", experiment, "--run", folder / "killed")
    return folder


def test_a_killed_run_with_components_of_every_kind_resumes_exactly(trained):
    for stage in ("curated", "selected"):
        whole, killed = (trained / run / "fold-0" / stage for run in ("whole", "killed"))
        expected, found = arrays_in(whole / "best.weights.h5"), arrays_in(killed / "best.weights.h5")
        assert found.keys() == expected.keys()
        assert all(np.array_equal(found[name], expected[name]) for name in expected)
        assert (whole / "history.csv").read_text() == (killed / "history.csv").read_text()
    logged = set(pd.read_csv(trained / "whole/fold-0/curated/history.csv").columns)
    assert logged >= {"smoothed_loss", "TopProbability", "val_TopProbability", "val_F1Score", "val_lwlrap"}


def test_the_run_stores_every_option_and_the_hash_of_every_source_file(trained):
    stored = json.loads((trained / "whole/experiment.json").read_text())
    assert stored["frontend"] == {"name": "sound_parts.layers:LogPower", "frame_seconds": 0.02, "floor": 1e-6}
    assert stored["stages"][1]["select"]["rule"] == {"name": "sound_parts.training:likely_enough", "quantile": 0.5}
    hashes = json.loads((trained / "whole/environment.json").read_text())["components"]
    assert set(hashes) == {
        "sound_parts.layers:AddNeighbor",
        "sound_parts.layers:LogPower",
        "sound_parts.layers:Scale",
        "sound_parts.models:small_cnn",
        *(
            f"sound_parts.training:{name}"
            for name in ("Brier", "Halving", "Signs", "SmoothedLoss", "TopProbability", "likely_enough")
        ),
    }


def test_only_fit_imports_foreign_code_without_allow_unsafe(trained, call, wavs, tmp_path):
    run, exported = trained / "whole", tmp_path / "exported"
    audited = tmp_path / "audited.py"
    audited.write_text(AUDITED)
    said = call("predict", run, wavs[0], code=1, script=audited)
    assert "is code from outside audiotag" in said and "--allow-unsafe" in said and "imported: []" in said
    predicted = call("predict", run, wavs[0], "--allow-unsafe", script=audited)
    assert "sound_parts/layers" in predicted.split("imported:")[1] and wavs[0].name in predicted
    call("export", run, exported, "--allow-unsafe")
    again = call("predict", exported, wavs[0], "--allow-unsafe")
    scores = [said[said.index(str(wavs[0])) :].splitlines()[:4] for said in (predicted, again)]
    assert scores[0] == scores[1]


def test_a_component_that_changed_is_refused_before_training_continues(trained, experiment, call, installed):
    module = installed / "sound_parts/layers.py"
    before = module.read_text()
    try:
        module.write_text(before + "\n# changed\n")
        said = call("fit", experiment, "--run", trained / "whole", code=1)
        assert "was trained with another version of sound_parts.layers:AddNeighbor: its source file has changed" in said
    finally:
        module.write_text(before)


def test_a_source_of_ones_own_is_read(recordings, call, tmp_path):
    recordings(tmp_path / "clips", [16_000] * 6)
    folder = tmp_path / "clips/audio"
    rows = [f"{path.name}\t{'ab'[index % 2]}" for index, path in enumerate(sorted(folder.glob("*.wav")))]
    (folder / "clips.tsv").write_text("\n".join(["file\tsound", *rows]) + "\n")
    layout = ["--layout", "sound_parts.sources:TSV", "--out", tmp_path / "records"]
    assert "6 clips" in call("make-records", folder, *layout, "--sample-rate", 16_000)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ('frontend={"name": "sound_part:A"}', "frontend: sound_part:A: there is no module 'sound_part'. Install"),
        ('frontend={"name": "sound_parts.layers:LogPowe"}', "has no 'LogPowe'. Did you mean 'LogPower'?"),
        (
            'frontend={"name": "sound_parts.models:small_cnn"}',
            "is the function small_cnn. Expected a class that derives",
        ),
        ('frontend={"name": "sound_parts.layers:LogPower", "flor": 1}', "unknown key 'flor'. Did you mean 'floor'?"),
        ('frontend={"name": "sound_parts.layers:LogPower", "floor": "a"}', "floor: Input should be a valid number"),
        ('model={"name": "sound_parts.layers:Scale"}', "is the class Scale. Expected a function with the arguments"),
        (
            'frontend={"name": "sound_parts.layers:Scale"}',
            "returns float32 [None, 16000]. Expected a float tensor [B, T",
        ),
        ('frontend={"name": "sound_parts.layers:LogPower", "frame_seconds": 0.0}', "sound_parts.layers:LogPower: "),
        ('stages.curated.loss={"name": "keras.losses:BinaryCrossentropy"}', 'return logits. Add "from_logits": true.'),
        (
            'model={"name": "builtins:max"}',
            "builtins:max: is a builtin_function_or_method. Expected a function with the",
        ),
        ('stages.curated.loss={"name": "keras.losses:binary_crossentropy"}', "is the function binary_crossentropy."),
        ('metrics=[{"name": "keras.metrics:F1Score"}]', "keras.metrics:F1Score: ValueError: its result has the shape"),
        ('stages.curated.optimizer={"name": "keras.optimizers:Lio"}', "has no 'Lio'. Did you mean 'Lion'?"),
    ],
)
def test_each_mistake_is_one_sentence_before_the_first_epoch(
    experiment, installed, monkeypatch, tmp_path, override, message
):
    from audiotag.config.loading import load
    from audiotag.errors import ConfigError
    from audiotag.training.loop import fit

    monkeypatch.syspath_prepend(installed)
    with pytest.raises(ConfigError) as error:
        fit(load(experiment, [override]), tmp_path / "run", say=print)
    assert message in str(error.value)
    assert not (tmp_path / "run").exists()
