"""Every published system is built with its published numbers.

The numbers stand here as their sources have them, and are not read from the experiments. docs/systems.md names the
sources, and the differences that the experiments state.
"""

import json
import re
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from audiotag.config.loading import load
from audiotag.ensembling.members import EnsembleConfig
from audiotag.layers import FRONTENDS, RandomCrop
from audiotag.runs.building import build_tagger
from audiotag.runs.directory import StageFiles
from audiotag.training.compiling import compile_tagger, stage_callbacks, stage_tagger

ROOT = Path(__file__).parents[2]


@dataclass
class Training:
    """One stage; `rates` are learning rates at the start of epochs, counted from 1, and at the last step (0)."""

    subset: tuple[str, ...]
    epochs: int
    batch_size: int
    rates: dict[int, float]
    loss: tuple[str, dict[str, Any]]
    steps_per_epoch: int | None = None
    start_from: str | None = None
    keep: str = "best"
    augment: tuple[str, ...] = ()
    adam: tuple[float, float, float | None] = (0.999, 1e-7, None)  # beta_2, epsilon, weight decay
    callbacks: dict[str, dict[str, Any]] = field(default_factory=dict)
    selection: dict[str, Any] | None = None
    validation_subset: tuple[str, ...] | None = None  # None: the trusted clips


@dataclass
class System:
    """What a source publishes about one network and its training."""

    sample_rate: int
    dataset: str
    records: dict[str, str]  # options of make-records
    num_classes: int
    window_samples: int
    pad: str
    front_end: tuple[str, dict[str, Any]]
    image_size: tuple[int, ...]  # [bands, frames, channels] while training
    num_outputs: int
    num_weights: int | None  # None: the source does not state the network's layers
    num_trainable: int | None
    trainings: tuple[Training, ...]
    validation: dict[str, Any] | None
    predict: dict[str, Any]
    metrics: tuple[str, ...]
    monitor: str


# A. Maji, transfer learning in Keras, 2020
S0_MEL = {"num_bands": 128, "fft_length": 2560, "frame_step": 694, "low_hz": 20.0, "high_hz": 22050.0} | {
    "padding": "reflect", "dynamic_range_db": 80.0, "reference": 1.0,
}  # fmt: skip
S0_CALLBACKS = {
    "ReduceLROnPlateau": {"monitor": "val_loss", "factor": 0.6, "patience": 6, "min_lr": 0.0},
    "EarlyStopping": {"monitor": "val_categorical_accuracy", "patience": 30, "min_delta": 0.001},
}
S0_AUGMENT = ("FrequencyMask", "TimeMask", "Zoom", "BrightnessContrast")


def maji(num_weights, num_trainable):
    noisy, curated = (
        Training(
            (subset,), 300, 64, {1: 0.0009, 0: 0.0009}, ("binary_crossentropy", {"label_smoothing": 0.7, "sum": True}),
            start_from=before, augment=S0_AUGMENT, callbacks=S0_CALLBACKS, validation_subset=validated_by,
        )
        for subset, before, validated_by in (("noisy", None, ("noisy",)), ("curated", "noisy", None))
    )  # fmt: skip
    return System(
        44_100, "FSDKaggle2019", {}, 80, 88_200, "zeros", ("LogMel", S0_MEL), (64, 64, 3), 80, num_weights,
        num_trainable, (noisy, curated), {"num_folds": 5, "held_out": (0,), "split_noisy": True},
        {"windows": "sliding", "overlap": 0.5, "pool": "mean", "flip_tta": False},
        ("categorical_accuracy", "lwlrap"), "val_categorical_accuracy",
    )  # fmt: skip


