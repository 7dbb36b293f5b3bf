"""What an experiment can name: lists of components, and the options of one.

All of it is read from the sections of `schema` and from source code, so neither Keras nor TensorFlow loads.
"""

import json
import types
from collections.abc import Iterator
from typing import Any, Literal, Union, get_args, get_origin

from audiotag.config import signatures
from audiotag.config.components import CUSTOM_TAG, Section
from audiotag.config.schema import Experiment
from audiotag.errors import ConfigError, shortened

LAYOUTS = "make-records --layout"  # the list of dataset layouts, which no experiment names
JSON_TYPES = {bool: "true or false", int: "integer", float: "number", str: "string", type(None): "null", Any: "any"}


def component_lists(kind: type[Section] = Experiment) -> dict[str, tuple[type[Section], ...]]:
    """The components by the keys that name them, in the order of the sections.

    Returns:
        {keys: sections}, with keys such as "stages[].loss, stages[].noisy_loss".

    Example:
        >>> list(component_lists())[:2]
        ['waveform_augment', 'frontend']
    """
    places: dict[tuple[type[Section], ...], list[str]] = {}
    for place, components in _components_in(kind, ""):
        places.setdefault(components, []).append(place)
    return {", ".join(keys): components for components, keys in places.items()}


def list_components() -> str:
    """A line per component, list by list."""
    lists = {
        keys: {section.__name__: (section.__doc__ or "").partition("\n")[0] for section in sections}
        for keys, sections in component_lists().items()
    }
    lists[LAYOUTS] = _layouts()
    width = 2 + max(len(name) for entries in lists.values() for name in entries)
    blocks = [
        "\n".join([keys, *(f"  {name:<{width}}{line}".rstrip() for name, line in entries.items())])
        for keys, entries in lists.items()
    ]
    return "\n\n".join([*blocks, f'Name your own as "{CUSTOM_TAG}".'])


def explain_component(name: str) -> str:
    """The docstring of a component and its options, with types and defaults.

    Raises:
        ConfigError: There is no component of this name.
    """
    lists, layouts = component_lists(), _layouts()
    found = {keys: section for keys, sections in lists.items() for section in sections if section.__name__ == name}
    if found:
        # A name in several lists is one class or function.
        places, section = ", ".join(found), next(iter(found.values()))
        return f"{name}, in {places}\n\n{section.__doc__}\n\nIn an experiment:\n{_options(section)}"
    if name in layouts:
        return f"{name}, in {LAYOUTS}\n\n{layouts[name]}"
    accepted = dict.fromkeys([*(section.__name__ for sections in lists.values() for section in sections), *layouts])
    hint = signatures.nearest(name, accepted)
    raise ConfigError(f"there is no component {shortened(repr(name))}. {hint}Accepted: {', '.join(accepted)}.")


def _components_in(section: type[Section], prefix: str) -> Iterator[tuple[str, tuple[type[Section], ...]]]:
    """Yields (key, components) of every key of a section, and of the sections in it, that names a component."""
    for key, field in section.model_fields.items():
        inside = list(dict.fromkeys(_sections_of(field.annotation)))
        if components := tuple(inner for inner in inside if _is_component(inner)):
            yield f"{prefix}{key}", components
        several = any(get_origin(part) is tuple for part in (field.annotation, *get_args(field.annotation)))
        for inner in inside:
            if not _is_component(inner):
                yield from _components_in(inner, f"{prefix}{key}[]." if several else f"{prefix}{key}.")


def _sections_of(annotation: Any) -> Iterator[type[Section]]:
    """The sections anywhere in an annotation."""
    if isinstance(annotation, type) and issubclass(annotation, Section):
        yield annotation
    for inner in get_args(annotation):
        yield from _sections_of(inner)


def _is_component(section: type[Section]) -> bool:
    """Whether the file names this section: it is called as its only `name`."""
    field = section.model_fields.get("name")
    return field is not None and get_args(field.annotation) == (section.__name__,)


def _options(section: type[Section]) -> str:
    """A line per key of a component: its type, and its default or that it is required."""
    lines = []
    for key, field in section.model_fields.items():
        shown = "required" if field.is_required() else f"{json.dumps(field.default)} by default"
        lines.append(f"  {key}: {_type(field.annotation)}" + (f", {shown}" if key != "name" else ""))
    return "\n".join(lines)


def _type(annotation: Any) -> str:
    """A type in the terms of JSON."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return " | ".join(json.dumps(value) for value in arguments)
    if origin in (Union, types.UnionType):
        wider = [part for part in arguments if not (part is int and float in arguments)]
        return " | ".join(map(_type, wider))
    if origin is tuple and arguments[-1] is Ellipsis:
        return f"list of {_type(arguments[0])}"
    if origin in (tuple, list):
        return f"[{', '.join(map(_type, arguments))}]"
    return JSON_TYPES.get(annotation) or str(annotation)


def _layouts() -> dict[str, str]:
    return signatures.layout_descriptions("audiotag.data.sources.finding", "LAYOUTS")
