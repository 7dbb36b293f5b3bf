"""How much each measure loses on clips whose sound is changed."""

import functools
import io
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import soundfile as sf
from keras import ops
from scipy import signal

from audiotag import progress
from audiotag.data.audio.decoding import FULL_SCALE
from audiotag.data.pipeline import evaluation_batches, explain_damage
from audiotag.data.records.manifest import refuse_damage
from audiotag.data.records.offsets import find_offsets
from audiotag.evaluation.comparison import difference, estimate, measure_recordings
from audiotag.evaluation.measures import MEASURES, refuse_unlabeled
from audiotag.evaluation.scoring import find_held_out_clips, find_test_clips
from audiotag.inference.records import BATCH_SIZE, logits_function
from audiotag.models.windowing import to_float
from audiotag.runs.directory import Run, with_records
from audiotag.runs.models import load_taggers

# (waveform float32 [N] in -1 to 1, sample rate in Hz, random numbers) → waveform [N]
Change = Callable[[np.ndarray, int, np.random.Generator], np.ndarray]

MP3_RATES = {  # sample rate in Hz: the lowest and the highest bit rate in kbit/s
    **dict.fromkeys((32_000, 44_100, 48_000), (32, 320)),
    **dict.fromkeys((16_000, 22_050, 24_000), (8, 160)),
    **dict.fromkeys((8_000, 11_025, 12_000), (8, 64)),
}


def gain(waveform: np.ndarray, sample_rate: int, rng: np.random.Generator, *, decibels: float) -> np.ndarray:
    """A louder or softer waveform; what is beyond full scale is clipped."""
    return np.clip(waveform * 10 ** (decibels / 20), -1, 1 - 1 / FULL_SCALE)


def low_pass(waveform: np.ndarray, sample_rate: int, rng: np.random.Generator, *, hz: float) -> np.ndarray:
    """A waveform without its high frequencies: Butterworth of order 8, without delay."""
    return signal.sosfiltfilt(signal.butter(8, hz, fs=sample_rate, output="sos"), waveform, padlen=0)


def mp3(waveform: np.ndarray, sample_rate: int, rng: np.random.Generator, *, kilobits: int) -> np.ndarray:
    """A waveform after MP3 at a constant bit rate in kbit/s."""
    low, high = MP3_RATES[sample_rate]
    coded = io.BytesIO()
    options = {"bitrate_mode": "CONSTANT", "compression_level": (high - kilobits) / (high - low)}
    sf.write(coded, waveform, sample_rate, format="MP3", **options)
    coded.seek(0)
    decoded = sf.read(coded, dtype="float32")[0][: len(waveform)]
    return np.pad(decoded, (0, len(waveform) - len(decoded)))


def noise(waveform: np.ndarray, sample_rate: int, rng: np.random.Generator, *, snr: float) -> np.ndarray:
    """A waveform with white noise, `snr` dB below the waveform."""
    rms = np.sqrt(np.mean(np.square(waveform)))
    return waveform + rng.normal(scale=rms * 10 ** (-snr / 20), size=len(waveform))


def reverberation(waveform: np.ndarray, sample_rate: int, rng: np.random.Generator, *, seconds: float) -> np.ndarray:
    """A waveform in a room, as loud as before and not longer.

    The room answers an impulse with decaying noise that has the energy of the impulse and falls by 60 dB in `seconds`.
    """
    time = np.arange(1, round(seconds * sample_rate)) / sample_rate
    tail = rng.normal(size=len(time)) * 10 ** (-3 * time / seconds)
    response = np.append(1.0, tail / np.sqrt(np.sum(np.square(tail))))
    changed = signal.fftconvolve(waveform, response)[: len(waveform)]
    loudness = np.sum(np.square(changed))
    return changed * np.sqrt(np.sum(np.square(waveform)) / loudness) if loudness > 0 else changed


CHANGES: dict[str, Change] = {
    "20 dB softer": functools.partial(gain, decibels=-20),
    "20 dB louder": functools.partial(gain, decibels=20),
    "low-pass at 4 kHz": functools.partial(low_pass, hz=4_000),
    "MP3 at 64 kbit/s": functools.partial(mp3, kilobits=64),
    "noise at 10 dB": functools.partial(noise, snr=10),
    "reverberation of 0.5 s": functools.partial(reverberation, seconds=0.5),
}


