"""Fixtures of the checks of docs/reliability.md: the tier, counts of trials, and faults."""

import contextlib
import importlib.util
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