# M. Pinto, 6th place of FSDKaggle2019
def pinto(num_trainable, running_statistics, epochs, loss, *, cycles=1):
    options = {"steps_per_epoch": 1000, "keep": "last", "adam": (0.99, 1e-8, 0.01), "augment": PINTO_AUGMENT}
    rates = {1: 4e-4, 1 + 0.3 * epochs: 0.01, 0: 4e-8}
    selection = {
        "rule": "exact_match",
        "threshold": 0.2,
        "score_with": ("curated",),
        "rounds": 1,
        "max_per_class": None,
    }
    both = ("curated", "noisy")
    trainings = [Training(("curated",), epochs, 64, rates, loss, **options)]
    for before in (None, "selected")[:cycles]:
        trainings.append(Training(both, epochs, 64, rates, loss, start_from=before, selection=selection, **options))
    return System(
        44_100, "FSDKaggle2019", {"trim": "relative"}, 80, 88_200, "zeros", ("LogMel", S0_MEL), (256, 256, 3), 320,
        num_trainable + running_statistics, num_trainable, tuple(trainings), None,
        {"windows": "drop_remainder", "pool": "max", "flip_tta": "clip"}, ("lwlrap",), "lwlrap",
    )  # fmt: skip


PINTO_AUGMENT = ("FlipsAsClasses", "Zoom", "BrightnessContrast", "BarErasing", "MixUp")
FOCAL, CURRICULUM = ("Focal", {"gamma": 2.0}), ("F2Curriculum", {"threshold": 0.2})


# Maxwell_110, Kaggle, 2019
def maxwell(sample_rate, records, window_samples, front_end, image_size, num_weights, num_trainable, keep):
    training = Training(
        ("curated",), 50, 64, {1: 0.001, 0: 0.001}, ("CategoricalCrossentropy", {}), keep=keep,
        callbacks={"EarlyStopping": {"monitor": "val_loss", "patience": 5}, "TensorBoard": {}},
    )  # fmt: skip
    return System(
        sample_rate, "FSDKaggle2019", records, 80, window_samples, "random_zeros", front_end, image_size, 80,
        num_weights, num_trainable, (training,), {"num_folds": 10, "held_out": tuple(range(10))},
        {"windows": "sliding", "pool": "mean", "flip_tta": False}, ("lwlrap",), "val_lwlrap",
    )  # fmt: skip


# M. Dorfer and G. Widmer, 2nd place of DCASE 2018
PERCEPTUAL = ("PerceptualMel", {"num_bands": 128, "fft_length": 1024, "frame_step": 192, "low_hz": 0.0, "high_hz": None}
              | {"padding": "reflect", "dynamic_range_db": 99.0})  # fmt: skip
FILTERBANK = ("LogFilterbank", {"bands_per_octave": 26, "fft_length": 1024, "frame_step": 128, "low_hz": 20.0}
              | {"high_hz": 14_000.0, "normalize": True})  # fmt: skip
SELF_VERIFICATION = {"rule": "self_verified", "threshold": 0.95, "score_with": ("both",), "rounds": 10} | {
    "max_per_class": 40, "windows": "random_crops", "num_windows": 25, "num_frames": 384,
}  # fmt: skip


def dorfer(front_end, window_samples, num_weights, num_trainable, *, verified=True):
    options = {"adam": (0.999, 1e-8, None)}
    softmax, both = ("CategoricalCrossentropy", {}), ("curated", "noisy")
    rates = {1: 1e-3, 100: 1e-3, 101: 0.9975e-3, 300: 0.5e-3, 500: 0.0}
    trainings = (
        Training(both, 500, 100, rates, softmax, augment=("RandomCrop", "MixUp"), **options),
        Training(
            both if verified else ("curated",), 30, 100, {1: 2e-4, 5: 2e-4, 6: 1.92e-4, 30: 0.0}, softmax,
            start_from="both", augment=("RandomCrop",), selection=SELF_VERIFICATION if verified else None, **options,
        ),
    )  # fmt: skip
    folds = {"num_folds": 4, "held_out": (0, 1, 2, 3)} | ({"split_noisy": True} if verified else {})
    return System(
        32_000, "FSDKaggle2018", {"trim": "absolute", "peak-db": "-0.1", "sample-rate": "32000"}, 41, window_samples,
        "repeat", front_end, (128, 384, 1), 41, num_weights, num_trainable, trainings, folds,
        {"windows": "sliding", "overlap": 0.0, "pool": "mean", "flip_tta": False},
        ("map_at_k", "categorical_accuracy"), "val_loss",
    )  # fmt: skip


