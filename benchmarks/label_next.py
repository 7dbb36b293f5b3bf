"""What the clips that `label-next` chooses are worth, compared with random ones.

A fold of ESC-10 is predicted by a ridge on YAMNet's embeddings (or, with --features mel, on statistics of mel bands)
of 20 labeled clips of the other folds; then 20 more are labeled five times, those that `label-next` chooses or random
ones. The method was chosen on mel bands, so YAMNet's embeddings are the test.

    audiotag make-records ESC-10 --sample-rate 16000 --out tfrecords/esc10_16k
    python benchmarks/label_next.py --yamnet yamnet.tflite

Prints the accuracy after each number of clips, a mean over four folds and 20 seeds, and the mean gain over random clips
with its 95 % interval over seeds.
"""

import argparse
from pathlib import Path

import numpy as np
from learning_curves import features_of, scores

from audiotag.data.labels import multi_hot
from audiotag.inference.label_next import labeling_order, margins

FIRST, MORE, ROUNDS = 20, 20, 5
METHODS = {
    "random": lambda logits, inputs, rng: rng.permutation(len(logits))[:MORE],
    "label-next": lambda logits, inputs, rng: labeling_order(logits, inputs, MORE),
    "least sure": lambda logits, inputs, rng: np.argsort(margins(logits), kind="stable")[:MORE],
}


def main():
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--yamnet", required=True, help="yamnet.h5 or its .tflite version")
    parser.add_argument("--records", type=Path, default="tfrecords/esc10_16k")
    parser.add_argument("--features", choices=["yamnet", "mel"], default="yamnet")
    parser.add_argument("--seeds", type=int, default=20)
    args = parser.parse_args()
    clips, vocabulary, features = features_of(args.records, args.yamnet)
    truth, inputs = multi_hot(clips["labels"], vocabulary).astype("float64"), features[args.features]
    folds = clips["fold"].to_numpy()
    print("labeled clips", *(FIRST + MORE * number for number in range(ROUNDS + 1)))
    random = None
    for name, choose in METHODS.items():
        accuracy = np.array(
            [
                np.mean([learn(inputs, truth, folds == fold, choose, seed) for fold in np.unique(folds)], axis=0)
                for seed in range(args.seeds)
            ]
        )  # [seeds, rounds + 1]
        random = accuracy if random is None else random
        gains = (accuracy - random)[:, 1:].mean(axis=1)
        half = 1.96 * gains.std(ddof=1) / len(gains) ** 0.5
        shown = " ".join(f"{value:.3f}" for value in accuracy.mean(axis=0))
        print(f"{name}: {shown}; gain {gains.mean():+.4f} ({gains.mean() - half:+.4f} to {gains.mean() + half:+.4f})")


def learn(inputs, truth, tested, choose, seed):
    """The accuracy on the tested clips after each round."""
    rng = np.random.default_rng(seed)
    pool = np.flatnonzero(~tested)
    labeled = rng.permutation(len(pool))[:FIRST]
    found = []
    for _ in range(ROUNDS + 1):
        logits = scores("ridge", inputs[pool[labeled]], truth[pool[labeled]], inputs)
        found.append(np.mean(logits[tested].argmax(axis=1) == truth[tested].argmax(axis=1)))
        free = np.setdiff1d(np.arange(len(pool)), labeled)
        labeled = np.concatenate([labeled, free[choose(logits[pool[free]], inputs[pool[free]], rng)]])
    return found


if __name__ == "__main__":
    main()
