"""How often the checks of docs/reliability.md try: AUDIOTAG_TIER=full is what `make torture` asks for."""

import os

import pytest
from hypothesis import settings


def tier(fast, full):
    """How often the fast tier tries, or the full one: whichever is asked for."""
    return full if os.environ.get("AUDIOTAG_TIER", "fast") == "full" else fast


def law(test):
    """Marks a property as one of check C8: hypothesis looks for counter-examples in 1,000 in full, 60 otherwise."""
    examples = tier(60, 1_000)
    return pytest.mark.check("C8", examples)(settings(max_examples=examples, deadline=None)(test))
