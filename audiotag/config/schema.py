"""experiments/*.json ⇄ frozen objects: the only reader of configuration.

A wrong file fails here, before TensorFlow starts, with the place inside the
file, the nearest right word and what is accepted. What an object accepts is
written once: below for the file's own sections, in the signature of the layer,
model, loss, optimizer or callback for the named parts.
"""

from typing import Literal

from pydantic import Field, model_validator

from audiotag.config.components import Section, _one_or_several, part
from audiotag.config.validation import (
    _at,
    _check_callbacks,
    _check_clips,
    _check_flips,
    _check_names,
    _check_select,
    _check_steps,
    _check_unions,
)

Waveform = part("audiotag.layers", "WAVEFORMS", given=("seed",))
FrontEnd = part("audiotag.layers", "FRONTENDS", given=("sample_rate",))
Picture = part("audiotag.layers", "PICTURES", "AUGMENTS", given=("seed",))
Augment = part("audiotag.layers", "AUGMENTS", given=("seed",))
Model = part("audiotag.models", "MODELS", given=("input_shape", "num_classes"))
Loss = part("audiotag.losses", "LOSSES")
Optimizer = part("audiotag.optimizers", "OPTIMIZERS", given=("name",))
Schedule = part("audiotag.schedules", "SCHEDULES", given=("learning_rate", "epochs", "steps_per_epoch"))
# restore_best_weights would be undone by the training state; ModelCheckpoint keeps the best.
Callback = part("audiotag.training.callbacks", "CALLBACKS", given=("path", "log_dir", "restore_best_weights"))
Rule = part("audiotag.crossval.label_rules", "RULES", given=("truth", "scores"))


Subsets = _one_or_several(Literal["curated", "noisy"])


class Window(Section):
    """The part of a clip that the network hears at once, and what fills it when the clip is shorter."""

    seconds: float = Field(gt=0, le=600)
    short_clips: Literal["repeat", "zeros"] = "repeat"


class Predict(Section):
    """How a whole clip is heard: where windows lie on it, and how their answers become one."""

    overlap: float = Field(default=0.5, ge=0, lt=1)  # the share that covering windows hear again
    pool: Literal["mean", "max", "log_mean_exp"] = "mean"
    flips: bool = False  # hear the four flips of every picture; only where flips are labels
    # From the beginning to the end; end to end without the tail, as M. Pinto published; anywhere; all at once.
    windows: Literal["covering", "slices", "random", "whole"] = "covering"
    count: int = Field(default=8, ge=1)  # how many are random


class Select(Section):
    """Which noisy clips a stage hears: those whose labels are confirmed by models that never heard them."""

    rule: Rule
    scored_by: _one_or_several(str)  # an earlier stage, or several whose mean counts
    predict: Predict | None = None  # how the clips are heard for it; None is as in the experiment
    per_class: int | None = Field(default=None, ge=1)  # clips of each class taken, the most confident; None is all
    # With rounds the stage is trained so many times, each from the round before, which also scores the clips anew;
    # the round with the best lwlrap on held-out clips stays.
    rounds: int = Field(default=1, ge=1)
    keep: bool = True  # what one round took stays taken in the next, and per_class more may come


class Stage(Section):
    """One period of training: on which clips, for how long, from which earlier stage's weights, and how."""

    name: str = Field(pattern=r"^[a-z0-9_-]+$")
    subset: Subsets  # one, or a list of both
    epochs: int = Field(ge=1)
    batch_size: int = Field(ge=1)
    # An epoch hears each clip once; with any of the next three, or clips of other weights than 1, it draws them with
    # replacement.
    steps: int | None = Field(default=None, ge=1)  # batches of draws in an epoch; None is as many as clips fill
    shares: dict[Literal["curated", "noisy"], float] | None = None  # of the draws that fall to each subset
    balanced: bool = False  # each class is drawn as often as the others
    validation_freq: int = Field(default=1, ge=1)  # the held-out clips judge every that many epochs
    start_from: str | None = None
    optimizer: Optimizer
    schedule: Schedule | None = None  # of the learning rate; None is constant
    decayed_weights: Literal["all", "kernels"] = "all"  # which the optimizer's weight_decay shrinks
    trunk_rate: float = Field(default=1.0, ge=0)  # times the learning rate, below the head; 0 freezes all there
    loss: Loss
    noisy_loss: Loss | None = None  # of noisy clips; None is as for curated ones
    augment: tuple[Augment, ...] | None = None  # instead of the experiment's, for this stage
    select: Select | None = None  # None hears all noisy clips that are not held out
    callbacks: tuple[Callback, ...] = ()


