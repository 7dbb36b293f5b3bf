"""Ensembles: several runs, stages and folds that predict together.

ensembles/*.json describe them. `evaluate`, `make-submission` and `export` take a run or such a
file; the functions here take both.
"""

import dataclasses
import functools
import json
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import pandas as pd
import tensorflow as tf
from keras import ops
from pydantic import Field

from audiotag import files
from audiotag.config.components import Section, component, options
from audiotag.config.loading import load, parse
from audiotag.config.schema import SCHEMA_VERSION, Experiment, Predict, SchemaVersion
from audiotag.crossval.out_of_fold import trained_on
from audiotag.data.folds import stratified_folds
from audiotag.data.labels import multi_hot
from audiotag.data.records.manifest import load_manifest
from audiotag.ensembling.combiners import COMBINERS, FittedCombiner
from audiotag.errors import AudiotagError, ConfigError, DataError
from audiotag.evaluation.measures import fit_thresholds, labeled, out_of_fold_thresholds, refuse_unlabeled
from audiotag.evaluation.scoring import check_scores, find_test_clips, out_of_fold_predictions, score_test_clips, some
from audiotag.evaluation.thresholds import Calibration, fit_temperature
from audiotag.inference.blocks import of_any_size, predict_embeddings, predict_logits
from audiotag.inference.predictor import Predictor
from audiotag.metrics import lwlrap
from audiotag.models.tagger import Tagger
from audiotag.runs.directory import Run, open_run, with_records
from audiotag.runs.models import load_taggers, with_predict_options

CLIPS_PER_BLOCK = 256
NUM_FITTING_FOLDS = 5  # a combiner is measured on clips that it was not fitted on

if TYPE_CHECKING:  # made from signatures, which a type checker cannot see
    CombinerConfig: TypeAlias = Any
else:
    CombinerConfig = component("audiotag.ensembling.combiners", "COMBINERS", given=("weights",))


class Member(Section):
    """One member: a run after one of its stages.

    It is the mean of the run's folds, or one of them.
    """

    run: str
    stage: str | None = None  # None is the last
    fold: int | None = Field(default=None, ge=0)  # None is the mean of all trained folds
    weight: float = Field(default=1.0, gt=0)  # for mean, geometric_mean and rank_mean
    predict: Predict | None = None  # None is the run's own


class EnsembleConfig(Section):
    """The members of an ensemble and their combiner; `ensembles/NAME.json` holds one."""

    schema_version: SchemaVersion = SCHEMA_VERSION
    about: str = ""
    command: str = ""
    expect: str = ""
    members: tuple[Member, ...] = Field(min_length=1)
    standardize_logits: bool = False  # each member's logits of each class to mean 0, deviation 1 on out-of-fold clips
    combiner: CombinerConfig


class Combination(Section):
    """How the members of an ensemble are combined."""

    standardize_logits: bool
    combiner: CombinerConfig


@dataclasses.dataclass(frozen=True, eq=False)
class TrainedMember:
    """The models of one member, whose probabilities are averaged.

    Args:
        experiment: The experiment that the models are built from, with the member's `predict`.
        stage: The stage, or the round of one, after which their weights are.
        weight: The member's weight in a mean.
        taggers: One model per fold.
    """

    experiment: Experiment
    stage: str
    weight: float
    taggers: tuple[Tagger, ...]


@dataclasses.dataclass(frozen=True, eq=False)
class TrainedEnsemble:
    """Everything that predicts: the models of one run, or of several.

    Args:
        members: The members; one for a run.
        combination: How they are combined; None for a run.
        audio_config: How files were read into the records.
        vocabulary: The K class names.
        combine: The fitted combiner, from logits [B, E, K] to [B, K]; None for a run.
        calibration: Thresholds and temperature; None if they are not fitted.
    """

    members: tuple[TrainedMember, ...]
    combination: Combination | None
    audio_config: dict[str, Any]
    vocabulary: tuple[str, ...]
    combine: FittedCombiner | None = None
    calibration: Calibration | None = None

    def predictor(self) -> Predictor:
        """The `Predictor` that they are together.

        Its `logits` is a function of tensors, to be traced.
        """
        longest = max(self.taggers(), key=lambda tagger: tagger.window_samples)
        return Predictor(
            of_any_size(self._logits),
            self.audio_config,
            self.vocabulary,
            longest.window_samples,
            longest.hop,
            longest.pool,
            thresholds=None if self.calibration is None else self.calibration.thresholds,
            embeddings=self.members[0].taggers[0].clip_embeddings if len(self.members) == 1 else None,
        )

    def taggers(self) -> list[Tagger]:
        """The models of all members."""
        return [tagger for member in self.members for tagger in member.taggers]

    def embeddings(self, waveform: Any) -> Any:
        """The embeddings of clips by all models, one after the other.

        The shapes are waveform [B, N], both from 0, → float32 [B, D].

        Raises:
            ValueError: A network does not tell what its head is.
        """
        return of_any_size(functools.partial(predict_embeddings, self.taggers()))(waveform)

    def _logits(self, waveform):
        logits = [predict_logits(member.taggers, waveform) for member in self.members]
        return logits[0] if self.combine is None else self.combine(tf.stack(logits, axis=1))


