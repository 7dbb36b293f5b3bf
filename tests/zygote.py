"""Starts processes that have already imported all of audiotag: each is forked before TensorFlow starts threads.

Reads jobs from standard input, one JSON object per line, and replies to each with one line:
    {"argv": [...], "log": path, "faults": {...}, "script": path, "path": [...]}  →  pid of a process that runs it
    {"wait": pid, "seconds": s}  →  its exit code, as in subprocess; null if it is still running after s seconds
"""

import gc
import json
import os
import random
import runpy
import sys
import time
from pathlib import Path

import small_networks


def load():
    """Imports what jobs need, without using anything of TensorFlow that would start its threads."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    small_networks.set_environment()
    gc.disable()
    import audiotag.cli
    import audiotag.data.records
    import audiotag.serving.saved_model
    import audiotag.training.loop  # noqa: F401

    small_networks.no_graph_optimizer()
    gc.freeze()  # which leaves these modules out of all collections
    gc.set_threshold(50_000, 20, 100)
    gc.enable()


def run(job):
    """Runs a job in the forked process, and ends the process."""
    out = os.open(job["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(out, 1)
    os.dup2(out, 2)
    sys.stdin = open(os.devnull)
    random.seed()
    sys.path[:0] = job.get("path", [])
    code = 1
    try:
        if job.get("faults"):
            sys.path.insert(0, str(Path(__file__).parent / "reliability"))
            import faults

            faults.install(**job["faults"])
        if job.get("script"):
            sys.path.insert(0, str(Path(job["script"]).parent))
            sys.argv = [job["script"], *job["argv"]]
            runpy.run_path(job["script"], run_name="__main__")
            code = 0
        else:
            from audiotag.cli import main

            main(job["argv"])
    except SystemExit as ending:
        code = ending.code if isinstance(ending.code, int) else int(bool(ending.code))
    except BaseException:
        import traceback

        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def wait(pid, seconds):
    """The exit code of a process, or None if it has not ended in time."""
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
            reply = wait(job["wait"], job["seconds"])
        else:
            reply = os.fork()
            if reply == 0:
                run(job)
        print(json.dumps(reply), flush=True)


if __name__ == "__main__":
    serve()
