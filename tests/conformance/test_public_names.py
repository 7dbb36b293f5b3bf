"""The law of words: whatever is public says what it is for."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2] / "audiotag"
MODULES = sorted(ROOT.rglob("*.py"))
SAID_ELSEWHERE = ("call", "invoke")  # Keras and click say what these do, and their class says the rest


def public(node):
    return isinstance(node, (ast.ClassDef, ast.FunctionDef)) and not node.name.startswith("_")


def public_names(tree):
    """(name, node) of a module and of every public class, function and method in it."""
    yield "the module", tree
    for node in filter(public, tree.body):
        yield node.name, node
        for child in filter(public, node.body if isinstance(node, ast.ClassDef) else ()):
            if child.name not in SAID_ELSEWHERE:
                yield f"{node.name}.{child.name}", child


@pytest.mark.parametrize("path", MODULES, ids=[str(path.relative_to(ROOT)) for path in MODULES])
def test_every_public_name_has_a_docstring(path):
    for name, node in public_names(ast.parse(path.read_text())):
        docstring = ast.get_docstring(node)
        assert docstring, name
        assert not docstring.startswith("This "), name


def test_a_name_without_one_is_found():
    tree = ast.parse("class Bell:\n    def ring(self):\n        pass\n\ndef _private():\n    pass")
    assert [name for name, node in public_names(tree) if not ast.get_docstring(node)] == [
        "the module",
        "Bell",
        "Bell.ring",
    ]
