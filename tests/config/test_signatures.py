import importlib
import inspect
import subprocess
import sys

import pytest

from audiotag.config import signatures

TABLES = [
    ("audiotag.layers", "WAVEFORM_AUGMENTATIONS"),
    ("audiotag.layers", "FRONTENDS"),
    ("audiotag.layers", "IMAGE_PREPROCESSING"),
    ("audiotag.layers", "IMAGE_AUGMENTATIONS"),
    ("audiotag.models", "MODELS"),
    ("audiotag.losses", "LOSSES"),
    ("audiotag.metrics", "METRICS"),
    ("audiotag.optimizers", "OPTIMIZERS"),
    ("audiotag.schedules", "SCHEDULES"),
    ("audiotag.training.callbacks", "CALLBACKS"),
    ("audiotag.crossval.label_rules", "RULES"),
]
every_table = pytest.mark.parametrize(("module", "table"), TABLES, ids=[table for _, table in TABLES])


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A function: {file: source} → a package `sounds` that would fail if anything of it were imported."""

    def write(files):
        for name, source in {"__init__.py": "", **files}.items():
            path = tmp_path / "sounds" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"{source}\nraise SystemExit('imported')\n")
        monkeypatch.syspath_prepend(tmp_path)
        signatures._tree.cache_clear()

    yield write
    signatures._tree.cache_clear()


def test_a_near_word_is_suggested_and_a_far_one_is_not():
    assert signatures.nearest("standardize", ["resize", "standardize"]) == "Did you mean 'standardize'? "
    assert signatures.nearest("xyz", ["resize", "standardize"]) == ""
    assert signatures.nearest("anything", []) == ""


def test_any_value_may_be_compared_with_any_words():
    assert signatures.nearest(12, [1, 120]) == "Did you mean '120'? "
    assert signatures.nearest(None, [None, "x"]) == "Did you mean 'None'? "


@every_table
def test_the_component_names_are_those_of_the_table(module, table):
    assert signatures.component_names(module, table) == tuple(getattr(importlib.import_module(module), table))


@every_table
def test_a_signature_read_from_source_is_that_of_the_component(module, table):
    for name, value in getattr(importlib.import_module(module), table).items():
        # A class of Keras' has a metaclass or a decorator that hides the signature from `inspect`.
        start = value.__init__ if inspect.isclass(value) else value
        kinds = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
        expected = {p.name: p.default for p in inspect.signature(start).parameters.values() if p.kind not in kinds}
        expected.pop("self", None)
        found = {p.name: p.default for p in signatures.signature(module, table, name).parameters.values()}
        assert found == expected, name


def test_annotations_stay_text():
    assert signatures.signature("audiotag.models", "MODELS", "conv_skip").parameters["leak"].annotation == "float"


def test_an_annotation_that_the_module_assigns_to_a_name_is_read_from_there(package):
    package(
        {
            "table.py": "from sounds.bells import ring\nTABLE = {'x': ring}",
            "bells.py": "Tone = Literal['a', 'b']\ndef ring(tone: Tone = 'a', hz: float = 1.0):\n    pass",
        }
    )
    parameters = signatures.signature("sounds.table", "TABLE", "x").parameters
    assert [parameter.annotation for parameter in parameters.values()] == ["Literal['a', 'b']", "float"]


def test_a_class_without_a_constructor_has_that_of_its_base(package):
    package(
        {
            "table.py": "from sounds.bells import Church\nBELLS = {'church': Church}",
            "bells.py": "from sounds.metal import Bell\nclass Church(Bell):\n    pass",
            "metal.py": "class Bell:\n    def __init__(self, hz, *, ring: float = 2.0, **rest):\n        pass",
        }
    )
    signature = signatures.signature("sounds.table", "BELLS", "church")
    assert list(signature.parameters) == ["hz", "ring"]
    assert signature.parameters["hz"].default is inspect.Parameter.empty
    assert signature.parameters["ring"].default == 2.0


def test_names_are_followed_through_every_kind_of_import(package):
    package(
        {
            "__init__.py": "from sounds.deep import knock as open_door",
            "deep/__init__.py": "from sounds.deep.doors import knock",
            "deep/doors.py": "def knock(a=(1, -2), b=None, c='d'):\n    pass",
            "one.py": "import sounds\nTABLE = {'x': sounds.open_door}",
            "two.py": "from sounds import deep\nTABLE = {'x': deep.knock}",
            "three.py": "from sounds.deep import doors as d\nTABLE = {'x': d.knock}",
            "four.py": "def knock(a=(1, -2), b=None, c='d'):\n    pass\nTABLE = {'x': knock}",
        }
    )
    for module in ("sounds.one", "sounds.two", "sounds.three", "sounds.four"):
        parameters = signatures.signature(module, "TABLE", "x").parameters
        assert {key: parameter.default for key, parameter in parameters.items()} == {"a": (1, -2), "b": None, "c": "d"}


def test_a_missing_table_or_name_is_an_error(package):
    package({"table.py": "TABLE = {'x': knock}"})
    with pytest.raises(LookupError, match="sounds.table has no table BELLS"):
        signatures.component_names("sounds.table", "BELLS")
    with pytest.raises(LookupError, match="sounds.table does not define knock"):
        signatures.signature("sounds.table", "TABLE", "x")


def test_nothing_is_imported():
    read = "; ".join(f"[s.signature({m!r}, {t!r}, n) for n in s.component_names({m!r}, {t!r})]" for m, t in TABLES)
    code = f"import sys; from audiotag.config import signatures as s; {read}; print(*sys.modules)"
    modules = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()
    assert "audiotag.config.signatures" in modules
    assert not {"tensorflow", "keras", "audiotag.layers", "audiotag.models"} & set(modules)
