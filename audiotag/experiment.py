"""experiments/*.json ⇄ frozen objects: the only reader of configuration.

A wrong file fails here, before TensorFlow starts, with the place inside the
file, the nearest right word and what is accepted. What an object accepts is
written once: below for the file's own sections, in the signature of the layer,
model, loss, optimizer or callback for the named parts.
"""

import json
import re
from pathlib import Path
from typing import Annotated, Any, Literal, Union

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, create_model, model_validator
from pydantic_core import PydanticCustomError

from audiotag import lookup
from audiotag.errors import ConfigError


class Section(BaseModel):
    """An object of the file: every key is known, every value has its type, nothing changes later."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False, protected_namespaces=())

    @model_validator(mode="before")
    @classmethod
    def no_key_is_ignored(cls, values):
        """Refuses unknown keys with the nearest known one."""
        accepted = cls.model_fields
        for key in values if isinstance(values, dict) else ():
            if key not in accepted:
                hint = lookup.nearest(key, accepted)
                raise PydanticCustomError(
                    "unknown_key", "{what}", {"what": f"unknown key {key!r}. {hint}Accepted: {', '.join(accepted)}."}
                )
        return values


def part(module, *tables, given=()):
    """The type of a named part: one Section for each entry of tables of parts, told apart by `name`.

    Args:
        module: Dotted name of the module that holds the tables.
        tables: Names of the tables in it.
        given: Arguments that the program provides, so that the file may not.
    """
    sections = []
    for table, name in ((table, name) for table in tables for name in lookup.parts(module, table)):
        fields = {
            key: (_kind(parameter), ... if parameter.default is parameter.empty else parameter.default)
            for key, parameter in lookup.signature(module, table, name).parameters.items()
            if key not in given
        }
        sections.append(create_model(name, __base__=Section, name=(Literal[name], ...), **fields))
    if len(sections) == 1:
        return sections[0]
    return Annotated[Union[tuple(sections)], Field(discriminator="name")]


def _kind(parameter):
    """The type of an option: as annotated, or else, as Keras leaves it, a number where the default is one or None."""
    if parameter.annotation is not parameter.empty:
        return parameter.annotation
    number = int | float
    return {bool: bool, int: number, float: number, type(None): number | None}.get(type(parameter.default), Any)


Waveform = part("audiotag.layers", "WAVEFORMS", given=("seed",))
FrontEnd = part("audiotag.layers", "FRONTENDS", given=("sample_rate",))
Picture = part("audiotag.layers", "PICTURES", "AUGMENTS", given=("seed",))
Augment = part("audiotag.layers", "AUGMENTS", given=("seed",))
Model = part("audiotag.models", "MODELS", given=("input_shape", "num_classes"))
Loss = part("audiotag.losses", "LOSSES")
Optimizer = part("audiotag.training.optimizers", "OPTIMIZERS", given=("name",))
Schedule = part("audiotag.schedules", "SCHEDULES", given=("learning_rate", "epochs", "steps_per_epoch"))
# restore_best_weights would be undone by the training state; ModelCheckpoint keeps the best.
Callback = part("audiotag.training.callbacks", "CALLBACKS", given=("path", "log_dir", "restore_best_weights"))
Rule = part("audiotag.training.selection", "RULES", given=("truth", "scores"))


def _one_or_several(kind):
    """The type of a tuple that the file may write as a single text."""
    return Annotated[
        tuple[kind, ...],
        Field(min_length=1),
        BeforeValidator(lambda value: (value,) if isinstance(value, str) else value),
    ]


Subsets = _one_or_several(Literal["curated", "noisy"])
MONITORED = ("val_lwlrap", "val_loss", "lwlrap", "loss")  # what every epoch logs


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


def load(path, overrides=(), *, kind=Experiment):
    """Reads an experiment file, or another kind of file that is as strict.

    Args:
        path: A JSON file as in experiments/.
        overrides: Texts such as "stages.noisy.epochs=3", each of which replaces one value of the
            file; an entry of a list is named by its index or by its `name`.
        kind: The `Section` that the file holds.

    Returns:
        An `Experiment`, or what `kind` says, with every default filled in.

    Raises:
        ConfigError: The file cannot be read or says something audiotag cannot do.
    """
    path = Path(path)
    try:
        content = json.loads(path.read_bytes(), object_pairs_hook=_distinct, parse_constant=_refuse_constant)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}.") from error
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: not a JSON file: {error}") from error
    for override in overrides:
        _override(content, override)
    return checked(content, kind, path)


def checked(content, kind, where):
    """Content of JSON as the `Section` that it should be; a ConfigError says what is wrong `where`."""
    content = _unchangeable(content)
    try:
        return kind.model_validate(content)
    except ValidationError as error:
        faults = {}
        for fault in error.errors():
            if not _follows(fault):
                faults.setdefault(_place(fault, content), []).append(fault)
        sentences = [f"{where}: {place and f'{place}: '}{_sentence(several)}" for place, several in faults.items()]
        raise ConfigError("\n".join(sentences)) from error


def dump(experiment):
    """The JSON text of an experiment, every default written out; `load` reads it back."""
    return experiment.model_dump_json(indent=2) + "\n"


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


def options(section):
    """What a named part was told: its keys without `name`."""
    return section.model_dump(exclude={"name"})


def _check_names(stage, seen, where):
    """Refuses names of stages that stand twice or lead nowhere; `seen` are those of the stages before."""
    if stage.name in seen:
        raise _at(f"{where}.name", f"two stages are called {stage.name!r}. Give each its own name.")
    if stage.start_from is not None and stage.start_from not in seen:
        hint = lookup.nearest(stage.start_from, seen)
        raise _at(
            f"{where}.start_from",
            f"no earlier stage is called {stage.start_from!r}. {hint}Accepted: {', '.join(seen) or 'null'}.",
        )
    seen.append(stage.name)


def _check_callbacks(stage, where):
    """Refuses callbacks that stand twice or look at what is not there."""
    names = [callback.name for callback in stage.callbacks]
    for number, callback in enumerate(stage.callbacks):
        here = f"{where}.callbacks[{number}]"
        if callback.name in names[:number]:
            raise _at(here, f"{callback.name!r} stands twice. Name each callback once.")
        for key, accepted in (("monitor", MONITORED), ("mode", ("auto", "max", "min"))):
            value = getattr(callback, key, accepted[0])
            if value not in accepted:
                hint = lookup.nearest(value, accepted)
                raise _at(f"{here}.{key}", f"there is no {value!r}. {hint}Accepted: {', '.join(accepted)}.")
        judging = callback.name in ("EarlyStopping", "ModelCheckpoint") and not callback.monitor.startswith("val_")
        if stage.validation_freq > 1 and judging:
            raise _at(f"{here}.monitor", "may choose an epoch that is not judged. Expected val_lwlrap or val_loss.")


def _check_clips(stage, where):
    """Refuses shares or a loss of other clips than the stage hears, and a last epoch that nobody judges."""
    shares = stage.shares or dict.fromkeys(stage.subset, 1.0)
    if set(shares) != set(stage.subset) or min(shares.values()) <= 0:
        raise _at(f"{where}.shares", f"expected a number above 0 for each of: {', '.join(stage.subset)}.")
    if stage.noisy_loss is not None and "noisy" not in stage.subset:
        raise _at(f"{where}.noisy_loss", 'no noisy clip is heard. Add "noisy" to the subset, or leave it out.')
    if stage.epochs % stage.validation_freq:
        raise _at(
            f"{where}.validation_freq",
            f"the last of {stage.epochs} epochs must be judged. Expected one of their divisors.",
        )


def _check_select(experiment, stage, earlier, where):
    """Refuses a selection among clips that the stage does not hear, or by models that heard them or come later."""
    if stage.select is None:
        return
    for name in stage.select.scored_by:
        if name not in earlier:
            hint = lookup.nearest(name, earlier)
            raise _at(
                f"{where}.select.scored_by",
                f"no earlier stage is called {name!r}. {hint}Accepted: {', '.join(earlier) or 'none'}.",
            )
    for key, value in options(stage.select.rule).items():
        if not 0 <= value <= 1:
            raise _at(f"{where}.select.rule.{key}", f"is {value}. Expected a number from 0 to 1.")
    if "noisy" not in stage.subset:
        raise _at(f"{where}.select", 'chooses among noisy clips. Add "noisy" to the subset.')
    every = set(range(experiment.folds.count))
    if experiment.folds.noisy and set(experiment.folds.held_out) != every:
        raise _at(
            "folds.held_out",
            f"every fold's model scores the noisy clips of its fold. Expected all of {sorted(every)}.",
        )
    if stage.select.rounds > 1 and not experiment.folds.noisy:
        raise _at(
            f"{where}.select.rounds",
            'from the second round on, a model would score clips that it heard. Add "noisy": true to the folds.',
        )


def _check_flips(experiment):
    """Refuses flips that are heard and not learned, or learned in one stage and not in the next."""
    in_picture, in_augment, in_stages = (
        sum(part.name == "flip_labels" for part in parts)
        for parts in (
            experiment.picture,
            experiment.augment,
            [part for stage in experiment.stages for part in stage.augment or ()],
        )
    )
    chosen = {index: stage.select for index, stage in enumerate(experiment.stages) if stage.select is not None}
    hearings = {f"stages[{index}].select.predict": select.predict for index, select in chosen.items()}
    for where, hearing in {"predict": experiment.predict, **hearings}.items():
        if hearing is not None and hearing.flips and not (in_picture or in_augment):
            raise _at(f"{where}.flips", 'needs flips as labels. Add {"name": "flip_labels"} to the picture.')
    if in_picture + in_augment > 1:
        raise _at("picture", "flip_labels may stand in an experiment once.")
    own = any(stage.augment is not None for stage in experiment.stages)
    if in_stages or (in_augment and own):
        raise _at(
            "augment",
            "flip_labels gives the network four times as many answers, so every stage must have it. "
            "Put it into the picture.",
        )
    if in_picture or in_augment:
        if experiment.noisy_head:
            raise _at("noisy_head", "flip_labels makes other heads. Leave out one of them.")
        for index, stage in enumerate(experiment.stages):
            if stage.noisy_loss is not None:
                raise _at(f"stages[{index}].noisy_loss", "flip_labels makes heads of its own. Leave out one of them.")


def _check_unions(experiment):
    """Refuses mixtures that carry every label whole where each kind of clip has its share of the loss."""
    apart = experiment.noisy_head or any(stage.noisy_loss is not None for stage in experiment.stages)
    lists = {key: getattr(experiment, key) for key in ("waveform", "picture", "augment")}
    lists |= {f"stages[{index}].augment": stage.augment or () for index, stage in enumerate(experiment.stages)}
    for key, parts in lists.items():
        for index, part in enumerate(parts):
            if apart and getattr(part, "labels", None) == "union":
                raise _at(
                    f"{key}[{index}].labels",
                    '"union" counts both clips whole, where noisy_head and noisy_loss weigh each kind by its share. '
                    'Expected "weighted".',
                )


def _check_steps(stage, where):
    """Refuses parts of a stage that would move the same number twice, or a number that is not there."""
    if stage.schedule is not None and any(callback.name == "ReduceLROnPlateau" for callback in stage.callbacks):
        raise _at(
            f"{where}.schedule",
            f"{stage.schedule.name} and ReduceLROnPlateau both move the learning rate. Leave out one of them.",
        )
    if getattr(stage.schedule, "beta_1", None) is not None and not hasattr(stage.optimizer, "beta_1"):
        raise _at(
            f"{where}.schedule",
            f'{stage.schedule.name} moves beta_1, which {stage.optimizer.name} has not. Name adam or adamw, or add '
            '"beta_1": null.',
        )
    if stage.decayed_weights != "all" and not stage.optimizer.weight_decay:
        raise _at(f"{where}.decayed_weights", "nothing decays. Give the optimizer a weight_decay.")


def _at(where, what):
    return PydanticCustomError("at", "{where}: {what}", {"where": where, "what": what})


def _follows(fault):
    """Whether a list is too short only because something is wrong within its entries."""
    return fault["type"] == "too_short" and len(fault["input"]) >= fault["ctx"]["min_length"]


def _place(fault, content):
    """Where in the file a fault is: pydantic's path without the names of the parts and kinds it tried."""
    keys = []
    for key in fault["loc"]:
        if isinstance(content, dict) and key in content or isinstance(content, tuple) and isinstance(key, int):
            content = content[key]
            keys.append(key)
    if fault["type"] == "missing":
        keys.append(fault["loc"][-1])
    if fault["type"] == "union_tag_not_found":
        keys.append("name")
    return "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in keys).removeprefix(".")


