"""Errors that a user can correct.

The command line prints them without a traceback.
"""

import contextlib
from collections.abc import Iterator

MAX_SHOWN = 200  # characters of a value in a message


class AudiotagError(Exception):
    """An error that a user can correct.

    Its message says what was found, what was expected and what to do.
    """


class ConfigError(AudiotagError):
    """An experiment file or an option is not valid."""


class DataError(AudiotagError):
    """A recording, a table, a directory of records or a run is not valid."""


def shortened(text: str, most: int = MAX_SHOWN) -> str:
    """The beginning of a text, for a message that must stay readable.

    Example:
        >>> shortened("a" * 300) == "a" * 200 + "…"
        True
    """
    return text if len(text) <= most else f"{text[:most]}…"


@contextlib.contextmanager
def error_context(where: str) -> Iterator[None]:
    """Turns what a component raises in the block into a `ConfigError`.

    Args:
        where: The component's place in the experiment, such as "model densenet". The message begins with it.
    """
    try:
        yield
    except (ValueError, TypeError, OSError, MemoryError) as error:
        raise ConfigError(f"{where}: {error}") from error
