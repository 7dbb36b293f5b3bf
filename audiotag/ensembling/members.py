"""Several runs, stages and folds that answer as one: ensembles/*.json, read as strictly as an experiment.

`evaluate`, `submit` and `export` take either a run or such a file; the functions here answer for both.
"""

import dataclasses
import json
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import tensorflow as tf
from keras import ops
from pydantic import Field

from audiotag import files
from audiotag.config.components import Section, options, part
from audiotag.config.loading import checked, load
from audiotag.config.schema import Experiment, Predict
from audiotag.data.clips import read_table
from audiotag.data.folds import stratified_folds
from audiotag.data.labels import multi_hot
from audiotag.ensembling.combiners import COMBINERS
from audiotag.errors import AudiotagError, ConfigError, DataError
from audiotag.evaluation.measures import fit_thresholds, fit_thresholds_across, refuse_unlabelled
from audiotag.evaluation.scoring import check_scores, find_test_clips, held_out_answers, score_test_clips, some
from audiotag.inference.predictor import Listener, hear
from audiotag.metrics import lwlrap
from audiotag.runs.directory import Run, open_run
from audiotag.runs.models import heard_as, load_taggers

CLIPS_AT_ONCE = 256
PARTS = 5  # into which held-out clips are cut, so that what is fitted is measured on clips that it was not fitted on

Combine = part("audiotag.ensembling.combiners", "COMBINERS", given=("weights",))


class Member(Section):
    """One opinion: a run after one of its stages, the mean of its folds or one of them, heard in its own way."""

    run: str
    stage: str | None = None  # None is the last
    fold: int | None = Field(default=None, ge=0)  # None is the mean of all that are trained
    weight: float = Field(default=1.0, gt=0)  # for the combiners that are means
    predict: Predict | None = None  # None is the run's own


class Ensemble(Section):
    """Who is asked, and how their answers become one; `ensembles/NAME.json` holds one."""

    about: str
    command: str
    expect: str
    members: tuple[Member, ...] = Field(min_length=1)
    normalise: bool = False  # bring each member's logits of each class to mean 0 and deviation 1 on held-out clips
    combine: Combine


@dataclasses.dataclass(frozen=True, eq=False)
class Choir:
    """An ensemble whose runs are opened.

    Args:
        path: Its file.
        ensemble: What the file says.
        runs: The run of each member, heard as the member says.
    """

    path: Path
    ensemble: Ensemble
    runs: tuple[Run, ...]

    @property
    def vocabulary(self):
        """The K class names, the same in all runs."""
        return self.runs[0].vocabulary

    @property
    def folder(self):
        """Where what it answers is put: a folder beside its file, of its name."""
        return self.path.with_suffix("")

    def names(self):
        """What to call each member in a message or a table: run, stage and fold."""
        fold = lambda member: None if member.fold is None else f"fold-{member.fold}"
        return ["/".join(filter(None, [m.run, m.stage, fold(m)])) for m in self.ensemble.members]


def open_model(path, overrides=()):
    """The `Run` in a directory, or the `Choir` of an ensemble's file.

    Args:
        path: runs/NAME or ensembles/NAME.json.
        overrides: For a run, texts such as "predict.pool=max"; for an ensemble such as "combine.level=1".

    Raises:
        DataError: There is no run, or the runs know different classes.
        ConfigError: The file says something audiotag cannot do.
    """
    path = Path(path)
    if not path.is_file():
        return heard_as(open_run(path), overrides)
    ensemble = load(path, overrides, kind=Ensemble)
    runs = tuple(_opened(member, f"{path}: members[{index}]") for index, member in enumerate(ensemble.members))
    for member, run in zip(ensemble.members, runs):
        strange = set(run.vocabulary) ^ set(runs[0].vocabulary)
        if run.vocabulary != runs[0].vocabulary:
            what = f"such as {some(strange)}" if strange else "the same in another order"
            raise DataError(f"{member.run}: knows other classes than {ensemble.members[0].run}, {what}.")
    if not COMBINERS[ensemble.combine.name].fitted:
        return Choir(path, ensemble, runs)
    for index, member in enumerate(ensemble.members):
        if member.weight != 1:
            raise ConfigError(f"{path}: members[{index}].weight: {ensemble.combine.name} learns its own. Leave it out.")
    return Choir(path, ensemble, runs)


def hear_test_clips(model, *, records=None, stage=None):
    """(clips, logits float64 [clips, K]): the test clips, and what a run or an ensemble thinks of them.

    Args:
        model: A `Run` or a `Choir`.
        records: Other records, for a run.
        stage: Another stage than the last, for a run.
    """
    if isinstance(model, Run):
        return score_test_clips(model, records=records, stage=stage)
    _refuse(model, records or stage)
    clips, logits = member_scores(model)
    return clips, combined(combiner(model), logits)