def changes_for(sample_rate: int) -> Mapping[str, Change]:
    """Those of `CHANGES` that a sample rate in Hz allows."""
    impossible = set()
    if sample_rate <= 8_000:
        impossible.add("low-pass at 4 kHz")
    if sample_rate not in MP3_RATES:
        impossible.add("MP3 at 64 kbit/s")
    return {name: change for name, change in CHANGES.items() if name not in impossible}


def measure_robustness(
    run: Run,
    *,
    records: str | Path | None = None,
    stage: str | None = None,
    out_of_fold: bool = False,
    thresholds: Any = None,
) -> pd.DataFrame:
    """What each of `CHANGES` costs on test clips, or on the validation clips.

    The same clips are changed in the same way every time.

    Args:
        run: A trained `Run`.
        records: A directory of records, with `out_of_fold` a copy of those of the run; None is that of the experiment.
        stage: The stage whose weights to use; None is the last.
        out_of_fold: Measure on the validation clips of all trained folds, each with the model that held it out.
        thresholds: As for `measures.evaluate`.

    Returns:
        A row per change and measure: change, measure, value, loss, low, high. `loss` is what the unchanged clips have
        more, with its 95% interval over recordings. A change that the sample rate does not allow has NaN.

    Raises:
        DataError: There are no such clips with labels, or they are damaged.
    """
    parts: list[tuple[pd.DataFrame, int | None]]  # clips, and the fold whose model scores them; None is the mean of all
    if out_of_fold:
        run = with_records(run, records)
        manifest, folds = find_held_out_clips(run)
        parts = [(held_out, fold) for fold, (held_out, _) in folds.items()]
    else:
        manifest, tested = find_test_clips(run, records)
        parts = [(tested, None)]
    clips = pd.concat([part for part, _ in parts], ignore_index=True)
    refuse_unlabeled(clips)
    offsets = find_offsets(manifest, None if out_of_fold else "test")
    for subset in sorted(set(clips["subset"])):
        refuse_damage(manifest, subset)
    scored = [_score(load_taggers(run, stage, fold), manifest, part, offsets) for part, fold in parts]
    logits = {name: np.concatenate([part[name] for part in scored]) for name in scored[0]}
    measured = {
        name: measure_recordings(clips, each, run.vocabulary, thresholds=thresholds) for name, each in logits.items()
    }
    rows = []
    for name in CHANGES:
        for measure in MEASURES:
            row = {"change": name, "measure": measure, "value": np.nan, "loss": np.nan, "low": np.nan, "high": np.nan}
            if name in measured:
                loss = estimate([difference(measured["unchanged"], measured[name])], measure)
                row |= {"value": measured[name].values[measure], "loss": loss.mean, "low": loss.low, "high": loss.high}
            rows.append(row)
    return pd.DataFrame(rows)


def _score(taggers, manifest, clips, offsets):
    """{change: logits float64 [clips, K]}, first those of unchanged clips."""
    rate, window_samples = manifest.sample_rate, taggers[0].window_samples
    predict, changes = logits_function(taggers), {"unchanged": None, **changes_for(rate)}
    logits = {name: np.full((len(clips), len(manifest.vocabulary)), np.nan) for name in changes}
    batches = evaluation_batches(manifest, clips, window_samples=window_samples, batch_size=BATCH_SIZE, offsets=offsets)
    with explain_damage(manifest):
        for waveforms, rows in progress.bar(batches, total=len(batches), unit="batch", label="robustness"):
            unchanged = ops.convert_to_numpy(to_float(waveforms))  # [B, N]
            for name, change in changes.items():
                changed = unchanged if change is None else _changed(change, unchanged, clips.iloc[rows.numpy()], rate)
                logits[name][rows.numpy()] = predict(changed)
    return logits


def robustness_summary(table: pd.DataFrame) -> str:
    """The losses in the table of `measure_robustness` as text for a terminal."""
    losses = table.pivot(index="change", columns="measure", values="loss").loc[[*CHANGES], [*MEASURES]]
    shown = losses.map(lambda loss: "not possible" if np.isnan(loss) else f"{loss:+.4f}")
    return f"Lost by changed sound:\n{shown.rename_axis(index=None, columns=None).to_string()}"


def _changed(change, waveforms, clips, sample_rate):
    """The clips of a batch float32 [B, N], each changed up to its end; `clips` are their rows."""
    changed = np.zeros_like(waveforms)
    for waveform, result, name, length in zip(waveforms, changed, clips["name"], clips["num_samples"]):
        rng = np.random.default_rng(zlib.crc32(name.encode()))
        result[:length] = change(waveform[:length], sample_rate, rng)
    return changed