PUBLISHED = {
    "conv_skip": maji(None, None),
    "densenet": maji(12_776_080, 12_617_680),
    "resnet": maji(23_751_632, None),
    "mobilenet": maji(3_310_864, None),
    # 9,792, 17,216, 17,152 and 53,248 running statistics; attention has the 64-vectors of its spectral norm besides
    "xresnet18": pinto(11_391_713, 9_792 + 2 * 64, 80, FOCAL),
    "xresnet34": pinto(21_499_873, 17_216 + 2 * 64, 60, FOCAL),
    "xresnet18_f2": pinto(11_391_713, 9_792 + 2 * 64, 80, CURRICULUM),
    "xresnet34_f2": pinto(21_499_873, 17_216 + 2 * 64, 60, CURRICULUM),
    "xresnet34_plain": pinto(21_468_064, 17_152, 90, FOCAL),
    "xresnet50": pinto(24_182_944, 53_248, 65, CURRICULUM, cycles=2),
    # The blog does not state epochs, batch size and rate, nor the transforms of its images: these are our choice.
    "convnext": System(
        44_100, "FSDKaggle2019", {}, 80, 1_323_000, "zeros",
        ("LogMel", S0_MEL | {"frame_step": 512, "reference": "max", "padding": "zeros"}),
        (224, 224, 3), 80, 27_818_592 + 63_056, 63_056,
        (Training(("curated",), 15, 32, {1: 0.001, 0: 0.001}, ("binary_crossentropy", {"label_smoothing": 0.0})),),
        {"fraction": 0.25, "seed": 42}, {"windows": "sliding", "pool": "mean", "flip_tta": False},
        ("lrap", "lwlrap"), "val_lrap",
    ),
    "conv1d": maxwell(
        16_000, {"sample-rate": "16000"}, 32_000, ("RawWaveform", {"scaling": "min_max"}), (32_000, 1), 400_644,
        400_644, "last",
    ),
    "mfcc": maxwell(
        44_100, {}, 88_200,
        ("Mfcc", {"num_coefficients": 40, "num_bands": 128, "fft_length": 2048, "frame_step": 512, "low_hz": 0.0}
         | {"high_hz": None, "dynamic_range_db": 80.0}),
        (40, 173, 1), 171_280, 170_896, "best",
    ),
    "vgg_gap": dorfer(PERCEPTUAL, 576_000, 14_865_124, 14_855_570, verified=False),
    "vgg_gap_verified": dorfer(PERCEPTUAL, 576_000, 14_865_124, 14_855_570),
    "vgg_gap_narrow": dorfer(PERCEPTUAL, 576_000, 8_369_492, 8_362_306),
    "vgg_gap_filterbank": dorfer(FILTERBANK, 384_000, 14_865_124, 14_855_570),
}  # fmt: skip

ENSEMBLES = {
    "vgg_gap_three": ("mean", ["vgg_gap_narrow", "vgg_gap_verified", "vgg_gap_filterbank"]),
    "xresnet_two": ("mean", ["xresnet18_f2", "xresnet34_f2"]),
    "xresnet_six": (
        "mean",
        ["xresnet18", "xresnet34", "xresnet18_f2", "xresnet34_f2", "xresnet34_plain", "xresnet50"],
    ),
    "conv1d_ten": ("geometric_mean", ["conv1d"] * 10),
    "mfcc_ten": ("geometric_mean", ["mfcc"] * 10),
    "maxwell_twenty": ("geometric_mean", ["conv1d"] * 10 + ["mfcc"] * 10),
}


