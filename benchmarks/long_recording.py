"""Time and memory of `audiotag predict --events` on long recordings: one hour and six minutes.

    make demo && python benchmarks/long_recording.py

Each recording is a FLAC file of the demo's test clips in a row, predicted in a process of its own. Memory is the peak
of that process, TensorFlow included.
"""

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import soundfile as sf


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="runs/demo/saved_model")
    parser.add_argument("--clips", default="demo/test", type=Path)
    parser.add_argument("--minutes", type=float, nargs="*", default=[6, 60])
    args = parser.parse_args()
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    print(f"{'minutes':>8} {'seconds':>8} {'CPU s':>7} {'times real time':>16} {'peak MB':>11} {'events':>7}")
    with tempfile.TemporaryDirectory() as folder:
        for minutes in args.minutes:
            recording, events = Path(folder) / f"{minutes}.flac", Path(folder) / "events.csv"
            write_recording(recording, args.clips, 60 * minutes)
            command = [sys.executable, "-m", "audiotag", "predict", args.model, recording, "--events", events]
            start, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
            subprocess.run(list(map(str, command)), check=True, capture_output=True)
            seconds = time.perf_counter() - start
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            cpu_seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
            peak = after.ru_maxrss / 1000  # in MB, of the largest child so far
            num_events = len(events.read_text().splitlines()) - 1
            speed = 60 * minutes / seconds
            print(
                f"{minutes:8g} {seconds:8.1f} {cpu_seconds:7.1f} {speed:16.0f} {peak:11.0f} {num_events:7}", flush=True
            )


def write_recording(path, clips, seconds):
    """Writes the clips in a row, repeated until the recording is long enough."""
    sounds = [sf.read(clip, dtype="float32", always_2d=True) for clip in sorted(clips.iterdir())]
    rate = sounds[0][1]
    waveform = np.concatenate([sound[:, 0] for sound, _ in sounds])
    missing = round(seconds * rate)
    with sf.SoundFile(path, "w", rate, 1) as file:
        while missing > 0:
            file.write(waveform[:missing])
            missing -= len(waveform)


if __name__ == "__main__":
    main()
