"""Number of trials of the checks of docs/reliability.md: few by default, many with AUDIOTAG_TIER=full."""

import os

import pytest
from hypothesis import settings


def tier(fast, full):
    """The number of trials in the fast tier, or in the full one if AUDIOTAG_TIER says so."""
    return full if os.environ.get("AUDIOTAG_TIER", "fast") == "full" else fast


def law(test):
    """Marks a property of check C8: hypothesis tries 1,000 examples in the full tier, 60 otherwise."""
    examples = tier(60, 1_000)
    return pytest.mark.check("C8", examples)(settings(max_examples=examples, deadline=None)(test))
