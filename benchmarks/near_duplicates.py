"""How many planted near-duplicates `audiotag doctor` finds, how many it finds wrongly, and how fast it is.

    python benchmarks/near_duplicates.py find --esc10 ESC-10 --out near      # 30 planted among 2,000 other clips
    python benchmarks/near_duplicates.py speed --esc10 ESC-10 --out speed --clips 4000

`find` takes parts of 2.5 s of ESC-10's recordings of some folds, not those that the thresholds of
audiotag/data/near_duplicates.py were chosen on (1 and 2), and the demo's synthesized sounds. Of 30 of the parts it
plants a copy: another gain, MP3 or OGG, 10 % cut off the start or the end, in all combinations. Pairs of parts of one
recording, which may repeat, are listed apart. `speed` writes clips of 5 s, each the sum of two recordings at random
places, and reports clips per second and peak memory.
"""

import argparse
import itertools
import os
import resource
import time
from pathlib import Path

import numpy as np
import pandas as pd
import soundfile as sf

from audiotag.data import synthetic
from audiotag.reporting.doctor import examine_dataset

SAMPLE_RATE = 44_100
SECONDS = 2.5
FORMATS, CUTS = ("WAV", "MP3", "OGG"), ("none", "start", "end")
SAME_SOUND = ("copies", "copies in two subsets", "leak into test", "leak between folds")


def recordings(esc10, folds):
    """(label, name, float32 [N]) of ESC-10's recordings of some folds."""
    for path in sorted(esc10.glob("*/*.ogg")):
        if int(path.name[0]) in folds:
            waveform, _ = sf.read(path, dtype="float32", always_2d=True)
            yield path.parent.name.split(" - ")[1].replace(" ", "_"), path.stem, waveform.mean(axis=1)


def parts(esc10, folds):
    """(label, name, float32 [N]) of their parts that are not silent."""
    size = round(SECONDS * SAMPLE_RATE)
    for label, name, waveform in recordings(esc10, folds):
        for number in range(len(waveform) // size):
            part = waveform[number * size : (number + 1) * size]
            if np.sqrt(np.square(part).mean()) > 1e-3:
                yield label, f"{name}-{number}", part


def plant(rng, waveform, kind, cut):
    """A changed copy: (float32 [N], options for soundfile)."""
    size = round(0.1 * len(waveform))
    waveform = waveform[size:] if cut == "start" else waveform[:-size] if cut == "end" else waveform
    waveform = waveform / np.abs(waveform).max() * 10 ** (rng.uniform(-20, -1) / 20)
    return waveform, {"compression_level": rng.uniform(0, 0.7)} if kind != "WAV" else {}


def find(args):
    """Plants copies and reports what was found."""
    rng = np.random.default_rng(args.seed)
    own = list(parts(args.esc10, args.folds))
    chosen = rng.choice([n for n, (*_, part) in enumerate(own) if has_sound_in_the_middle(part)], 30, replace=False)
    combinations = itertools.cycle([pair for pair in itertools.product(FORMATS, CUTS) if pair != ("WAV", "none")])
    folder = args.out / "audio"
    folder.mkdir(parents=True, exist_ok=True)
    rows, planted = [], set()
    for label, name, part in own:
        sf.write(folder / f"{name}.wav", part, SAMPLE_RATE)
        rows.append((f"{name}.wav", label, "train"))
    for number, (kind, cut) in zip(chosen, combinations):
        label, name, part = own[number]
        copy, options = plant(rng, part, kind, cut)
        file = f"copy-{name}.{kind.lower()}"
        sf.write(folder / file, copy, SAMPLE_RATE, format=kind, **options)
        rows.append((file, label, "test"))
        planted.add(frozenset((file, f"{name}.wav")))
    clips = synthetic.plan("train_curated", max(0, args.others - len(own)), seed=args.seed)
    for number, clip in enumerate(clips):
        sf.write(folder / f"synthetic-{number}.wav", synthetic.waveform_of(clip), SAMPLE_RATE)
        rows.append((f"synthetic-{number}.wav", "Synthetic", "train"))
    pd.DataFrame(rows, columns=["fname", "labels", "split"]).to_csv(args.out / "train.csv", index=False)
    table = examine_dataset(args.out)
    same = {frozenset((row.clip, row.other)) for row in table.itertuples() if row.kind in SAME_SOUND}
    others = [tuple(sorted(pair)) for pair in same - planted]
    one_recording = [pair for pair in others if len({name.split("-")[1] for name in pair}) == 1]
    print(f"planted {len(planted)}, found {len(planted & same)}; missed: {sorted(map(sorted, planted - same))}")
    print(f"{len(rows) - len(planted)} other clips, of them {len(own)} real parts")
    print(f"parts of one recording: {len(one_recording)} {one_recording}")
    print(f"other pairs: {sorted(set(others) - set(one_recording))}")


def has_sound_in_the_middle(part):
    """Whether the middle 80 % has most of the energy: a copy without its sound is no copy."""
    edge = len(part) // 10
    return np.square(part[edge:-edge]).sum() > 0.5 * np.square(part).sum()


def speed(args):
    """Measures the command on many clips."""
    rng = np.random.default_rng(args.seed)
    own = [waveform for _, _, waveform in recordings(args.esc10, (1, 2, 3, 4, 5))]
    folder = args.out / "sounds" / "mixed"
    if not folder.is_dir():
        folder.mkdir(parents=True)
        for number in range(args.clips):
            two = [np.roll(own[int(rng.integers(len(own)))], int(rng.integers(SAMPLE_RATE))) for _ in range(2)]
            size = min(5 * SAMPLE_RATE, *map(len, two))
            waveform = 0.3 * sum(each[:size] * rng.uniform(0.3, 1) for each in two)
            sf.write(folder / f"{number}.wav", waveform, SAMPLE_RATE)
    start = time.perf_counter()
    table = examine_dataset(args.out / "sounds")
    seconds = time.perf_counter() - start
    peak = [resource.getrusage(who).ru_maxrss / 2**20 for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    print(f"{args.clips} clips of 5 s in {seconds:.0f} s: {args.clips / seconds:.1f} clips/s, load {os.getloadavg()}")
    print(f"peak memory: {peak[0]:.2f} GiB, and {peak[1]:.2f} GiB in a worker; {len(table)} findings")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=("find", "speed"))
    parser.add_argument("--esc10", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--folds", type=int, nargs="+", default=[3, 4])
    parser.add_argument("--others", type=int, default=2000)
    parser.add_argument("--clips", type=int, default=4000)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    {"find": find, "speed": speed}[args.action](args)


if __name__ == "__main__":
    main()