def hear_held_out_clips(model, *, stage=None):
    """The same for the held-out clips, each scored by what was not trained, or fitted, on it."""
    if isinstance(model, Run):
        return held_out_answers(model, stage)
    _refuse(model, stage)
    clips, logits = held_out_member_scores(model)
    if not _learns(model):
        return clips, combined(_fitted(model, None, None), logits)
    truth = multi_hot(clips["labels"], model.vocabulary)
    places = stratified_folds(clips, PARTS, seed=0, groups="group").to_numpy()
    scores = np.zeros(truth.shape)
    for place in range(PARTS):
        asked = places == place
        scores[asked] = combined(_fitted(model, logits[~asked], truth[~asked]), logits[asked])
    return clips, scores


def answers_and_thresholds(model, *, records=None, stage=None, held_out=False):
    """(clips, logits, thresholds) of test clips, or of held-out ones, for `evaluate`.

    Thresholds are fitted on held-out clips; those of a held-out clip on other folds. They are None, for
    probability 1/2, where there is nothing to fit those of test clips on, such as no fold trained to its end,
    or members trained on different folds; standard error then says why.

    Raises:
        DataError: The test clips have no labels; none is heard then.
    """
    if held_out:
        clips, logits = hear_held_out_clips(model, stage=stage)
        return clips, logits, fit_thresholds_across(clips, logits, model.vocabulary)
    _refuse_unlabelled(model, records)
    clips, logits = hear_test_clips(model, records=records, stage=stage)
    try:
        return clips, logits, fit_thresholds(*hear_held_out_clips(model, stage=stage), model.vocabulary)
    except DataError as error:
        print(f"Thresholds are 1/2, for they cannot be fitted: {error}", file=sys.stderr, flush=True)
        return clips, logits, None


def write_ensemble(path, runs, *, combine):
    """Writes the file of an ensemble of whole runs; refuses what `open_model` would refuse."""
    content = {
        "about": f"The {combine} answer of {', '.join(run.name for run in runs)}.",
        "command": f"audiotag evaluate {path}",
        "expect": "to be measured",
        "members": [{"run": str(run)} for run in runs],
        "combine": {"name": combine},
    }
    with files.whole_file(path) as unfinished:
        unfinished.write_text(json.dumps(content, indent=2) + "\n")
        try:
            open_model(unfinished)
        except AudiotagError as error:
            raise type(error)(str(error).replace(str(unfinished), str(path))) from error


def member_scores(choir):
    """(clips, logits [clips, E, K]): the test clips, and what each member thinks of them."""
    answers = [
        score_test_clips(run, stage=member.stage, fold=member.fold)
        for member, run in zip(choir.ensemble.members, choir.runs)
    ]
    return aligned(answers, choir.names())


def held_out_member_scores(choir):
    """(clips, logits [clips, E, K]): the held-out clips, and what each member thinks of those it never heard.

    Raises:
        DataError: A member was trained on a clip that another was not, or does not know it, or is of a fold that is
            not trained.
    """
    answers = []
    for member, run in zip(choir.ensemble.members, choir.runs):
        clips, logits = held_out_answers(run, member.stage)
        own = (clips["usage"] == f"fold {member.fold}").to_numpy() | (member.fold is None)
        if not own.any():
            raise DataError(f"{run.folder}: fold {member.fold} is not trained to its end. Name another fold.")
        answers.append((clips[own].reset_index(drop=True), logits[own]))
    everyone = set().union(*(clips["name"] for clips, _ in answers))
    for name, run, (clips, _) in zip(choir.names(), choir.runs, answers):
        trained = (everyone - set(clips["name"])) & set(_curated(run))
        if trained:
            raise DataError(
                f"{name}: was trained on {len(trained)} clips that the ensemble would be fitted on: {some(trained)}. "
                "Train the same folds in every run: folds.held_out."
            )
    return aligned(answers, choir.names())


def aligned(answers, names):
    """Brings members' answers into the first one's order of clips: (clips, logits [clips, E, K]).

    Args:
        answers: For each member (clips, logits [clips, K]).
        names: What to call them.

    Raises:
        DataError: A clip's scores are missing or NaN.
    """
    first, stacked = answers[0][0], []
    for name, (clips, logits) in zip(names, answers):
        missing = set(first["name"]) ^ set(clips["name"])
        if missing:
            raise DataError(f"{name}: scores other clips than {names[0]}: {some(missing)}.")
        try:
            check_scores(clips, logits)
        except DataError as error:
            raise DataError(f"{name}: {error}") from None
        place = dict(zip(clips["name"], range(len(clips))))
        stacked.append(logits[[place[clip] for clip in first["name"]]])
    return first, np.stack(stacked, axis=1)


def combiner(choir):
    """The function from logits [B, E, K] to [B, K] that an ensemble means, fitted on held-out clips where it learns."""
    if not _learns(choir):
        return _fitted(choir, None, None)
    clips, logits = held_out_member_scores(choir)
    return _fitted(choir, logits, multi_hot(clips["labels"], choir.vocabulary))


