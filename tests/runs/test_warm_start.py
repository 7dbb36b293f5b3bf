import dataclasses
import json
import shutil

import h5py
import numpy as np
import pytest

from audiotag.config.schema import StartFrom
from audiotag.errors import AudiotagError, ConfigError, DataError
from audiotag.runs.building import build_tagger
from audiotag.runs.directory import open_run
from audiotag.runs.models import load_tagger
from audiotag.runs.warm_start import find_source, load_source, num_source_stages
from audiotag.runs.weights import save_weights

WHERE = "stages.curated.start_from: "
CLASSES = 14


@pytest.fixture
def source(run, tmp_path):
    """A copy of the trained run, to change."""
    return dataclasses.replace(run, folder=shutil.copytree(run.folder, tmp_path / "source"))


@pytest.fixture
def stage(tiny):
    """A function: the second stage, which starts with weights from outside."""
    return lambda **start_from: tiny().stages[1].model_copy(update={"start_from": StartFrom(**start_from)})


@pytest.fixture
def load(tiny, run, stage):
    """A function: an experiment's model with the weights of a source, and the sentences about them."""

    def load(start_from, *overrides, sample_rate=16_000, vocabulary=run.vocabulary):
        experiment = tiny(*overrides)
        tagger = build_tagger(experiment, sample_rate=sample_rate, num_classes=len(vocabulary))
        before = tagger.network.get_weights()
        source = find_source(stage(**start_from), 0)
        sentences = load_source(tagger, source, experiment, sample_rate, vocabulary)
        return before, tagger.network.get_weights(), sentences

    return load


def test_weights_of_the_same_classes_are_copied_without_a_word(run, load):
    _, after, sentences = load({"run": str(run.folder), "stage": "noisy"})
    assert not sentences
    for ours, theirs in zip(after, load_tagger(run, 0, "noisy").network.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_the_same_classes_in_another_order_are_copied_by_class(run, load):
    reverse = tuple(reversed(run.vocabulary))
    _, after, sentences = load({"run": str(run.folder)}, vocabulary=reverse)
    assert sentences == [
        f"{WHERE}{run.folder} has the same classes in another order. Layers that are copied class by class: logits."
    ]
    theirs = load_tagger(run, 0, "curated").network.get_weights()
    for ours, other in zip(after[:-2], theirs[:-2], strict=True):
        np.testing.assert_array_equal(ours, other)
    for ours, other in zip(after[-2:], theirs[-2:], strict=True):
        np.testing.assert_array_equal(ours, other[..., ::-1])


@pytest.mark.parametrize(
    ("num_classes", "message"),
    [
        (CLASSES, "1 of the 14 classes are not among those of {}"),
        (CLASSES - 1, "{} has 14 classes, and the records of this run have 13"),
    ],
)
def test_an_output_layer_of_other_classes_keeps_its_initial_weights(run, load, num_classes, message):
    vocabulary = ("another", *run.vocabulary[1:num_classes])
    before, after, sentences = load({"run": str(run.folder)}, vocabulary=vocabulary)
    said = message.format(run.folder)
    assert sentences == [f"{WHERE}{said}. Layers that keep their initial weights: logits."]
    theirs = load_tagger(run, 0, "curated").network.get_weights()
    for expected, ours in zip([*theirs[:-2], *before[-2:]], after, strict=True):
        np.testing.assert_array_equal(ours, expected)


def test_a_file_of_other_classes_says_the_number_of_outputs(run, load):
    path = run.weights(0, "curated")
    _, _, sentences = load({"weights": str(path)}, vocabulary=("a", "b"))
    said = f"{WHERE}{path} has another number of outputs. Layers that keep their initial weights: logits."
    assert sentences[1] == said
    assert len(sentences) == 2


def test_heads_for_noisy_labels_keep_their_initial_weights(run, load):
    both = ('stages.curated.subset=["curated","noisy"]', "noisy_head=true")
    _, _, sentences = load({"run": str(run.folder)}, *both)
    assert sentences == [
        f"{WHERE}{run.folder} has another number of outputs. Layers that keep their initial weights: logits."
    ]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ("frontend.num_bands=16",),
            r"the front end of \S+ differs: frontend.num_bands is now 16 and was 32\. Use the same front end, or",
        ),
        (
            ("model.filters=[24]",),
            r"layer 'batch_norm\S*': found weights of shape \(8,\) in \S+\. Expected weights of shape \(24,\)",
        ),
        (
            ('image_preprocess=[{"name": "dataset_standardize"}]',),
            r"layer 'dataset_standardize\S*': found no weights in \S+\. Expected weights of shape \(1, 32, 1, 1\) and ",
        ),
    ],
)
def test_another_network_or_front_end_is_refused_with_the_layer_and_both_shapes(run, load, overrides, message):
    with pytest.raises(ConfigError, match=f"^{WHERE}{message}"):
        load({"run": str(run.folder)}, *overrides)


