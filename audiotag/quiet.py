"""Leaves TensorFlow's start-up lines out of standard error.

TensorFlow's libraries print them while they load, before they read any setting.
"""

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator

STARTUP_LINES = (
    r"WARNING: All log messages before absl::InitializeLog|I\d{4} .*(oneDNN custom operations|cuda drivers)"
    r"|I\d{4} .*cpu_feature_guard|To enable the following instructions:"
)
# In a process of its own: what TensorFlow prints before it crashes still reaches the terminal.
FILTER = f"""
import re, sys
for line in sys.stdin.buffer:
    if not re.match(rb"{STARTUP_LINES}", line):
        sys.stderr.buffer.write(line)
        sys.stderr.buffer.flush()
"""


@contextlib.contextmanager
def without_startup_lines() -> Iterator[None]:
    """Passes standard error, during the block, through a filter of known lines.

    With TF_CPP_MIN_LOG_LEVEL=0, or without a standard error, nothing is filtered.
    """
    try:
        stderr = os.dup(2)
    except OSError:  # closed
        yield
        return
    if os.environ.get("TF_CPP_MIN_LOG_LEVEL") == "0":
        os.close(stderr)
        yield
        return
    command = [sys.executable, "-I", "-S", "-c", FILTER]
    # In a session of its own, so that Ctrl-C does not end it before it has passed everything on.
    with subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True) as process:
        assert process.stdin is not None
        os.dup2(process.stdin.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)
            process.stdin.close()
