"""E: untrusted models, labels and names run no code and neither read nor write files outside their folder."""

import ast
import json
import os
import pickle
import resource
import shutil
import zipfile
from html.parser import HTMLParser
from pathlib import Path

import h5py
import keras
import numpy as np
import pandas as pd
import pytest
import tensorflow as tf

from audiotag import files
from audiotag.data.clips import read_clips, write_clips
from audiotag.errors import AudiotagError, DataError
from audiotag.reporting import page
from audiotag.runs.weights import load_weights, save_weights
from audiotag.serving.saved_model import load_predictor
from audiotag.serving.screening import foreign_operations
from audiotag.training.state import load_state, save_state

HERE = Path(__file__).parent


def network():
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(6), keras.layers.Dense(2)])
    model.compile("adam", "mse")
    return model


# E1: files of weights, training states, runs


@pytest.fixture
def canary(tmp_path):
    """A path that does not exist unless code of an untrusted file runs."""
    path = tmp_path / "canary"
    yield path
    assert not path.exists(), "code ran"


class Bomb:
    """An object that makes a folder when it is unpickled."""

    def __init__(self, canary):
        self.canary = canary

    def __reduce__(self):
        return os.mkdir, (str(self.canary),)


def first_dataset(file):
    """(group, name) of a dataset in a file of weights."""
    found = []
    file.visititems(lambda name, node: found.append(name) if isinstance(node, h5py.Dataset) else None)
    node = file[found[0]]
    return node.parent, found[0].rsplit("/", 1)[1]


def linked(file, link):
    group, name = first_dataset(file)
    del group[name]
    group[name] = link


def replaced(file, *, shape=None, **options):
    group, name = first_dataset(file)
    value = group[name][()]
    del group[name]
    if shape is None and "external" not in options:
        options["data"] = value
    group.create_dataset(name, shape=shape or value.shape, **{"dtype": value.dtype, **options})


def virtual(file, secret):
    group, name = first_dataset(file)
    shape = group[name].shape
    del group[name]
    layout = h5py.VirtualLayout(shape, "f4")
    layout[:] = h5py.VirtualSource(str(secret), "x", shape)
    group.create_virtual_dataset(name, layout)


def typed(file, dtype, value):
    group, name = first_dataset(file)
    del group[name]
    group.create_dataset(name, (len(value),) if isinstance(value, list) else (), dtype=dtype)[...] = value


HDF5 = {
    "a soft link": lambda file, secret: linked(file, h5py.SoftLink("/layers")),
    "a link into another file": lambda file, secret: linked(file, h5py.ExternalLink(str(secret), "/x")),
    "a link to /etc/passwd": lambda file, secret: linked(file, h5py.ExternalLink("/etc/passwd", "/")),
    "a circle": lambda file, secret: linked(file, file["layers"]),
    "numbers in another file": lambda file, secret: replaced(
        file, shape=(4, 6), external=[(str(secret), 0, h5py.h5f.UNLIMITED)]
    ),
    "numbers from /etc/passwd": lambda file, secret: replaced(
        file, shape=(4, 6), external=[("/etc/passwd", 0, h5py.h5f.UNLIMITED)]
    ),
    "a virtual dataset": virtual,
    "a shape of a terabyte": lambda file, secret: replaced(file, shape=(2**38,), chunks=(2**20,)),
    "a packed bomb": lambda file, secret: replaced(file, shape=(2**31,), chunks=(2**20,), compression="gzip"),
    "a filter": lambda file, secret: replaced(file, chunks=(4, 6), shuffle=True),
    "texts": lambda file, secret: typed(file, h5py.string_dtype(), ["x"] * 4),
    "a list of lists": lambda file, secret: typed(file, h5py.vlen_dtype("f4"), [np.ones(3, "f4"), np.ones(2, "f4")]),
    "a reference": lambda file, secret: typed(file, h5py.ref_dtype, [file.ref]),
    "pickled bytes": lambda file, secret: typed(file, "V40", np.void(pickle.dumps(Bomb(secret)).ljust(40)[:40])),
    "another shape": lambda file, secret: replaced(file, shape=(6, 4)),
}


def weights(canary, path, change):
    save_weights(network(), path)
    secret = path.with_name("secret.h5")
    with h5py.File(secret, "w") as file:
        file["x"] = np.ones((4, 6), "float32")
    with h5py.File(path, "r+") as file:
        change(file, secret)


