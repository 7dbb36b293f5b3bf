import json

import pytest

from audiotag.config.loading import load
from audiotag.config.schema import Experiment
from audiotag.config.shipped import shipped_experiments
from audiotag.config.starter import DESCRIPTIONS, next_commands, write_starter
from audiotag.errors import ConfigError

every_template = pytest.mark.parametrize("template", shipped_experiments())


@every_template
def test_a_starter_means_the_same_as_its_template(tmp_path, template):
    path = write_starter(tmp_path / "mine", template=template, records="tfrecords/mine")
    expected = load(template).model_dump(exclude={*DESCRIPTIONS, "records"})
    assert load(path).model_dump(exclude={*DESCRIPTIONS, "records"}) == expected
    assert load(path).records == "tfrecords/mine"


@every_template
def test_a_starter_has_neither_defaults_nor_descriptions(tmp_path, template):
    content = json.loads(write_starter(tmp_path / "mine", template=template).read_text())
    assert not content.keys() & set(DESCRIPTIONS)
    for key in content.keys() - {"schema_version"}:
        assert getattr(load(template), key) != Experiment.model_fields[key].default, key
    assert all("weight_decay_on" not in stage or stage["weight_decay_on"] != "all" for stage in content["stages"])


def test_a_starter_is_short_and_takes_its_records_from_its_name(tmp_path):
    text = write_starter(tmp_path / "new" / "birds.json").read_text()
    assert len(text.splitlines()) < 35 and max(map(len, text.splitlines())) <= 120
    assert '  "window": {"seconds": 2.0},\n' in text
    assert json.loads(text)["records"] == "tfrecords/birds"


def test_a_starter_has_no_band_above_half_the_sample_rate_of_its_records(tmp_path):
    path = write_starter(tmp_path / "phone", sample_rate=8_000)
    assert load(path).frontend.high_hz == 4_000
    assert load(write_starter(tmp_path / "same", sample_rate=16_000)).frontend.high_hz == 8_000


def test_a_file_is_not_overwritten(tmp_path):
    path = write_starter(tmp_path / "birds")
    before = path.read_bytes()
    with pytest.raises(ConfigError, match=r"birds.json: exists already. Choose another name, or remove the file."):
        write_starter(tmp_path / "birds", template="demo")
    assert path.read_bytes() == before


def test_a_template_that_does_not_exist_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="no shipped experiment 'simpel'. Did you mean 'simple'\\? Accepted: conv1d"):
        write_starter(tmp_path / "birds", template="simpel")
    assert not list(tmp_path.iterdir())


def test_the_next_commands_make_records_only_where_there_are_none(tmp_path):
    path = write_starter(tmp_path / "birds", records=tmp_path / "records")
    make, fit, predict = next_commands(path).splitlines()
    assert make == f"  audiotag make-records FOLDER --out {tmp_path / 'records'} --sample-rate 16000"
    assert (fit, predict) == (f"  audiotag fit {path}", "  audiotag predict runs/birds/saved_model FILES...")
    (tmp_path / "records").mkdir()
    assert next_commands(path).splitlines() == [fit, predict]


def test_the_next_commands_make_records_at_the_rate_of_a_pretrained_network(tmp_path):
    path = write_starter(tmp_path / "birds", template="yamnet", records=tmp_path / "records")
    assert next_commands(path).splitlines()[0].endswith(" --sample-rate 16000")


def test_the_next_commands_quote_names_with_spaces(tmp_path):
    path = write_starter(tmp_path / "my birds", records="tfrecords/my birds")
    assert next_commands(path).splitlines() == [
        "  audiotag make-records FOLDER --out 'tfrecords/my birds' --sample-rate 16000",
        f"  audiotag fit '{path}'",
        "  audiotag predict 'runs/my birds/saved_model' FILES...",
    ]
