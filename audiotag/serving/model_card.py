"""The model card of an export: its data, measures, limits and license."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.special import expit

from audiotag import __version__
from audiotag.config.schema import stage_of
from audiotag.crossval.out_of_fold import trained_clips
from audiotag.ensembling.members import EnsemblePredictor, TrainedEnsemble
from audiotag.errors import DataError
from audiotag.evaluation import thresholds as thresholding
from audiotag.evaluation.measures import labeled, measure_split
from audiotag.runs.directory import SHOWN_DIGITS, Run

FILE = Path("assets.extra") / "model_card.md"
FEW_CLIPS = 10  # of a class: its threshold is uncertain


def model_card(
    model: Run | EnsemblePredictor,
    trained: TrainedEnsemble,
    held_out: tuple[pd.DataFrame, np.ndarray] | None,
    *,
    license_name: str | None = None,
) -> str:
    """The model card of a model, as Markdown.

    Args:
        model: A `Run` or an `EnsemblePredictor`.
        trained: The same, loaded.
        held_out: Its out-of-fold predictions: a table of labeled clips, and logits [clips, K]. None if there are none.
        license_name: The license of the model, as an SPDX identifier; None if it is not known.
    """
    parts = {
        f"# Model card: {model.folder.name}": _model_lines(model, trained),
        "## Data": _data_lines(model, trained),
        "## Measures": _measure_lines(trained, held_out),
        "## Limits": _limit_lines(trained, held_out),
        "## License": [license_name or "Not stated. The licenses of the recordings may restrict the use of the model."],
    }
    return "\n".join(f"{title}\n\n" + "\n".join(lines) + "\n" for title, lines in parts.items())


def _model_lines(model, trained):
    """Which networks, inputs and classes it has."""
    predictor = trained.predictor()
    config, rate = predictor.audio_config, predictor.audio_config["sample_rate"]
    lines = [f"Made by audiotag {__version__}.", ""]
    lines += [
        f"- Network {member.experiment.model.name} after stage {member.stage}, {_count(len(member.taggers), 'model')}. "
        f"{member.experiment.about}".rstrip()
        for member in trained.members
    ]
    if trained.combination is not None:
        lines.append(f"- They are combined by {trained.combination.combiner.name}.")
    lines += [
        f"- Input: one channel at {rate} Hz, cut into windows of {predictor.window_samples / rate:g} s, "
        f"{predictor.hop / rate:g} s apart in long recordings. Files are read with trim {config['trim']}, "
        f"peak_db {config['peak_db']}.",
        f"- Output: for each of {_count(len(predictor.vocabulary), 'class', 'classes')}, the probability that a clip "
        "has it. Each is decided on its own.",
        f"- Classes: {', '.join(map(_text, predictor.vocabulary))}.",
    ]
    return lines


def _data_lines(model, trained):
    """What it was trained on."""
    lines = []
    for run, member in zip([model] if isinstance(model, Run) else model.runs, trained.members):
        subsets = sorted({subset for stage in member.experiment.stages for subset in stage.subset})
        try:
            folds = run.trained_folds(member.stage)
            tables = [trained_clips(run, fold, stage_of(member.stage)) for fold in folds]
            number = _count(len(set(pd.concat(tables)["sha256"])), "clip")
        except DataError:
            number = "clips whose list is lost"
        lines.append(
            f"- {run.folder.name}: {number} of the subsets {', '.join(subsets)} in the records "
            f"{Path(member.experiment.records).name}, with the fingerprint {run.fingerprint[:SHOWN_DIGITS]}."
        )
        if getattr(member.experiment.model, "weights", None) is not None:
            lines.append("- Its network started with pretrained weights, whose data is not listed here.")
    return lines


def _measure_lines(trained, held_out):
    """How good it is on out-of-fold clips."""
    if held_out is None or trained.calibration is None:
        return ["Not measured: there are no labeled out-of-fold clips. Thresholds are probability 1/2."]
    clips, logits = held_out
    calibration, truth = trained.calibration, labeled(clips, logits, trained.vocabulary)
    thresholds = np.asarray(calibration.thresholds)
    overall = measure_split(truth, logits, np.broadcast_to(thresholds, logits.shape))
    decisions = thresholding.measure_decisions(truth, logits >= thresholds)
    error = thresholding.calibration_error(thresholding.calibration(truth, expit(logits)))
    calibrated = thresholding.calibration_error(
        thresholding.calibration(truth, expit(logits / calibration.temperature))
    )
    lines = [
        f"On {_count(len(clips), 'clip')} that the models which score them did not train on. The best epoch and the "
        "thresholds were chosen on the same clips, so test clips may have lower values: `audiotag evaluate`.",
        "",
        *_table(
            ["measure", "value", "95% interval", "by chance"],
            [
                (row.measure, f"{row.value:.3f}", f"{row.low:.3f} to {row.high:.3f}", f"{row.chance:.3f}")
                for row in overall.itertuples()
            ],
        ),
        "",
        f"Expected calibration error: {error:.4f}, and {calibrated:.4f} with logits divided by the temperature, "
        f"{calibration.temperature:.3f}.",
        "",
        *_table(
            ["class", "clips", "threshold", "precision", "recall"],
            zip(
                map(_text, trained.vocabulary),
                truth.sum(axis=0).astype(int),
                (f"{value:.3f}" for value in expit(thresholds)),
                (f"{value:.3f}" for value in decisions["precision"]),
                (f"{value:.3f}" for value in decisions["recall"]),
            ),
        ),
    ]
    return lines


def _limit_lines(trained, held_out):
    """Where it fails, as far as is known."""
    rate = trained.audio_config["sample_rate"]
    lines = [
        f"- It cannot detect what is above {rate // 2} Hz, nor name sounds other than its classes.",
        "- It is measured on recordings like those it was trained on. Other microphones, places and levels can change "
        "its scores; measure it on recordings of your own.",
        "- It is not made for decisions about people.",
    ]
    if held_out is not None:
        counts = labeled(*held_out, trained.vocabulary).sum(axis=0)
        few = [_text(name) for name, count in zip(trained.vocabulary, counts) if count < FEW_CLIPS]
        if few:
            lines.append(f"- Classes with fewer than {FEW_CLIPS} out-of-fold clips: {', '.join(few)}.")
    noisy = {subset for member in trained.members for stage in member.experiment.stages for subset in stage.subset}
    noisy -= {subset for member in trained.members for subset in member.experiment.trusted}
    if noisy:
        lines.append(f"- Some of its training labels are unreliable: those of {', '.join(sorted(noisy))}.")
    return lines


def _table(header: list[str], rows: Iterable) -> list[str]:
    """The lines of a table in Markdown."""
    return [f"| {' | '.join(map(str, row))} |" for row in (header, ["---"] * len(header), *rows)]


def _text(name):
    """A class name in Markdown."""
    return name.replace("\\", "\\\\").replace("|", "\\|")


def _count(number, singular, plural=None):
    return f"{number} {singular if number == 1 else plural or singular + 's'}"
