"""A similar training with Keras' own BackupAndRestore and ModelCheckpoint, to compare them under the same faults."""

import json
import sys
from pathlib import Path

import keras
import numpy as np

EPOCHS = 8


class EpochLog(keras.callbacks.Callback):
    """Adds a line to a file at the end of every epoch."""

    def __init__(self, path):
        super().__init__()
        self.path = path

    def on_epoch_end(self, epoch, logs=None):
        with open(self.path, "a") as file:
            file.write(json.dumps(epoch) + "\n")


def main(folder, nan_epoch=None, double=""):
    folder = Path(folder)
    folder.mkdir(exist_ok=True)
    keras.utils.set_random_seed(1)
    layers = [keras.Input((64,)), keras.layers.Dense(256), keras.layers.Dropout(0.5), keras.layers.Dense(2)]
    model = keras.Sequential(layers)
    model.compile(keras.optimizers.Adam(0.01), "mse")
    inputs = np.random.default_rng(0).normal(size=(64, 64)).astype("float32")
    callbacks = [
        keras.callbacks.ModelCheckpoint(
            str(folder / "best.weights.h5"), monitor="loss", save_best_only=True, save_weights_only=True
        ),
        keras.callbacks.BackupAndRestore(str(folder / "backup"), double_checkpoint=bool(double)),
        EpochLog(folder / "epochs.jsonl"),
    ]
    if nan_epoch:
        callbacks.append(keras.callbacks.TerminateOnNaN())
        inputs[int(nan_epoch)] = np.nan
    model.fit(inputs, inputs[:, :2], batch_size=8, epochs=EPOCHS, shuffle=False, verbose=0, callbacks=callbacks)
    np.savez(folder / "final.npz", *model.get_weights())


if __name__ == "__main__":
    main(*sys.argv[1:])
