import dataclasses
import re

import pytest
from click.testing import CliRunner

from audiotag.cli import main
from audiotag.training.bench import ADVICE, PARTS, Bench, bench


@pytest.fixture(scope="module")
def measured(tiny):
    return bench(tiny(), num_steps=10, num_rounds=3)


def test_every_part_of_a_step_is_measured(measured):
    assert tuple(measured.milliseconds) == PARTS
    assert all(measured.milliseconds[part] > 0 for part in PARTS if part != "augmentation")
    assert measured.milliseconds["network"] < measured.step and 0 <= measured.waiting < 1
    assert measured.milliseconds["front end"] < measured.step


def test_the_slowest_part_bounds_the_step_unless_it_waits_for_data(measured):
    for part in PARTS[1:]:
        slow = dataclasses.replace(measured, milliseconds=measured.milliseconds | {part: 1e4}, waiting=0.05)
        assert str(slow).splitlines()[-1] == f"The step is bound by the {part} (10000.0 ms). {ADVICE[part]}"
    waits = dataclasses.replace(measured, milliseconds=measured.milliseconds | {"data": measured.step}, waiting=0.5)
    assert str(waits).splitlines()[-1] == f"The step is bound by the data (it waits 50% of the time). {ADVICE['data']}"
    quick = dataclasses.replace(waits, milliseconds=waits.milliseconds | {"data": 0.01})  # other programs slowed it
    assert quick.bound_by != "data"


def test_the_table_has_a_line_per_part():
    milliseconds = dict(zip(PARTS, (1.0, 2.0, 1.0, 15.0, 1.0, 5.0)))
    lines = str(Bench("noisy", 16, milliseconds, step=15.0, waiting=0.0)).splitlines()
    assert lines[0] == "stage noisy, 16 clips per step"
    assert lines[5].split() == ["network,", "both", "ways", "15.0", "75.0%"]
    assert lines[8].split() == ["step", "with", "validation", "20.0", "100.0%", "800.0", "clips/s"]


def test_a_stage_that_does_not_exist_is_refused(tiny_file):
    result = CliRunner().invoke(main, ["bench", str(tiny_file), "--stage", "x"])
    assert result.exit_code == 1
    assert re.search(r"^Error: --stage: there is no stage 'x'\. Accepted: \w", result.output, re.MULTILINE)
