"""Where a training step spends its time on this machine."""

import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import tensorflow as tf

from audiotag import progress
from audiotag.backend import refuse_other_backends
from audiotag.config import custom
from audiotag.config.schema import Experiment, stage_named
from audiotag.crossval.fold_context import FoldContext
from audiotag.crossval.label_selection import stage_clips
from audiotag.crossval.splits import check_subset_names, keep_corrections, training_clips, validation_clips
from audiotag.data.clips import read_clips
from audiotag.data.labels import multi_hot
from audiotag.data.pipeline import evaluation_batches, explain_damage, training_batches
from audiotag.data.records.manifest import read_manifest
from audiotag.data.records.offsets import find_offsets
from audiotag.errors import ConfigError
from audiotag.models.label_groups import group_labels
from audiotag.models.windowing import to_float
from audiotag.runs.directory import start_run, steps_per_epoch
from audiotag.runs.models import without_initial_weights
from audiotag.training.compiling import compile_tagger, set_class_weights, stage_tagger

VALIDATION_BATCHES = 4  # measured; the time of the others follows from the number of clips
WAITING = 0.1  # from this fraction of a step on, waiting for data bounds it
PARTS = ("data", "front end", "augmentation", "network", "optimizer", "validation")
ADVICE = {
    "data": "Records on a local disk, codec pcm and more cores read faster.",
    "front end": "A larger frame_step, a smaller fft_length or a shorter window costs less.",
    "augmentation": "Leave out components of waveform_augment and augment, one at a time, to find the slow one.",
    "network": 'A smaller network, a shorter window, "dtype_policy": "mixed_bfloat16" or a GPU makes it faster.',
    "optimizer": "A larger batch_size needs fewer updates per epoch.",
    "validation": "A higher validation_freq of the stage, or a smaller predict.overlap, costs less.",
}


@dataclass(frozen=True)
class Bench:
    """What `bench` measured; printed, it is what the command prints.

    Args:
        stage: The name of the stage.
        batch_size: Clips per step.
        milliseconds: {part: milliseconds per step}, in the order of `PARTS`, each measured alone. Data are read in the
            background; validation is that of an epoch, divided by its steps.
        step: Milliseconds of a complete step on batches from the records, without validation.
        waiting: The fraction of such a step that waits for data, 0 to 1: what a step on a batch in memory saves.
    """

    stage: str
    batch_size: int
    milliseconds: Mapping[str, float]
    step: float
    waiting: float

    @property
    def bound_by(self) -> str:
        """The part that bounds the step: data if it waits, else the slowest other."""
        if self.waiting > WAITING and self.milliseconds["data"] > self.waiting * self.step / 2:  # less explains no wait
            return "data"
        return max((part for part in PARTS if part != "data"), key=lambda part: self.milliseconds[part])

    def __str__(self) -> str:
        total = self.step + self.milliseconds["validation"]
        lines = [f"stage {self.stage}, {self.batch_size} clips per step", f"{'':22} {'ms/step':>8} {'of step':>8}"]
        names = {"data": "data, in background", "network": "network, both ways"}
        for part in PARTS:
            cost = self.milliseconds[part]
            lines.append(f"{names.get(part, part):22} {cost:8.1f} {cost / total:8.1%}")
        speed = 1000 * self.batch_size / total
        lines += [f"{'step with validation':22} {total:8.1f} {1:8.1%}   {speed:.1f} clips/s", ""]
        part = self.bound_by
        found = f"it waits {self.waiting:.0%} of the time" if part == "data" else f"{self.milliseconds[part]:.1f} ms"
        lines.append(f"The step is bound by the {part} ({found}). {ADVICE[part]}")
        return "\n".join(lines)


def bench(experiment: Experiment, *, stage: str | None = None, num_steps: int = 10, num_rounds: int = 5) -> Bench:
    """Measures the parts of a training step of an experiment on its records.

    Nothing is kept. The network has random weights, and a stage that selects clips gets all clips of its subsets. After
    a warm-up the parts are measured in turn; the results are medians over the rounds.

    Args:
        experiment: An `Experiment`.
        stage: The stage to measure; None is the first.
        num_steps: Steps per measurement.
        num_rounds: Measurements of each part.

    Raises:
        ConfigError: There is no such stage, or a component refuses its options.
        DataError: The records are damaged, or have no clips for the stage; or Keras does not run on TensorFlow.
    """
    refuse_other_backends("measuring a step")
    names = [stage.name for stage in experiment.stages]
    if stage is not None and stage not in names:
        raise ConfigError(f"--stage: there is no stage {stage!r}. Accepted: {', '.join(names)}.")
    manifest = read_manifest(experiment.records)
    check_subset_names(experiment, manifest)
    with custom.allowed(), tempfile.TemporaryDirectory() as folder, explain_damage(manifest):
        experiment = custom.with_checked_options(experiment)
        with start_run(folder, experiment, manifest) as run:
            keep_corrections(run)
            clips = training_clips(run, read_clips(manifest.directory / "clips.csv"))
            chosen = stage_named(experiment, stage or names[0]).model_copy(update={"select": None})
            context = FoldContext(run, manifest, clips, experiment.held_out[0], chosen, find_offsets(manifest))
            return _measure(context, num_steps, num_rounds)


