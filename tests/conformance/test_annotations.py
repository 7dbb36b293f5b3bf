"""Annotations: every public function and method has the types of its arguments and of its result."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2] / "audiotag"
FILES = sorted(ROOT.rglob("*.py"))
# Called by Keras or pydantic, click or json, whose signatures they repeat.
OVERRIDES = {"adapt", "build", "call", "compute_loss", "compute_metrics", "compute_output_shape", "compute_output_spec"}
OVERRIDES |= {"convert", "from_config", "get_config", "invoke", "reset_state", "result", "update_state", "update_step"}


def public_functions(tree):
    """(name, node) of the public functions of a module and of its public classes."""
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
            yield node.name, node
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            for inner in node.body:
                if isinstance(inner, ast.FunctionDef) and not inner.name.startswith("_"):
                    if inner.name not in OVERRIDES and not inner.name.startswith("on_"):
                        yield f"{node.name}.{inner.name}", inner


def is_command(node):
    """Whether a decorator makes a click command of the function."""
    return any(re.search("command|group", ast.unparse(decorator)) for decorator in node.decorator_list)


@pytest.mark.parametrize("path", FILES, ids=[str(path.relative_to(ROOT)) for path in FILES])
def test_public_functions_are_annotated(path):
    missing = []
    for name, node in public_functions(ast.parse(path.read_text())):
        if is_command(node):
            continue
        arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
        arguments = [arg for arg in arguments if arg.arg not in ("self", "cls")]
        missing += [f"{name}({arg.arg})" for arg in arguments if arg.annotation is None]
        missing += [f"{name} → ?"] if node.returns is None else []
    assert not missing