def keras_file(path, canary):
    """A .keras file with a Lambda in it, under a name for weights."""
    code = keras.layers.Lambda(lambda x: x)
    model = keras.Sequential([keras.Input((4,)), code])
    place = path.with_name("model.keras")
    model.save(place)
    place.rename(path)


def packed_state(path, canary):
    arrays = {f"arr_{i}": np.zeros((1 << 20), "uint8") for i in range(64)}
    np.savez_compressed(path, sha256=np.array("0" * 64), **arrays)


def pickled_state(path, canary):
    np.savez(path, np.array([Bomb(canary)], object), sha256=np.array("0" * 64))


def escaping_state(path, canary):
    save_state(path, network(), [], [])
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("../../canary.npy", b"\x93NUMPY")


OTHERS = {
    "a Keras model with a Lambda": keras_file,
    "a pickle": lambda path, canary: path.write_bytes(pickle.dumps(Bomb(canary))),
    "a program": lambda path, canary: path.write_text(f"import os; os.mkdir({str(canary)!r})"),
    "nothing": lambda path, canary: path.write_bytes(b""),
}
STATES = {"packed": packed_state, "pickled": pickled_state, "escaping": escaping_state}


@pytest.mark.check("E1")
@pytest.mark.filterwarnings("ignore")
def test_files_of_weights_with_more_than_numbers_are_refused(canary, tmp_path, tally):
    path, memory = tmp_path / "best.weights.h5", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for what, change in HDF5.items():
        with tally.trial(what):
            weights(canary, path, change)
            with pytest.raises(DataError, match="no weights for this network: "):
                load_weights(network(), path)
    for what, make in OTHERS.items():
        with tally.trial(what):
            make(path, canary)
            with pytest.raises(DataError, match="no weights for this network: "):
                load_weights(network(), path)
    for what, make in STATES.items():
        with tally.trial(f"{what} state"):
            make(tmp_path / "training_state.npz", canary)
            with pytest.raises(DataError, match="the training state is damaged|of another network"):
                load_state(tmp_path / "training_state.npz", network())
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory
    with tally.trial("memory"):
        assert grown < 512 * 1024, f"{grown} KiB more"


@pytest.mark.check("E1")
@pytest.mark.parametrize("weights", ["../../outside.weights.h5", "/etc/passwd"])
def test_a_run_whose_weights_are_in_another_folder_is_refused(run, tmp_path, weights):
    copy = shutil.copytree(run.folder, tmp_path / "copy")
    shutil.copy(run.weights(0, "curated"), tmp_path / "outside.weights.h5")
    path = copy / "fold-0" / "curated" / "result.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"weights": weights}))
    with pytest.raises(DataError, match="missing or damaged"):
        load_predictor(copy)


@pytest.mark.check("E1")
@pytest.mark.parametrize("name", ["os.system", "__import__('os').system", "Lambda", "audiotag.cli.main"])
def test_an_experiment_that_names_code_is_refused(run, tmp_path, name):
    copy = shutil.copytree(run.folder, tmp_path / "copy")
    content = json.loads((copy / "experiment.json").read_text())
    content["model"] = {"name": name, "command": "touch canary"}
    (copy / "experiment.json").write_text(json.dumps(content))
    with pytest.raises(AudiotagError, match="there is no component"):
        load_predictor(copy)


# E2: SavedModels


def serving(function):
    """A module with the endpoints of our models; `function` is applied to its logits."""

    class Predictor(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([None, None], tf.float32, name="waveform")])
        def serve(self, waveform):
            return {"logits": function(tf.zeros([tf.shape(waveform)[0], 2]))}

        @tf.function(input_signature=[])
        def class_names(self):
            return tf.constant(["a", "b"])

        @tf.function(input_signature=[])
        def audio_config(self):
            return tf.constant('{"sample_rate": 16000, "trim": null, "trim_db": 60.0, "peak_db": null}')

        @tf.function(input_signature=[])
        def window_config(self):
            return tf.constant('{"window_samples": 16000, "hop": 8000, "pool": "mean"}')

    return Predictor()


def after(operation):
    """A function of the logits that runs an operation first."""

    def call(logits):
        with tf.control_dependencies([operation()]):
            return tf.identity(logits)

    return call


def within(operation):
    """The same in a function called by a branch, to hide it."""
    inner = tf.function(lambda: after(operation)(tf.zeros([1, 2])))
    return lambda logits: logits + tf.cond(tf.size(logits) > 0, inner, lambda: tf.zeros([1, 2]))


