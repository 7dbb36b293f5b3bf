"""Every public name has a docstring, whose first line is short."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2] / "audiotag"
MODULES = sorted(ROOT.rglob("*.py"))
# Methods of Keras, click and RandomAugmentation; the docstring of the class covers them.
DOCUMENTED_BY_CLASS = ("call", "invoke", "transform_inputs", "transform_labels")


def is_public(node):
    return isinstance(node, (ast.ClassDef, ast.FunctionDef)) and not node.name.startswith("_")


def public_names(tree):
    """(name, node) of a module and of its public classes, functions and methods."""
    yield "the module", tree
    for node in filter(is_public, tree.body):
        yield node.name, node
        for child in filter(is_public, node.body if isinstance(node, ast.ClassDef) else ()):
            if child.name not in DOCUMENTED_BY_CLASS:
                yield f"{node.name}.{child.name}", child


@pytest.mark.parametrize("path", MODULES, ids=[str(path.relative_to(ROOT)) for path in MODULES])
def test_every_public_name_has_a_docstring(path):
    for name, node in public_names(ast.parse(path.read_text())):
        docstring = ast.get_docstring(node)
        assert docstring, name
        assert not docstring.startswith("This "), name


@pytest.mark.parametrize("path", MODULES, ids=[str(path.relative_to(ROOT)) for path in MODULES])
def test_the_first_line_of_every_public_docstring_is_one_short_sentence(path):
    for name, node in public_names(ast.parse(path.read_text())):
        first, *rest = ast.get_docstring(node).splitlines()
        assert len(first) <= 79, (name, len(first))
        assert first.endswith("."), name
        assert not rest or not rest[0], f"{name}: an empty line belongs after the first line"


def test_a_name_without_a_docstring_is_found():
    tree = ast.parse("class Bell:\n    def ring(self):\n        pass\n\ndef _private():\n    pass")
    assert [name for name, node in public_names(tree) if not ast.get_docstring(node)] == [
        "the module",
        "Bell",
        "Bell.ring",
    ]
