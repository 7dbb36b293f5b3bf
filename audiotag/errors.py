"""The mistakes a user can make; the command line prints them without a traceback."""

import contextlib


class AudiotagError(Exception):
    """Something a person can put right; the message says what came, what was expected and the way out."""


class ConfigError(AudiotagError):
    """An experiment file, or an option, says something audiotag cannot do."""


class DataError(AudiotagError):
    """A recording, a table or a directory of records is not what it has to be."""


@contextlib.contextmanager
def blamed_on(where):
    """Turns a part's refusal of its settings, during the block, into an error that names its place."""
    try:
        yield
    except (ValueError, TypeError, OSError, MemoryError) as error:
        raise ConfigError(f"{where}: {error}") from error
