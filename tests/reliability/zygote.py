"""Starts many processes that have imported all of audiotag already: each is forked before TensorFlow does anything.

Reads jobs from standard input, one JSON object a line, and answers each with a line:
    {"argv": [...], "log": path, "faults": {...}, "script": path}  →  pid of a process that runs it
    {"wait": pid, "seconds": s}  →  its exit code, as subprocess has it; null when it still runs after s seconds
"""

import json
import os
import random
import runpy
import sys
import time
from pathlib import Path


def load():
    """Imports what jobs need, and looks at nothing of TensorFlow's that would start its threads."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import audiotag.serving.saved_model  # noqa: F401
    import audiotag.training.loop  # noqa: F401

    import audiotag.cli  # noqa: F401
    import audiotag.data.records  # noqa: F401


def run(job):
    """In a process of its own: does the job and ends."""
    out = os.open(job["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(out, 1)
    os.dup2(out, 2)
    sys.stdin = open(os.devnull)
    random.seed()
    code = 1
    try:
        if job.get("faults"):
            sys.path.insert(0, str(Path(__file__).parent))
            import faults

            faults.install(**job["faults"])
        if job.get("script"):
            sys.argv = [job["script"], *job["argv"]]
            runpy.run_path(job["script"], run_name="__main__")
            code = 0
        else:
            from audiotag.cli import main

            main(job["argv"])
    except SystemExit as left:
        code = left.code if isinstance(left.code, int) else int(bool(left.code))
    except BaseException:
        import traceback

        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def wait(pid, seconds):
    """The exit code of a process, or None where it has not ended in time."""
    end = time.monotonic() + seconds
    while True:
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > end:
            return None
        time.sleep(0.01)


def serve():
    load()
    for line in sys.stdin:
        job = json.loads(line)
        if "wait" in job:
            answer = wait(job["wait"], job["seconds"])
        else:
            answer = os.fork()
            if answer == 0:
                run(job)
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    serve()
