"""Trains on TensorFlow on two devices of one process: mirrored_alone.py EXPERIMENT FOLDER.

It writes runs of two experiments, PLAIN without random numbers and MIXED with, on one and on two devices; some are
interrupted and continue. It prints what it refuses, and writes draws.json.
"""

import json
import os
import shutil
import signal
import sys
from pathlib import Path

import keras
import tensorflow as tf

from audiotag.config.loading import load
from audiotag.errors import ConfigError
from audiotag.training import callbacks, devices, loop, traced_models

PLAIN = ("augment=[]", "model.dropout=0")
MIXED = ('augment=[{"name": "mixup"}, {"name": "time_mask", "max_width": 8}]', "model.dropout=0.2")
REFUSED = (
    (3, ()),
    (2, ("stages.noisy.batch_size=9",)),
    (2, ("jit_compile=true", "deterministic=false")),
    (2, ("stages.curated.optimizer.gradient_accumulation_steps=2",)),
)


def fit(experiment, folder, *, on, stops=False):
    """Trains on so many devices; with `stops` only until Ctrl-C after the first step of the second epoch."""
    devices.TracedModels = lambda: traced[experiment.augment]
    train = callbacks.SetEpoch.on_train_batch_begin
    if stops:
        callbacks.SetEpoch.on_train_batch_begin = interrupt
    stopped = False
    try:
        loop.fit(experiment, folder, devices=on, say=lambda sentence: None)
    except KeyboardInterrupt:
        stopped = True
    assert stopped == stops
    callbacks.SetEpoch.on_train_batch_begin = train
    return folder


def interrupt(callback, batch, logs=None):
    """As a callback."""
    if callback.model.optimizer.iterations == 2:  # of four
        os.kill(os.getpid(), signal.SIGINT)


def on_each(strategy, values):
    """The values on each device: [values, devices]."""
    return [[value.numpy().tolist() for value in strategy.experimental_local_results(each)] for each in values]


def draws(strategy, tagger):
    """Two numbers that each device draws next from each random generator of a model: [generators, devices, 2]."""
    generators = [layer.generator for layer in tagger.preprocessor.layers if hasattr(layer, "generator")]
    generators += [layer.seed_generator for layer in tagger.network.layers if hasattr(layer, "seed_generator")]
    return on_each(strategy, strategy.run(lambda: [keras.random.uniform((2,), seed=each) for each in generators]))


if __name__ == "__main__":
    file, folder = sys.argv[1], Path(sys.argv[2])
    signal.signal(signal.SIGINT, signal.default_int_handler)  # as in a terminal; shells ignore it in background jobs
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    plain, mixed = load(file, PLAIN), load(file, MIXED)
    mixed = mixed.model_copy(update={"stages": mixed.stages[:1]})
    loop.out_of_fold_scores = lambda context: None  # which one device computes, as always
    traced = {plain.augment: traced_models.TracedModels(), mixed.augment: traced_models.TracedModels()}  # trace once

    for number, changes in REFUSED:
        try:
            loop.fit(load(file, changes), folder / "refused", devices=number)
        except ConfigError as error:
            print(error)
    fit(plain, folder / "one", on=None)
    shutil.copytree(fit(plain, folder / "two", on=2, stops=True), folder / "fewer")
    fit(plain, folder / "two", on="all")
    fit(plain, folder / "fewer", on=None)
    fit(mixed, folder / "mixed", on=2)
    fit(mixed, folder / "stopped", on=2, stops=True)
    fit(mixed, folder / "stopped", on=2)
    (strategy,), (tagger,) = devices._strategies.values(), traced[mixed.augment]._taggers.values()
    weights = on_each(strategy, [variable.value for variable in tagger.trainable_variables])
    (folder / "devices.json").write_text(json.dumps({"weights": weights, "draws": draws(strategy, tagger)}))
