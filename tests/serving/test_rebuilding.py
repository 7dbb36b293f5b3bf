import dataclasses
import json
import shutil

import numpy as np
import pytest
import tensorflow as tf
from waveforms import padded

from audiotag import files
from audiotag.config.loading import dump, load
from audiotag.ensembling.members import open_model
from audiotag.errors import AudiotagError, DataError
from audiotag.models.backbones import LOADED_LATER
from audiotag.runs.building import build_tagger
from audiotag.runs.directory import open_run
from audiotag.runs.weights import save_weights
from audiotag.serving import rebuilding
from audiotag.serving.saved_model import export, load_predictor

NOISE = np.random.default_rng(0).standard_normal(40_000).astype("float32")
BATCH = padded([0.3 * NOISE[:35_000], 0.1 * NOISE[:9_000], 0.5 * NOISE])


def equal_to_its_graph(folder, atol=1e-6):
    """Checks the probabilities of a rebuilt model against those of the graph."""
    outputs = tf.saved_model.load(str(folder)).signatures["serving_default"](waveform=tf.constant(BATCH))
    logits = load_predictor(folder).logits(BATCH)
    assert logits.shape == outputs["logits"].shape and np.ptp(logits, axis=0).max() > 1e-4
    np.testing.assert_allclose(tf.sigmoid(logits), outputs["probabilities"], atol=atol)


def untrained(run, folder, *overrides, folds=(0,)):
    """A run with other settings than the trained one, and initial weights."""
    shutil.copytree(run.folder, folder)
    experiment = load(folder / "experiment.json", overrides)
    (folder / "experiment.json").write_text(dump(experiment))
    result = json.loads((folder / "fold-0" / "curated" / "result.json").read_text())
    for fold in folds:
        stage = folder / f"fold-{fold}" / "curated"
        stage.mkdir(parents=True, exist_ok=True)
        options = {"sample_rate": run.sample_rate, "num_classes": len(run.vocabulary)}
        digest = save_weights(build_tagger(experiment, **options), stage / result["weights"])
        (stage / "result.json").write_text(json.dumps(result | {"sha256": digest}))
    return open_run(folder)


def test_a_run_predicts_as_its_graph(saved_model):
    equal_to_its_graph(saved_model)


CROPS = 'image_preprocess=[{"name":"standardize"},{"name":"random_crop","num_frames":20}]'


def test_random_crops_predict_as_their_graph(run, tmp_path):
    made = untrained(run, tmp_path / "run", CROPS, "predict.windows=random_crops", "predict.num_windows=3", folds=(0,))
    equal_to_its_graph(export(made, tmp_path / "saved"))


FLIPS = ["augment=[]", 'image_preprocess=[{"name":"standardize"},{"name":"flips_as_classes"}]', "predict.flip_tta=clip"]
SOFTMAX = ["task=single_label", 'stages.noisy.loss={"name":"categorical_crossentropy"}']
SOFTMAX += ['stages.curated.loss={"name":"categorical_crossentropy"}']


@pytest.mark.parametrize(
    ("overrides", "folds"),
    [
        (FLIPS, (0,)),
        (SOFTMAX, (0, 1)),
        (["noisy_head=true"], (0,)),
        (["dtype_policy=mixed_bfloat16"], (0,)),
        (['frontend={"name":"pcen_mel"}'], (0,)),
    ],
    ids=["flips", "softmax, two folds", "noisy head", "half precision", "pcen"],
)
def test_each_kind_of_network_predicts_as_its_graph(run, tmp_path, overrides, folds):
    folder = export(untrained(run, tmp_path / "run", *overrides, folds=folds), tmp_path / "saved")
    equal_to_its_graph(folder, 2e-3 if "dtype_policy=mixed_bfloat16" in overrides else 1e-6)


