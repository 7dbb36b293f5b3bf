import sys

import pytest

from audiotag.config import custom
from audiotag.errors import ConfigError

MODULE = """
def network(input_shape, num_classes, *, filters: tuple[int, ...] = (8,), kernels: list[list[int]] | None = None,
            names: dict[str, float] = {}, width=3):
    return filters, kernels, names, width
"""


@pytest.fixture
def network(tiny, tmp_path, monkeypatch):
    """A function: options as JSON → what a component of one's own is given."""
    (tmp_path / "own_networks.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "own_networks", raising=False)

    def network(options):
        with custom.allowed():
            experiment = custom.with_checked_options(tiny(f'model={{"name": "own_networks:network"{options}}}'))
            return custom.create(experiment.model, {}, input_shape=(), num_classes=2)

    return network


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ("", ((8,), None, {}, 3)),
        (', "filters": [16, 32]', ((16, 32), None, {}, 3)),
        (', "kernels": [[1, 2], [3]], "names": {"a": 1.5}', ((8,), [[1, 2], [3]], {"a": 1.5}, 3)),
    ],
)
def test_arrays_become_what_the_annotations_say(network, options, expected):
    assert network(options) == expected


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (', "filters": [1.5]', r"^model: own_networks:network: filters\[0\]: Input should be a valid integer"),
        (', "filters": 8', r"^model: own_networks:network: filters: Input should be a valid (array|tuple)"),
        (', "width": "3"', r"^model: own_networks:network: width"),
        (', "filter": [8]', r"^model: own_networks:network: unknown key 'filter'. Did you mean 'filters'\?"),
    ],
)
def test_other_values_are_refused(network, options, message):
    with pytest.raises(ConfigError, match=message):
        network(options)
