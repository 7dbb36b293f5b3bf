"""Events in field recordings: YAMNet and a ridge on ESC-10, with event settings fitted to other recordings.

    python benchmarks/field_recordings.py --esc10 ESC-10 --weights yamnet.h5
    python benchmarks/field_recordings.py --esc10 ESC-10 --weights yamnet.h5 --choose

The model trains on clips of ESC-10's folds 1 and 2, and on background noise as clips of no class. Recordings of ten
minutes hold 40 clips at known times, 0 to 20 dB above background noise of another seed. Event settings are fitted to
five recordings with clips of fold 3, and measured on ten with clips of fold 4. Events are right within 200 ms of their
onset; segments last 1 s. A clip begins where it first rises above 5% of its peak, and ends where it last does.
If the package sed_eval is installed, its measures of the same events are printed, too.

--choose compares values of --max-false of fit-events, without fold 4: trained on one of folds 1 to 3, fitted to
recordings of another, measured on the third. The default is the largest that leaves at most half of the false events
each time.
"""

import argparse
import importlib.util
import os
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import pandas as pd
import soundfile as sf
import soxr

from audiotag import fit, load_experiment
from audiotag.data.records import write_records
from audiotag.data.sources import find_clips
from audiotag.evaluation.event_fitting import fit_event_settings, measure_events, score_recordings
from audiotag.evaluation.event_measures import read_events
from audiotag.inference.events import EventSettings, events, thresholds_of
from audiotag.serving.saved_model import load_predictor

RATE, SECONDS, CLIPS_PER_RECORDING, NUM_BACKGROUND = 16_000, 600, 40, 120
COLLAR = 0.2
CHOICES = (0.25, 0.35, 0.4, 0.5)  # of the most false events
ROTATIONS = ((1, 2, 3), (2, 3, 1), (3, 1, 2))  # folds to train, to fit and to measure


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--esc10", type=Path, required=True)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--folder", type=Path, default=Path("runs/field"))
    parser.add_argument("--overlap", type=float, default=0.75)
    parser.add_argument("--recordings", type=int, nargs=2, default=(5, 10), help="to fit, and to measure")
    parser.add_argument("--choose", action="store_true", help="compare values of --max-false on folds 1 to 3 instead")
    options = parser.parse_args()
    if options.choose:
        choose(options)
    else:
        measure(options)


def choose(options):
    """Prints what settings with each limit of false events find in recordings to which they are not fitted."""
    left = dict.fromkeys(CHOICES, 0.0)
    print(f"{'':<32}{'events: F1':>11}{'recall':>8}{'false':>7}{'left':>7}{'  segments: F1':>14}{'recall':>8}")
    for folds in ROTATIONS:
        print(f"trained on fold {folds[0]}, fitted to {folds[1]}, measured on {folds[2]}")
        predictor, (to_fit, to_measure) = scored(options, options.folder / f"fold-{folds[0]}", folds[:1], folds[1:])
        plain, _ = measure_events(to_measure, predictor.vocabulary, EventSettings(), collar_seconds=COLLAR)
        for limit in (None, *CHOICES):
            settings = EventSettings()
            if limit is not None:
                settings = fit_event_settings(to_fit, predictor.vocabulary, collar_seconds=COLLAR, max_false=limit)
            event, segment = measure_events(to_measure, predictor.vocabulary, settings, collar_seconds=COLLAR)
            part = event.false / plain.false
            if limit is not None:
                left[limit] = max(left[limit], part)
            name = "threshold 0.5" if limit is None else f"--max-false {limit}"
            print(
                f"{name:<32}{event.f1:>11.3f}{event.recall:>8.3f}{event.false:>7}{part:>7.2f}"
                f"{segment.f1:>14.3f}{segment.recall:>8.3f}",
                flush=True,
            )
    print("chosen: --max-false", max((limit for limit in CHOICES if left[limit] <= 0.5), default="none"))


def measure(options):
    """Prints what is found in the recordings of fold 4."""
    predictor, recordings = scored(options, options.folder, (1, 2), (3, 4))
    fitted = fit_event_settings(recordings[0], predictor.vocabulary, collar_seconds=COLLAR)
    print(fitted.model_dump_json(indent=2))
    own = 1 / (1 + np.exp(-np.array(predictor.thresholds)))
    print(f"{'':<32}{'events: F1':>11}{'recall':>8}{'false':>7}{'  segments: F1':>14}{'recall':>8}{'false':>7}")
    for name, settings, threshold in (
        ("threshold 0.5", EventSettings(), 0.5),
        ("thresholds of the run", EventSettings(), own),
        ("fitted", fitted, 0.5),
    ):
        event, segment = measure_events(
            recordings[1], predictor.vocabulary, settings, threshold=threshold, collar_seconds=COLLAR
        )
        print(
            f"{name:<32}{event.f1:>11.3f}{event.recall:>8.3f}{event.false:>7}"
            f"{segment.f1:>14.3f}{segment.recall:>8.3f}{segment.false:>7}"
        )
        if importlib.util.find_spec("sed_eval"):
            found = sed_eval_measures(recordings[1], predictor.vocabulary, settings, threshold)
            print(
                f"{'  by sed_eval':<32}{found[0]:>11.3f}{found[1]:>8.3f}{found[2]:>7}{found[3]:>14.3f}{found[4]:>8.3f}"
            )