def built(name, published, overrides=()):
    """What an experiment builds, in the form of the table; only values that the table has are compared."""
    has_weights = "weights" in json.loads((ROOT / f"experiments/{name}.json").read_text())["model"]
    experiment = load(ROOT / f"experiments/{name}.json", [*(["model.weights=null"] if has_weights else []), *overrides])
    command = re.search(r"audiotag make-records (\S+)((?: --\S+ \S+)*)", experiment.about if published.records else "")
    options = dict(re.findall(r"--(\S+) (\S+)", command[2])) if command else {}
    sizes = {"sample_rate": published.sample_rate, "num_classes": published.num_classes}
    trainings, tagger = [], None
    for number, (stage, expected) in enumerate(zip(experiment.stages, published.trainings, strict=True)):
        if tagger is None or stage.augment != experiment.stages[number - 1].augment:
            tagger = stage_tagger(experiment, stage, **sizes)
        steps = stage.steps_per_epoch or 10
        compile_tagger(tagger, experiment, stage, num_steps=steps)
        trainings.append(training(experiment, stage, expected, tagger, steps, published.sample_rate))
    front_end = next(layer for layer in tagger.preprocessor.layers if isinstance(layer, tuple(FRONTENDS.values())))
    config = front_end.get_config()
    waveform = np.random.default_rng(0).uniform(-1, 1, (2, tagger.window_samples)).astype("float32")
    image, _ = tagger.preprocessor((waveform, np.eye(2, published.num_classes, dtype="float32")), training=True)
    num_weights, num_trainable = (
        tagger.network.count_params(),
        sum(int(np.prod(weight.shape)) for weight in tagger.network.trainable_weights),
    )
    validation = experiment.validation and experiment.validation.model_dump(exclude_none=True)
    if validation and "folds" in validation:
        validation = validation["folds"]
    predict = {
        "windows": tagger.window_layout, "overlap": tagger.overlap, "pool": tagger.pool, "flip_tta": tagger.flip_tta,
    }  # fmt: skip
    return System(
        config.get("sample_rate"),
        command[1] if command else published.dataset,
        {key: options.get(key) for key in published.records},
        tagger.num_classes,
        tagger.window_samples,
        tagger.pad,
        (type(front_end).__name__, {key: config[key] for key in published.front_end[1]}),
        tuple(image.shape[1:]),
        tagger.network.output_shape[-1],
        num_weights if published.num_weights is not None else None,
        num_trainable if published.num_trainable is not None else None,
        tuple(trainings),
        validation and {key: validation.get(key) for key in published.validation or validation},
        {key: predict[key] for key in published.predict},
        tuple(metric.name for metric in experiment.metrics),
        experiment.monitored,
    )


def training(experiment, stage, expected, tagger, steps, sample_rate):
    """What a stage builds, in the form of the table."""
    optimizer, loss = tagger.optimizer, tagger.loss
    places = {key: stage.epochs * steps - 1 if key == 0 else round((key - 1) * steps) for key in expected.rates}
    schedule = optimizer._learning_rate
    rates = {
        key: float(
            schedule(place) if isinstance(schedule, keras.optimizers.schedules.LearningRateSchedule) else schedule
        )
        for key, place in places.items()
    }
    layers = [type(layer).__name__ for layer in tagger.preprocessor.layers]
    named = {"FrequencyMask", "TimeMask", "Zoom", "BrightnessContrast", "FlipsAsClasses", "BarErasing", "MixUp"}
    callbacks = {
        type(callback).__name__: callback for callback in stage_callbacks(experiment, stage, StageFiles(Path()))
    }
    options = loss.get_config() | getattr(loss, "_fn_kwargs", {}) | {"sum": loss.reduction == "sum"}
    options |= {key: getattr(loss, key) for key in expected.loss[1] if hasattr(loss, key)}
    selection = None
    if stage.select is not None:
        select = stage.select
        selection = {
            "rule": select.rule.name, "threshold": select.rule.threshold, "score_with": select.score_with,
            "rounds": select.rounds, "max_per_class": select.max_per_class,
        }  # fmt: skip
        if select.predict is not None:
            scoring = experiment.model_copy(update={"predict": select.predict})
            scorer = build_tagger(scoring, sample_rate=sample_rate, num_classes=tagger.num_classes)
            (crop,) = (layer for layer in scorer.preprocessor.layers if isinstance(layer, RandomCrop))
            selection |= {"windows": scorer.window_layout, "num_windows": scorer.num_windows}
            selection |= {"num_frames": crop.num_frames}
    weight_decay = optimizer.weight_decay
    return Training(
        stage.subset,
        stage.epochs,
        stage.batch_size,
        rates,
        (getattr(loss, "name", "") if loss.name == "binary_crossentropy" else type(loss).__name__,
         {key: options[key] for key in expected.loss[1]}),
        stage.steps_per_epoch,
        stage.start_from,
        stage.keep,
        tuple(layer for layer in layers if layer in named | {"RandomCrop"}),
        (optimizer.beta_2, optimizer.epsilon, weight_decay or None),
        {
            callback: {key: abs(getattr(callbacks[callback], key)) if key == "min_delta" else
                       getattr(callbacks[callback], key) for key in wanted}
            for callback, wanted in expected.callbacks.items() if callback in callbacks
        },
        selection,
        stage.validation_subset,
    )  # fmt: skip


