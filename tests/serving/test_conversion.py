"""ONNX and LiteRT files of a run: they predict what the run predicts, without TensorFlow."""

import dataclasses
import json
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile as sf
import soxr
from click.testing import CliRunner
from tiers import tier
from waveforms import noise

from audiotag import load_model
from audiotag.cli import main
from audiotag.config.loading import load
from audiotag.config.schema import Predict
from audiotag.data.labels import multi_hot
from audiotag.data.records import write_records
from audiotag.data.sources import find_clips
from audiotag.data.synthetic import make_demo
from audiotag.ensembling.members import EnsembleConfig, EnsemblePredictor
from audiotag.errors import ConfigError, DataError
from audiotag.evaluation.scoring import score_test_clips
from audiotag.metrics import lwlrap
from audiotag.runs.models import with_predict_options
from audiotag.serving.conversion import convert
from audiotag.serving.converted_models import load_converted
from audiotag.serving.saved_model import load_predictor
from audiotag.training.loop import fit

RATE = 16_000
NUM_CLIPS = tier(20, 1_000)
SUFFIXES = [".onnx", ".tflite"]
YAMNET = Path(__file__).parents[3] / "shared" / "data" / "yamnet" / "yamnet.tflite"
RESIZED = (
    'image_preprocess=[{"name":"standardize"},{"name":"resize","height":64,"width":64},{"name":"repeat_channels"}]'
)
FLIPPED = [
    'augment=[{"name":"flips_as_classes"}]',
    'predict={"windows":"drop_remainder","pool":"max","flip_tta":"clip"}',
]
FEW_WINDOWS = ["window.seconds=2", 'predict={"overlap":0}']
NETWORKS = {  # of the full tier, trained until they know the test clips: {name: (epochs, settings)}
    "conv_skip": (10, ["model.filters=[32,64,128]", RESIZED]),
    "mobilenet_v2": (25, [RESIZED, *FEW_WINDOWS]),  # statistics of the batches need many
    "xresnet18": (10, FLIPPED),
    "densenet169": (6, [RESIZED, *FEW_WINDOWS]),
    "yamnet": (0, ["window.seconds=0.975", f"model.weights={YAMNET}"]),
}
TRAINED = tier(["tiny"], ["tiny", *NETWORKS])
LEARNED = 0.6  # lwlrap of test clips; chance is 0.25
WITHOUT_TENSORFLOW = """
import sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("tensorflow", "keras"):
            raise ModuleNotFoundError(f"{name} is blocked")
sys.meta_path.insert(0, Blocker())
from audiotag.cli import main
main(sys.argv[1:])
"""


@pytest.fixture(scope="module")
def files(run, tmp_path_factory):
    """{suffix: file of the run}."""
    folder = tmp_path_factory.mktemp("converted")
    for suffix in SUFFIXES:
        assert convert(run, folder / f"tiny{suffix}").difference < 1e-3
    return {suffix: folder / f"tiny{suffix}" for suffix in SUFFIXES}


@pytest.fixture(scope="module")
def sounds(demo, tmp_path_factory):
    """The dataset whose test clips are scored, and on which the full tier trains."""
    if len(TRAINED) == 1:
        return demo
    folder = tmp_path_factory.mktemp("sounds") / "demo"
    make_demo(folder, noisy=14)
    return folder


