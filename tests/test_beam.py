import sys

import pytest
from click.testing import CliRunner

from audiotag.beam import Beam
from audiotag.cli import main
from audiotag.errors import ConfigError


def test_without_apache_beam_the_message_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "apache_beam", None)
    with pytest.raises(ConfigError, match=r"pip install 'audiotag-trainer\[beam\]'"):
        Beam("DirectRunner").check()


def test_an_option_of_beam_needs_a_runner(tmp_path):
    result = CliRunner().invoke(main, ["make-records", str(tmp_path), "--beam-option", "direct_num_workers=4"])
    assert result.exit_code == 2 and "--beam-option needs --beam-runner" in result.output
