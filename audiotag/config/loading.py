"""Reads experiment files, with `--set` changes, and says what is wrong with them."""

import json
import re
from pathlib import Path

from pydantic import ValidationError

from audiotag.config import signatures
from audiotag.config.schema import Experiment
from audiotag.errors import ConfigError


def load(path, overrides=(), *, kind=Experiment):
    """Reads an experiment file, or another kind of file that is as strict.

    Args:
        path: A JSON file as in experiments/.
        overrides: Texts such as "stages.noisy.epochs=3", each of which replaces one value of the
            file; an entry of a list is named by its index or by its `name`.
        kind: The `Section` that the file holds.

    Returns:
        An `Experiment`, or what `kind` says, with every default filled in.

    Raises:
        ConfigError: The file cannot be read or says something audiotag cannot do.
    """
    path = Path(path)
    try:
        content = json.loads(path.read_bytes(), object_pairs_hook=_distinct, parse_constant=_refuse_constant)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}.") from error
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: not a JSON file: {error}") from error
    for override in overrides:
        _override(content, override)
    return checked(content, kind, path)


def checked(content, kind, where):
    """Content of JSON as the `Section` that it should be; a ConfigError says what is wrong `where`."""
    content = _unchangeable(content)
    try:
        return kind.model_validate(content)
    except ValidationError as error:
        faults = {}
        for fault in error.errors():
            if not _follows(fault):
                faults.setdefault(_place(fault, content), []).append(fault)
        sentences = [f"{where}: {place and f'{place}: '}{_sentence(several)}" for place, several in faults.items()]
        raise ConfigError("\n".join(sentences)) from error


def dump(experiment):
    """The JSON text of an experiment, every default written out; `load` reads it back."""
    return experiment.model_dump_json(indent=2) + "\n"


def _follows(fault):
    """Whether a list is too short only because something is wrong within its entries."""
    return fault["type"] == "too_short" and len(fault["input"]) >= fault["ctx"]["min_length"]


def _place(fault, content):
    """Where in the file a fault is: pydantic's path without the names of the parts and kinds it tried."""
    keys = []
    for key in fault["loc"]:
        if isinstance(content, dict) and key in content or isinstance(content, tuple) and isinstance(key, int):
            content = content[key]
            keys.append(key)
    if fault["type"] == "missing":
        keys.append(fault["loc"][-1])
    if fault["type"] == "union_tag_not_found":
        keys.append("name")
    return "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in keys).removeprefix(".")


def _sentence(faults):
    """One sentence about what pydantic found at a place, once for each kind it tried: what came, what was expected."""
    fault = next((fault for fault in faults if fault["type"] == "literal_error"), faults[0])
    if fault["type"] in ("missing", "union_tag_not_found"):
        return "this key is missing."
    if fault["type"] == "union_tag_invalid":
        tags = [tag.strip("' ") for tag in fault["ctx"]["expected_tags"].split(",")]
        hint = signatures.nearest(fault["ctx"]["tag"], tags)
        return f"there is no part {fault['ctx']['tag']!r}. {hint}Accepted: {', '.join(tags)}."
    others = [_words(other).removeprefix("Input should be ") for other in faults if other is not fault]
    if fault["type"] == "literal_error" and isinstance(fault["input"], str):
        words = [word.strip("'") for word in re.split(", | or ", fault["ctx"]["expected"])]
        hint = signatures.nearest(fault["input"], words)
        return f"there is no {fault['input']!r}. {hint}Accepted: {', '.join([*words, *others])}."
    if fault["type"] in ("unknown_key", "at"):
        return fault["msg"]
    return f"{' or '.join([_words(fault), *others])}, found {fault['input']!r}."


def _words(fault):
    """What pydantic says of a fault, in the words of JSON."""
    if fault["type"] in ("model_type", "model_attributes_type", "dict_type"):
        return "Input should be a valid object"
    return fault["msg"].replace("tuple", "list").replace("Tuple", "List")


def _distinct(pairs):
    """A JSON object; a key that stands in it twice is an error, not a silent choice."""
    keys = [key for key, _ in pairs]
    for key in keys:
        if keys.count(key) > 1:
            raise ValueError(f"the key {key!r} stands twice in one object.")
    return dict(pairs)


def _refuse_constant(text):
    raise ValueError(f"{text} is no JSON number.")


def _unchangeable(value):
    """JSON content with tuples for lists, as the frozen sections hold them."""
    if isinstance(value, list):
        return tuple(map(_unchangeable, value))
    if isinstance(value, dict):
        return {key: _unchangeable(inner) for key, inner in value.items()}
    return value


def _override(content, text):
    """Replaces one value of the file's content, as `--set a.b=c` asks."""
    where, equals, value = text.partition("=")
    if not equals:
        raise ConfigError(f"--set {text}: expected key=value, such as stages.noisy.epochs=3.")
    try:
        value = json.loads(value, object_pairs_hook=_distinct, parse_constant=_refuse_constant)
    except ValueError:
        pass  # a bare word is a string
    *path, last = where.split(".")
    place = content
    for key in path:
        place = place[_index(place, key, text)] if isinstance(place, list) else _inside(place, key, text)
    if isinstance(place, list):
        place[_index(place, last, text)] = value
    elif isinstance(place, dict):
        place[last] = value
    else:
        raise ConfigError(f"--set {text}: {'.'.join(path)} is {place!r} and holds no {last!r}.")


def _inside(place, key, text):
    if not isinstance(place, dict) or key not in place:
        accepted = place if isinstance(place, dict) else ()
        raise ConfigError(
            f"--set {text}: there is no {key!r}. {signatures.nearest(key, accepted)}Accepted: {', '.join(accepted)}."
        )
    return place[key]


def _index(entries, key, text):
    """Where in a list the entry with this index or name stands."""
    names = [entry.get("name") if isinstance(entry, dict) else None for entry in entries]
    if names.count(key) > 1:
        places = ", ".join(str(place) for place, name in enumerate(names) if name == key)
        raise ConfigError(f"--set {text}: several entries are called {key!r}. Name one by its index: {places}.")
    if key in names:
        return names.index(key)
    if key.isdecimal() and int(key) < len(entries):
        return int(key)
    accepted = ", ".join([*map(str, filter(None, names)), f"0 to {len(entries) - 1}"])
    raise ConfigError(f"--set {text}: there is no entry {key!r}. {signatures.nearest(key, names)}Accepted: {accepted}.")
