"""The schema of experiments/*.json.

Each section lists its keys, types, ranges and defaults. The options of a component
(layer, model, loss, metric, optimizer, schedule, callback, label rule) are those of its
signature, so no default is written twice.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias

from pydantic import AfterValidator, Discriminator, Field, Tag, model_validator

from audiotag.config import validation
from audiotag.config.components import SUBSET_PATTERN, OneOrSeveral, Section, component

SchemaVersion = Literal[2]
SCHEMA_VERSION: SchemaVersion = 2  # of experiments and of the files of a run

if TYPE_CHECKING:  # types made from signatures, which a type checker cannot see
    WaveformAugment: TypeAlias = Any
    FrontEnd: TypeAlias = Any
    ImagePreprocess: TypeAlias = Any
    Augment: TypeAlias = Any
    Model: TypeAlias = Any
    Head: TypeAlias = Any
    InitialHead: TypeAlias = Any
    Loss: TypeAlias = Any
    Metric: TypeAlias = Any
    Optimizer: TypeAlias = Any
    Schedule: TypeAlias = Any
    Callback: TypeAlias = Any
    LabelRule: TypeAlias = Any
else:
    # `given`: arguments that the program passes. restore_best_weights is one, since a stage's "keep" decides.
    _layer = {"base": "keras.layers:Layer"}
    WaveformAugment = component("audiotag.layers", "WAVEFORM_AUGMENTATIONS", given=("seed",), **_layer)
    FrontEnd = component("audiotag.layers", "FRONTENDS", given=("sample_rate",), **_layer)
    ImagePreprocess = component(
        "audiotag.layers", "IMAGE_PREPROCESSING", "IMAGE_AUGMENTATIONS", given=("seed",), **_layer
    )
    Augment = component("audiotag.layers", "IMAGE_AUGMENTATIONS", given=("seed",), **_layer)
    Model = component("audiotag.models", "MODELS", given=("input_shape", "num_classes"))
    Head = component("audiotag.models.heads", "HEADS", given=("embeddings", "num_logits"))
    InitialHead = component(
        "audiotag.models.initial_heads", "INITIAL_HEADS", given=("inputs", "truth", "weights", "folds", "prior")
    )
    Loss = component("audiotag.losses", "LOSSES", base="keras.losses:Loss")
    Metric = component(
        "audiotag.metrics", "METRICS", base="keras.metrics:Metric", given=("num_classes", "num_clips", "name")
    )
    Optimizer = component("audiotag.optimizers", "OPTIMIZERS", base="keras.optimizers:Optimizer", given=("name",))
    Schedule = component(
        "audiotag.schedules",
        "SCHEDULES",
        base="keras.optimizers.schedules:LearningRateSchedule",
        given=("learning_rate", "epochs", "steps_per_epoch"),
    )
    Callback = component(
        "audiotag.training.callbacks",
        "CALLBACKS",
        base="keras.callbacks:Callback",
        given=("path", "log_dir", "restore_best_weights"),
        optional=("monitor",),  # null: the experiment's monitor
    )
    LabelRule = component("audiotag.crossval.label_rules", "RULES", given=("truth", "scores"))

# Any name in the table of clips. Test clips are neither trained on nor validate.
Subset = Annotated[str, Field(pattern=f"^{SUBSET_PATTERN}$", max_length=100), AfterValidator(validation.refuse_test)]
Pad = Literal["repeat", "zeros", "random_zeros"]  # zeros on both sides; random: the clip's place in training windows
Pool = Literal["mean", "max", "log_mean_exp"]  # of probabilities; log_mean_exp of logits, the mean of the odds


class Window(Section):
    """The length of the network's input, and how a shorter clip is padded to it."""

    seconds: float = Field(gt=0, le=600)
    pad: Pad = "repeat"


class Predict(Section):
    """How a whole clip is scored.

    It says where windows are placed, and how their probabilities are pooled.
    """

    overlap: float = Field(default=0.5, ge=0, lt=1)  # overlap of sliding windows, as a fraction of a window
    pool: Pool = "mean"
    # Average over four flips: none, time, frequency, both; needs flips_as_classes. clip: of the complete clip, whose
    # windows then start from its other end (M. Pinto); windows: of each window.
    flip_tta: Literal["clip", "windows", False] = False
    # sliding: to the end of the clip; drop_remainder: adjacent, without the remainder (M. Pinto); full_clip: one;
    # random_crops: crops of the first window's image, each as wide as random_crop makes it (M. Dorfer and G. Widmer).
    windows: Literal["sliding", "drop_remainder", "random", "full_clip", "random_crops"] = "sliding"
    num_windows: int = Field(default=8, ge=1, le=10_000)  # number of random windows or random crops