def scored(options, folder, to_train, others):
    """A predictor trained on some folds, and its scores of recordings of two others: to fit, and to measure."""
    clips = read_esc10(options.esc10)
    run = train(clips[clips["fold"].isin(to_train)], folder, options.weights)
    predictor = load_predictor(run.folder, [f"predict.overlap={options.overlap}"], thresholds=True)
    recordings = []
    for name, fold, number, seed in zip(("fit", "measure"), others, options.recordings, (100, 200)):
        path = make_recordings(folder / name, clips[clips["fold"] == fold], number, seed)
        recordings.append(score_recordings(predictor, read_events(path, predictor.vocabulary), path.parent))
    return predictor, recordings


def sed_eval_measures(recordings, vocabulary, settings, threshold):
    """F1, recall and false events by onset, and F1 and recall of segments, as sed_eval computes them."""
    import dcase_util
    import sed_eval

    of = {"event_label_list": list(vocabulary)}
    by_event = sed_eval.sound_event.EventBasedMetrics(
        **of, t_collar=COLLAR, evaluate_offset=False, event_matching_type="optimal"
    )
    by_segment = sed_eval.sound_event.SegmentBasedMetrics(**of, time_resolution=1.0)
    thresholds = thresholds_of(settings, vocabulary, threshold)

    def listed(table):
        rows = table[["class", "start", "end"]].to_numpy().tolist()
        return dcase_util.containers.MetaDataContainer(
            [{"filename": "a", "event_label": name, "onset": start, "offset": end} for name, start, end in rows]
        )

    for each in recordings:
        found = events(each.starts, each.ends, each.probabilities, vocabulary, threshold=thresholds, settings=settings)
        lists = {"reference_event_list": listed(each.events), "estimated_event_list": listed(found)}
        by_event.evaluate(**lists)
        by_segment.evaluate(**lists, evaluated_length_seconds=float(each.ends[-1]))
    f1, segments = (each.results_overall_metrics()["f_measure"] for each in (by_event, by_segment))
    false = round(by_event.overall["Nsys"] - by_event.overall["Ntp"])  # it counts some as substitutions
    return f1["f_measure"], f1["recall"], false, segments["f_measure"], segments["recall"]


def read_esc10(folder):
    """A table of the clips: path, label, fold. A name begins with the number of its fold."""
    rows = [
        (path, path.parent.name.partition(" - ")[2], int(path.name.split("-")[0]))
        for path in sorted(folder.glob("*/*.ogg"))
    ]
    return pd.DataFrame(rows, columns=["path", "label", "fold"])


def train(clips, folder, weights):
    """The run on these clips, with background clips."""
    source = folder / "clips"
    for row in clips.itertuples():
        target = source / row.label / f"{row.path.stem}.wav"
        target.parent.mkdir(parents=True, exist_ok=True)
        sf.write(target, read(row.path)[0], RATE)
    (source / "background").mkdir(exist_ok=True)
    for seed in range(NUM_BACKGROUND):
        level = 10 ** (np.random.default_rng(seed).uniform(-60, -20) / 20)
        sf.write(source / "background" / f"{seed}.wav", level * background(5 * RATE, seed), RATE, subtype="FLOAT")
    if not (folder / "records" / "manifest.json").exists():
        write_records(find_clips(source, background=["background"]), folder / "records", sample_rate=RATE, workers=0)
    changes = [f"records={folder / 'records'}", f"model.weights={weights}", "window.seconds=0.975"]
    return fit(load_experiment("yamnet", changes), folder / "run")


def make_recordings(folder, clips, number, seed):
    """Writes recordings and the table of their events; returns its path."""
    folder.mkdir(parents=True, exist_ok=True)
    rng, rows = np.random.default_rng(seed), []
    for index in range(number):
        noise = background(SECONDS * RATE, seed + 1000 + index)
        waveform = 0.01 * noise / noise.std()
        places = np.sort(rng.uniform(0, SECONDS - 6, CLIPS_PER_RECORDING))
        for place, row in zip(places, clips.sample(CLIPS_PER_RECORDING, replace=True, random_state=rng).itertuples()):
            clip, first, last = read(row.path)
            active = clip[first:last]
            clip = clip * 0.01 * 10 ** (rng.uniform(0, 20) / 20) / max(active.std(), 1e-6)
            start = round(place * RATE)
            waveform[start : start + len(clip)] += clip[: len(waveform) - start]
            rows.append((f"{index}.wav", (start + first) / RATE, (start + last) / RATE, row.label))
        sf.write(folder / f"{index}.wav", np.clip(waveform, -1, 1), RATE)
    pd.DataFrame(rows, columns=["fname", "start", "end", "class"]).to_csv(folder / "events.csv", index=False)
    return folder / "events.csv"


def read(path):
    """(waveform [N] at the rate, first and last active sample) of a clip."""
    waveform, rate = sf.read(path, dtype="float32", always_2d=True)
    waveform = soxr.resample(waveform.mean(axis=1), rate, RATE)
    active = np.flatnonzero(np.abs(waveform) > 0.05 * np.abs(waveform).max())
    return waveform, int(active[0]), int(active[-1]) + 1


def background(samples, seed):
    """Noise whose spectrum falls by 0 to 6 dB per octave, slowly swelling: float64 [samples], of mean power 1."""
    rng = np.random.default_rng(seed)
    spectrum = np.fft.rfft(rng.standard_normal(samples))
    spectrum *= np.maximum(np.fft.rfftfreq(samples, 1 / RATE), 50.0) ** -rng.uniform(0, 1)
    noise = np.fft.irfft(spectrum, samples)
    time = np.arange(samples) / RATE
    noise *= 1 + 0.5 * np.sin(2 * np.pi * (rng.uniform(0.02, 0.1) * time + rng.uniform()))
    return noise / noise.std()


if __name__ == "__main__":
    main()
