"""Directives that write the reference from the code: the keys of an experiment, components and commands.

Each writes Markdown, which Sphinx parses as a part of the page.
"""

import ast
import inspect
import json
import re
import sys
import textwrap
import types
from typing import Any, Literal, Union, get_args, get_origin

import click
from pydantic_core import PydanticUndefined
from sphinx.util.docutils import SphinxDirective

from audiotag.cli import main
from audiotag.config import component_help, schema
from audiotag.config.component_help import component_lists
from audiotag.config.components import CustomComponent, Section
from audiotag.ensembling.members import EnsembleConfig, Member
from audiotag.sweeps.schema import SweepConfig

EXPERIMENT = (
    schema.Experiment,
    schema.Window,
    schema.Stage,
    schema.StartFrom,
    schema.Distill,
    schema.Select,
    schema.Validation,
    schema.Folds,
    schema.Predict,
)
BOUNDS = {"gt": "above {}", "ge": "at least {}", "lt": "below {}", "le": "at most {}"}


def experiment_keys() -> str:
    """A heading and a table of keys for every section of an experiment, an ensemble's file and a sweep's."""
    sections = (*EXPERIMENT, EnsembleConfig, Member, SweepConfig)
    comments = {}
    for module in {section.__module__ for section in sections}:
        comments |= comments_of_fields(inspect.getsource(sys.modules[module]))
    return "\n\n".join(_section_keys(section, comments[section.__name__]) for section in sections)


def components() -> str:
    """A heading for every list of components, and below it one for every component."""
    blocks, seen = [], {}
    lists = component_lists() | {"combiner": component_lists(EnsembleConfig)["combiner"]}
    for keys, sections in lists.items():
        title = ", ".join(f"`{key}`" for key in keys.split(", "))
        blocks.append(f"## {title}")
        for section in sections:
            name = section.__name__
            if name in seen:
                blocks.append(f"### `{name}`\n\nThe same as in {seen[name]}.")
                continue
            seen[name] = title
            blocks.append(f"### `{name}`\n\n{docstring_as_markdown(section.__doc__ or '')}\n\n{_options(section)}")
    blocks.append(f"## `{component_help.LAYOUTS}`")
    blocks += [f"- `{name}`: {about}" for name, about in component_help._layouts().items()]
    return "\n\n".join(blocks)


def commands() -> str:
    """A heading, the help and a table of options for every command."""
    blocks = []
    with click.Context(main, info_name="audiotag") as parent:
        for name, command in main.commands.items():
            context = click.Context(command, info_name=name, parent=parent)
            usage = f"audiotag {name} " + " ".join(command.collect_usage_pieces(context))
            options = [item for item in command.params if isinstance(item, click.Option)]
            records = [option.get_help_record(context) for option in options]
            rows = [(f"`{record[0]}`", _escaped(record[1])) for record in records if record]
            blocks.append(f"## `{name}`\n\n```text\n{usage}\n```\n\n{_help_as_markdown(command)}")
            if rows:
                blocks.append(_table(("option", "meaning"), rows))
    return "\n\n".join(blocks)


def comments_of_fields(source: str) -> dict[str, dict[str, str]]:
    """{class: {field: comment}}: the comment on the field's line, or the lines of comments above it."""
    lines, found = source.splitlines(), {}
    for node in ast.parse(source).body:
        if isinstance(node, ast.ClassDef):
            found[node.name] = {
                field.target.id: _comment(lines, field)
                for field in node.body
                if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)
            }
    return found


def _comment(lines, field):
    """The comment of a field, as one paragraph."""
    behind = lines[field.end_lineno - 1].encode()[field.end_col_offset :].decode()
    if "#" in behind:
        return behind.partition("#")[2].strip()
    above, number = [], field.lineno - 2
    while lines[number].strip().startswith("#"):
        above.insert(0, lines[number].strip().removeprefix("#").strip())
        number -= 1
    return " ".join(above)


def _section_keys(section, comments):
    """The heading, description and table of a section."""
    rows = []
    for key, field in section.model_fields.items():
        bounds = [
            text.format(_number(value))
            for item in field.metadata
            for name, text in BOUNDS.items()
            if (value := getattr(item, name, None)) is not None
        ]
        kind = "; ".join([type_as_markdown(field.annotation), ", ".join(bounds)]).removesuffix("; ")
        default = field.get_default(call_default_factory=True)
        shown = "required" if default is PydanticUndefined else f"`{_as_json(default)}`"
        meaning = re.sub(r"\bNone\b", "`null`", comments.get(key, ""))
        rows.append((f"`{key}`", kind, shown, _escaped(meaning[:1].upper() + meaning[1:])))
    about = inspect.getdoc(section) or ""
    return f"## {section.__name__}\n\n{about}\n\n{_table(('key', 'type', 'default', 'meaning'), rows)}"


def type_as_markdown(annotation: Any) -> str:
    """A type in the terms of JSON, with links to other sections and to components."""
    if inside := list(component_help._sections_of(annotation)):
        several = "list of " if any(get_origin(part) is tuple for part in _parts(annotation)) else ""
        if all(issubclass(part, CustomComponent) or component_help._is_component(part) for part in inside):
            text = f"{several}[component](components.md)"
        else:
            text = several + ", ".join(f"[{part.__name__}](#{part.__name__.lower()})" for part in inside)
        text = f"text or {text}" if str in _parts(annotation) else text
        return f"{text} or `null`" if type(None) in _parts(annotation) else text
    parts = [part for part in _parts(annotation) if part is not type(None)]
    texts = [_type(_without_annotated(part)) for part in parts]
    return " or ".join([*texts, *["`null`"] * (type(None) in _parts(annotation))])


