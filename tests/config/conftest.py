"""A fixture that writes experiment files."""

import json

import pytest


@pytest.fixture
def write(tmp_path):
    """A function: content → the path of an experiment file."""

    def write(content):
        path = tmp_path / "all.json"
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        return path

    return write