def combined(combine, logits):
    """Logits [clips, E, K] → float64 [clips, K], a few clips at a time."""
    blocks = range(0, len(logits), CLIPS_AT_ONCE)
    return np.concatenate(
        [np.asarray(combine(ops.convert_to_tensor(logits[start : start + CLIPS_AT_ONCE]))) for start in blocks]
    )


def member_effects(choir, clips, logits):
    """What each member adds: a table of member, lwlrap alone, and lwlrap of the ensemble without it (without_it).

    Args:
        choir: A `Choir`.
        clips: Labelled clips.
        logits: [clips, E, K], what each member thinks of them.
    """
    truth, rows = multi_hot(clips["labels"], choir.vocabulary), []
    for index, name in enumerate(choir.names()):
        rest = [other for other in range(logits.shape[1]) if other != index]
        without = dataclasses.replace(
            choir,
            ensemble=choir.ensemble.model_copy(update={"members": tuple(choir.ensemble.members[i] for i in rest)}),
            runs=tuple(choir.runs[i] for i in rest),
        )
        rest_alone = lwlrap(truth, combined(combiner(without), logits[:, rest])) if rest else float("nan")
        rows.append({"member": name, "alone": lwlrap(truth, logits[:, index]), "without_it": rest_alone})
    return pd.DataFrame(rows)


def effects_in_words(choir, *, held_out=False):
    """What `member_effects` finds on test clips, or on held-out ones, for a terminal.

    Raises:
        ConfigError: It is a run, which has no members.
        DataError: The test clips have no labels.
    """
    if isinstance(choir, Run):
        raise ConfigError(f"{choir.folder}: a run has no members. Give an ensemble's file, or see: audiotag report")
    if held_out:
        clips, logits = held_out_member_scores(choir)
    else:
        _refuse_unlabelled(choir)
        clips, logits = member_scores(choir)
    return member_effects(choir, clips, logits).to_string(index=False, float_format="%.4f")


def listener(model):
    """(taggers, listener): the models inside a run or an ensemble, and the `Listener` they make together.

    Its `logits` is a function of tensors, to be traced.

    Raises:
        DataError: Members of an ensemble read files in different ways.
    """
    if isinstance(model, Run):
        taggers = load_taggers(model)
        return taggers, _listener(lambda waveform: hear(taggers, waveform), model, taggers)
    for name, run in zip(model.names(), model.runs):
        if run.hearing != model.runs[0].hearing:
            raise DataError(
                f"{name}: reads files as {run.hearing}, but {model.names()[0]} as {model.runs[0].hearing}. One model "
                "reads them in one way: train both on records of the same make."
            )
    pairs = zip(model.ensemble.members, model.runs)
    choirs = [load_taggers(run, member.stage, member.fold) for member, run in pairs]
    combine = combiner(model)
    taggers = [tagger for choir in choirs for tagger in choir]
    answer = lambda waveform: combine(tf.stack([hear(choir, waveform) for choir in choirs], axis=1))
    return taggers, _listener(answer, model.runs[0], taggers)


def _listener(logits, run, taggers):
    longest = max(taggers, key=lambda tagger: tagger.window_samples)
    return Listener(logits, run.hearing, run.vocabulary, longest.window_samples, longest.hop, longest.pool)


def _opened(member, where):
    run = open_run(member.run)
    if member.predict is None:
        return run
    content = run.experiment.model_dump() | {"predict": member.predict.model_dump()}
    return dataclasses.replace(run, experiment=checked(content, Experiment, where))


def _refuse(choir, given):
    """Refuses options that only a run can follow."""
    if given:
        raise ConfigError(f"{choir.path}: each member has its own records and stage. Leave --records and --stage out.")


def _refuse_unlabelled(model, records=None):
    """Refuses test clips that have no labels to measure with, before they are heard."""
    _, clips = find_test_clips(model, records) if isinstance(model, Run) else find_test_clips(model.runs[0])
    refuse_unlabelled(clips)


def _curated(run):
    """The names of the curated clips that a run trained on, or held out."""
    return read_table(run.folder / "folds.csv", ["name"])["name"].map(files.from_cell)


def _learns(choir):
    return choir.ensemble.normalise or COMBINERS[choir.ensemble.combine.name].fitted


def _fitted(choir, logits, truth):
    """The combiner of an ensemble, and the normalisation before it, fitted on these clips."""
    kind, chosen = COMBINERS[choir.ensemble.combine.name], options(choir.ensemble.combine)
    try:
        combine = kind(**chosen) if kind.fitted else kind(weights=[m.weight for m in choir.ensemble.members], **chosen)
    except ValueError as error:
        raise ConfigError(f"{choir.path}: combine {choir.ensemble.combine.name}: {error}") from error
    normal = lambda z: z
    if choir.ensemble.normalise:
        mean, deviation = logits.mean(axis=0), np.maximum(logits.std(axis=0), 1e-6)  # [E, K]
        normal = lambda z: (z - ops.cast(mean, z.dtype)) / ops.cast(deviation, z.dtype)
    if kind.fitted:
        combine.fit(np.asarray(normal(ops.convert_to_tensor(logits))), truth)
    return lambda z: combine(normal(z))
