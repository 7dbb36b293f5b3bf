"""Progress of long work: a bar on a terminal, elsewhere a line every few seconds."""

import sys
import time
from collections.abc import Generator, Iterable
from typing import TypeVar

from tqdm import tqdm

SECONDS_BETWEEN_LINES = 10
Item = TypeVar("Item")


def bar(items: Iterable[Item], *, total: int, unit: str, label: str) -> Generator[Item, None, None]:
    """Yields items and shows progress on standard error.

    Shown are the number of items done, the rate and the time left.

    Args:
        items: Any iterable; items are taken one at a time.
        total: The number of items.
        unit: The singular of what is counted, such as "clip".
        label: What is being done, at the start of the bar or line.
    """
    if sys.stderr.isatty():
        yield from tqdm(items, total=total, unit=unit, desc=label, dynamic_ncols=True)
        return
    started = shown = time.monotonic()
    for count, item in enumerate(items, start=1):
        yield item
        now = time.monotonic()
        if now - shown > SECONDS_BETWEEN_LINES or count == total:
            shown = now
            print(f"{label}: {rate_line(count, total, now - started, unit)}", file=sys.stderr, flush=True)


def rate_line(count: int, total: int, seconds: float, unit: str) -> str:
    """The text of a progress line.

    Example:
        >>> rate_line(120, 560, 1.5, "clip")
        '120/560 clips, 80.0 clips/s, 6 s left'
    """
    rate = count / max(seconds, 1e-9)
    left = "" if count == total else f", {(total - count) / max(rate, 1e-9):.0f} s left"
    units = f"{unit}es" if unit.endswith("ch") else f"{unit}s"
    return f"{count}/{total} {units}, {rate:.1f} {units}/s{left}"