@pytest.fixture(scope="module")
def clips(sounds):
    """Waveforms of 0.1 to 10 s, at 0 to -40 dB.

    Three in four are test clips, cut or repeated, one is noise. One is silent, one has silence at both ends and within.
    """
    rng, found = np.random.default_rng(0), []
    known = [sf.read(path, dtype="float32") for path in sorted((sounds / "test").glob("*.wav"))]
    known = [soxr.resample(waveform, rate, RATE) for waveform, rate in known]
    for number in range(NUM_CLIPS):
        length, level = int(RATE * rng.uniform(0.1, 10)), 10.0 ** -rng.uniform(0, 2)
        waveform = np.roll(known[number % len(known)], rng.integers(RATE))
        clip = np.resize(waveform, length) if number % 4 else 0.3 * noise(length, seed=number)
        found.append((level * clip).astype("float32"))
    found[1][:] = 0
    found[2][: RATE // 20] = found[2][-RATE // 20 :] = found[2][RATE // 15 : RATE // 13] = 0
    return found


def scores(predictor, clips):
    return np.concatenate([predictor.logits(clip[None]) for clip in clips])


def train(name, tiny, sounds, folder):
    """The run of a network that has learned the sounds: its logits are as large as those of users."""
    epochs, settings = NETWORKS[name]
    write_records(find_clips(sounds), folder / "records", sample_rate=RATE, workers=0)
    changes = [f"records={folder / 'records'}", *settings]
    if name == "yamnet":
        if not YAMNET.exists():
            pytest.skip("needs YAMNet's weights in ../shared/data/yamnet")
        experiment = load("yamnet", changes)
    else:
        rate = "stages.curated.optimizer.learning_rate=0.002"
        curated = tiny(rate).stages[1].model_copy(update={"epochs": epochs, "start_from": None})
        model = f"model={json.dumps({'name': name})}"
        experiment = tiny(model, *changes).model_copy(update={"stages": (curated,)})
    run = fit(experiment, folder / name, say=lambda sentence: None)
    table, logits = score_test_clips(run)
    assert lwlrap(multi_hot(table["labels"], run.vocabulary), logits) > LEARNED
    return run


@pytest.mark.parametrize("name", TRAINED)
def test_files_predict_what_the_run_predicts(run, files, tiny, tmp_path, sounds, clips, name):
    if name != "tiny":
        run = train(name, tiny, sounds, tmp_path)
        files = {suffix: tmp_path / f"a{suffix}" for suffix in SUFFIXES}
        for path in files.values():
            convert(run, path)
    own = load_predictor(run.folder, thresholds=True)
    expected = scores(own, clips)
    for path in files.values():
        predictor = load_converted(path)
        found = scores(predictor, clips)
        np.testing.assert_allclose(found, expected, atol=1e-3)
        np.testing.assert_array_equal(found.argmax(axis=1), expected.argmax(axis=1))
        fields = ("audio_config", "vocabulary", "window_samples", "hop", "pool", "thresholds")
        assert [getattr(predictor, field) for field in fields] == [getattr(own, field) for field in fields]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_batches_of_any_size_have_answers(run, files, suffix):
    predictor, own = load_converted(files[suffix]), load_predictor(run.folder)
    assert predictor.logits(np.zeros((0, 5), "float32")).shape == (0, 14)
    for batch in (np.zeros((2, 0), "float32"), 0.1 * noise(3 * 20_000).reshape(3, 20_000).astype("float32")):
        np.testing.assert_allclose(predictor.logits(batch), own.logits(batch), atol=1e-4)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_predict_writes_the_same_tables_where_tensorflow_cannot_be_imported(run, demo, files, suffix, tmp_path):
    wanted = [str(path) for path in sorted((demo / "test").glob("*.wav"))[:3]]
    tables = {"csv": "scores.csv", "labels": "labels.csv", "events": "events.csv"}
    for model, folder in ((files[suffix], "file"), (run.folder, "run")):
        (tmp_path / folder).mkdir()
        options = [each for option, name in tables.items() for each in (f"--{option}", str(tmp_path / folder / name))]
        arguments = ["predict", str(model), *wanted, *options]
        if folder == "run":
            assert CliRunner().invoke(main, arguments).exit_code == 0
        else:
            command = [sys.executable, "-c", WITHOUT_TENSORFLOW, *arguments]
            printed = subprocess.run(command, check=True, capture_output=True, text=True, cwd=tmp_path).stdout
            assert wanted[0] in printed and "%" in printed
    for name in tables.values():
        found, expected = (pd.read_csv(tmp_path / folder / name) for folder in ("file", "run"))
        pd.testing.assert_frame_equal(found, expected, atol=1e-4)


def test_several_folds_and_windows_of_any_length_are_in_an_onnx_file(run, tmp_path, clips):
    """The second fold's final weights are those of the noisy stage."""
    folder = shutil.copytree(run.folder, tmp_path / "run")
    shutil.copytree(folder / "fold-0" / "noisy", folder / "fold-1" / "curated")
    both = with_predict_options(dataclasses.replace(run, folder=folder), ["predict.windows=full_clip"])
    convert(both, tmp_path / "both.onnx")
    np.testing.assert_allclose(
        scores(load_model(tmp_path / "both.onnx"), clips[:8]), scores(load_predictor(both), clips[:8]), atol=1e-3
    )


def test_an_8_bit_file_says_what_it_loses(run, tmp_path):
    """The front end stays as it is; this network is too small to be quantized."""
    arguments = ["export", str(run.folder), str(tmp_path / "a.tflite"), "--quantize"]
    printed = CliRunner().invoke(main, arguments).stdout
    assert "on 8 validation clips: 0." in printed and "in 8 bits" in printed
    assert printed.endswith(f"LiteRT: {tmp_path / 'a.tflite'}\n")
    waveform = noise(RATE)[None].astype("float32")
    expected = load_predictor(run.folder).logits(waveform)
    np.testing.assert_allclose(load_model(tmp_path / "a.tflite").logits(waveform), expected, atol=1e-3)


def test_the_settings_of_a_litert_file_are_in_a_zip_archive_behind_it(run, files):
    with zipfile.ZipFile(files[".tflite"]) as archive:
        settings = json.loads(archive.read("audiotag.json"))
    assert settings["vocabulary"] == list(run.vocabulary) and settings["window_samples"] == RATE


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_truncated_or_foreign_file_is_refused(files, tmp_path, suffix):
    content = files[suffix].read_bytes()
    path = tmp_path / f"a{suffix}"
    for damaged in (content[: len(content) // 2], b"", b"hello" * 100, content[:-3], content[100:]):
        path.write_bytes(damaged)
        with pytest.raises(
            DataError, match=rf"a\{suffix}: damaged, or not written by audiotag: .*Export it again: aud"
        ):
            load_converted(path)
    with pytest.raises(DataError, match="missing.*: cannot be read: No such file or directory"):
        load_converted(tmp_path / f"missing{suffix}")


def test_a_file_of_another_program_is_refused(tmp_path):
    import onnx

    value = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1])
    graph = onnx.helper.make_graph([onnx.helper.make_node("Identity", ["x"], ["y"])], "g", [value], [])
    graph.output.append(onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1]))
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=9)
    onnx.save(model, tmp_path / "a.onnx")
    with pytest.raises(DataError, match="a.onnx: damaged, or not written by audiotag: it has no settings of audiotag"):
        load_converted(tmp_path / "a.onnx")
    onnx.helper.set_model_props(model, {"audiotag": '{"conversion_version": 2}'})
    onnx.save(model, tmp_path / "a.onnx")
    with pytest.raises(DataError, match="written by audiotag: its settings are not valid"):
        load_converted(tmp_path / "a.onnx")