class Select(Section):
    """Which noisy clips a stage trains on.

    Of the clips of its subsets that are not trusted they are those whose labels out-of-fold predictions confirm.
    """

    rule: LabelRule
    score_with: OneOrSeveral[str]  # earlier stages; the mean of their probabilities is used
    predict: Predict | None = None  # how these clips are scored; None is the experiment's predict
    # At most this many clips per class in total, those whose labels have the highest mean probability first; None keeps
    # all.
    max_per_class: int | None = Field(default=None, ge=1)
    # The stage is trained this many times. Each round starts from the one before, which also scores the clips again;
    # the round whose monitored value is best, as a mean over the folds, is kept.
    rounds: int = Field(default=1, ge=1, le=1_000)
    keep_previous: bool = True  # clips of one round stay in the next; false selects all of them again each round


class StartFrom(Section):
    """Weights from outside the run, with which a stage starts.

    They are those of another run, or a file.
    """

    run: str | None = Field(default=None, min_length=1)  # the directory of another run, such as runs/a
    stage: str | None = None  # of that run; None is its last
    weights: str | None = Field(default=None, min_length=1)  # a file as `save_weights` writes it, NAME.weights.h5

    @model_validator(mode="after")
    def check_source(self) -> "StartFrom":
        """Refuses no source, two sources, or a stage of a file."""
        validation.check_start_from(self)
        return self


class Distill(Section):
    """A teacher, whose predictions a stage learns beside the labels.

    They are the out-of-fold predictions of other runs. A clip that none of their folds held out keeps its labels.
    """

    run: OneOrSeveral[str]  # the directories of other runs; the mean of their probabilities is used
    stage: str | None = None  # of those runs; None is their last
    weight: float = Field(default=0.5, gt=0, le=1)  # of the probabilities; that of the labels is the rest


# The name of an earlier stage, or weights from outside. With tags a message is about the form that was given, not both.
StageOrSource = Annotated[
    Annotated[str, Tag("a stage")] | Annotated[StartFrom, Tag("a source")],
    Discriminator(lambda value: "a source" if isinstance(value, dict | StartFrom) else "a stage"),
]


class Stage(Section):
    """One period of training: which clips, how long, from which weights, and how."""

    name: str = Field(pattern=r"^[a-z0-9_-]+$", max_length=100)
    subset: OneOrSeveral[Subset]
    epochs: int = Field(ge=0, le=1_000_000)  # 0 with an initial_head alone
    batch_size: int = Field(ge=1, le=1_000_000)
    # An epoch uses each clip once. With any of the next three, or with clip weights other than 1, clips are drawn
    # with replacement.
    steps_per_epoch: int | None = Field(default=None, ge=1, le=1_000_000_000)  # None: number of clips // batch_size
    subset_sampling_weights: dict[Subset, float] | None = None  # the fraction of draws from each subset
    class_balanced: bool = False  # each class is drawn equally often
    validation_freq: int = Field(default=1, ge=1, le=1_000_000)  # validate every this many epochs
    # The subsets of the clips that validate this stage; None: the trusted ones. Noisy ones need "split_noisy": true.
    validation_subset: OneOrSeveral[Subset] | None = None
    # Where training windows are: anywhere in a clip, or at the places of `predict`'s sliding windows.
    windows: Literal["random", "sliding"] = "random"
    start_from: StageOrSource | None = None  # the initial weights; None draws them
    keep: Literal["best", "last"] = "best"  # the weights that the stage ends with: best by the monitor, or last
    optimizer: Optimizer
    schedule: Schedule | None = None  # of the learning rate; None is constant
    weight_decay_on: Literal["all", "kernels"] = "all"
    backbone_lr_multiplier: float = Field(default=1.0, ge=0)  # of all but the layers logits* and head*; 0 freezes
    # Multiplies the learning rate of a backbone layer by this once more than that of the next layer with a kernel; the
    # last has it once. 1 trains all alike.
    layer_lr_decay: float = Field(default=1.0, gt=0, le=1)
    # Sets the last dense layer before the first epoch, from the embeddings of the training clips.
    initial_head: InitialHead | None = None
    # Computes what a frozen backbone makes of each window once, stores it in the run, and trains the head on that.
    cache_embeddings: bool = False
    loss: Loss
    noisy_loss: Loss | None = None  # for noisy clips; None is `loss`
    # A clip's weight in the training loss is the mean of those of its classes; 1 for a class that is not named.
    # "balanced": inverse to the number of training clips of the class; the mean over their labels is 1.
    class_weights: Literal["balanced"] | dict[str, float] | None = None
    augment: tuple[Augment, ...] | None = None  # replaces the experiment's `augment` in this stage
    select: Select | None = None  # None trains on all noisy clips that are not held out
    distill: Distill | None = None  # None learns the labels alone
    callbacks: tuple[Callback, ...] = ()


class Folds(Section):
    """Cross-validation: how many folds, how clips are assigned, which are held out."""

    num_folds: int = Field(default=5, ge=2, le=1_000)
    by: Literal["stratified", "predefined"] = "stratified"  # by labels, or by the dataset's own folds, from 1
    held_out: tuple[int, ...] = Field(default=(0,), min_length=1)  # one model each
    split_noisy: bool = False  # assign noisy clips to folds too, so that each has out-of-fold predictions


