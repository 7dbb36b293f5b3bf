"""Few clips of new classes: training that starts from a run on other classes, compared with training from scratch.

    audiotag make-demo demo && python benchmarks/transfer.py

The demo's 14 classes are split into ten of a source run, trained as experiments/demo.json, and four new ones. Five
curated clips of each new class train the target runs, without validation clips, and each is scored on the test clips
that have only new classes. Three splits, drawn with seeds 1 to 3, which are those of the trainings too. Prints lwlrap:

- from scratch: all weights initial
- transfer: the same training, which starts from the backbone of the source run
- ridge: a ridge regression on the embeddings of the frozen backbone
- ridge, then all: then all layers, at a tenth of the learning rate

Resumes where it was stopped.
"""

import argparse
import dataclasses
import json
from pathlib import Path

import numpy as np
import pandas as pd

from audiotag.config.loading import load
from audiotag.data.records import write_records
from audiotag.data.sources import find_clips
from audiotag.evaluation.measures import evaluate
from audiotag.evaluation.scoring import score_test_clips
from audiotag.training.loop import fit

EXPERIMENT = Path(__file__).parents[1] / "experiments" / "demo.json"
NUM_SOURCE_CLASSES, CLIPS_PER_CLASS = 10, 5
ADAM = {"name": "adam", "learning_rate": 0.001}
TRAINING = {
    "subset": "curated",
    "batch_size": 10,
    "keep": "last",
    "loss": {"name": "binary_crossentropy", "label_smoothing": 0.1},
}


def main():
    """Trains all runs that are not trained yet, and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--demo", type=Path, default="demo")
    parser.add_argument("--out", type=Path, default="build/transfer", help="folder of records and runs")
    parser.add_argument("--seeds", nargs="*", type=int, default=[1, 2, 3])
    parser.add_argument("--epochs", type=int, default=100)
    args = parser.parse_args()
    table = pd.DataFrame({seed: scores(args, seed) for seed in args.seeds})
    gains = table.sub(table.loc["from scratch"])
    print(table.assign(mean=table.mean(axis=1), gain=gains.mean(axis=1)).to_string(float_format="{:.3f}".format))


def scores(args, seed):
    """lwlrap on the test clips of the new classes: {name of a training: value}."""
    folder = args.out / str(seed)
    for name, clips in zip(("source", "target"), split_classes(find_clips(args.demo), seed), strict=True):
        if not (folder / name / "manifest.json").exists():
            write_records(clips, folder / name, sample_rate=16_000)
    source = fit(load(EXPERIMENT, [f"records={folder / 'source'}", f"seed={seed}"]), folder / "run-source")
    start = {"start_from": {"run": str(source.folder)}}
    ridge = {"name": "ridge", "epochs": 0, "backbone_lr_multiplier": 0, "initial_head": {"name": "ridge"}}
    train = {"epochs": args.epochs, "optimizer": ADAM}
    trainings = {
        "from scratch": [{"name": "all"} | train],
        "transfer": [{"name": "all"} | train | start],
        "ridge": [ridge | start | {"optimizer": ADAM}],
        "ridge, then all": [
            ridge | start | {"optimizer": ADAM},
            {"name": "all", "start_from": "ridge", "epochs": args.epochs}
            | {"optimizer": ADAM | {"learning_rate": 0.0001}},
        ],
    }
    return {name: target_lwlrap(folder, name, seed, stages) for name, stages in trainings.items()}


def split_classes(source, seed):
    """The source of the first run, with its test clips, and that of the new classes, with few training clips."""
    classes = np.random.default_rng(seed).permutation(source.vocabulary)
    parts = []
    for chosen in (classes[:NUM_SOURCE_CLASSES], classes[NUM_SOURCE_CLASSES:]):
        inside = source.clips["labels"].map(lambda text, chosen=chosen: {*text.split(",")} <= {*chosen})
        parts.append(dataclasses.replace(source, clips=source.clips[inside], vocabulary=tuple(sorted(chosen))))
    first, new = parts
    clips, single = new.clips, ~new.clips["labels"].str.contains(",")
    few = clips[(clips["subset"] == "curated") & single].groupby("labels").head(CLIPS_PER_CLASS)
    return first, dataclasses.replace(new, clips=pd.concat([few, clips[clips["subset"] == "test"]]))


def target_lwlrap(folder, name, seed, stages):
    """Trains one target run and scores it on its test clips."""
    content = json.loads(EXPERIMENT.read_text()) | {
        "records": str(folder / "target"),
        "seed": seed,
        "validation": None,
        "stages": [TRAINING | stage for stage in stages],
    }
    path = folder / f"{name.replace(', ', '-').replace(' ', '-')}.json"
    path.write_text(json.dumps(content))
    run = fit(load(path), folder / f"run-{path.stem}")
    clips, logits = score_test_clips(run)
    overall, _ = evaluate(clips, logits, run.vocabulary)
    return overall.query("split == 'all' and measure == 'lwlrap'")["value"].item()


if __name__ == "__main__":
    main()