def _sentence(faults):
    """One sentence about what pydantic found at a place, once for each kind it tried: what came, what was expected."""
    fault = next((fault for fault in faults if fault["type"] == "literal_error"), faults[0])
    if fault["type"] in ("missing", "union_tag_not_found"):
        return "this key is missing."
    if fault["type"] == "union_tag_invalid":
        tags = [tag.strip("' ") for tag in fault["ctx"]["expected_tags"].split(",")]
        hint = lookup.nearest(fault["ctx"]["tag"], tags)
        return f"there is no part {fault['ctx']['tag']!r}. {hint}Accepted: {', '.join(tags)}."
    others = [_words(other).removeprefix("Input should be ") for other in faults if other is not fault]
    if fault["type"] == "literal_error" and isinstance(fault["input"], str):
        words = [word.strip("'") for word in re.split(", | or ", fault["ctx"]["expected"])]
        hint = lookup.nearest(fault["input"], words)
        return f"there is no {fault['input']!r}. {hint}Accepted: {', '.join([*words, *others])}."
    if fault["type"] in ("unknown_key", "at"):
        return fault["msg"]
    return f"{' or '.join([_words(fault), *others])}, found {fault['input']!r}."


def _words(fault):
    """What pydantic says of a fault, in the words of JSON."""
    if fault["type"] in ("model_type", "model_attributes_type", "dict_type"):
        return "Input should be a valid object"
    return fault["msg"].replace("tuple", "list").replace("Tuple", "List")