def differences(expected, found):
    """The values that differ, by their place."""
    if isinstance(expected, dict) and isinstance(found, dict):
        pairs = {key: (expected.get(key), found.get(key)) for key in {*expected, *found}}
    elif isinstance(expected, (tuple, list)) and isinstance(found, (tuple, list)) and len(expected) == len(found):
        pairs = dict(enumerate(zip(expected, found)))
    elif isinstance(expected, float) and isinstance(found, (int, float)):
        close = np.isclose(found, expected, rtol=1e-4, atol=1e-9)
        return {} if close else {"": (expected, found)}
    else:
        return {} if expected == found else {"": (expected, found)}
    inner = {key: differences(*pair) for key, pair in pairs.items()}
    return {f"{key}.{place}".strip("."): value for key, places in inner.items() for place, value in places.items()}


def found_differences(name, overrides=()):
    return differences(asdict(PUBLISHED[name]), asdict(built(name, PUBLISHED[name], overrides)))


@pytest.mark.parametrize("name", PUBLISHED)
def test_an_experiment_builds_the_published_system(name):
    assert found_differences(name) == {}


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        (
            "conv1d",
            {
                "stages.curated.optimizer.learning_rate=0.0001": "trainings.0.rates.1",
                "stages.curated.epochs=60": "trainings.0.epochs",
                "stages.curated.batch_size=32": "trainings.0.batch_size",
                "stages.curated.keep=best": "trainings.0.keep",
                "stages.curated.callbacks.EarlyStopping.patience=6": "trainings.0.callbacks.EarlyStopping.patience",
                "window.seconds=1.0": "window_samples",
                "window.pad=zeros": "pad",
                "validation.folds.num_folds=11": "validation.num_folds",
                'predict={"pool": "max"}': "predict.pool",
                'metrics=[{"name": "lrap"}]': "monitor",
            },
        ),
        (
            "mfcc",
            {
                "frontend.num_coefficients=20": "front_end.1.num_coefficients",
                "frontend.frame_step=256": "image_size.1",
            },
        ),
        (
            "vgg_gap_narrow",
            {
                "model.width=44": "num_weights",
                "stages.verified.select.max_per_class=50": "trainings.1.selection.max_per_class",
            },
        ),
    ],
)
def test_changed_values_differ_from_the_table(name, changes):
    assert set(changes.values()) <= set(found_differences(name, [*changes]))


def test_every_experiment_of_a_system_is_in_the_table():
    ours = {"demo", "esc10", "fsd_like_distilled", "fsd_like_selected", "noise", "simple"}
    ours |= {"yamnet", "yamnet_finetuned", "fsdkaggle2019_yamnet"}
    assert {path.stem for path in (ROOT / "experiments").glob("*.json")} - ours == set(PUBLISHED)


@pytest.mark.parametrize("name", ENSEMBLES)
def test_an_ensemble_has_the_published_members(name):
    combiner, members = ENSEMBLES[name]
    ensemble = load(ROOT / f"ensembles/{name}.json", kind=EnsembleConfig)
    assert ensemble.combiner.name == combiner
    assert [member.run for member in ensemble.members] == [f"runs/{run}" for run in members]
    assert set(members) <= set(PUBLISHED)
    if len(members) >= 10:  # each fold once; others take the mean over the folds of a run
        assert [member.fold for member in ensemble.members] == [*range(10)] * (len(members) // 10)
    else:
        assert all(member.fold is None and member.weight == 1 for member in ensemble.members)


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_page_of_systems_and_about_name_the_experiment_and_its_differences(name):
    about = load(ROOT / f"experiments/{name}.json").about
    first, *listed = about.split("\n")
    assert first.rstrip(":").split(". ")[-1].startswith("Differences")
    assert listed and all(line.startswith("- ") for line in listed)
    assert f"`{name}`" in (ROOT / "docs" / "systems.md").read_text()
