"""Trains on JAX on several devices: devices_alone.py alone|first|second EXPERIMENT FOLDER.

`first` and `second` are two processes; `second` kills itself in the second epoch. `alone` has four devices: it trains
on one and on all of them, and continues what the two began.
"""

import os
import signal
import sys
from pathlib import Path

import audiotag
from audiotag.errors import ConfigError
from audiotag.training import devices, loop
from audiotag.training.callbacks import FollowState


def kill_itself(callback, batch, logs=None):
    """A callback that ends the process in the second epoch."""
    if callback.epoch == 1:
        os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    loop.out_of_fold_scores = lambda context: None  # which one device computes, as always
    role, experiment, folder = sys.argv[1], audiotag.load_experiment(sys.argv[2]), Path(sys.argv[3])
    if role == "alone":
        for number in (3, 5):
            try:
                loop.fit(experiment, folder / "refused", devices=number)
            except ConfigError as error:
                print(error)
        loop.fit(experiment, folder / "one")
        loop.fit(experiment, folder / "four", devices="all")
        loop.fit(experiment, folder / "two", devices=4)
    else:
        devices.HEARTBEAT_SECONDS = 5
        FollowState.on_epoch_begin = lambda callback, epoch, logs=None: setattr(callback, "epoch", epoch)
        FollowState.on_train_batch_begin = kill_itself
        try:
            loop.fit(experiment, folder / ("two" if role == "first" else "other"), devices="all")
        except audiotag.errors.DataError as error:
            print(f"Error: {error}", file=sys.stderr)
