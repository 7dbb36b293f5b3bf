"""Fixtures of the checks of docs/reliability.md: the tier, counts of trials, and processes that can be killed."""

import contextlib
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
import tiers

HERE = Path(__file__).parent
collect_ignore_glob = ["*_alone.py"]  # programs, not tests


@pytest.fixture(scope="session")
def tier():
    """`tiers.tier`."""
    return tiers.tier


class Tally:
    """Counts trials and collects their failures; a test with a tally fails if one of its trials failed."""

    def __init__(self):
        self.counts, self.faults, self.said = {}, [], []

    @contextlib.contextmanager
    def trial(self, what, check=None):
        """One trial; it counts for another check than the test's if `check` names one."""
        self.count(check, 1, 0)
        try:
            yield
        except (Exception, pytest.fail.Exception) as error:
            self.count(check, 0, 1)
            self.faults.append(f"{what}: {type(error).__name__}: {error}")

    def count(self, check, tried, failed):
        """Adds many trials at once."""
        before = self.counts.get(check, (0, 0))
        self.counts[check] = before[0] + tried, before[1] + failed

    def say(self, line):
        """Reports a number that cannot fail, such as one of another program; it is printed below the table."""
        self.said.append(line)


@pytest.fixture
def tally():
    return Tally()


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

    def output(self):
        return self.log.read_text(errors="replace")

    def shows(self, sign, seconds=300):
        """Waits until its output contains `sign`; False if it ends first or takes longer."""
        end = time.monotonic() + seconds
        while sign not in self.output():
            if time.monotonic() > end or self.ended():
                return False
            time.sleep(0.005)
        return True

    def ended(self):
        state = Path(f"/proc/{self.pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
        return state == "Z"


@pytest.fixture(scope="session")
def start(tmp_path_factory):
    """A function that starts `audiotag ARGV...`, or a script, in a separate process: a `Job`, without waiting."""
    logs = tmp_path_factory.mktemp("logs")
    environment = os.environ | {"PYTHONPATH": str(HERE.parents[1]), "TF_CPP_MIN_LOG_LEVEL": "3"}
    zygote = subprocess.Popen(
        [sys.executable, str(HERE / "zygote.py")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=environment,
    )

    def request(content):
        zygote.stdin.write(json.dumps(content) + "\n")
        zygote.stdin.flush()
        return json.loads(zygote.stdout.readline())

    numbers = iter(range(1_000_000))

    def start_job(*argv, script=None, **faults):
        log = logs / f"{next(numbers)}.txt"
        log.touch()
        job = {"argv": [str(word) for word in argv], "log": str(log), "script": script and str(script)}
        faults = {key: str(value) if isinstance(value, Path) else value for key, value in faults.items()}
        return Job(request, request(job | {"faults": faults}), log)

    yield start_job
    zygote.communicate()  # it ends with its input


@pytest.fixture
def tmp_path(tmp_path):
    """In memory if there is room: files survive a killed process there too, and fsync takes no time."""
    memory = Path("/dev/shm")
    if not os.access(memory, os.W_OK) or shutil.disk_usage(memory).free < 2 << 30:
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir=memory) as folder:
        yield Path(folder)


@pytest.fixture(scope="session")
def faults():
    """`faults.installed`: faults in this process during a block."""
    spec = importlib.util.spec_from_file_location("faults", HERE / "faults.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.installed


@pytest.fixture(scope="session")
def files_below():
    """A function: {path: bytes} of the files below a folder, with or without hidden ones.

    Without the cache of hashes, which differs between machines.
    """

    def tree(folder, hidden=True):
        paths = [path for path in folder.rglob("*") if path.is_file() and path.name != ".source_hashes.json"]
        return {
            str(path.relative_to(folder)): path.read_bytes()
            for path in paths
            if hidden or not any(part.startswith(".") for part in path.relative_to(folder).parts)
        }

    return tree
