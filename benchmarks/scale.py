"""Time and memory of every command on as many clips and classes as a large dataset has.

    python benchmarks/scale.py --clips 25000 --classes 80
    python benchmarks/scale.py --clips 25000 --classes 527

The clips are noise of one second at 16 kHz with one to three labels, drawn: a fifth curated, three fifths noisy, a
fifth for tests. The network is tiny and trains for one epoch in two folds, so that what does not depend on it is seen.
Each command runs in a process of its own. Prints seconds, CPU seconds and peak memory of each, and writes below --out.
"""

import argparse
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pandas as pd
import soundfile as sf

SAMPLE_RATE = 16_000
PARTS = {"train_curated": 0.2, "train_noisy": 0.6, "test": 0.2}  # of the clips
EXPERIMENT = {
    "about": "A tiny network for one epoch.",
    "window": {"seconds": 1.0},
    "frontend": {"name": "log_mel", "num_bands": 32, "fft_length": 512, "frame_step": 320, "high_hz": 8000},
    "image_preprocess": [{"name": "standardize"}],
    "model": {"name": "conv_skip", "filters": [8, 8]},
    "stages": [
        {"name": "all", "subset": ["curated", "noisy"], "epochs": 1, "batch_size": 64}
        | {"optimizer": {"name": "adam", "learning_rate": 0.001}, "loss": {"name": "binary_crossentropy"}}
    ],
    "validation": {"folds": {"num_folds": 2, "held_out": [0, 1], "split_noisy": True}},
}


def main():
    """Writes the clips, then runs and measures the commands."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=25_000)
    parser.add_argument("--classes", type=int, default=80)
    parser.add_argument("--out", type=Path, default="build/scale", help="an empty or absent folder")
    args = parser.parse_args()
    folder = args.out.absolute()
    write_dataset(folder / "dataset", args.clips, args.classes)
    (folder / "scale.json").write_text(json.dumps(EXPERIMENT | {"records": str(folder / "records")}))
    print(f"{args.clips} clips, {args.classes} classes; {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    print(f"{'command':40} {'seconds':>8} {'CPU s':>8} {'GB':>6}")
    for words in COMMANDS:
        measure(words.split(), folder)


COMMANDS = [
    "explore dataset --out explore.html",
    "make-records dataset --out records",
    "check-records records",
    "doctor records --page doctor.html",
    "fit scale.json --run run",
    "evaluate run",
    "evaluate run --out-of-fold",
    "label-issues run --csv issues.csv",
    "report run",
    "fit scale.json --run other --set seed=1",
    "make-submission run --out submission.csv",
    "compare run other --out comparison",
    "predict run dataset/test --csv scores.csv",
    "label-next run dataset/test --csv next.csv",
]


def write_dataset(folder, num_clips, num_classes):
    """Writes clips and tables in FSDKaggle2019's layout on Kaggle."""
    rng = np.random.default_rng(0)
    classes = np.array([f"class_{number:03}" for number in range(num_classes)])
    for part, fraction in PARTS.items():
        (folder / part).mkdir(parents=True)
        names = [f"{part}-{number:06}.wav" for number in range(round(fraction * num_clips))]
        labels = []
        for number, name in enumerate(names):
            sf.write(folder / part / name, rng.normal(0, 0.1, SAMPLE_RATE).astype("float32"), SAMPLE_RATE)
            others = rng.choice(num_classes, rng.integers(3), replace=False)
            labels.append(",".join(sorted({*classes[others], classes[number % num_classes]})))
        table = pd.DataFrame({"fname": names, "labels": labels})
        if part == "test":
            table.assign(usage="Public").to_csv(folder / "test_labels.csv", index=False)
            pd.DataFrame(0, index=pd.Index(names, name="fname"), columns=classes).to_csv(
                folder / "sample_submission.csv"
            )
        else:
            table.to_csv(folder / f"{part}.csv", index=False)


def measure(words, folder):
    """Runs `audiotag` with these words and prints what it took."""
    before, started = os.times(), time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "audiotag", *words],
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3", "PYTHONPATH": str(Path(__file__).parents[1])},
    )
    peak = Peak(process.pid)
    output, _ = process.communicate()
    seconds, after = time.perf_counter() - started, os.times()
    cpu_seconds = after.children_user + after.children_system - before.children_user - before.children_system
    print(f"{' '.join(words):40} {seconds:8.1f} {cpu_seconds:8.1f} {peak.stop() / 1e9:6.2f}", flush=True)
    if process.returncode and words[0] != "doctor":  # which ends with 1 if it finds errors
        print(f"  ended with {process.returncode}: {output.decode(errors='replace')[-400:]}", flush=True)


class Peak(threading.Thread):
    """Watches the largest memory of a process and its children together, in bytes, ten times a second."""

    def __init__(self, pid):
        super().__init__(daemon=True)
        self.pid, self.bytes, self.over = pid, 0, threading.Event()
        self.start()

    def run(self):
        while not self.over.wait(0.1):
            self.bytes = max(self.bytes, sum(map(resident, [self.pid, *children(self.pid)])))

    def stop(self):
        self.over.set()
        self.join()
        return self.bytes


def resident(pid):
    """Bytes of memory of a process; 0 once it has ended."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError):
        return 0


def children(pid):
    """The processes that a process started, and theirs."""
    found = []
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            direct = path.read_text().split()
        except OSError:
            continue
        found += direct + [deeper for child in direct for deeper in children(child)]
    return found


if __name__ == "__main__":
    main()