def _type(annotation):
    """A type that names no section; the values of a choice are code."""
    if get_origin(annotation) is Literal:
        return " or ".join(f"`{json.dumps(value)}`" for value in get_args(annotation))
    return _escaped(component_help._type(annotation))


def _parts(annotation) -> tuple:
    """The members of a union, or the type alone, without what annotates them."""
    annotation = _without_annotated(annotation)
    if get_origin(annotation) in (Union, types.UnionType):
        return tuple(inner for part in get_args(annotation) for inner in _parts(part))
    return (annotation,)


def _without_annotated(annotation):
    """A type without what annotates it, also inside."""
    if hasattr(annotation, "__metadata__"):
        return _without_annotated(annotation.__origin__)
    if get_origin(annotation) is tuple:
        return tuple[tuple(map(_without_annotated, get_args(annotation)))]
    if get_origin(annotation) is dict:
        return "object {name: number}"
    return annotation


def docstring_as_markdown(docstring: str) -> str:
    """A docstring's paragraphs; its sections as lists, its example as code. Arguments are in the table of options."""
    blocks = []
    for block in re.split(r"\n\n+", textwrap.dedent(docstring).strip()):
        title, _, body = block.partition("\n")
        if title in ("Args:", "Raises:", "Returns:"):
            continue
        if ">>>" in block:
            code = textwrap.dedent(body if title.startswith("Example") else block)
            blocks.append(f"```pycon\n{code}\n```")
        elif body.startswith("    ") and title.endswith(":"):
            blocks.append(f"{_escaped(title)} {_escaped(' '.join(body.split()))}")
        elif block.startswith("- "):
            blocks.append(_escaped(block))
        else:
            text = "\n".join(_escaped(line.strip()) for line in block.splitlines())
            blocks.append(re.sub(r"\n(?=(Input|Output)( shape)?:)", "\\\\\n", text))
    return "\n\n".join(blocks)


def arguments(docstring: str) -> dict[str, str]:
    """{argument: its description} of a docstring in Google's style."""
    inside = re.search(r"^Args:\n((?:[ ]+.*\n?|\n)*)", textwrap.dedent(docstring), re.MULTILINE)
    if not inside:
        return {}
    entries = re.split(r"^(?=\w+: )", textwrap.dedent(inside[1]), flags=re.MULTILINE)
    pairs = (entry.partition(": ") for entry in entries if entry.strip())
    return {name.strip(): " ".join(text.split("\n\n")[0].split()) for name, _, text in pairs}


def mark_examples(app: Any, kind: str, name: str, item: Any, options: Any, lines: list[str]) -> None:
    """Makes an example that is no doctest a block of code, for Sphinx' autodoc."""
    for number, line in enumerate(lines):
        if line == "Example:" and not lines[number + 1].strip().startswith(">>>"):
            end = next((at for at in range(number + 1, len(lines)) if not lines[at].strip()), len(lines))
            code = [f"    {line}" for line in lines[number + 1 : end]]
            lines[number + 1 : end] = ["    .. code-block:: python", "", *code]
            return


def _options(section):
    """The table of a component's options."""
    described, rows = arguments(inspect.cleandoc(section.__doc__ or "")), []
    for key, field in section.model_fields.items():
        if key != "name":
            shown = "required" if field.is_required() else f"`{json.dumps(field.default)}`"
            meaning = _escaped(described.get(key, ""))
            rows.append((f"`{key}`", _escaped(component_help._type(field.annotation)), shown, meaning))
    return _table(("option", "type", "default", "meaning"), rows) if rows else "No options."


def _help_as_markdown(command):
    """The help text of a command; the paragraphs that keep their lines are code."""
    blocks = []
    for block in re.split(r"\n\n+", inspect.cleandoc(command.help or "")):
        if block.startswith(("\b", "Example:")):
            code = block.removeprefix("\b\n").replace("Example: ", "", 1)
            blocks.append(f"```text\n{textwrap.dedent(re.sub(r'^ +', '', code, flags=re.MULTILINE))}\n```")
        else:
            blocks.append(_escaped(block))
    return "\n\n".join(blocks)


def _as_json(value):
    """A default as the file would say it."""
    if isinstance(value, Section):
        return json.dumps(value.model_dump(exclude_defaults=True)) if value.model_fields_set else "{}"
    return json.dumps(value)


def _number(value):
    return (
        f"2^{value.bit_length() - 1}" if isinstance(value, int) and value >= 2**20 and not value & value - 1 else value
    )


def _escaped(text: str) -> str:
    """Text without Markdown's marks, except code in backticks."""
    text = re.sub(r"(?<![\w`-])(--[a-z][a-z-]*)", r"`\1`", text)  # options of commands
    parts = re.split(r"(`[^`\n]*`)", text)
    return "".join(part if part.startswith("`") else re.sub(r"([\\*_\[\]<>|$#{}~])", r"\\\1", part) for part in parts)


def _table(head, rows) -> str:
    """A table in Markdown."""
    lines = [head, ["---"] * len(head), *([_in_cell(cell) for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _in_cell(text):
    """Text without line breaks, and with its bars escaped: also those in code end a cell."""
    return re.sub(r"(?<!\\)\|", r"\\|", " ".join(text.split()))


def _directive(write) -> type[SphinxDirective]:
    """A directive that writes what a function returns."""

    class FromCode(SphinxDirective):
        def run(self) -> list:
            return self.parse_text_to_nodes(write(), allow_section_headings=True)

    return FromCode


def setup(app: Any) -> dict[str, bool]:
    """Tells Sphinx the directives."""
    for write in (experiment_keys, components, commands):
        app.add_directive(write.__name__.replace("_", "-"), _directive(write))
    app.connect("autodoc-process-docstring", mark_examples, priority=400)  # before napoleon
    return {"parallel_read_safe": True}
