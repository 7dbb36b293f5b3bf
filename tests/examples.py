"""Examples of components, declared by the test file of each component and collected by the conformance tests."""

import functools
import importlib.util
import sys
from pathlib import Path

TESTS = Path(__file__).parent
WAVEFORM = (None, None)  # [B, N], None where a size may vary
IMAGE = (None, 24, None, 1)  # [B, M, T, C]
MEL = {
    "sample_rate": 16_000,
    "num_bands": 40,
    "fft_length": 512,
    "frame_step": 160,
    "low_hz": 50,
    "high_hz": None,
    "padding": "reflect",
}


def collected(place, name="EXAMPLES"):
    """The values of a variable in all test files at a place, a file or a folder below tests/, that define it."""
    paths = [TESTS / place] if place.endswith(".py") else sorted((TESTS / place).rglob("test_*.py"))
    return [vars(module)[name] for module in map(_loaded, paths) if name in vars(module)]


@functools.cache
def _loaded(path):
    """A test file as a module of its own; pytest imports it under another name."""
    name = "examples_in_" + "_".join(path.relative_to(TESTS).with_suffix("").parts)
    spec = importlib.util.spec_from_file_location(name, path)
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
