"""C9: experiment files and --set changes of any content are accepted or refused in a sentence, within a second."""

import copy
import itertools
import json
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tiers import tier

from audiotag.config.loading import dump, load
from audiotag.config.schema import Experiment
from audiotag.errors import ConfigError

FILES = sorted((Path(__file__).parents[2] / "experiments").glob("*.json"))
CONTENTS = [json.loads(dump(load(path))) for path in FILES if "components" not in path.name]
EXTREMES = (
    0,
    -1,
    1,
    2**31,
    2**63,
    2**70,
    -(2**70),
    10**18,
    10**400,
    1e308,
    -1e308,
    5e-324,
    0.5,
    1.0,
    True,
    False,
    None,
)
WORDS = (
    "",
    "a",
    "name",
    "nan",
    "../..",
    "\ud800",
    "\0",
    "é" * 50,
    "x" * 100_000,
    "[" * 50_000,
    "val_lwlrap",
    "noisy",
    "1/2",
)

scalars = st.one_of(
    st.sampled_from(EXTREMES + WORDS),
    st.integers(),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=20),
)
values_of_usual_size = st.one_of(
    scalars,
    st.recursive(
        scalars,
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
        max_leaves=12,
    ),
)
large = st.sampled_from([[0] * 50_000, {str(key): key for key in range(20_000)}, [[]] * 1_000])
values = st.integers(0, 49).flatmap(lambda number: values_of_usual_size if number else large).map(copy.deepcopy)


def places(content, path=()):
    """The paths of all values in the content of a file."""
    pairs = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    for key, value in pairs:
        yield (*path, key)
        yield from places(value, (*path, key))


PLACES = [[*places(content)] for content in CONTENTS]


def holder_of(content, path):
    for key in path[:-1]:
        content = content[key]
    return content


@st.composite
def experiments(draw):
    """The content of an experiment file with one to five changes."""
    content = copy.deepcopy(draw(st.sampled_from(CONTENTS)))
    for _ in range(draw(st.integers(1, 5))):
        path = draw(st.sampled_from(list(itertools.islice(places(content), 500)) or [("seed",)]))
        holder, key = holder_of(content, path), path[-1]
        change = draw(st.sampled_from(("replace", "replace", "replace", "delete", "add", "repeat", "exchange")))
        if change == "delete":
            del holder[key]
        elif change == "add" and isinstance(holder, dict):
            holder[draw(st.sampled_from(WORDS) | st.text(max_size=10))] = draw(values)
        elif change == "repeat" and isinstance(holder, list):
            holder.extend(copy.deepcopy(holder[key]) for _ in range(draw(st.sampled_from((1, 2, 200)))))
        elif change == "exchange":
            number = draw(st.integers(0, len(CONTENTS) - 1))
            source = draw(st.sampled_from(PLACES[number]))
            holder[key] = copy.deepcopy(holder_of(CONTENTS[number], source)[source[-1]])
        else:
            holder[key] = draw(values)
    return content


@st.composite
def overrides(draw):
    """A text as for --set: a known or unknown key and a value, or any text."""
    if draw(st.integers(0, 9)) == 0:
        return draw(st.text(max_size=60) | st.sampled_from(WORDS))
    path = [str(key) for key in draw(st.sampled_from(draw(st.sampled_from(PLACES))))]
    if draw(st.booleans()):
        path[draw(st.integers(0, len(path) - 1))] = draw(st.sampled_from(WORDS + ("0", "-1", "99", "noisy")))
    value = draw(values)
    return f"{'.'.join(path)}={value if isinstance(value, str) else json.dumps(value)}"


def check(path, changes):
    """Loads an experiment, or gets a ConfigError that is short enough to be read."""
    begun = time.process_time()
    try:
        assert isinstance(load(path, changes), Experiment)
    except ConfigError as error:
        message = str(error)
        assert message and len(message) < 20_000 and "Traceback" not in message
    assert time.process_time() - begun < 1


NUM_EXAMPLES = tier(50, 10_000)  # of each kind
some = settings(
    max_examples=NUM_EXAMPLES,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
)


@pytest.mark.filterwarnings("ignore:Generating overly large repr")  # of values with 50,000 entries
@pytest.mark.check("C9", NUM_EXAMPLES)
@some
@given(content=experiments())
def test_an_experiment_file_of_any_content_is_accepted_or_explained(content, tmp_path):
    path = tmp_path / "experiment.json"
    path.write_text(json.dumps(content))
    check(path, [])


@pytest.mark.filterwarnings("ignore:Generating overly large repr")  # of values with 50,000 entries
@pytest.mark.check("C9", NUM_EXAMPLES)
@some
@given(
    file=st.sampled_from([path for path in FILES if "components" not in path.name]),
    changes=st.lists(overrides(), min_size=1, max_size=3),
)
def test_changes_of_any_content_are_accepted_or_explained(file, changes):
    check(file, changes)


# Sizes that would end the process for lack of memory, in files that are otherwise valid.
HUGE = {
    "model.filters=[1000000000]": "model.filters: Input should be at most 1000000, found .1000000000,",
    "model.filters=[8,1000000]": "model conv_skip: filters must have at most 200000000 weights",
    f"model.filters={[4_000] * 9}": "model conv_skip: filters must have at most 200000000 weights",
    'model={"name":"vgg_gap","width":100000}': "model vgg_gap: width must be from 1 to 256",
    "frontend.num_bands=1000000000": "frontend.num_bands: Input should be at most 1000000, found 1000000000",
    "frontend.num_bands=1000000": "frontend log_mel: num_bands must be at most 10000",
    "frontend.fft_length=2147483648": "frontend.fft_length: Input should be at most 1000000, found 2147483648",
    'frontend={"name":"mfcc","num_bands":9000,"fft_length":900000}': "num_bands_times_fft_length must be at most",
    'frontend={"name":"log_filterbank","bands_per_octave":900000,"high_hz":7000}': "fft_length_times_bands",
    "window.seconds=1e9": "window.seconds: Input should be less than or equal to 600",
    'image_preprocess=[{"name":"resize","height":900000,"width":900000}]': "the image of a window has the sh",
    'image_preprocess=[{"name":"repeat_channels","count":999999}]': "the image of a window has the shape",
    'image_preprocess=[{"name":"fix_frames","num_frames":1000000000000}]': "num_frames: Input should be at most",
    'augment=[{"name":"time_mask","max_width":8,"count":1000000000}]': "count: Input should be at most",
}  # fmt: skip


@pytest.mark.check("C9")
@pytest.mark.parametrize("change", HUGE)
def test_a_size_that_no_memory_holds_is_refused_at_once(tiny, change):
    from audiotag.runs.building import build_tagger

    begun = time.process_time()
    with pytest.raises(ConfigError, match=HUGE[change]):
        build_tagger(tiny(change), sample_rate=16_000, num_classes=10)
    assert time.process_time() - begun < 5
