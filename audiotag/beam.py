"""Apache Beam: a function for many items, on the machines of any of its runners."""

import contextlib
import logging
import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from audiotag.errors import ConfigError, DataError


@dataclass(frozen=True)
class Beam:
    """Which runner of Apache Beam to use, and how.

    Args:
        runner: Its name, such as DirectRunner, FlinkRunner or DataflowRunner.
        options: Pipeline options, such as "direct_num_workers=4", or "streaming" without a value.
    """

    runner: str
    options: Sequence[str] = ()

    def run(self, function: Callable[[Any], None], items: Iterable[Any]) -> None:
        """Calls a function for each item, in any order and on any machine.

        A runner may call it again for an item, even at the same time: then both calls must leave the same.

        Args:
            function: A function of a module, or a partial of one, that keeps its result itself.
            items: Any objects that can be pickled.

        Raises:
            ConfigError: Apache Beam is not installed, or does not know an option or the runner.
            DataError: The pipeline failed.
        """
        pipeline = self._pipeline()
        import apache_beam

        items = list(items)
        if not items:
            return
        try:
            with _stops_with_its_workers(), pipeline:
                spread = pipeline | "Items" >> apache_beam.Create(items) | "Spread" >> apache_beam.Reshuffle()
                spread | "Work" >> apache_beam.Map(function)
        except Exception as error:  # each runner has errors of its own
            raise DataError(
                f"Beam's {self.runner} failed: {_last_line(error)} What is done is kept: run the same command again."
            ) from error

    def check(self) -> None:
        """Raises ConfigError if Apache Beam is not installed, or knows no such option."""
        self._pipeline()

    def _pipeline(self):
        try:
            import apache_beam
            from apache_beam.options.pipeline_options import PipelineOptions
        except ImportError as error:
            raise ConfigError(
                f"--beam-runner needs Apache Beam: {error}. Install it with: pip install 'audiotag-trainer[beam]'"
            ) from error
        flags = [f"--runner={self.runner}", *(f"--{option}" for option in self.options)]
        unknown = _Unknown()
        logger = logging.getLogger("apache_beam.options.pipeline_options")
        logger.addHandler(unknown)
        try:
            options = PipelineOptions(flags)
            options.get_all_options()
            pipeline = apache_beam.Pipeline(options=options)
        except (ValueError, SystemExit) as error:  # SystemExit: of argparse
            raise ConfigError(f"Beam's {self.runner} with {' '.join(self.options) or 'no options'}: {error}") from error
        finally:
            logger.removeHandler(unknown)
        if unknown.messages:
            raise ConfigError(f"--beam-option: {unknown.messages[0]}. Give options of Beam, as direct_num_workers=4.")
        return pipeline


class _LostWorker(BaseException):
    """A worker process was killed."""


@contextlib.contextmanager
def _stops_with_its_workers() -> Iterator[None]:
    """Ends the wait for a worker process that was killed, for which Beam's local runner would wait forever.

    The thread that started the process raises, and wakes up the main thread by a signal. In another thread, and on
    Windows, nothing changes.
    """
    main = threading.main_thread()
    if threading.current_thread() is not main or not hasattr(signal, "SIGUSR1"):
        yield
        return
    usual, lost = threading.excepthook, []

    def wake(failed):
        if failed.thread is None or failed.thread.name != "run_worker":
            usual(failed)
            return
        lost.append(failed.exc_value)
        signal.pthread_kill(main.ident, signal.SIGUSR1)

    def stop(number, frame):
        if lost:
            raise _LostWorker

    threading.excepthook = wake
    earlier = signal.signal(signal.SIGUSR1, stop)
    try:
        yield
    except _LostWorker:
        raise RuntimeError(f"a worker is lost: {lost[0]}.") from lost[0]
    finally:
        signal.signal(signal.SIGUSR1, earlier)
        threading.excepthook = usual


class _Unknown(logging.Handler):
    """Collects what Beam only logs: options that it does not know."""

    def __init__(self):
        super().__init__()
        self.messages = []

    def emit(self, record):
        message = record.getMessage()
        if "unparseable" in message.lower():
            self.messages.append(message)


def _last_line(error):
    """The last line of a message, without the traceback of a worker."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