@dataclasses.dataclass(frozen=True, eq=False)
class EnsemblePredictor:
    """An ensemble with its runs opened.

    Args:
        path: Its file.
        config: The content of the file.
        runs: The run of each member, with the member's `predict` settings.
    """

    path: Path
    config: EnsembleConfig
    runs: tuple[Run, ...]

    @property
    def vocabulary(self) -> tuple[str, ...]:
        """The K class names, the same in all runs."""
        return self.runs[0].vocabulary

    @property
    def folder(self) -> Path:
        """Where results are written: the folder beside the file, with its name."""
        return self.path.with_suffix("")

    @property
    def submission(self) -> Path:
        """The file that `make-submission` writes."""
        return self.folder / "submission.csv"

    def names(self) -> list[str]:
        """The name of each member in messages and tables: run, stage and fold."""
        fold = lambda member: None if member.fold is None else f"fold-{member.fold}"
        return ["/".join(filter(None, [m.run, m.stage, fold(m)])) for m in self.config.members]


def open_model(path: str | Path | Run, overrides: Iterable[str] = ()) -> Run | EnsemblePredictor:
    """The `Run` in a directory, or the `EnsemblePredictor` of an ensemble's file.

    Args:
        path: runs/NAME or ensembles/NAME.json; or a `Run`, which is returned with the changes.
        overrides: Changes such as "predict.pool=max" for a run, or "combiner.level=1" for an ensemble.

    Raises:
        DataError: There is no run, or the runs have different classes.
        ConfigError: The file is not valid.
    """
    if isinstance(path, Run):
        return with_predict_options(path, overrides) if overrides else path
    path = Path(path)
    if not path.is_file():
        return with_predict_options(open_run(path), overrides)
    config = load(path, overrides, kind=EnsembleConfig)
    runs = tuple(_open_member(member, f"{path}: members[{index}]") for index, member in enumerate(config.members))
    for member, run in zip(config.members, runs):
        differing = set(run.vocabulary) ^ set(runs[0].vocabulary)
        if run.vocabulary != runs[0].vocabulary:
            what = f"such as {some(differing)}" if differing else "the same in another order"
            raise DataError(f"{member.run}: has other classes than {config.members[0].run}, {what}.")
    combiner: Any = COMBINERS[config.combiner.name]  # classes without a common base
    if combiner.needs_fit:
        for index, member in enumerate(config.members):
            if member.weight != 1:
                raise ConfigError(
                    f"{path}: members[{index}].weight: {config.combiner.name} fits the weights itself. Leave it out."
                )
    return EnsemblePredictor(path, config, runs)


def predict_test_clips(
    model: Run | EnsemblePredictor,
    *,
    records: str | Path | None = None,
    stage: str | None = None,
    fold: int | None = None,
) -> tuple[pd.DataFrame, np.ndarray]:
    """The test clips, and the logits of a run or an ensemble for them.

    Args:
        model: A `Run` or an `EnsemblePredictor`.
        records: Other records, for a run.
        stage: Another stage than the last, for a run.
        fold: The only fold to use, for a run; None is the mean of all.

    Returns:
        A table of clips, and logits float64 [clips, K].
    """
    if isinstance(model, Run):
        return score_test_clips(model, records=records, stage=stage, fold=fold)
    _refuse_run_options(model, records or stage or fold is not None)
    clips, logits = member_scores(model)
    return clips, combine_in_blocks(fitted_combiner(model), logits)


