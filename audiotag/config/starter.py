"""Starter files: short experiments to edit, made from the shipped ones."""

import json
import math
from pathlib import Path
from shlex import quote
from typing import Any

from audiotag import files
from audiotag.config.components import Section
from audiotag.config.loading import load
from audiotag.config.schema import SCHEMA_VERSION
from audiotag.config.shipped import shipped
from audiotag.errors import ConfigError

DESCRIPTIONS = ("about", "command", "quick_command", "expect")
MAX_WIDTH = 120  # of a line
SAMPLE_RATES = {"yamnet_mel": 16_000, "efficientat_mel": 32_000}  # of front ends that accept one alone, in Hz


def write_starter(
    path: str | Path,
    *,
    template: str = "simple",
    records: str | Path | None = None,
    sample_rate: int | None = None,
) -> Path:
    """Writes a short experiment file to start from.

    It is a shipped one without descriptions and defaults.

    Args:
        path: The file to write; ".json" is added where it is missing.
        template: The name of the shipped experiment.
        records: The directory of the records; tfrecords/ and the name of the file by default.
        sample_rate: Of the records in Hz, if they exist; the front end then has no band above half of it.

    Returns:
        The file.

    Raises:
        ConfigError: The file exists, or there is no such template.
    """
    source, path = shipped(template), Path(path)
    if path.name in ("", "..") or not files.is_utf8(path):
        raise ConfigError(f"{str(path)!r}: is no name of a file. Expected one such as mysounds.")
    path = path if path.suffix == ".json" else path.with_name(f"{path.name}.json")
    if path.exists():
        raise ConfigError(f"{path}: exists already. Choose another name, or remove the file.")
    content = _without_defaults(json.loads(source.read_bytes()), load(source))
    content = {key: value for key, value in content.items() if key not in DESCRIPTIONS}
    content["records"] = str(records or Path("tfrecords") / path.stem)
    if sample_rate and 2 * content["frontend"].get("high_hz", 0) > sample_rate:
        content["frontend"]["high_hz"] = sample_rate / 2
    path.parent.mkdir(parents=True, exist_ok=True)
    files.write_text(path, _json_text({"schema_version": SCHEMA_VERSION} | content) + "\n")
    return path


def next_commands(path: str | Path) -> str:
    """The commands that train the experiment in a file, a line each.

    make-records is among them only if there are no records yet.
    """
    path, experiment = Path(path), load(path)
    lines = [f"audiotag fit {quote(str(path))}", f"audiotag predict {quote(f'runs/{path.stem}/saved_model')} FILES..."]
    if not Path(experiment.records).exists():
        high_hz = getattr(experiment.frontend, "high_hz", None)
        sample_rate = SAMPLE_RATES.get(experiment.frontend.name) or (high_hz and math.ceil(2 * high_hz))
        rate = f" --sample-rate {sample_rate}" if sample_rate else ""
        lines.insert(0, f"audiotag make-records FOLDER --out {quote(experiment.records)}{rate}")
    return "\n".join(f"  {line}" for line in lines)


def _without_defaults(content: Any, section: Any) -> Any:
    """What a file says beyond defaults, in the file's own form; `section` is what the file was parsed to."""
    if isinstance(content, dict) and isinstance(section, Section):
        fields = type(section).model_fields
        return {
            key: _without_defaults(value, getattr(section, key))
            for key, value in content.items()
            if key not in fields or getattr(section, key) != fields[key].default
        }
    if isinstance(content, list):
        return [_without_defaults(*pair) for pair in zip(content, section)]
    return content


def _json_text(value: Any, indent: str = "", *, width: int = MAX_WIDTH) -> str:
    """JSON in which every object and list that fits is on one line, except the outermost."""
    line = json.dumps(value, ensure_ascii=False)
    if not isinstance(value, (dict, list)) or (indent and len(line) <= width):
        return line
    inner = indent + "  "
    if isinstance(value, dict):
        entries = [
            f"{json.dumps(key)}: {_json_text(entry, inner, width=width - len(inner) - len(key) - 5)}"
            for key, entry in value.items()
        ]
    else:
        entries = [_json_text(entry, inner, width=width - len(inner)) for entry in value]
    opening, closing = ("{", "}") if isinstance(value, dict) else ("[", "]")
    lines = f",\n{inner}".join(entries)
    return f"{opening}\n{inner}{lines}\n{indent}{closing}"
