"""Imports.

A folder imports only folders listed before it; there is no cycle; layers, models, losses and metrics import only Keras.
"""

import ast
import graphlib
import subprocess
import sys
import time
from pathlib import Path

import click
import pytest

from audiotag.cli import main

ROOT = Path(__file__).parents[2] / "audiotag"

# The reading order: folders and modules directly below audiotag/.
ORDER = [
    "errors",
    "files",
    "progress",
    "quiet",
    "padding",
    "remote",
    "beam",
    "config",
    "data",
    "layers",
    "losses",
    "metrics",
    "schedules",
    "optimizers",
    "models",
    "testing",
    "backend",
    "runs",
    "inference",
    "crossval",
    "training",
    "evaluation",
    "ensembling",
    "sweeps",
    "serving",
    "reporting",
    "api",
    "cli",
    "__main__",
]
PURE = (
    "padding",
    "layers",
    "losses",
    "metrics",
    "schedules",
    "optimizers",
    "models",
    "testing",
)  # they run on every Keras backend
# What a wrong experiment or a wrong table needs: imported before TensorFlow.
LIGHT = ["errors", "files", "progress", "padding", "remote", "beam", "config", "data", "api"]
NEEDS_TENSORFLOW = ("audiotag.data.pipeline",)

COMMANDS = [[], *([name] for name in main.commands)]
every_command = pytest.mark.parametrize("command", COMMANDS, ids=["audiotag", *main.commands])


def name_of(path):
    """The dotted name of a source file."""
    return ".".join(path.relative_to(ROOT.parent).with_suffix("").parts).removesuffix(".__init__")


MODULES = {name_of(path): path for path in sorted(ROOT.rglob("*.py"))}


def nodes_at_run_time(tree):
    """All nodes of a source file except those that only a type checker sees."""
    for node in ast.iter_child_nodes(tree):
        if not (isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"):
            yield node
            yield from nodes_at_run_time(node)


def imported(path):
    """The modules that a source file imports, anywhere in its text; of other packages the first name."""
    for node in nodes_at_run_time(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name if alias.name in MODULES else alias.name.split(".")[0] for alias in node.names)
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} line {node.lineno}: a relative import"
            if not node.module.startswith("audiotag"):
                yield node.module.split(".")[0]
            else:
                names = [f"{node.module}.{alias.name}" for alias in node.names]
                yield from (name if name in MODULES else node.module for name in names)


def place(module):
    """Where a module's folder is in the reading order; the package itself comes first."""
    return -1 if module == "audiotag" else ORDER.index(module.split(".")[1])


def test_every_folder_is_in_the_reading_order():
    assert {module.split(".")[1] for module in MODULES if module != "audiotag"} == set(ORDER)


@pytest.mark.parametrize("folder", ORDER)
def test_a_folder_imports_only_folders_listed_before_it(folder):
    for module, path in MODULES.items():
        if module != "audiotag" and place(module) == ORDER.index(folder):
            later = [name for name in imported(path) if name in MODULES and place(name) > place(module)]
            assert not later, f"{module} imports {later}"


def test_no_modules_import_each_other_in_a_cycle():
    graph = {module: {name for name in imported(path) if name in MODULES} for module, path in MODULES.items()}
    assert list(graphlib.TopologicalSorter(graph).static_order())  # raises CycleError


def test_inference_imports_neither_training_nor_crossval_nor_evaluation():
    later = {"training", "crossval", "evaluation"}
    for module, path in MODULES.items():
        if module.startswith("audiotag.inference"):
            own = {name.split(".")[1] for name in imported(path) if name.startswith("audiotag.")}
            assert not own & later, module


@pytest.mark.parametrize("module", [name for name in MODULES if name.startswith(tuple(f"audiotag.{p}" for p in PURE))])
def test_layers_models_losses_and_metrics_import_only_keras(module):
    pure = {name for name in MODULES if name == "audiotag" or name.split(".")[1] in PURE}
    assert set(imported(MODULES[module])) <= {"keras", "numpy"} | sys.stdlib_module_names | pure


def test_tables_and_experiments_need_no_tensorflow():
    light = [m for m in MODULES if m != "audiotag" and m.split(".")[1] in LIGHT and m not in NEEDS_TENSORFLOW]
    code = "import sys, importlib; [importlib.import_module(name) for name in sys.argv[1:]]; print(*sys.modules)"
    command = [sys.executable, "-c", code, *light]
    modules = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    assert set(light) <= set(modules)
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
        assert "audiotag fit demo" in context.get_help()