@pytest.mark.parametrize(
    ("combiner", "windows", "pool"),
    [
        ("mean", "random", "max"),
        ("geometric_mean", "drop_remainder", "log_mean_exp"),
        ("rank_mean", "sliding", "max"),
        ("ridge", "full_clip", "mean"),
        ("logit_weights", "sliding", "mean"),
    ],
)
def test_an_ensemble_with_each_combiner_and_window_layout_predicts_as_its_graph(run, tmp_path, combiner, windows, pool):
    fitted = combiner in ("ridge", "logit_weights")
    predict = {"windows": windows, "pool": pool}
    members = [{"run": str(run.folder)}, {"run": str(run.folder), "stage": "noisy", "predict": predict}]
    members[0] |= {} if fitted else {"weight": 3.0}
    content = {"members": members, "combiner": {"name": combiner}, "standardize_logits": combiner == "ridge"}
    (tmp_path / "ensemble.json").write_text(json.dumps(content))
    folder = export(open_model(tmp_path / "ensemble.json"), tmp_path / "saved")
    equal_to_its_graph(folder)
    if fitted:
        path = folder / rebuilding.FOLDER / rebuilding.COMBINER
        path.write_bytes(path.read_bytes()[:-8])
        with pytest.raises(DataError, match="combiner.f64: damaged: its SHA-256 is not that in model.json"):
            load_predictor(folder)


def test_the_graph_is_neither_read_nor_needed(saved_model, tmp_path):
    folder = shutil.copytree(saved_model, tmp_path / "saved")
    for place in ("variables", "assets"):
        shutil.rmtree(folder / place)
    (folder / "saved_model.pb").write_bytes(b"no graph")
    copied, own = load_predictor(folder), load_predictor(saved_model, allow_unsafe=True)
    assert dataclasses.replace(copied, logits=None, embeddings=None) == dataclasses.replace(
        own, logits=None, embeddings=None
    )
    np.testing.assert_array_equal(copied.logits(BATCH), own.logits(BATCH))


def test_weights_are_those_of_prediction_alone(saved_model, run):
    exported = rebuilding.FOLDER / "0-0.weights.h5"
    assert (saved_model / exported).stat().st_size < run.weights(0, "curated").stat().st_size
    assert sorted(path.name for path in (saved_model / rebuilding.FOLDER).iterdir()) == ["0-0.weights.h5", "model.json"]
    content = json.loads((saved_model / rebuilding.FOLDER / "model.json").read_text())
    assert content["members"][0]["weights"] == [files.sha256(saved_model / exported)]


def test_pretrained_weights_of_an_experiment_are_never_read(tiny):
    content = tiny('model={"name":"mobilenet","weights":"/etc/passwd"}').model_dump()
    assert rebuilding._exported_experiment(content, "model.json").model.weights == LOADED_LATER


def changed(folder, **changes):
    path = folder / rebuilding.FOLDER / rebuilding.MODEL
    content = json.loads(path.read_text())
    member = {key: changes.pop(key) for key in ("stage", "weight", "weights") if key in changes}
    content["members"][0] |= member
    content["members"][0]["experiment"] |= changes.pop("experiment", {})
    path.write_text(json.dumps(content | changes))


@pytest.mark.filterwarnings("ignore:Skipping nested container")
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"export_version": 2}, "model.json: export_version: .*found 2"),
        ({"vocabulary": ["a", "a"]}, "model.json: vocabulary: a class is listed twice, or has no name"),
        ({"vocabulary": ["a", "b"]}, "0-0.weights.h5: no weights for this network"),
        ({"calibration": {"thresholds": [0.5], "temperature": 1}}, "calibration.thresholds: has 1 numbers"),
        ({"stage": "third"}, r"members\[0\].stage: the experiment has no such stage"),
        ({"weights": ["0" * 64]}, "0-0.weights.h5: damaged: its SHA-256 is not that in model.json"),
        ({"weights": ["../../../outside"]}, r"members\[0\].weights\[0\]: string should match pattern"),
        ({"weights": ["0" * 64] * 2}, "0-0.weights.h5: damaged"),
        ({"experiment": {"model": {"name": "conv_skip", "filters": [10**9]}}}, "filters: Input should be at most"),
        ({"experiment": {"window": {"seconds": 1e-9}}}, "its model cannot be built|window.seconds"),
        ({"experiment": {"extra": 1}}, r"members\[0\].experiment: unknown key 'extra'"),
    ],
)  # fmt: skip
def test_changed_content_is_refused_in_a_sentence(saved_model, tmp_path, changes, message):
    folder = shutil.copytree(saved_model, tmp_path / "saved")
    changed(folder, **changes)
    with pytest.raises(DataError, match=f"(?i){message}") as raised:
        load_predictor(folder)
    assert "add --allow-unsafe (in Python: allow_unsafe=True)." in str(raised.value)
    assert isinstance(raised.value.__cause__, AudiotagError) and len(str(raised.value)) < 1_500
    if "export_version" in changes:
        assert load_predictor(folder, allow_unsafe=True).vocabulary  # that of the graph, which is run
