"""Processes that run `audiotag` or a script, can be killed, and start at once: zygote.py has imported all they need."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).parent


class Job:
    """A process that runs `audiotag`."""

    def __init__(self, request, pid, log):
        self.request, self.pid, self.log = request, pid, log

    def wait(self, seconds=300):
        """Its exit code; a failure if it does not end in time."""
        code = self.request({"wait": self.pid, "seconds": seconds})
        assert code is not None, f"still running after {seconds} s: {self.output()[-500:]}"
        return code

    def kill(self, sign=signal.SIGKILL):
        os.kill(self.pid, sign)
        return self

    def kill_at(self, pattern, pause=0.0):
        """Kills it `pause` seconds after a line that matches a pattern; its exit code."""
        self.shows(pattern)
        time.sleep(pause)
        return self.kill().wait()

    def output(self):
        return self.log.read_text(errors="replace")

    def shows(self, pattern, seconds=300):
        """Waits until its output matches `pattern`; False if it ends first or takes longer."""
        end = time.monotonic() + seconds
        while not re.search(pattern, self.output(), re.MULTILINE):
            if time.monotonic() > end or self.ended():
                return False
            time.sleep(0.01)
        return True

    def ended(self):
        state = Path(f"/proc/{self.pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
        return state == "Z"


class Starter:
    """Starts jobs: `start(*argv)` runs `audiotag ARGV...` without waiting for its end, and returns its `Job`."""

    def __init__(self, logs):
        self.logs, self.num_jobs = logs, 0
        self.zygote = subprocess.Popen(
            [sys.executable, str(HERE / "zygote.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=os.environ | {"PYTHONPATH": str(HERE.parent), "TF_CPP_MIN_LOG_LEVEL": "3"},
        )

    def __call__(self, *argv, script=None, path=(), **faults):
        """With a Python script instead of `audiotag`, folders that it imports from, faults of reliability/faults.py."""
        log = self.logs / f"{self.num_jobs}.txt"
        self.num_jobs += 1
        log.touch()
        job = {"argv": [str(word) for word in argv], "log": str(log), "script": script and str(script)}
        faults = {key: str(value) if isinstance(value, Path) else value for key, value in faults.items()}
        return Job(self.request, self.request(job | {"path": [str(folder) for folder in path], "faults": faults}), log)

    def request(self, content):
        """The reply of the zygote."""
        self.zygote.stdin.write(json.dumps(content) + "\n")
        self.zygote.stdin.flush()
        return json.loads(self.zygote.stdout.readline())

    def close(self):
        self.zygote.communicate()  # it ends with its input
