"""Vocabulary: words that audiotag does not use in names, messages and documents."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# The field has standard terms for these; CONTRIBUTING.md lists them.
BANNED = "ear heard unheard judge verdict dice trunk listener choir disturbance suspects anew".split()
PATTERN = re.compile(rf"(?<![a-zA-Z])({'|'.join(BANNED)})s?(?![a-zA-Z])", re.IGNORECASE)
FOLDERS = ("audiotag", "benchmarks", "docs", "ensembles", "experiments", "tests", "tfrecords")
SUFFIXES = (".py", ".md", ".json", ".html", ".cfg", ".toml")
FILES = sorted(
    path
    for path in [*ROOT.glob("*.*"), *(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.*"))]
    if path.suffix in SUFFIXES and path != Path(__file__) and path.name != "CHANGELOG.md"
)


@pytest.mark.parametrize("path", FILES, ids=[str(path.relative_to(ROOT)) for path in FILES])
def test_no_banned_word_is_in_a_name_a_message_or_a_document(path):
    lines = enumerate(path.read_text().splitlines(), start=1)
    found = [f"line {number}: {line.strip()}" for number, line in lines if PATTERN.search(line)]
    assert not found


def test_a_banned_word_would_be_found():
    assert PATTERN.search("the ear of a model") and PATTERN.search("heard_clips") and PATTERN.search("self.trunk_rate")
    assert not PATTERN.search("an earlier year hears of a bear") and not PATTERN.search("Clear")
