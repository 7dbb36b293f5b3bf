"""The small forms of the published systems on real recordings: the `quick_command` of each experiment.

    python benchmarks/fsd_like_from_esc10.py --esc10 ESC-10 --out fsd_like
    audiotag make-records fsd_like --sample-rate 44100 --out tfrecords/fsd_like_44k
    audiotag make-records fsd_like --sample-rate 32000 --out tfrecords/fsd_like_32k
    audiotag make-records fsd_like --sample-rate 16000 --out tfrecords/fsd_like_16k
    python benchmarks/small_forms.py

Prints a row for each: lwlrap on the test clips with its 95 % interval, and the minutes that training took. Resumes
where it was stopped. `taskset --cpu-list 0 python benchmarks/small_forms.py` gives the minutes of one core.
"""

import argparse
import os
import shlex
import subprocess
import sys
from pathlib import Path

import audiotag
from audiotag.sweeps.results import minutes_of

ROOT = Path(__file__).parents[1]
OUTSIDE_DATA = ("fsdkaggle2019_yamnet",)  # needs the weights of YAMNet


def main():
    """Trains what is not trained yet, and prints a row for each experiment."""
    files = sorted((ROOT / "experiments").glob("*.json"))
    commands = {path.stem: audiotag.load_experiment(path).quick_command for path in files}
    names = [name for name, command in commands.items() if command and name not in OUTSIDE_DATA]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--experiments", nargs="*", default=names, choices=names)
    for name in parser.parse_args().experiments:
        words = shlex.split(commands[name])[1:]
        run = train(words, words[words.index("--run") + 1])
        found = audiotag.evaluate(run).overall.query("split == 'all' and measure == 'lwlrap'").iloc[0]
        print(f"{name:20} {found['value']:.3f} ({found['low']:.3f} to {found['high']:.3f})", end="")
        print(f"  {minutes_of(run):.1f} minutes", flush=True)


def train(words, folder):
    """The trained run of a command, which must not be trained in this process: it would keep its memory."""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-m", "audiotag", *words], check=True, env=environment, stdout=subprocess.DEVNULL)
    return audiotag.open_run(folder)


if __name__ == "__main__":
    main()