def _measure(context, num_steps, num_rounds):
    """The `Bench` of a stage of a fold."""
    run, stage = context.run, context.stage
    experiment = without_initial_weights(run.experiment)
    clips = stage_clips(context)
    steps = steps_per_epoch(stage, len(clips))
    tagger = stage_tagger(experiment, stage, sample_rate=run.sample_rate, num_classes=len(run.vocabulary))
    validation, fraction, num_validation = _validation_batches(context)
    compile_tagger(tagger, experiment, stage, num_steps=steps, num_validation=max(1, num_validation))
    tagger.optimizer.build(tagger.trainable_variables)
    set_class_weights(tagger, stage, clips["labels"], run.vocabulary)
    truth = multi_hot(clips["labels"], run.vocabulary)
    dataset = training_batches(
        context.manifest,
        clips,
        group_labels(truth, clips["trusted"]) if tagger.separate_subsets else truth,
        window_samples=run.window_samples,
        pad=experiment.window.pad,
        batch_size=stage.batch_size,
        seed=experiment.seed,
        epochs=range(1 << 20),
        offsets=context.offsets,
    )
    pairs = dataset.map(lambda waveform, truth: ((waveform, truth), truth))
    cached = next(iter(pairs))
    repeated = tf.data.Dataset.from_tensors(cached).repeat()
    preprocess, augment, differentiate, update = _parts(tagger, experiment.jit_compile, cached[0])
    tagger.make_train_function()
    tagger.make_test_function()
    rows: dict[str, Callable[[], float]] = {
        "data": lambda: _seconds_of_batches(next, dataset, num_steps),
        "front end": lambda: _seconds(preprocess, num_steps),
        "both": lambda: _seconds(augment, num_steps),
        "network": lambda: _seconds(differentiate, num_steps),
        "optimizer": lambda: _seconds(update, num_steps),
        "step": lambda: _seconds_of_batches(tagger.train_function, pairs, num_steps),
        "cached step": lambda: _seconds_of_batches(tagger.train_function, repeated, num_steps),
        "validation": lambda: _seconds_of_all(tagger.test_function, validation),
    }
    seconds: dict[str, list[float]] = {name: [] for name in rows if num_validation or name != "validation"}
    for _ in progress.bar(range(num_rounds + 1), total=num_rounds + 1, unit="round", label="bench"):
        for name, values in seconds.items():
            values.append(rows[name]())
    medians = {name: 1000 * statistics.median(values[1:]) / num_steps for name, values in seconds.items()}  # [0] traces
    milliseconds = dict.fromkeys(PARTS, 0.0) | {part: cost for part, cost in medians.items() if part in PARTS}
    milliseconds["augmentation"] = max(0.0, medians["both"] - medians["front end"])
    if num_validation:
        milliseconds["validation"] *= num_steps / fraction / steps / stage.validation_freq
    ratio = statistics.median(one / step for one, step in list(zip(seconds["cached step"], seconds["step"]))[1:])
    return Bench(stage.name, stage.batch_size, milliseconds, medians["step"], max(0.0, 1 - ratio))


def _validation_batches(context):
    """(some batches of validation clips, in memory; their part of the samples of all; the number of all clips)."""
    run = context.run
    if run.experiment.validation is None:
        return None, 0.0, 0
    clips = validation_clips(run, context.clips, context.fold, context.stage).reset_index(drop=True)
    truth = tf.constant(multi_hot(clips["labels"], run.vocabulary))  # [clips, K]
    batches = evaluation_batches(
        context.manifest,
        clips,
        window_samples=run.window_samples,
        batch_size=context.stage.batch_size,
        offsets=context.offsets,
    )
    batches = batches.take(VALIDATION_BATCHES).cache()
    rows = [row for _, numbers in batches for row in numbers.numpy()]
    fraction = clips["num_samples"].iloc[rows].sum() / clips["num_samples"].sum()
    return batches.map(lambda waveform, row: (waveform, tf.gather(truth, row))), float(fraction), len(clips)


def _parts(tagger, jit_compile, inputs):
    """Functions that run the parts of a step on a batch.

    They are the preprocessor without augmentation and with it, the network, and the optimizer. The network's part is
    its logits, the loss and the gradients.
    """
    waveform, labels = inputs
    compiled = {"jit_compile": True} if jit_compile is True else {}

    @tf.function(**compiled)
    def preprocess(training):
        return tagger.preprocessor((to_float(waveform), labels), training=training)

    image, changed = preprocess(True)
    variables = tagger.trainable_variables

    @tf.function(**compiled)
    def differentiate():
        with tf.GradientTape() as tape:
            logits = tagger.network(image, training=True)
            loss = tagger.compute_loss(y_pred=(logits, changed), training=True)
        return tape.gradient(loss, variables)

    gradients = differentiate()
    update = tf.function(lambda: tagger.optimizer.apply(gradients, variables))
    return lambda: preprocess(False), lambda: preprocess(True), differentiate, update


def _seconds_of_batches(use, dataset, num_batches):
    """Seconds that a function of an iterator takes for some batches, after a first: none has been read ahead before."""
    batches = iter(dataset)
    use(batches)
    return _seconds(lambda: use(batches), num_batches)


def _seconds_of_all(use, dataset):
    """Seconds that a function of an iterator takes for all batches."""
    batches = iter(dataset)
    return _seconds(lambda: use(batches), int(dataset.cardinality()))


def _seconds(run, times):
    """Seconds that a function takes if it is called several times, up to its last result."""
    started = time.perf_counter()
    result = None
    for _ in range(times):
        result = run()
    for tensor in tf.nest.flatten(result):
        if tf.is_tensor(tensor):
            tensor.numpy()
    return time.perf_counter() - started
