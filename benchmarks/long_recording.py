"""How fast, and in how much memory, a long recording is heard: an hour in one file against six minutes of it.

    make demo && python benchmarks/long_recording.py

Each recording is a FLAC file of the demo's test clips end to end, heard by `audiotag predict --timeline` in a process
of its own. Memory is the most that the process held, TensorFlow included.
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
    print(f"{'minutes':>8} {'seconds':>8} {'of CPU':>7} {'times real time':>16} {'MB at most':>11} {'events':>7}")
    with tempfile.TemporaryDirectory() as folder:
        for minutes in args.minutes:
            recording, timeline = Path(folder) / f"{minutes}.flac", Path(folder) / "timeline.csv"
            write_recording(recording, args.clips, 60 * minutes)
            command = [sys.executable, "-m", "audiotag", "predict", args.model, recording, "--timeline", timeline]
            begun, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
            subprocess.run(list(map(str, command)), check=True, capture_output=True)
            seconds = time.perf_counter() - begun
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            busy = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
            most = after.ru_maxrss / 1000  # of the largest child so far
            events = len(timeline.read_text().splitlines()) - 1
            speed = 60 * minutes / seconds
            print(f"{minutes:8g} {seconds:8.1f} {busy:7.1f} {speed:16.0f} {most:11.0f} {events:7}", flush=True)


def write_recording(path, clips, seconds):
    """Clips end to end, again and again, until the recording is long enough."""
    sounds = [sf.read(clip, dtype="float32", always_2d=True) for clip in sorted(clips.iterdir())]
    rate = sounds[0][1]
    whole = np.concatenate([sound[:, 0] for sound, _ in sounds])
    left = round(seconds * rate)
    with sf.SoundFile(path, "w", rate, 1) as file:
        while left > 0:
            file.write(whole[:left])
            left -= len(whole)


if __name__ == "__main__":
    main()
