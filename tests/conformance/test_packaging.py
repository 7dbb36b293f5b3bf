"""Every imported package is declared with its lowest version, and a wheel holds the experiments."""

import ast
import configparser
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DISTRIBUTIONS = {
    "sklearn": "scikit-learn",
    "pydantic_core": "pydantic-core",
    "tensorflow_io": "tensorflow-io",
    "tensorflow_datasets": "tensorflow-datasets",
    "PIL": "pillow",
    "google": "protobuf",
    "ai_edge_litert": "ai-edge-litert",
    "apache_beam": "apache-beam",
    "xdist": "pytest-xdist",
}
NOT_IMPORTED = {"tensorboard"}  # by us; Keras' callback does


def setup_cfg():
    """{extra: {package: requirement}}; "" is what every installation has."""
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    texts = {"": config["options"]["install_requires"], **config["options.extras_require"]}
    return {extra: dict(map(package_and_requirement, lines(text))) for extra, text in texts.items()}


def lines(text):
    return [line for line in text.splitlines() if line and not line.startswith("#")]


def package_and_requirement(line):
    return re.match(r"[a-z0-9-]+", line)[0], line


def imported(*folders):
    """The packages that files import, by their names on the package index."""
    found = set()
    for folder in folders:
        places = [ROOT / folder, ROOT / "docs", ROOT / "examples"]
        own = {path.stem for place in places for path in place.rglob("*.py")} | {"audiotag", "tests"}
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
                names += [node.module] if isinstance(node, ast.ImportFrom) and node.module else []
                found |= {name.split(".")[0] for name in names} - own - sys.stdlib_module_names
    return {DISTRIBUTIONS.get(name, name) for name in found}


def test_every_package_that_audiotag_imports_is_declared():
    required = setup_cfg()
    extra = {
        "tensorflow-io": "io",
        "pyarrow": "parquet",
        "onnx": "onnx",
        "tf2onnx": "onnx",
        "jax": "jax",
        "cleanlab": "cleanlab",
        "fsspec": "remote",
        "apache-beam": "beam",
        "starlette": "review",
        "uvicorn": "review",
    }
    assert imported("audiotag") - set(extra) == required[""].keys() - NOT_IMPORTED
    assert all(package in required[name] for package, name in extra.items())


def test_every_package_that_tests_and_benchmarks_import_is_declared():
    required = setup_cfg()
    extras = ("", "tests", "backends", "torture", "onnx", "litert", "quantize", "cleanlab", "review")
    declared = {package for extra in extras for package in required[extra]}
    optional = {"sed_eval", "dcase_util"}  # benchmarks/field_recordings.py runs without them
    assert imported("tests", "benchmarks") - {"setuptools"} - optional <= declared


@pytest.mark.parametrize("extra", setup_cfg())
def test_every_requirement_has_a_lowest_version(extra):
    for requirement in setup_cfg()[extra].values():
        assert re.search(r" (>=|==)\d", requirement), requirement


def test_the_name_of_the_distribution_is_in_every_installation_command():
    commands = re.compile(r"pip install [^\n`]*audiotag(?!-trainer)")
    for path in [*ROOT.glob("*.md"), *(path for name in ("audiotag", "docs") for path in (ROOT / name).rglob("*.*"))]:
        if path.suffix in (".py", ".md") and path.name != "CHANGELOG.md":
            assert not commands.search(path.read_text()), path


def test_a_build_copies_the_experiments_into_the_package(tmp_path):
    for name in ("setup.py", "setup.cfg", "MANIFEST.in", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tmp_path)
    for name in ("audiotag", "experiments"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    command = [sys.executable, "-W", "ignore", "setup.py", "--quiet", "build_py", "--build-lib", "built"]
    subprocess.run(command, cwd=tmp_path, check=True)
    built = {path.name: path.read_bytes() for path in (tmp_path / "built" / "audiotag" / "experiments").iterdir()}
    assert built == {path.name: path.read_bytes() for path in (ROOT / "experiments").glob("*.json")}
    assert (tmp_path / "built" / "audiotag" / "reporting" / "templates" / "page.html").is_file()