def predict_out_of_fold(model: Run | EnsemblePredictor, *, stage: str | None = None) -> tuple[pd.DataFrame, np.ndarray]:
    """The held-out clips, and out-of-fold logits for them.

    They come from models and combiners that were not fitted on these clips.
    """
    if isinstance(model, Run):
        return out_of_fold_predictions(model, stage)
    _refuse_run_options(model, stage)
    clips, logits = out_of_fold_member_scores(model)
    if not _needs_fit(model):
        return clips, combine_in_blocks(_build_combiner(model, None, None), logits)
    truth = multi_hot(clips["labels"], model.vocabulary)
    folds = stratified_folds(clips, NUM_FITTING_FOLDS, seed=0, groups="group").to_numpy()
    scores = np.zeros(truth.shape)
    for fold in range(NUM_FITTING_FOLDS):
        own = folds == fold
        scores[own] = combine_in_blocks(_build_combiner(model, logits[~own], truth[~own]), logits[own])
    return clips, scores


def predictions_and_thresholds(
    model: Run | EnsemblePredictor,
    *,
    records: str | Path | None = None,
    stage: str | None = None,
    out_of_fold: bool = False,
) -> tuple[pd.DataFrame, np.ndarray, np.ndarray | None]:
    """(clips, logits, thresholds) of test or out-of-fold clips, for `evaluate`.

    Thresholds are fitted on out-of-fold clips; those of an out-of-fold clip on the other folds. For test clips they are
    None, which is probability 1/2, if there are no out-of-fold clips to fit them on: no fold is fully trained, or the
    members trained on different folds. The reason is printed to standard error.

    Raises:
        DataError: The test clips have no labels; none is scored then.
    """
    if not isinstance(model, Run):
        _refuse_run_options(model, records)
    elif records is not None and (out_of_fold or load_manifest(records).fingerprint == model.fingerprint):
        model, records = with_records(model, records), None
    if out_of_fold:
        clips, logits = predict_out_of_fold(model, stage=stage)
        return clips, logits, out_of_fold_thresholds(clips, logits, model.vocabulary)
    _refuse_unlabeled(model, records)
    clips, logits = predict_test_clips(model, records=records, stage=stage)
    held_out = out_of_fold_predictions_if_any(model, stage=stage)
    return clips, logits, None if held_out is None else fit_thresholds(*held_out, model.vocabulary)


def out_of_fold_predictions_if_any(
    model: Run | EnsemblePredictor, *, stage: str | None = None
) -> tuple[pd.DataFrame, np.ndarray] | None:
    """`predict_out_of_fold` of labeled clips.

    None if there are none; the reason is printed to standard error.
    """
    try:
        clips, logits = predict_out_of_fold(model, stage=stage)
        refuse_unlabeled(clips)
    except DataError as error:
        print(f"Thresholds are 1/2, because they cannot be fitted: {error}", file=sys.stderr, flush=True)
        return None
    return clips, logits


def fit_calibration(clips: pd.DataFrame, logits: np.ndarray, vocabulary: Sequence[str]) -> Calibration:
    """Fits thresholds and temperature to out-of-fold predictions.

    Args:
        clips: A table of labeled clips.
        logits: [clips, K], out-of-fold.
        vocabulary: The K class names.
    """
    thresholds = fit_thresholds(clips, logits, vocabulary)
    return Calibration(tuple(thresholds.tolist()), fit_temperature(labeled(clips, logits, vocabulary), logits))


def write_ensemble(path: str | Path, runs: Sequence[Path], *, combiner: str) -> None:
    """Writes the file of an ensemble of complete runs.

    It refuses what `open_model` would refuse.
    """
    content = {
        "schema_version": SCHEMA_VERSION,
        "about": f"The {combiner} of {', '.join(run.name for run in runs)}.",
        "command": f"audiotag evaluate {path}",
        "expect": "to be measured",
        "members": [{"run": str(run)} for run in runs],
        "combiner": {"name": combiner},
    }
    with files.atomic_file(path) as unfinished:
        unfinished.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8", newline="\n")
        try:
            open_model(unfinished)
        except AudiotagError as error:
            raise type(error)(str(error).replace(str(unfinished), str(path))) from error


def member_scores(ensemble: EnsemblePredictor) -> tuple[pd.DataFrame, np.ndarray]:
    """The test clips, and each member's logits for them, [clips, E, K]."""
    predictions = [
        score_test_clips(run, stage=member.stage, fold=member.fold)
        for member, run in zip(ensemble.config.members, ensemble.runs)
    ]
    return align(predictions, ensemble.names())