def test_a_file_of_a_larger_network_is_refused(load, tiny, tmp_path):
    larger = build_tagger(tiny("model.filters=[8, 8]"), sample_rate=16_000, num_classes=CLASSES)
    save_weights(larger, tmp_path / "larger.weights.h5")
    message = r"layers/\S+: found weights of shape \(.*\) in \S+\. Expected no weights\. Use"
    with pytest.raises(ConfigError, match=f"^{WHERE}{message}"):
        load({"weights": str(tmp_path / "larger.weights.h5")})


def test_another_sample_rate_is_refused(run, load):
    message = r"the records of \S+ have a sample rate of 16000 Hz, those of this run 22050 Hz\. Make records with "
    with pytest.raises(ConfigError, match=f"^{WHERE}{message}--sample-rate 16000, or choose other weights"):
        load({"run": str(run.folder)}, sample_rate=22_050)


@pytest.mark.parametrize(
    ("start_from", "message"),
    [
        ({"run": "nowhere"}, "nowhere: not the directory of a run: it has no data.json"),
        ({"run": "{run}", "stage": "nosy"}, r"\S+: has no stage 'nosy'\. Did you mean 'noisy'\?"),
        ({"weights": "nowhere.weights.h5"}, r"nowhere\.weights\.h5 is not a file\. Expected weights such as"),
        ({"weights": "{run}"}, r"\S+ is not a file"),
    ],
)
def test_a_source_that_is_not_there_is_refused(run, stage, start_from, message):
    with pytest.raises(AudiotagError, match=f"^{WHERE}{message}"):
        find_source(stage(**{key: text.format(run=run.folder) for key, text in start_from.items()}), 0)


def test_the_fold_is_the_same_or_the_only_one(source, stage):
    assert find_source(stage(run=str(source.folder)), 3).record.fold == 0
    shutil.copytree(source.fold_folder(0), source.fold_folder(1))
    assert find_source(stage(run=str(source.folder)), 1).record.fold == 1
    with pytest.raises(DataError, match=rf"^{WHERE}\S+: stage 'curated' is trained in the folds 0, 1, not in fold 3\."):
        find_source(stage(run=str(source.folder)), 3)
    for fold in (0, 1):
        source.stage_files(fold, "curated").result.unlink()
    with pytest.raises(DataError, match=rf"^{WHERE}\S+: stage 'curated' of fold 3 is not trained yet"):
        find_source(stage(run=str(source.folder)), 3)


def test_damaged_weights_are_refused(source, load):
    path = source.weights(0, "curated")
    with h5py.File(path, "r+") as file:
        file["layers/functional_1/layers/dense/vars/1"][0] = np.nan
    with pytest.raises(DataError, match=r"^stages.*: missing or damaged: its SHA-256"):
        load({"run": str(source.folder)})
    with pytest.raises(DataError, match=r"layer 'logits' has a weight that is NaN or infinite"):
        load({"weights": str(path)})
    with h5py.File(path, "r+") as file:
        file["elsewhere"] = h5py.ExternalLink("/etc/hostname", "/")
    with pytest.raises(DataError, match="'elsewhere' is a link"):
        load({"weights": str(path)})


def test_what_another_run_started_from_is_never_opened(source, stage):
    """Its paths may be those of somebody who made the run."""
    content = json.loads((source.folder / "experiment.json").read_text())
    content["stages"][0]["start_from"] = {"run": "/proc/self/fd", "stage": "x"}
    (source.folder / "experiment.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match=rf"^{WHERE}.*fold-0/noisy/start_from\.json: cannot be read"):
        find_source(stage(run=str(source.folder)), 0)
    stored = {"schema_version": 2, "run": "/proc/self/fd", "run_sha256": "", "stage": "x", "fold": 0}
    stored |= {"weights": "/proc/self/mem", "sha256": "", "stages_before": 3}
    source.stage_files(0, "noisy").start_from.write_text(json.dumps(stored))
    record = find_source(stage(run=str(source.folder)), 0).record
    assert (record.weights, record.stages_before) == (str(source.weights(0, "curated")), 5)
    assert num_source_stages(open_run(source.folder), 0, "curated") == 3