class Folds(Section):
    """Into how many folds the curated clips are cut, and which of them are held out, one model each."""

    count: int = Field(default=5, ge=2)
    by: Literal["labels", "official"] = "labels"  # alike in their labels; or as the dataset numbers them from 1
    held_out: tuple[int, ...] = Field(default=(0,), min_length=1)
    noisy: bool = False  # cut the noisy clips too, so that each can be scored by models that never heard it


class Experiment(Section):
    """Everything about a run; `experiments/NAME.json` holds one."""

    about: str
    command: str
    in_minutes: str = ""  # the same, so small that two cores train it in minutes
    expect: str
    seed: int = Field(default=2019, ge=0, lt=2**31)
    records: str
    corrections: str | None = None  # a CSV file of other labels and weights for single clips
    window: Window
    waveform: tuple[Waveform, ...] = ()  # what happens before the front end
    frontend: FrontEnd
    picture: tuple[Picture, ...] = ()  # from spectrogram to picture; disturbances may stand in between
    augment: tuple[Augment, ...] = ()  # disturbances of the finished picture
    model: Model
    labels: Literal["any", "one"] = "any"  # "one" trains on clips of a single label and answers by a softmax
    noisy_head: bool = False  # noisy labels teach a head of their own, which never answers
    stages: tuple[Stage, ...] = Field(min_length=1)
    folds: Folds = Folds()
    predict: Predict = Predict()
    precision: Literal["float32", "mixed_float16", "mixed_bfloat16"] = (
        "float32"  # of the network; spectra stay as they are
    )
    xla: bool = False  # compile the training step: slower to start, often faster then
    deterministic: bool = True  # the same weights from the same seed; some GPU kernels are slower for it

    @model_validator(mode="after")
    def sections_agree(self):
        """Refuses what each section allows and all together do not."""
        seen = []
        for index, stage in enumerate(self.stages):
            where = f"stages[{index}]"
            _check_names(stage, seen, where)
            _check_callbacks(stage, where)
            _check_clips(stage, where)
            _check_steps(stage, where)
            _check_select(self, stage, seen[:-1], where)
            for key, loss in (("loss", stage.loss), ("noisy_loss", stage.noisy_loss or stage.loss)):
                if (loss.name == "categorical_crossentropy") != (self.labels == "one"):
                    raise _at(
                        f"{where}.{key}",
                        '"labels": "one" and categorical_crossentropy need each other: a softmax chooses one class.',
                    )
        if self.noisy_head and not any("noisy" in stage.subset for stage in self.stages):
            raise _at("noisy_head", 'no stage hears noisy clips. Add "noisy" to a subset, or leave it out.')
        _check_flips(self)
        _check_unions(self)
        if self.xla and self.deterministic:
            raise _at("xla", 'TensorFlow does not compile deterministic runs. Add "deterministic": false.')
        for fold in self.folds.held_out:
            if not 0 <= fold < self.folds.count:
                raise _at("folds.held_out", f"there is no fold {fold}. Accepted: 0 to {self.folds.count - 1}.")
            if self.folds.held_out.count(fold) > 1:
                raise _at("folds.held_out", f"fold {fold} stands twice. Name each fold once.")
        return self


def passes(experiment):
    """The stages in the order of their training; one of several rounds is as many, called NAME/1, NAME/2 and so on."""
    for stage in experiment.stages:
        if stage.select is None or stage.select.rounds == 1:
            yield stage
            continue
        before = {"start_from": stage.start_from, "select": stage.select}
        for number in range(1, stage.select.rounds + 1):
            name = f"{stage.name}/{number}"
            yield stage.model_copy(update=before | {"name": name})
            before = {"start_from": name, "select": stage.select.model_copy(update={"scored_by": (name,)})}


def stage_of(name):
    """The name of a stage as the file has it, from that of one of its `passes`.

    Example:
        >>> stage_of("verified/2"), stage_of("curated")
        ('verified', 'curated')
    """
    return name.split("/")[0]


def stage_named(experiment, name):
    """The stage of this name, or of which this is a round."""
    (found,) = (stage for stage in experiment.stages if stage.name == stage_of(name))
    return found


