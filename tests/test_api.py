"""The Python API, and the layers, losses, metrics and networks in Keras code of one's own."""

import inspect
import json
import os
import re
import shutil
import subprocess
import sys
import textwrap
import zipfile
from pathlib import Path

import keras
import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

import audiotag
from audiotag.cli import main
from audiotag.errors import ConfigError, DataError
from audiotag.inference.predictor import Predictor

ROOT = Path(__file__).parents[1]
TABLES = ["overall", "classes", "clips", "calibration", "scores"]


def python(code, *arguments, cwd=None, path=None):
    """The output of a new interpreter that runs this code."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    if path:
        environment["PYTHONPATH"] = str(path)
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(command, check=True, capture_output=True, text=True, cwd=cwd, env=environment).stdout


@pytest.fixture
def workplace(run, records, tiny_file, saved_model, wavs, tmp_path, monkeypatch):
    """A working directory with what the examples name."""
    shutil.copytree(run.folder, tmp_path / "runs" / "demo")
    shutil.copytree(saved_model, tmp_path / "runs" / "demo" / "saved_model")
    shutil.copytree(run.folder, tmp_path / "runs" / "other")
    shutil.copytree(run.folder, tmp_path / "runs" / "demo_sweep" / "as-it-is-2019")
    (tmp_path / "sweeps").mkdir()
    sweep = {"experiment": "experiments/demo.json", "seeds": [2019], "variations": {"as it is": {}}}
    (tmp_path / "sweeps" / "demo.json").write_text(json.dumps(sweep))
    (tmp_path / "experiments").mkdir()
    shutil.copy(tiny_file, tmp_path / "experiments" / "demo.json")
    (tmp_path / "tfrecords").mkdir()
    (tmp_path / "tfrecords" / "demo").symlink_to(records)
    for name, wav in zip(("bell.wav", "street.wav"), wavs):
        shutil.copy(wav, tmp_path / name)
    monkeypatch.chdir(tmp_path)


# Importing


def test_importing_costs_nothing_and_imports_no_heavy_package():
    code = "import time, sys, audiotag; dir(audiotag); print(time.process_time(), *sys.modules)"
    runs = [python(code, path=ROOT).split() for _ in range(3)]
    assert min(float(seconds) for seconds, *_ in runs) < 0.15
    assert not {"tensorflow", "keras", "pandas", "numpy", "pydantic"} & set(runs[0])


def test_naming_a_function_imports_no_heavy_package():
    code = "import sys, audiotag; [getattr(audiotag, name) for name in audiotag.__all__]; print(*sys.modules)"
    modules = python(code, path=ROOT).split()
    assert "audiotag.api" in modules
    assert not {"tensorflow", "keras", "pandas", "numpy"} & set(modules)


def test_help_costs_little():
    code = (
        "import sys, time\n"
        "from audiotag.cli import main\n"
        "try:\n"
        "    main(['--help'])\n"
        "finally:\n"
        "    print(time.process_time(), file=sys.stdout)\n"
    )
    assert min(float(python(code, path=ROOT).split()[-1]) for _ in range(3)) < 0.3


def test_every_name_can_be_listed_and_found():
    assert {*audiotag.__all__, "layers", "losses", "metrics", "models", "testing", "__version__"} <= set(dir(audiotag))
    for name in audiotag.__all__:
        assert getattr(audiotag, name).__module__ == "audiotag.api"
    for name in audiotag.SUBPACKAGES:
        assert getattr(audiotag, name).__name__ == f"audiotag.{name}"


def test_the_names_that_a_type_checker_sees_are_those_of_the_api():
    source = Path(audiotag.__file__).read_text()
    imported = re.search(r"from audiotag\.api import \(([^)]*)\)", source)[1]
    assert re.findall(r"\w+", imported) == audiotag.__all__
    assert re.findall(r"from audiotag import (\w+) as", source) == list(audiotag.SUBPACKAGES)


def test_a_name_that_does_not_exist_is_an_error_that_lists_those_that_do():
    with pytest.raises(AttributeError, match=r"'audiotag' has no attribute 'fti'\. Accepted: .*, testing\."):
        audiotag.fti
    with pytest.raises(ImportError, match="cannot import name 'fti' from 'audiotag'"):
        exec("from audiotag import fti")


@pytest.mark.parametrize("build", ["build_editable", "build_wheel"])
def test_in_the_parent_folder_of_a_clone_the_installed_package_is_imported(tmp_path, build):
    clone, site = tmp_path / "audiotag", tmp_path / "site-packages"
    clone.mkdir()
    for name in ("setup.cfg", "setup.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, clone)
    shutil.copytree(ROOT / "audiotag", clone / "audiotag", ignore=shutil.ignore_patterns("__pycache__"))
    code = "import sys; from setuptools import build_meta; getattr(build_meta, sys.argv[1])(sys.argv[2])"
    python(code, build, tmp_path, cwd=clone)
    (wheel,) = tmp_path.glob("*.whl")
    zipfile.ZipFile(wheel).extractall(site)
    code = (
        "import os, site, sys\n"
        "sys.path = [path for path in sys.path if not os.path.isfile(os.path.join(path, 'audiotag', '__init__.py'))]\n"
        "site.addsitedir(sys.argv[1])\n"
        "import audiotag\n"
        "print(audiotag.__version__, audiotag.fit.__name__, audiotag.__file__)\n"
    )
    installed = clone if build == "build_editable" else site
    expected = f"{audiotag.__version__} fit {installed / 'audiotag' / '__init__.py'}\n"
    assert python(code, site, cwd=tmp_path) == expected


def test_components_are_found_even_where_the_folder_of_a_clone_shadows_the_package():
    code = (
        "import importlib.machinery, sys, types\n"
        "package = sys.modules['audiotag'] = types.ModuleType('audiotag')\n"
        "package.__path__ = [sys.argv[1]]\n"
        "package.__spec__ = importlib.machinery.ModuleSpec('audiotag', None, is_package=True)  # a namespace package\n"
        "from audiotag.config.loading import load\n"
        "print(load(sys.argv[2]).model.name)\n"
    )
    assert python(code, ROOT / "audiotag", ROOT / "experiments" / "demo.json") == "conv_skip\n"


# Documentation


def example(name):
    """The code of the example in a docstring."""
    _, found, code = inspect.getdoc(getattr(audiotag, name)).partition("\nExample:\n")
    assert found, f"{name} has no example"
    return textwrap.dedent(code)


@pytest.mark.parametrize("name", audiotag.__all__)
def test_the_example_of_every_public_name_runs(name, workplace, monkeypatch):
    names = {"audiotag": audiotag, "np": np}
    if name == "advise":  # as if parts of the clips had been trained on, which are too few for a batch
        monkeypatch.setattr("audiotag.sweeps.learning_curve._too_few", lambda experiment, clips: "")
        run = audiotag.open_run("runs/demo")
        run.learning_curve_folder.mkdir()
        shutil.copy(run.folder / "experiment.json", run.learning_curve_folder)
        for part in ("2-0", "2-1", "4-0", "4-1", "8-0", "8-1"):
            scores = run.stage_files(0, "curated").oof_scores()
            shutil.copy(scores, run.learning_curve_folder / f"scores-fold-0-{part}.csv")
    exec(example(name), names)
    results = {key: value for key, value in names.items() if key not in ("audiotag", "np", "__builtins__")}
    assert results and all(value is not None for value in results.values())
    if name == "evaluate":
        assert 0 < results["lwlrap"] <= 1
    if name == "advise":
        assert (
            results["twice"]["low"] <= results["twice"]["value"]
            and Path("runs/demo/learning_curve/report.html").is_file()
        )
    if name == "predict":
        assert len(results["best"]) == 2
    if name == "load_model":
        assert results["logits"].shape == (1, 14)


# What the functions do


def test_an_experiment_is_read_with_changes(tiny_file):
    experiment = audiotag.load_experiment(str(tiny_file), ["stages.noisy.epochs=3", "seed=4"])
    assert (experiment.stages[0].epochs, experiment.seed) == (3, 4)
    assert audiotag.load_experiment(tiny_file, "seed=4").seed == 4  # one text
    assert audiotag.load_experiment(tiny_file) == audiotag.load_experiment(tiny_file, [])
    with pytest.raises(ConfigError, match="unknown key 'sed'"):
        audiotag.load_experiment(tiny_file, ["sed=4"])


def test_fit_prints_what_the_command_prints(tiny_file, run, tmp_path, capsys):
    own = shutil.copytree(run.folder, tmp_path / "own")
    result = CliRunner().invoke(main, ["fit", str(tiny_file), "--run", str(own)])
    assert result.exit_code == 0
    shutil.rmtree(own / "saved_model")
    fitted = audiotag.fit(str(tiny_file), str(own))
    assert fitted.folder == own and (fitted.saved_model / "saved_model.pb").is_file()
    printed = capsys.readouterr().out
    assert printed == result.stdout and printed.splitlines()[-1] == f"SavedModel: {own / 'saved_model'}"
    shutil.rmtree(own / "saved_model")
    audiotag.fit(audiotag.load_experiment(tiny_file), own, quiet=True)
    assert (own / "saved_model").is_dir() and not capsys.readouterr().out


def test_fit_refuses_what_is_not_an_experiment_and_a_fold_that_is_not_there(tiny_file, tmp_path):
    with pytest.raises(TypeError, match=r"found dict, expected an experiment\. Give what audiotag\.load_experiment"):
        audiotag.fit(json.loads(tiny_file.read_text()), tmp_path / "run")
    with pytest.raises(ConfigError, match=r"there is no fold 7\. Accepted: 0 to 4\."):
        audiotag.fit(tiny_file, tmp_path / "run", fold=7)
    assert not list(tmp_path.iterdir())


def test_a_model_is_loaded_from_a_run_its_folder_an_ensemble_and_a_saved_model(run, saved_model, wavs, tmp_path):
    member = {"run": str(run.folder)}
    content = {"about": "", "command": "", "expect": "", "members": [member], "combiner": {"name": "mean"}}
    (tmp_path / "one.json").write_text(json.dumps({"schema_version": run.experiment.schema_version} | content))
    waveform = np.random.default_rng(0).uniform(-0.1, 0.1, (2, 20_000)).astype("float32")
    expected = audiotag.load_model(run).logits(waveform)
    assert expected.shape == (2, 14)
    for model in (run.folder, str(run.folder), tmp_path / "one.json", saved_model):
        loaded = audiotag.load_model(model)
        assert isinstance(loaded, Predictor) and loaded.vocabulary == run.vocabulary
        np.testing.assert_allclose(loaded.logits(waveform), expected, atol=1e-4)


def test_a_stage_a_fold_and_other_settings_of_a_run_can_be_loaded(run):
    waveform = np.random.default_rng(0).uniform(-0.1, 0.1, (1, 40_000)).astype("float32")
    expected = audiotag.load_model(run).logits(waveform)
    np.testing.assert_array_equal(audiotag.load_model(run, stage="curated", fold=0).logits(waveform), expected)
    for changed in (
        audiotag.load_model(run, stage="noisy"),
        audiotag.load_model(run, overrides="predict.pool=max"),
        audiotag.load_model(run.folder, overrides=["predict.pool=max"]),
    ):
        assert np.abs(changed.logits(waveform) - expected).max() > 1e-3
    with pytest.raises(DataError, match=r"stage 'curated' of fold 3 is not trained\. Name another fold\."):
        audiotag.load_model(run, fold=3)
    with pytest.raises(DataError, match="has no stage 'nosy'. Did you mean 'noisy'?"):
        audiotag.load_model(run, stage="nosy")


@pytest.mark.parametrize("option", [{"stage": "noisy"}, {"fold": 0}, {"overrides": ["predict.pool=max"]}])
def test_a_saved_model_and_an_ensemble_have_no_stage_and_fold_of_their_own(option, run, saved_model, tmp_path):
    with pytest.raises(ConfigError, match=r"the settings of a SavedModel are fixed\. Give the directory of its run"):
        audiotag.load_model(saved_model, **option)
    member = {"run": str(run.folder)}
    content = {"about": "", "command": "", "expect": "", "members": [member], "combiner": {"name": "mean"}}
    (tmp_path / "one.json").write_text(json.dumps({"schema_version": run.experiment.schema_version} | content))
    message = "there is no 'predict'|each member has its own stage and fold. Leave stage and fold out."
    with pytest.raises(ConfigError, match=message):
        audiotag.load_model(tmp_path / "one.json", **option)


def test_predict_gives_the_table_of_the_command(run, wavs, tmp_path):
    table = audiotag.predict(audiotag.load_model(run), wavs[:3])
    arguments = ["predict", str(run.folder), *map(str, wavs[:3]), "--csv", str(tmp_path / "scores.csv")]
    assert CliRunner().invoke(main, arguments).exit_code == 0
    pd.testing.assert_frame_equal(table, pd.read_csv(tmp_path / "scores.csv"), atol=1e-9)
    assert list(table) == ["fname", *run.vocabulary, *(f"{label} logit" for label in run.vocabulary)]


def test_predict_takes_one_file_or_several_and_a_model_or_its_path(run, saved_model, wavs):
    expected = audiotag.predict(run, wavs[0])
    assert list(expected["fname"]) == [str(wavs[0])]
    for model, files in ((run.folder, str(wavs[0])), (run, iter(wavs[:1])), (saved_model, [wavs[0]])):
        pd.testing.assert_frame_equal(audiotag.predict(model, files), expected, atol=1e-4)
    with pytest.raises(DataError, match=r"there are no files to predict\. Expected one audio file or more\."):
        audiotag.predict(run, [])
    with pytest.raises(DataError, match=r"nowhere\.wav: cannot be read: No such file"):
        audiotag.predict(run, "nowhere.wav")
    with pytest.raises(TypeError, match=r"found list, expected a run\. Give what audiotag\.fit returns, or the path"):
        audiotag.predict([run], wavs[0])


def test_evaluate_gives_and_prints_the_tables_of_the_command(run, tmp_path):
    evaluation = audiotag.evaluate(run)
    result = CliRunner().invoke(main, ["evaluate", str(run.folder), "--out", str(tmp_path)])
    assert str(evaluation) in result.output and repr(evaluation) == str(evaluation)
    assert list(vars(evaluation)) == [*TABLES, "note", "robustness"]
    for name in TABLES:
        written = pd.read_csv(tmp_path / f"{name}.csv", keep_default_na=name != "clips")
        pd.testing.assert_frame_equal(getattr(evaluation, name), written, check_dtype=False, atol=1e-9)
    noisy = audiotag.evaluate(run.folder, stage="noisy")
    assert not noisy.scores.equals(evaluation.scores)
    changed = audiotag.evaluate(run, overrides="predict.pool=max")
    assert not changed.scores.equals(evaluation.scores)


def test_evaluate_uses_other_records_or_out_of_fold_predictions(run, records, tmp_path):
    copy = shutil.copytree(records, tmp_path / "records")
    assert audiotag.evaluate(run, records=str(copy)).scores.equals(audiotag.evaluate(run).scores)
    assert "fold 0" in set(audiotag.evaluate(run, out_of_fold=True).overall["split"])
    moved = audiotag.evaluate(run, records=copy, out_of_fold=True)
    assert moved.scores.equals(audiotag.evaluate(run, out_of_fold=True).scores)
    with pytest.raises(DataError, match="not the directory of a run: it has no data.json"):
        audiotag.evaluate(tmp_path)


def test_evaluate_refuses_a_loaded_model(saved_model):
    with pytest.raises(TypeError, match=r"found Predictor, expected a run\. Give what audiotag\.fit returns, or the"):
        audiotag.evaluate(audiotag.load_model(saved_model))


def test_explore_gives_the_tables_of_the_page(records, tmp_path):
    tables = audiotag.explore(str(records))
    assert list(tables)[:4] == ["subsets", "labels_per_clip", "classes", "pairs"]
    assert list(tables["subsets"]["clips"]) == [40, 40, 20]
    with pytest.raises(DataError, match="there is no such file or folder"):
        audiotag.explore(tmp_path / "nowhere")


def test_a_run_has_the_history_of_each_stage_and_fold(run, tmp_path):
    history = audiotag.open_run(str(run.folder)).history()
    assert list(history["epoch"]) == [0, 1] and {"loss", "val_loss", "val_lwlrap"} <= set(history)
    assert history["val_lwlrap"].max() == pytest.approx(run.result(0, "curated")["value"])
    assert not run.history(0, "noisy").equals(history)
    with pytest.raises(DataError, match=r"fold-3/curated/history\.csv: there is no history\. .* finished the stage: 0"):
        run.history(fold=3)
    with pytest.raises(DataError, match="has no stage 'nosy'"):
        run.history(stage="nosy")


# Keras code of one's own


def test_layers_losses_metrics_and_networks_work_in_a_keras_model(tmp_path):
    waveform = keras.Input((8_000,))
    mel = audiotag.layers.LogMel(sample_rate=8_000, num_bands=16, fft_length=256, frame_step=128)(waveform)
    image = audiotag.layers.TimeMask(max_width=4)(audiotag.layers.ToImage()(mel))
    network = audiotag.models.MODELS["conv_skip"](image.shape[1:], 3, filters=(4,))
    model = keras.Model(waveform, network(image))
    model.compile(optimizer="adam", loss=audiotag.losses.Focal(), metrics=[audiotag.metrics.Lwlrap(3)])
    rng = np.random.default_rng(0)
    sounds, truth = rng.uniform(-1, 1, (8, 8_000)).astype("float32"), np.eye(3, dtype="float32")[rng.integers(0, 3, 8)]
    before = [weight.numpy() for weight in model.trainable_variables]
    history = model.fit(sounds, truth, batch_size=4, epochs=1, verbose=0).history  # two steps
    assert model.optimizer.iterations == 2
    assert 0 < history["lwlrap"][0] <= 1 and np.isfinite(history["loss"][0])
    assert any(np.abs(weight.numpy() - old).max() > 0 for weight, old in zip(model.trainable_variables, before))
    model.save(tmp_path / "own.keras")
    loaded = keras.models.load_model(tmp_path / "own.keras")
    np.testing.assert_allclose(loaded.predict(sounds, verbose=0), model.predict(sounds, verbose=0), atol=1e-5)
