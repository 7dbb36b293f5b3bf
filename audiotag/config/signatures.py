"""Names and signatures of components, read from the source code.

Nothing is imported, so a wrong experiment fails before Keras and TensorFlow load.
"""

import ast
import difflib
import importlib.util
import inspect
from collections.abc import Iterable
from functools import cache
from pathlib import Path

from audiotag.errors import shortened

PACKAGE = Path(__file__).parents[1]


def nearest(word: object, accepted: Iterable[object]) -> str:
    """'Did you mean ...? ' with the nearest accepted word, or '' if none is near."""
    near = difflib.get_close_matches(shortened(str(word)), [str(a) for a in accepted], n=1)
    return f"Did you mean {near[0]!r}? " if near else ""


def component_names(module: str, table: str) -> tuple[str, ...]:
    """Names of the components in a table such as `MODELS` of audiotag.models.

    Args:
        module: Dotted name of the module that holds the table.
        table: Name of a dict literal in it: strings to classes or functions.

    Example:
        >>> "densenet169" in component_names("audiotag.models", "MODELS")
        True
    """
    return tuple(key.value for key in _table(module, table).keys)


def signature(module: str, table: str, name: str) -> inspect.Signature:
    """The signature of a component; its annotations are source text.

    `*args` and `**kwargs` are left out: a component accepts only the options that it names. An annotation
    may be a name that the component's module assigns, such as Reduction = Literal["sum", "mean"].

    Example:
        >>> "dropout" in signature("audiotag.models", "MODELS", "conv_skip").parameters
        True
    """
    return _signature(*_definition(module, ast.unparse(_entry(module, table, name))))


def docstring(module: str, table: str, name: str) -> str:
    """The docstring of a component, or of its last base if it has none.

    Example:
        >>> docstring("audiotag.models", "MODELS", "xresnet18").partition(" of ")[0]
        'An xresnet'
    """
    module, node = _definition(module, ast.unparse(_entry(module, table, name)))
    while not ast.get_docstring(node) and isinstance(node, ast.ClassDef) and node.bases:
        module, node = _definition(module, ast.unparse(node.bases[-1]))
    return ast.get_docstring(node) or ""


def layout_descriptions(module: str, table: str) -> dict[str, str]:
    """The descriptions of dataset layouts, {name: description}.

    The table is a dict of `Layout(description, ...)`.

    Example:
        >>> layout_descriptions("audiotag.data.sources.finding", "LAYOUTS")["folders"]
        'one folder of audio per class'
    """
    return {name: _entry(module, table, name).args[0].value for name in component_names(module, table)}


@cache
def _tree(module):
    """The parsed source of a module, found without importing its package."""
    first, *rest = module.split(".")
    # Found by this file's own place: a git clone called audiotag in the working directory hides the package's.
    package = PACKAGE if first == PACKAGE.name else Path(importlib.util.find_spec(first).origin).parent
    place = package.joinpath(*rest)
    place = place / "__init__.py" if place.is_dir() else place.with_suffix(".py")
    return ast.parse(place.read_text(encoding="utf-8"))


def _entry(module, table, name):
    """The value of a key of a table, as a node."""
    literal = _table(module, table)
    return literal.values[[key.value for key in literal.keys].index(name)]


def _table(module, table):
    for node in _tree(module).body:
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        if any(isinstance(target, ast.Name) and target.id == table for target in targets):
            return node.value
    raise LookupError(f"{module} has no table {table}")


def _definition(module, name):
    """(module, node) of the class or function that `name` stands for inside `module`."""
    first, *rest = name.split(".")
    for node in _tree(module).body:
        if isinstance(node, (ast.ClassDef, ast.FunctionDef)) and node.name == first:
            return module, node
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name == first and rest:
                    return _definition(".".join([first, *rest[:-1]]), rest[-1])
        if isinstance(node, ast.ImportFrom):
            for alias in node.names:
                if (alias.asname or alias.name) == first:
                    if rest:  # from package import module
                        return _definition(f"{node.module}.{alias.name}", ".".join(rest))
                    return _definition(node.module, alias.name)
    raise LookupError(f"{module} does not define {name}")


def _annotation(module, node):
    """The source text of an annotation, or of what its name is assigned in the module."""
    for other in _tree(module).body:
        if isinstance(other, ast.Assign) and ast.unparse(other.targets[0]) == ast.unparse(node):
            node = other.value
    return ast.unparse(node)


def _signature(module, node):
    """The signature of a function, or of a class's `__init__`, its own or that of its last base."""
    if isinstance(node, ast.ClassDef):
        own = [child for child in node.body if isinstance(child, ast.FunctionDef) and child.name == "__init__"]
        if not own:
            return _signature(*_definition(module, ast.unparse(node.bases[-1])))
        node = own[0]
    args = node.args
    positional = args.posonlyargs + args.args
    defaults = [None] * (len(positional) - len(args.defaults)) + args.defaults
    pairs = [*zip(positional, defaults), *zip(args.kwonlyargs, args.kw_defaults)]
    return inspect.Signature(
        [
            inspect.Parameter(
                arg.arg,
                inspect.Parameter.KEYWORD_ONLY,
                default=inspect.Parameter.empty if default is None else ast.literal_eval(default),
                annotation=inspect.Parameter.empty if arg.annotation is None else _annotation(module, arg.annotation),
            )
            for arg, default in pairs
            if arg.arg != "self"
        ]
    )
