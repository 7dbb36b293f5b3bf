"""Loads SavedModels one after another and reports what each made Python do.

Usage: untrusted_alone.py HONEST FOLDER...; prints a line of JSON for each FOLDER: its name, the error or null, and the
events of an audit hook. Under strace, a stat of /trial/NAME marks where each begins, and /trial/end the end.
"""

import json
import os
import sys
from pathlib import Path

import numpy as np

from audiotag.errors import AudiotagError
from audiotag.serving.saved_model import load_predictor

WAVEFORM = np.ones((1, 20_000), "float32")
WATCHED = ("open", "os.", "shutil.", "socket.", "subprocess.", "pickle.", "ctypes.", "import", "urllib.", "ftplib.")
found, watching = [], [False]


def watch(event, arguments):
    if watching[0] and event.startswith(WATCHED):
        found.append([event, *map(str, arguments[:3])])


def main(honest, *folders):
    load_predictor(Path(honest)).logits(WAVEFORM)  # imports what is imported lazily
    sys.addaudithook(watch)
    for folder in folders:
        message = None
        if os.path.exists(f"/trial/{Path(folder).name}"):
            raise SystemExit("/trial exists")
        found.clear()
        watching[0] = True
        try:
            load_predictor(Path(folder)).logits(WAVEFORM)
        except AudiotagError as error:
            message = str(error)
        watching[0] = False
        print(json.dumps([Path(folder).name, message, found]), flush=True)
    os.path.exists("/trial/end")


main(*sys.argv[1:])
