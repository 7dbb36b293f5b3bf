"""Reads experiment files, with `--set` changes, and explains their errors.

An invalid file fails here, before TensorFlow is imported. The message names the key, the
nearest accepted word and everything that is accepted.
"""

import contextlib
import itertools
import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import TypeVar, overload

from pydantic import ValidationError

from audiotag.config import signatures
from audiotag.config.components import CUSTOM_TAG, CheckedTypes, Section
from audiotag.config.schema import Experiment
from audiotag.config.shipped import find_experiment
from audiotag.errors import ConfigError, shortened
from audiotag.files import is_utf8

MAX_FAULTS = 20  # in a message
MAX_VALUES = 50_000  # of a file; checking 200,000 wrong ones would take seconds
MAX_SENTENCE = 2_000  # characters of a message that may repeat what the file holds; all names of layers are shorter
SectionType = TypeVar("SectionType", bound=CheckedTypes)


@overload
def load(path: str | Path, overrides: Iterable[str] = ()) -> Experiment:
    """Reads an experiment file."""


@overload
def load(path: str | Path, overrides: Iterable[str] = (), *, kind: type[SectionType]) -> SectionType:
    """Reads another JSON file with a schema."""


def load(path: str | Path, overrides: Iterable[str] = (), *, kind: type[CheckedTypes] = Experiment) -> CheckedTypes:
    """Reads an experiment file, or another JSON file with a schema.

    Args:
        path: A JSON file as in experiments/, or the name of one that comes with audiotag, such as "demo".
        overrides: Changes such as "stages.noisy.epochs=3". Each replaces one value of the file; an
            entry of a list is named by its index or by its `name`.
        kind: The `Section` that the file holds.

    Returns:
        An `Experiment`, or an object of `kind`, with every default filled in.

    Raises:
        ConfigError: The file cannot be read, or is not valid.
    """
    path = find_experiment(path) if kind is Experiment else Path(path)
    try:
        content = json.loads(
            path.read_bytes(), object_pairs_hook=_refuse_duplicate_keys, parse_constant=_refuse_constant
        )
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}.") from error
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: not a JSON file: {error}") from error
    for override in overrides:
        _override(content, override)
    _refuse_many_values(content, path)
    return parse(content, kind, path)


def _refuse_many_values(content, path):
    """Refuses more values than any experiment needs, before each of them is checked."""
    count, values = 0, [content]
    while values:
        value = values.pop()
        count += 1
        if isinstance(value, (list, dict)):
            values.extend(value if isinstance(value, list) else value.values())
    if count > MAX_VALUES:
        raise ConfigError(f"{path}: has {count:,} values. Expected at most {MAX_VALUES:,}.")


def parse(content: object, kind: type[SectionType], where: str | Path) -> SectionType:
    """Parsed JSON as a `Section`.

    Args:
        content: What `json.loads` returns.
        kind: The `Section` that it should be.
        where: The file or option, for messages.

    Raises:
        ConfigError: The content is not valid.
    """
    try:
        content = _with_tuples(content)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{where}: {error}") from error
    try:
        return kind.model_validate(content)
    except ValidationError as error:
        raise ConfigError(_explanation(error, content, where)) from error


def parse_json(text: str, kind: type[SectionType], where: str | Path) -> SectionType:
    """JSON text as an object whose types may be lists, too.

    Arguments and errors as for `parse`.
    """
    try:
        return kind.model_validate_json(text)
    except ValidationError as error:
        raise ConfigError(_explanation(error, _with_tuples(json.loads(text)), where)) from error


def dump(experiment: Section) -> str:
    """The JSON text of an experiment, with every default; `load` reads it back."""
    return experiment.model_dump_json(indent=2) + "\n"


def _explanation(error, content, where):
    """A sentence for each place of the content that pydantic reports."""
    faults: dict[str, list] = {}
    for fault in error.errors():
        if not _is_consequence(fault):
            faults.setdefault(_place(fault, content), []).append(fault)
    shown = itertools.islice(faults.items(), MAX_FAULTS)
    sentences = [
        f"{where}: {place and f'{shortened(place)}: '}{shortened(_sentence(several), MAX_SENTENCE)}"
        for place, several in shown
    ]
    if len(faults) > MAX_FAULTS:
        sentences.append(f"{where}: and {len(faults) - MAX_FAULTS} more faults.")
    return "\n".join(sentences)


def _is_consequence(fault):
    """Whether a list is too short only because one of its entries is not valid."""
    return fault["type"] == "too_short" and len(fault["input"]) >= fault["ctx"]["min_length"]


def _place(fault, content):
    """Where in the file a fault is: pydantic's path without the names of the alternatives that it tried."""
    keys = []
    for key in fault["loc"]:
        if key in content if isinstance(content, dict) else isinstance(content, tuple) and key in range(len(content)):
            content = content[key]
            keys.append(key)
    if fault["type"] == "missing":
        keys.append(fault["loc"][-1])
    if fault["type"] == "union_tag_not_found":
        keys.append("name")
    return shown_place(keys)


def shown_place(keys: Iterable[str | int]) -> str:
    """A place in a file as messages show it.

    Example:
        >>> shown_place(["stages", 0, "loss"])
        'stages[0].loss'
    """
    return "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in keys).removeprefix(".")