def foreign(canary):
    write = lambda: tf.io.write_file(str(canary), "x")
    made = lambda: os.mkdir(canary) or 0
    named, four_bytes = {"tensor_names": ["x"], "shape_and_slices": [""]}, {"dtype": tf.uint8, "shape": [4]}
    return {
        "ReadFile": after(lambda: tf.io.read_file("/etc/passwd")),
        "WriteFile": after(write),
        "WriteFile, hidden": within(write),
        "EagerPyFunc": after(lambda: tf.py_function(made, [], tf.int64)),
        "PyFunc": after(lambda: tf.numpy_function(made, [], tf.int64)),
        "PyFuncStateless": after(lambda: tf.numpy_function(made, [], tf.int64, stateful=False)),
        "MatchingFiles": after(lambda: tf.io.matching_files("/*")),
        "SaveV2": after(lambda: tf.raw_ops.SaveV2(prefix=str(canary), tensors=[1.0], **named)),
        "RestoreV2": after(lambda: tf.raw_ops.RestoreV2(prefix="x", dtypes=[tf.float32], **named)[0]),
        "TextLineDataset": after(lambda: tf.data.TextLineDataset("/etc/passwd").reduce(0, lambda count, _: count + 1)),
        "PrintV2": after(lambda: tf.raw_ops.PrintV2(input="x", output_stream=f"file://{canary}")),
        "ImmutableConst": after(lambda: tf.raw_ops.ImmutableConst(memory_region_name="/etc/passwd", **four_bytes)),
        "Abort": after(lambda: tf.raw_ops.Abort(error_msg="x", exit_without_error=True) or tf.zeros(1)),
        "LookupTable of /etc/passwd": after(
            lambda: tf.raw_ops.InitializeTableFromTextFileV2(
                table_handle=tf.raw_ops.HashTableV2(key_dtype=tf.int64, value_dtype=tf.string),
                filename="/etc/passwd", key_index=-1, value_index=-2,
            ) or tf.zeros(1)
        ),
    }  # fmt: skip


@pytest.mark.check("E2")
@pytest.mark.filterwarnings("ignore")
def test_a_saved_model_that_does_more_than_compute_needs_allow_unsafe(canary, tmp_path, saved_model, tally):
    with tally.trial("our own"):
        assert foreign_operations(saved_model) == []
    with tally.trial("one that only computes"):
        module = serving(tf.identity)
        tf.saved_model.save(module, str(tmp_path / "plain"), {"serving_default": module.serve})
        assert foreign_operations(tmp_path / "plain") == []
        assert load_predictor(tmp_path / "plain").vocabulary == ("a", "b")
    for number, (what, function) in enumerate(foreign(canary).items()):
        with tally.trial(what):
            folder = tmp_path / str(number)
            module = serving(function)
            tf.saved_model.save(module, str(folder), {"serving_default": module.serve})
            with pytest.raises(
                DataError, match="a SavedModel is a program, and this one has operations .*add --allow-unsafe"
            ):
                load_predictor(folder)
            if what == "ReadFile":
                assert load_predictor(folder, allow_unsafe=True).vocabulary == ("a", "b")
    for number, (what, ours, theirs, message) in enumerate(
        [
            ("an unknown operation", b"\x06Conv2D", b"\x06CanvSD", "CanvSD"),
            ("an asset in another folder", b"class_names.txt", b"../../../passwd", "a file outside its folder"),
        ]
    ):
        with tally.trial(what):
            folder = shutil.copytree(saved_model, tmp_path / f"changed-{number}")
            content = (saved_model / "saved_model.pb").read_bytes().replace(ours, theirs)
            (folder / "saved_model.pb").write_bytes(content)
            with pytest.raises(DataError, match=message):
                load_predictor(folder)


# E3: labels and names in pages


HOSTILE = [
    f"{before}{markup}{after}"
    for markup in (
        "<script>x()</script>", '<img src=x onerror="x()">', "<svg onload=x()>", "<a href='javascript:x()'>y</a>",
        "<iframe srcdoc='<script>x()</script>'>",
    )
    for before, after in (("", ""), ('">', ""), ("'>", ""), ("</td></text></title>", "<!--"), ("]]>&lt;", "&#x3c;"))
]  # fmt: skip