def out_of_fold_member_scores(ensemble: EnsemblePredictor) -> tuple[pd.DataFrame, np.ndarray]:
    """The held-out clips, and each member's logits for them.

    The logits are out-of-fold, [clips, E, K].

    Raises:
        DataError: A member trained on a clip that another held out, or does not have it, or is of a fold that is
            not trained.
    """
    predictions = []
    for member, run in zip(ensemble.config.members, ensemble.runs):
        clips, logits = out_of_fold_predictions(run, member.stage)
        own = (clips["split"] == f"fold {member.fold}").to_numpy() | (member.fold is None)
        if not own.any():
            raise DataError(f"{run.folder}: fold {member.fold} is not fully trained. Name another fold.")
        predictions.append((clips[own].reset_index(drop=True), logits[own]))
    every = set().union(*(clips["name"] for clips, _ in predictions))
    for name, member, run, (clips, _) in zip(ensemble.names(), ensemble.config.members, ensemble.runs, predictions):
        stage = run.stage_name(member.stage)
        folds = run.trained_folds(stage) if member.fold is None else [member.fold]
        trained = (every - set(clips["name"])) & set().union(*(trained_on(run, fold, stage) for fold in folds))
        if trained:
            raise DataError(
                f"{name}: trained on {len(trained)} clips that the ensemble would be fitted on: {some(trained)}. "
                "Hold out the same clips in every run, by the same folds and validation."
            )
    return align(predictions, ensemble.names())


def align(
    predictions: Sequence[tuple[pd.DataFrame, np.ndarray]], names: Sequence[str]
) -> tuple[pd.DataFrame, np.ndarray]:
    """Members' predictions in the first one's order of clips.

    The result is (clips, logits [clips, E, K]).

    Args:
        predictions: For each member (clips, logits [clips, K]).
        names: The name of each member, for messages.

    Raises:
        DataError: Scores of a clip are missing or NaN.
    """
    first, stacked = predictions[0][0], []
    for name, (clips, logits) in zip(names, predictions):
        differing = set(first["name"]) ^ set(clips["name"])
        if differing:
            raise DataError(f"{name}: scores other clips than {names[0]}: {some(differing)}.")
        try:
            check_scores(clips, logits)
        except DataError as error:
            raise DataError(f"{name}: {error}") from None
        row = dict(zip(clips["name"], range(len(clips))))
        stacked.append(logits[[row[clip] for clip in first["name"]]])
    return first, np.stack(stacked, axis=1)


def fitted_combiner(ensemble: EnsemblePredictor) -> FittedCombiner:
    """The combiner of an ensemble, from logits [B, E, K] to [B, K].

    It is fitted on out-of-fold clips if it needs fitting.
    """
    if not _needs_fit(ensemble):
        return _build_combiner(ensemble, None, None)
    clips, logits = out_of_fold_member_scores(ensemble)
    return _build_combiner(ensemble, logits, multi_hot(clips["labels"], ensemble.vocabulary))


def combine_in_blocks(combine: Callable[[Any], Any], logits: np.ndarray) -> np.ndarray:
    """Applies a combiner to a block of clips at a time.

    The shapes are logits [clips, E, K] → float64 [clips, K].
    """
    blocks = range(0, len(logits), CLIPS_PER_BLOCK)
    return np.concatenate(
        [np.asarray(combine(ops.convert_to_tensor(logits[start : start + CLIPS_PER_BLOCK]))) for start in blocks]
    )


def member_effects(ensemble: EnsemblePredictor, clips: pd.DataFrame, logits: np.ndarray) -> pd.DataFrame:
    """The effect of each member on the lwlrap of the ensemble.

    The columns are member, its lwlrap alone, and the lwlrap without_it.

    Args:
        ensemble: An `EnsemblePredictor`.
        clips: Labeled clips.
        logits: [clips, E, K], each member's logits for them.
    """
    truth, rows = multi_hot(clips["labels"], ensemble.vocabulary), []
    for index, name in enumerate(ensemble.names()):
        rest = [other for other in range(logits.shape[1]) if other != index]
        members = tuple(ensemble.config.members[other] for other in rest)
        without = dataclasses.replace(
            ensemble,
            config=ensemble.config.model_copy(update={"members": members}),
            runs=tuple(ensemble.runs[other] for other in rest),
        )
        score = lwlrap(truth, combine_in_blocks(fitted_combiner(without), logits[:, rest])) if rest else float("nan")
        rows.append({"member": name, "alone": lwlrap(truth, logits[:, index]), "without_it": score})
    return pd.DataFrame(rows)