def _sentence(faults):
    """One sentence from what pydantic reports at a place, once for each alternative that it tried."""
    fault = next((fault for fault in faults if fault["type"] == "literal_error"), faults[0])
    if fault["type"] in ("missing", "union_tag_not_found"):
        in_list = fault["type"] == "missing" and isinstance(fault["loc"][-1], int)
        return f"this {'entry' if in_list else 'key'} is missing."
    if fault["type"] == "union_tag_invalid" and not isinstance(fault["input"], dict):
        return f"Input should be a valid object, found {_shown(fault['input'])}."
    if fault["type"] == "union_tag_invalid":
        tags = [tag.strip("' ") for tag in fault["ctx"]["expected_tags"].split(",")]
        tags.remove(CUSTOM_TAG)
        hint = signatures.nearest(fault["ctx"]["tag"], tags)
        return (
            f"there is no component {_shown(fault['ctx']['tag'])}. {hint}Accepted: {', '.join(tags)}. "
            f'Or name your own as "{CUSTOM_TAG}".'
        )
    others = [_in_json_terms(other).removeprefix("Input should be ") for other in faults if other is not fault]
    if fault["type"] == "literal_error" and isinstance(fault["input"], str) and "'" in fault["ctx"]["expected"]:
        words = [word.strip("'") for word in re.split(", | or ", fault["ctx"]["expected"])]
        hint = signatures.nearest(fault["input"], words)
        return f"there is no {_shown(fault['input'])}. {hint}Accepted: {', '.join([*words, *others])}."
    if fault["type"] in ("unknown_key", "complete_message"):
        return fault["msg"]
    return f"{' or '.join([_in_json_terms(fault), *others])}, found {_shown(fault['input'])}."


def _shown(value):
    """A value as a message shows it."""
    return shortened(repr(value))


def _in_json_terms(fault):
    """Pydantic's message with the terms of JSON instead of Python's."""
    if fault["type"] in ("model_type", "model_attributes_type", "dict_type"):
        return "Input should be a valid object"
    return fault["msg"].replace("tuple", "list").replace("Tuple", "List")


def _refuse_duplicate_keys(pairs):
    """A JSON object as a dict; a key that is given twice is an error."""
    content = {}
    for key, value in pairs:
        if key in content:
            raise ValueError(f"the key {_shown(key)} is given twice in one object.")
        content[key] = value
    return content


def _refuse_constant(text):
    raise ValueError(f"{text} is not a JSON number.")


def _with_tuples(value):
    """JSON content with tuples instead of lists, as the frozen sections hold them.

    Raises:
        ValueError: A text has half of a surrogate pair, which no file can hold.
    """
    if isinstance(value, str) and not is_utf8(value):
        raise ValueError(
            f"the text {_shown(value)} is not valid Unicode. Write it again without escapes such as \\ud800."
        )
    if isinstance(value, list):
        return tuple(map(_with_tuples, value))
    if isinstance(value, dict):
        return {_with_tuples(key): _with_tuples(inner) for key, inner in value.items()}
    return value


def _override(content, text):
    """Replaces one value of the file's content, as in `--set a.b=c`."""
    option = f"--set {shortened(text)}"
    where, equals, value = text.partition("=")
    if not equals:
        raise ConfigError(f"{option}: expected key=value, such as stages.noisy.epochs=3.")
    with contextlib.suppress(ValueError, RecursionError):  # a bare word is a string
        value = json.loads(value, object_pairs_hook=_refuse_duplicate_keys, parse_constant=_refuse_constant)
    *path, last = where.split(".")
    place = content
    for key in path:
        place = place[_index(place, key, option)] if isinstance(place, list) else _inside(place, key, option)
    if isinstance(place, list):
        place[_index(place, last, option)] = value
    elif isinstance(place, dict):
        place[last] = value
    else:
        path = shortened(".".join(path))
        raise ConfigError(f"{option}: {path} is {_shown(place)} and has no {_shown(last)}.")


def _inside(place, key, option):
    if not isinstance(place, dict) or key not in place:
        accepted = place if isinstance(place, dict) else ()
        hint = signatures.nearest(key, accepted)
        accepted = shortened(", ".join(accepted), MAX_SENTENCE)
        raise ConfigError(f"{option}: there is no {_shown(key)}. {hint}Accepted: {accepted}.")
    return place[key]


def _index(entries, key, option):
    """The index of the entry of a list with this index or name."""
    names = [entry.get("name") if isinstance(entry, dict) else None for entry in entries]
    if names.count(key) > 1:
        places = shortened(", ".join(str(place) for place, name in enumerate(names) if name == key))
        raise ConfigError(f"{option}: several entries are called {_shown(key)}. Name one by its index: {places}.")
    if key in names:
        return names.index(key)
    if key in map(str, range(len(entries))):
        return int(key)
    accepted = shortened(", ".join([*map(str, filter(None, names)), f"0 to {len(entries) - 1}"]), MAX_SENTENCE)
    hint = signatures.nearest(key, names)
    raise ConfigError(f"{option}: there is no entry {_shown(key)}. {hint}Accepted: {accepted}.")