class Nodes(HTMLParser):
    """Collects the elements that would run code or load files."""

    def __init__(self, text):
        super().__init__()
        self.found = []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        runs = [name for name, _ in attributes if name.startswith("on") or name in ("href", "src", "srcdoc")]
        if tag in ("script", "iframe", "img", "a") or runs:
            self.found.append((tag, runs))


@pytest.mark.check("E3")
def test_no_label_runs_code_in_a_page(tally):
    template = page.TEMPLATES.from_string('<td title="{{ label }}">{{ label }}</td>{{ chart | safe }}')
    for label in HOSTILE:
        with tally.trial(label):
            chart = page.line_chart({label: ([1, 2], [0.1, 0.2])}, x=label, y=label)
            assert Nodes(template.render(label=label, chart=chart)).found == []
            assert Nodes(label).found  # the label alone would


# E4: cells


FORMULAS = [f"{begin}{rest}" for begin in ("=", "+", "-", "@", "＝", "＋", "－", "＠", "'") for rest in
            ("1+1", 'HYPERLINK("http://x","y")', "cmd|' /C calc'!A0", "")]  # fmt: skip


@pytest.mark.check("E4")
def test_no_cell_is_a_formula_and_every_text_is_read_back(tmp_path, tally):
    table = pd.DataFrame(
        {"name": f"{text.replace('/', '_')}{i}.wav", "subset": "curated", "labels": text.replace(",", ";") or "x",
         "usage": "", "fold": 0, "group": text, "rms": -0.5} for i, text in enumerate(FORMULAS)
    )  # fmt: skip
    write_clips(tmp_path / "clips.csv", table)
    cells = pd.read_csv(tmp_path / "clips.csv", dtype=str, keep_default_na=False)
    for text, cell in zip(table.sort_values("name")["group"], cells["group"]):
        with tally.trial(f"clips.csv {text!r}"):
            assert not cell.startswith(tuple(files.FORMULAS[:-1])) and files.from_cell(cell) == text
    with tally.trial("round trip"):
        back = read_clips(tmp_path / "clips.csv")[table.columns]
        pd.testing.assert_frame_equal(back, table.sort_values(["subset", "name"], ignore_index=True), check_dtype=False)
    with tally.trial("numbers stay numbers"):
        assert (cells["rms"] == "-0.5").all()
    scores = pd.DataFrame([["=a.wav", -1.5]], columns=["fname", "@class"])
    with tally.trial("scores"):
        assert files.csv_text(scores) == "fname,'@class\n'=a.wav,-1.5\n"


# E5: all source files


BANNED = {"pickle", "cPickle", "dill", "joblib", "marshal", "shelve", "cloudpickle"}
CALLS = {"eval", "exec", "compile", "__import__"}
METHODS = {"popen", "enable_unsafe_deserialization", "load_model", "os.system", "yaml.load", "torch.load"}


def banned_in(path):
    """Yields the banned names in a source file."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            names = [alias.name for alias in node.names] + [getattr(node, "module", None) or ""]
            yield from (name for name in names if name.split(".")[0] in BANNED)
        if isinstance(node, ast.Call):
            name = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")
            owner = getattr(getattr(node.func, "value", None), "id", "")
            method = isinstance(node.func, ast.Attribute)
            if {name, f"{owner}.{name}"} & (METHODS if method else CALLS):
                yield f"{owner}.{name}"
            for keyword in node.keywords:
                value = getattr(keyword.value, "value", None)
                if (keyword.arg, value) in {("shell", True), ("allow_pickle", True), ("safe_mode", False)}:
                    yield f"{keyword.arg}={value}"


@pytest.mark.check("E5")
def test_no_source_file_can_run_code_from_a_file(tally):
    for path in sorted((HERE.parents[1] / "audiotag").rglob("*.py")):
        with tally.trial(path):
            assert list(banned_in(path)) == []


def test_banned_names_are_found(tmp_path):
    source = "import pickle\neval('1')\nnp.load(p, allow_pickle=True)\nkeras.models.load_model(p, safe_mode=False)\n"
    (tmp_path / "bad.py").write_text(source + "subprocess.run('x', shell=True)\nyaml.load(x)\nmodel.compile()\n")
    assert sorted(banned_in(tmp_path / "bad.py")) == [
        ".eval", ".load_model", "allow_pickle=True", "pickle", "safe_mode=False", "shell=True", "yaml.load",
    ]  # fmt: skip
