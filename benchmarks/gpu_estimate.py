"""How long a training step takes on a GPU, on paper: no GPU is needed.

    python benchmarks/gpu_estimate.py densenet xresnet18 conv_skip

For each experiment it counts the arithmetic of the network's convolutions and dense layers, the numbers that its
layers write, and its layers. A training step computes three times the forward pass (forward, and two products
backward), moves each activation about five times (written and read forward, read with its gradient backward), and
starts about three kernels per layer, 5 µs each. A step takes at least the longest of the three. GPUs are taken to
reach half of their arithmetic and 0.8 of their memory bandwidth.
"""

import argparse
import math
import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras

from audiotag.config.loading import load
from audiotag.runs.building import build_tagger
from audiotag.runs.models import without_initial_weights

# Of the makers' data sheets: float32 and half-precision TFLOPS without sparsity, GB/s.
GPUS = {"T4": (8.1, 65, 320), "RTX 4090": (82.6, 165, 1_008), "H200": (67, 989, 4_800)}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("experiments", nargs="+")
    parser.add_argument("--sample-rate", type=int, default=44_100)
    args = parser.parse_args()
    print("experiment   batch GPU         numbers  arithmetic   memory  kernels  clips/s")
    for name in args.experiments:
        experiment = without_initial_weights(load(name))
        tagger = build_tagger(experiment, sample_rate=args.sample_rate, num_classes=80)
        batch = experiment.stages[0].batch_size
        flops, activations, num_layers = cost(tagger.network)
        for gpu, (single, half, bandwidth) in GPUS.items():
            for numbers, tera, size in (("float32", single, 4), ("half", half, 2)):
                parts = (
                    3 * flops * batch / (0.5 * tera * 1e12),
                    5 * activations * batch * size / (0.8 * bandwidth * 1e9),
                    3 * num_layers * 5e-6,
                )
                times = " ".join(f"{1e3 * seconds:{width}.1f} ms" for seconds, width in zip(parts, (8, 5, 5)))
                print(f"{name:12} {batch:5} {gpu:9} {numbers:>9} {times} {batch / max(parts):8.0f}", flush=True)


def cost(network):
    """(floating-point operations of a forward pass, numbers that layers write, number of layers), per image."""
    flops = activations = num_layers = 0
    for layer in network._flatten_layers(include_self=False):
        if isinstance(layer, (keras.Model, keras.layers.InputLayer)) or not layer._inbound_nodes:
            continue
        size = math.prod(filter(None, layer.output.shape))
        activations += size
        num_layers += 1
        kernel = getattr(layer, "kernel", None)
        if isinstance(layer, keras.layers.DepthwiseConv2D):
            flops += 2 * size * math.prod(kernel.shape[:2])
        elif kernel is not None:
            flops += 2 * size * math.prod(kernel.shape[:-1])
    return flops, activations, num_layers


if __name__ == "__main__":
    main()