class Validation(Section):
    """Which clips validate each epoch.

    One of three: the trusted clips of each fold in turn, all clips of a subset, or a random part of the trusted clips.
    Neither they nor other clips of their recordings are trained on.
    """

    folds: Folds | None = None
    subset: Subset | None = None
    fraction: float | None = Field(default=None, ge=0.01, le=0.99)  # stratified by labels
    seed: int | None = Field(default=None, ge=0, lt=2**31)  # of `fraction`; None is the experiment's

    @model_validator(mode="after")
    def check_that_it_is_one_kind(self) -> "Validation":
        """Checks that there is one of folds, subset and fraction."""
        validation.check_kind_of_validation(self)
        return self


class Experiment(Section):
    """The configuration of a run; `experiments/NAME.json` holds one."""

    schema_version: SchemaVersion = SCHEMA_VERSION
    about: str = ""  # what it is, and how it differs from its source
    command: str = ""  # trains it
    quick_command: str = ""  # trains a smaller form of it on two cores in minutes
    expect: str = ""  # the result, and after how long
    seed: int = Field(default=2019, ge=0, lt=2**31)
    records: str
    corrections: str | None = None  # a CSV file with other labels and weights for single clips
    window: Window
    waveform_augment: tuple[WaveformAugment, ...] = ()  # before the front end
    frontend: FrontEnd
    image_preprocess: tuple[ImagePreprocess, ...] = ()  # from spectrogram to image; augmentations may come in between
    augment: tuple[Augment, ...] = ()  # of the finished image
    model: Model
    head: Head | None = None  # replaces the network's own output layers, on the mean of what enters them
    task: Literal["multi_label", "single_label"] = "multi_label"  # single_label: softmax, clips with one label only
    trusted: OneOrSeveral[Subset] = ("curated",)  # subsets with reliable labels; the clips of all others are "noisy"
    noisy_head: bool = False  # noisy labels train an output layer of their own, unused at inference
    stages: tuple[Stage, ...] = Field(min_length=1, max_length=100)
    validation: Validation | None = Validation(folds=Folds())  # None: no clip validates, all are trained on
    predict: Predict = Predict()
    metrics: tuple[Metric, ...] = Field(default=({"name": "lwlrap"},), min_length=1, validate_default=True)
    # The value of the validation clips that decides about checkpoints, callbacks without a monitor and the best round:
    # val_loss, or val_ and a metric; None is the first metric.
    monitor: str | None = None
    dtype_policy: Literal["float32", "mixed_float16", "mixed_bfloat16"] = "float32"  # of the network, not the front end
    jit_compile: bool = False  # compile the training step with XLA: slower to start, often faster afterwards
    deterministic: bool = True  # the same seed gives the same weights; some GPU kernels are slower

    @model_validator(mode="after")
    def check_sections_together(self) -> "Experiment":
        """Checks settings of different sections against each other."""
        validation.check_experiment(self)
        return self

    @property
    def monitored(self) -> str:
        """The name of the monitor in the logs, such as "val_lwlrap"."""
        return self.monitor or validation.default_monitor(self)

    @property
    def num_folds(self) -> int:
        """The number of folds; without folds there is one model, that of fold 0."""
        return self._folds.num_folds if self._folds else 1

    @property
    def held_out(self) -> tuple[int, ...]:
        """The folds that are held out, one model each; without folds it is fold 0."""
        return self._folds.held_out if self._folds else (0,)

    @property
    def split_noisy(self) -> bool:
        """Whether noisy clips have folds too, so that each has out-of-fold predictions."""
        return self._folds is not None and self._folds.split_noisy

    @property
    def _folds(self) -> Folds | None:
        return self.validation.folds if self.validation else None

    def noisy_subsets(self, stage: Stage) -> tuple[str, ...]:
        """The subsets of a stage whose labels are unreliable."""
        return tuple(subset for subset in stage.subset if subset not in self.trusted)


def expand_rounds(experiment: Experiment) -> Iterator[Stage]:
    """The stages in training order, with a stage of several rounds expanded.

    Such a stage becomes the stages NAME/1, NAME/2 and so on.
    """
    for stage in experiment.stages:
        if stage.select is None or stage.select.rounds == 1:
            yield stage
            continue
        changes = {"start_from": stage.start_from, "select": stage.select}
        for number in range(1, stage.select.rounds + 1):
            name = f"{stage.name}/{number}"
            yield stage.model_copy(update=changes | {"name": name})
            changes = {"start_from": name, "select": stage.select.model_copy(update={"score_with": (name,)})}


def stage_of(name: str) -> str:
    """The name of a stage in the file, from the name of one of its rounds.

    Example:
        >>> stage_of("verified/2"), stage_of("curated")
        ('verified', 'curated')
    """
    return name.split("/")[0]


def stage_named(experiment: Experiment, name: str) -> Stage:
    """The stage of this name, or the stage that this is a round of."""
    (found,) = (stage for stage in experiment.stages if stage.name == stage_of(name))
    return found
