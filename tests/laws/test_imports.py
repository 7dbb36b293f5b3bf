"""The laws of imports: the package reads downward, and its middle knows only Keras."""

import ast
import subprocess
import sys
import time
from pathlib import Path

import click
import pytest

from audiotag.cli import main

ROOT = Path(__file__).parents[2] / "audiotag"

# The reading order: a module imports only from those above it here.
ORDER = [
    "audiotag",
    "audiotag.errors",
    "audiotag.files",
    "audiotag.lookup",
    "audiotag.progress",
    "audiotag.experiment",
    "audiotag.run",
    "audiotag.data",
    "audiotag.data.labels",
    "audiotag.data.clips",
    "audiotag.data.headers",
    "audiotag.data.layouts",
    "audiotag.data.corrections",
    "audiotag.data.folds",
    "audiotag.data.sampling",
    "audiotag.data.silence",
    "audiotag.data.audio",
    "audiotag.data.workers",
    "audiotag.data.manifest",
    "audiotag.data.sources",
    "audiotag.data.records",
    "audiotag.data.demo",
    "audiotag.data.pipeline",
    "audiotag.layers.checks",
    "audiotag.layers.frames",
    "audiotag.layers.filters",
    "audiotag.layers.spectrograms",
    "audiotag.layers.cepstrum",
    "audiotag.layers.pcen",
    "audiotag.layers.perceptual",
    "audiotag.layers.filterbank",
    "audiotag.layers.waves",
    "audiotag.layers.picture",
    "audiotag.layers.resizing",
    "audiotag.layers.channels",
    "audiotag.layers.dice",
    "audiotag.layers.masking",
    "audiotag.layers.zoom",
    "audiotag.layers.lighting",
    "audiotag.layers.crops",
    "audiotag.layers.loudness",
    "audiotag.layers.shifts",
    "audiotag.layers.mixing",
    "audiotag.layers.flips",
    "audiotag.layers.attention",
    "audiotag.layers",
    "audiotag.losses",
    "audiotag.metrics",
    "audiotag.schedules",
    "audiotag.models.conv_skip",
    "audiotag.models.xresnet",
    "audiotag.models.vgg_gap",
    "audiotag.models.conv1d",
    "audiotag.models.conv2d",
    "audiotag.models.pretrained",
    "audiotag.models.densenet",
    "audiotag.models.resnet",
    "audiotag.models.mobilenet",
    "audiotag.models.convnext",
    "audiotag.models",
    "audiotag.models.windows",
    "audiotag.models.subsets",
    "audiotag.models.tagger",
    "audiotag.building",
    "audiotag.training",
    "audiotag.training.optimizers",
    "audiotag.training.checkpoint",
    "audiotag.training.callbacks",
    "audiotag.inference",
    "audiotag.inference.timeline",
    "audiotag.inference.predict",
    "audiotag.training.selection",
    "audiotag.training.crossval",
    "audiotag.training.assembly",
    "audiotag.training.fit",
    "audiotag.inference.scores",
    "audiotag.inference.suspects",
    "audiotag.inference.decisions",
    "audiotag.inference.evaluate",
    "audiotag.inference.combining",
    "audiotag.inference.ensemble",
    "audiotag.inference.submission",
    "audiotag.inference.screening",
    "audiotag.inference.export",
    "audiotag.reporting",
    "audiotag.reporting.page",
    "audiotag.reporting.explore",
    "audiotag.reporting.report",
    "audiotag.reporting.pictures",
    "audiotag.cli",
    "audiotag.__main__",
]
LIGHT = ORDER[: ORDER.index("audiotag.data.pipeline")]  # what make-records and a wrong experiment need
# On every backend of Keras'.
PURE = ("audiotag.layers", "audiotag.models", "audiotag.losses", "audiotag.metrics", "audiotag.schedules")

COMMANDS = [[], *([name] for name in main.commands)]
every_command = pytest.mark.parametrize("command", COMMANDS, ids=["audiotag", *main.commands])


def path_of(module):
    """The source file of a module."""
    path = ROOT.parent.joinpath(*module.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def imported(module):
    """The modules that a module imports, anywhere in its text; of other packages the first name."""
    for node in ast.walk(ast.parse(path_of(module).read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module} line {node.lineno}: a relative import"
            if not node.module.startswith("audiotag"):
                yield node.module.split(".")[0]
            else:
                names = [f"{node.module}.{alias.name}" for alias in node.names]
                yield from (name if name in ORDER else node.module for name in names)


def test_every_module_has_its_place_in_the_reading_order():
    modules = [".".join(path.relative_to(ROOT.parent).with_suffix("").parts) for path in ROOT.rglob("*.py")]
    assert sorted(name.removesuffix(".__init__") for name in modules) == sorted(ORDER)


@pytest.mark.parametrize("module", ORDER)
def test_a_module_imports_only_what_stands_above_it(module):
    own = {name for name in imported(module) if name.startswith("audiotag")}
    assert own <= set(ORDER[: ORDER.index(module)])


@pytest.mark.parametrize("module", [name for name in ORDER if name.startswith(PURE)])
def test_layers_models_losses_and_metrics_know_only_keras(module):
    allowed = {"keras", "numpy"} | sys.stdlib_module_names | {name for name in ORDER if name.startswith(PURE)}
    assert set(imported(module)) <= allowed


def test_tables_and_experiments_need_no_tensorflow():
    code = "import sys, importlib; [importlib.import_module(name) for name in sys.argv[1:]]; print(*sys.modules)"
    command = [sys.executable, "-c", code, *LIGHT]
    modules = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    assert set(LIGHT) <= set(modules)
    assert not {"tensorflow", "keras"} & set(modules)


@every_command
def test_help_comes_at_once_and_without_tensorflow(command):
    code = (
        "import sys, time\n"
        "begun = time.perf_counter()\n"
        "from audiotag.cli import main\n"
        "try:\n"
        "    main(sys.argv[1:], prog_name='audiotag')\n"
        "finally:\n"
        "    print(time.perf_counter() - begun, *sys.modules, file=sys.stderr)\n"
    )
    begun = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", code, *command, "--help"], check=True, capture_output=True, text=True)
    assert time.perf_counter() - begun < 1
    seconds, *modules = done.stderr.split()
    assert float(seconds) < 1
    assert not {"tensorflow", "keras", "pandas", "librosa"} & set(modules)
    assert done.stdout.startswith("Usage: audiotag")


@every_command
def test_help_has_an_example(command):
    context = click.Context(main, info_name="audiotag")
    if command:
        context = click.Context(main.commands[command[0]], info_name=command[0], parent=context)
        assert f"Example: audiotag {command[0]} " in " ".join(context.get_help().split())
    else:
        assert "audiotag fit experiments/demo.json" in context.get_help()