@pytest.mark.parametrize(
    ("suffix", "module", "extra"),
    [(".onnx", "onnxruntime", "onnx"), (".tflite", "ai_edge_litert.interpreter", "litert")],
)
def test_a_missing_package_is_named_with_the_command_that_installs_it(
    run, files, tmp_path, monkeypatch, suffix, module, extra
):
    monkeypatch.setitem(sys.modules, module, None)
    name = module.partition(".")[0]
    message = rf"^{name} is not installed\. Install it: pip install 'audiotag-trainer\[{extra}\]'$"
    with pytest.raises(DataError, match=message):
        load_converted(files[suffix])
    with pytest.raises(DataError, match=message):
        convert(run, tmp_path / f"a{suffix}")


def test_what_a_format_cannot_hold_is_refused(run, files, tmp_path):
    crops = dataclasses.replace(
        run, experiment=run.experiment.model_copy(update={"predict": Predict(windows="random_crops")})
    )
    with pytest.raises(
        DataError, match=r"predict\.windows random_crops cannot be exported as onnx\. Choose others: --"
    ):
        convert(crops, tmp_path / "a.onnx")
    with pytest.raises(DataError, match=r"predict\.windows full_clip cannot be exported as litert"):
        convert(with_predict_options(run, ["predict.windows=full_clip"]), tmp_path / "a.tflite")
    with pytest.raises(DataError, match=r"only LiteRT files are quantized\. Leave out --quantize"):
        convert(run, tmp_path / "a.onnx", quantize=True)
    with pytest.raises(DataError, match=r"tiny\.onnx: exists already\. Choose another name, or --overwrite\."):
        convert(run, files[".onnx"])
    with pytest.raises(DataError, match=r"a\.txt: expected a name that ends in \.onnx or \.tflite\."):
        convert(run, tmp_path / "a.txt")
    config = EnsembleConfig(members=({"run": "r"},), combiner={"name": "mean"})
    with pytest.raises(DataError, match=r"e\.json: an ensemble is exported as a SavedModel only\. Export its runs"):
        convert(EnsemblePredictor(tmp_path / "e.json", config, (run,)), tmp_path / "a.onnx")
    with pytest.raises(
        ConfigError, match=r"tiny\.onnx: the settings of an exported file are fixed\. Give the directory"
    ):
        load_model(files[".onnx"], overrides=["predict.pool=max"])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["a.onnx", "--format", "litert"], "a.onnx: expected a name that ends in .tflite, for --format litert."),
        (["a.onnx", "--format", "saved_model"], "expected a name that has no such suffix, for --format saved_model."),
        (["a.onnx", "--quantize"], "--quantize is for LiteRT. Give a name that ends in .tflite, or leave it out."),
        (["a.onnx", "--license", "MIT"], "--license is for the model card of a SavedModel. Leave it out."),
    ],
)
def test_options_that_do_not_fit_the_name_are_refused(arguments, message):
    outcome = CliRunner().invoke(main, ["export", "runs/none", *arguments])
    assert outcome.exit_code == 2 and message in outcome.stderr


def test_other_commands_refuse_the_file(files):
    outcome = CliRunner().invoke(main, ["embed", str(files[".onnx"]), "a.wav", "--out", "a.npz"])
    assert outcome.exit_code == 1
    assert "tiny.onnx: only predict takes ONNX and LiteRT files. Give the directory of its run." in outcome.stderr
