"""The experiments that come with audiotag."""

from functools import cache
from pathlib import Path

from audiotag.config import signatures
from audiotag.errors import ConfigError, shortened


@cache
def shipped_experiments() -> dict[str, Path]:
    """The files of experiments/ by name; a wheel holds copies of them.

    Example:
        >>> shipped_experiments()["demo"].name
        'demo.json'
    """
    inside = signatures.PACKAGE / "experiments"
    folder = inside if inside.is_dir() else signatures.PACKAGE.parent / "experiments"
    return {path.stem: path for path in sorted(folder.glob("*.json"))}


def shipped(name: str) -> Path:
    """The file of a shipped experiment.

    Raises:
        ConfigError: There is none of this name.
    """
    found = shipped_experiments()
    if name not in found:
        hint = signatures.nearest(name, found)
        raise ConfigError(f"there is no shipped experiment {name!r}. {hint}Accepted: {', '.join(found)}.")
    return found[name]


def find_experiment(path: str | Path) -> Path:
    """The file that the user means: `path`, or a shipped experiment of this name.

    Args:
        path: A file, such as "mysounds.json", or a name without folder and suffix, such as "demo".

    Raises:
        ConfigError: There is no such file, and no such shipped experiment.
    """
    path, found = Path(path), shipped_experiments()
    if path.is_file():
        return path
    if path.name == str(path) and path.name in found:
        return found[path.name]
    if path.is_dir():
        own = path.with_name(f"{path.name}.json")
        what = f"Expected a file, such as {own}" if own.is_file() else f"Write one with: audiotag new {path.name}"
        raise ConfigError(f"{path}: is a folder, and no experiment. {what}.")
    if not path.exists() and path.stem in found:
        raise ConfigError(f"{path}: does not exist. To use the experiment that comes with audiotag, write: {path.stem}")
    if not path.exists() and path.name == str(path) and not path.suffix:
        hint = signatures.nearest(path, found)
        raise ConfigError(
            f"{shortened(str(path))}: neither a file nor a shipped experiment. {hint}Accepted: {', '.join(found)}."
        )
    return path  # `load` says why it cannot be read