def leave_one_out(model: Run | EnsemblePredictor, *, out_of_fold: bool = False) -> str:
    """`member_effects` on test clips, or on out-of-fold clips, as text.

    Raises:
        ConfigError: The model is a run, which has no members.
        DataError: The test clips have no labels.
    """
    if isinstance(model, Run):
        raise ConfigError(f"{model.folder}: a run has no members. Give an ensemble's file, or see: audiotag report")
    if out_of_fold:
        clips, logits = out_of_fold_member_scores(model)
    else:
        _refuse_unlabeled(model)
        clips, logits = member_scores(model)
    return member_effects(model, clips, logits).to_string(index=False, float_format="%.4f")


def load_ensemble(
    model: Run | EnsemblePredictor, *, stage: str | None = None, fold: int | None = None
) -> TrainedEnsemble:
    """Loads the models of a run or an ensemble, and its fitted combiner.

    Args:
        model: A `Run` or an `EnsemblePredictor`.
        stage: Another stage than the last, for a run.
        fold: The only fold to use, for a run.

    Raises:
        DataError: Members of an ensemble read files in different ways.
        ConfigError: A stage or a fold for an ensemble.
    """
    if isinstance(model, Run):
        return TrainedEnsemble((_load_member(model, stage, fold),), None, model.audio_config, model.vocabulary)
    if stage is not None or fold is not None:
        raise ConfigError(f"{model.path}: each member has its own stage and fold. Leave stage and fold out.")
    for name, run in zip(model.names(), model.runs):
        if run.audio_config != model.runs[0].audio_config:
            raise DataError(
                f"{name}: reads files as {run.audio_config}, but {model.names()[0]} as {model.runs[0].audio_config}. "
                "An ensemble reads a file once: train both on records with the same audio options."
            )
    pairs = zip(model.config.members, model.runs)
    loaded = tuple(_load_member(run, member.stage, member.fold, member.weight) for member, run in pairs)
    how = Combination(standardize_logits=model.config.standardize_logits, combiner=model.config.combiner)
    return TrainedEnsemble(
        loaded, how, model.runs[0].audio_config, model.runs[0].vocabulary, combine=fitted_combiner(model)
    )


def _load_member(run, stage, fold, weight=1.0):
    """The trained models of a run, as a member."""
    return TrainedMember(run.experiment, run.stage_name(stage), weight, tuple(load_taggers(run, stage, fold)))


def new_combiner(config: Any, weights: Sequence[float]) -> Any:
    """A combiner, not fitted yet, for members with these weights.

    Raises:
        ValueError: An option is out of range.
    """
    kind: Any = COMBINERS[config.name]  # classes without a common base
    return kind(**options(config)) if kind.needs_fit else kind(weights=list(weights), **options(config))


def _open_member(member, where):
    run = open_run(member.run)
    if member.predict is None:
        return run
    content = run.experiment.model_dump() | {"predict": member.predict.model_dump()}
    return dataclasses.replace(run, experiment=parse(content, Experiment, where))


def _refuse_run_options(ensemble, given):
    """Refuses options that only a run has."""
    if given:
        raise ConfigError(
            f"{ensemble.path}: each member has its own records, stage and fold. Leave --records, --stage and --fold "
            "out."
        )


def _refuse_unlabeled(model, records=None):
    """Refuses test clips without labels before they are scored."""
    _, clips = find_test_clips(model, records) if isinstance(model, Run) else find_test_clips(model.runs[0])
    refuse_unlabeled(clips)


def _needs_fit(ensemble):
    return ensemble.config.standardize_logits or COMBINERS[ensemble.config.combiner.name].needs_fit


def _build_combiner(ensemble, logits, truth):
    """The combiner of an ensemble, and the standardization before it, fitted on these clips."""
    config = ensemble.config
    kind = COMBINERS[config.combiner.name]
    try:
        combine = new_combiner(config.combiner, [member.weight for member in config.members])
    except ValueError as error:
        raise ConfigError(f"{ensemble.path}: combiner {config.combiner.name}: {error}") from error
    fitted = FittedCombiner(combine)
    if config.standardize_logits:
        fitted = FittedCombiner(combine, logits.mean(axis=0), np.maximum(logits.std(axis=0), 1e-6))  # [E, K]
    if kind.needs_fit:
        combine.fit(np.asarray(fitted.standardize(ops.convert_to_tensor(logits))), truth)
    return fitted
