"""How far long work has come: a bar on a terminal, a plain line now and then elsewhere."""

import sys
import time

from tqdm import tqdm

SECONDS_BETWEEN_LINES = 10


def bar(entries, *, total, unit, label):
    """Yields the entries and shows on standard error how many of `total` there were, the rate and the time left."""
    if sys.stderr.isatty():
        yield from tqdm(entries, total=total, unit=unit, desc=label, dynamic_ncols=True)
        return
    started = shown = time.monotonic()
    for count, entry in enumerate(entries, start=1):
        yield entry
        now = time.monotonic()
        if now - shown > SECONDS_BETWEEN_LINES or count == total:
            shown = now
            print(f"{label}: {rate_line(count, total, now - started, unit)}", file=sys.stderr, flush=True)


def rate_line(count, total, seconds, unit):
    """ "120/560 clips, 85.1 clips/s, 5 s left"; what a bar says, in words."""
    rate = count / max(seconds, 1e-9)
    left = "" if count == total else f", {(total - count) / max(rate, 1e-9):.0f} s left"
    return f"{count}/{total} {unit}s, {rate:.1f} {unit}s/s{left}"
