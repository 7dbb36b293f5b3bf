"""The mistakes a user can make; the command line prints them without a traceback."""


class AudiotagError(Exception):
    """Something a person can put right; the message says what came, what was expected and the way out."""


class ConfigError(AudiotagError):
    """An experiment file, or an option, says something audiotag cannot do."""


class DataError(AudiotagError):
    """A recording, a table or a directory of records is not what it has to be."""