def _distinct(pairs):
    """A JSON object; a key that stands in it twice is an error, not a silent choice."""
    keys = [key for key, _ in pairs]
    for key in keys:
        if keys.count(key) > 1:
            raise ValueError(f"the key {key!r} stands twice in one object.")
    return dict(pairs)


def _refuse_constant(text):
    raise ValueError(f"{text} is no JSON number.")


def _unchangeable(value):
    """JSON content with tuples for lists, as the frozen sections hold them."""
    if isinstance(value, list):
        return tuple(map(_unchangeable, value))
    if isinstance(value, dict):
        return {key: _unchangeable(inner) for key, inner in value.items()}
    return value


def _override(content, text):
    """Replaces one value of the file's content, as `--set a.b=c` asks."""
    where, equals, value = text.partition("=")
    if not equals:
        raise ConfigError(f"--set {text}: expected key=value, such as stages.noisy.epochs=3.")
    try:
        value = json.loads(value, object_pairs_hook=_distinct, parse_constant=_refuse_constant)
    except ValueError:
        pass  # a bare word is a string
    *path, last = where.split(".")
    place = content
    for key in path:
        place = place[_index(place, key, text)] if isinstance(place, list) else _inside(place, key, text)
    if isinstance(place, list):
        place[_index(place, last, text)] = value
    elif isinstance(place, dict):
        place[last] = value
    else:
        raise ConfigError(f"--set {text}: {'.'.join(path)} is {place!r} and holds no {last!r}.")


def _inside(place, key, text):
    if not isinstance(place, dict) or key not in place:
        accepted = place if isinstance(place, dict) else ()
        raise ConfigError(
            f"--set {text}: there is no {key!r}. {lookup.nearest(key, accepted)}Accepted: {', '.join(accepted)}."
        )
    return place[key]


def _index(entries, key, text):
    """Where in a list the entry with this index or name stands."""
    names = [entry.get("name") if isinstance(entry, dict) else None for entry in entries]
    if names.count(key) > 1:
        places = ", ".join(str(place) for place, name in enumerate(names) if name == key)
        raise ConfigError(f"--set {text}: several entries are called {key!r}. Name one by its index: {places}.")
    if key in names:
        return names.index(key)
    if key.isdecimal() and int(key) < len(entries):
        return int(key)
    accepted = ", ".join([*map(str, filter(None, names)), f"0 to {len(entries) - 1}"])
    raise ConfigError(f"--set {text}: there is no entry {key!r}. {lookup.nearest(key, names)}Accepted: {accepted}.")
