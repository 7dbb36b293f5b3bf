"""Trains on JAX, with a Ctrl-C and a second start, and uses the run: jax_alone.py EXPERIMENT FOLDER WAV."""

import os
import signal
import sys
from pathlib import Path

import numpy as np

import audiotag
from audiotag.training import loop
from audiotag.training.callbacks import SaveState

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # as in a terminal; shells ignore it in background jobs
    experiment, folder, wav = sys.argv[1], Path(sys.argv[2]), sys.argv[3]
    audiotag.fit(experiment, folder / "run", quiet=True)
    steps, begin = iter(range(1_000)), SaveState.on_train_batch_begin

    def interrupt(callback, batch, logs=None):
        if next(steps) == 2:
            os.kill(os.getpid(), signal.SIGINT)

    SaveState.on_train_batch_begin = interrupt
    try:
        loop.fit(audiotag.load_experiment(experiment), folder / "stopped")
    except KeyboardInterrupt as stopped:
        print(stopped)
    SaveState.on_train_batch_begin = begin
    loop.fit(audiotag.load_experiment(experiment), folder / "stopped")
    model = audiotag.load_model(folder / "run")
    audiotag.evaluate(folder / "run").overall.to_csv(folder / "overall.csv")
    logits = model.logits(np.random.default_rng(0).uniform(-0.5, 0.5, (3, 40_000)).astype("float32"))
    np.savez(folder / "outputs.npz", logits=logits, embeddings=audiotag.embed(model, [wav])[1])
