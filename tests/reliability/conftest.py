"""What the checks of docs/reliability.md share: the tier, the count of what was tried, and processes to mistreat."""

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
collect_ignore_glob = ["*_alone.py"]  # programs, no tests


@pytest.fixture(scope="session")
def tier():
    """`tiers.tier`."""
    return tiers.tier


class Tally:
    """Counts what was tried, and remembers what failed; a test with one fails when its trials did."""

    def __init__(self):
        self.counts, self.faults, self.said = {}, [], []

    @contextlib.contextmanager
    def trial(self, what, check=None):
        """One thing that is tried; for another check than the test's, if one is named."""
        self.count(check, 1, 0)
        try:
            yield
        except (Exception, pytest.fail.Exception) as error:
            self.count(check, 0, 1)
            self.faults.append(f"{what}: {type(error).__name__}: {error}")

    def count(self, check, tried, failed):
        """Many at once."""
        before = self.counts.get(check, (0, 0))
        self.counts[check] = before[0] + tried, before[1] + failed

    def say(self, line):
        """A figure that is neither right nor wrong, as those of others are; it stands below the table."""
        self.said.append(line)


@pytest.fixture
def tally():
    return Tally()


class Job:
    """A process that `audiotag` runs in."""

    def __init__(self, ask, pid, log):
        self.ask, self.pid, self.log = ask, pid, log

    def wait(self, seconds=300):
        """Its exit code; a failure if it does not end in time."""
        code = self.ask({"wait": self.pid, "seconds": seconds})
        assert code is not None, f"still running after {seconds} s: {self.output()[-500:]}"
        return code

    def kill(self, sign=signal.SIGKILL):
        os.kill(self.pid, sign)
        return self

    def output(self):
        return self.log.read_text(errors="replace")

    def shows(self, sign, seconds=300):
        """Waits until its output has `sign` in it; False where it ends or takes longer."""
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
    """A function that starts `audiotag ARGV...`, or a script, in a process of its own: a `Job`, at once."""
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

    def ask(question):
        zygote.stdin.write(json.dumps(question) + "\n")
        zygote.stdin.flush()
        return json.loads(zygote.stdout.readline())

    numbers = iter(range(1_000_000))

    def started(*argv, script=None, **faults):
        log = logs / f"{next(numbers)}.txt"
        log.touch()
        job = {"argv": [str(word) for word in argv], "log": str(log), "script": script and str(script)}
        faults = {key: str(value) if isinstance(value, Path) else value for key, value in faults.items()}
        return Job(ask, ask(job | {"faults": faults}), log)

    yield started
    zygote.communicate()  # its input has ended, and so does it


@pytest.fixture
def tmp_path(tmp_path):
    """In memory where there is room: a process that dies leaves its files there as well, and fsync takes no time."""
    memory = Path("/dev/shm")
    if not os.access(memory, os.W_OK) or shutil.disk_usage(memory).free < 2 << 30:
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir=memory) as folder:
        yield Path(folder)


@pytest.fixture(scope="session")
def faults():
    """`faults.installed`: the same in this process, for the time of a block."""
    spec = importlib.util.spec_from_file_location("faults", HERE / "faults.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.installed


@pytest.fixture(scope="session")
def files_below():
    """A function: {path: bytes} of the files below a folder, or of those alone that are no scratch.

    Without the cache of hashes, which is a machine's own.
    """

    def tree(folder, hidden=True):
        paths = [path for path in folder.rglob("*") if path.is_file() and path.name != ".source_hashes.json"]
        return {
            str(path.relative_to(folder)): path.read_bytes()
            for path in paths
            if hidden or not any(part.startswith(".") for part in path.relative_to(folder).parts)
        }

    return tree
