"""A tiny dataset, its records, an experiment on them and its trained run: made once, for all tests."""

import gc
import json
import os
import shutil
import sys
from pathlib import Path

import pytest
import small_networks
from jobs import Starter

from audiotag.config.loading import load

small_networks.set_environment()
gc.disable()  # until all is imported
MEMORY = Path("/dev/shm")
if os.access(MEMORY, os.W_OK) and shutil.disk_usage(MEMORY).free > 8 << 30:
    # Temporary folders are there: files survive a killed process as on a disk, and fsync takes no time.
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(MEMORY))
collect_ignore = ["as_on_windows"]  # importing it takes away what Windows lacks
# Files of these folders share a run that takes long to train, so one worker runs them all.
TOGETHER = {"tests/crossval", "tests/sweeps"}
# Half a minute or more each, all tests of a file together.
LONGEST = ["resume", "loop", "label_selection", "docs", "backends", "rebuilding", "review", "models", "making", "api"]
LONGEST += ["cli", "layers", "tagger", "devices", "jax", "custom_components", "experiments", "training", "results"]
LONGEST += ["saved_model", "validation_kinds", "untrusted_files", "systems", "moves", "embedding_cache", "members"]
LONGEST += ["many_files", "callbacks", "platforms"]
ADAM = {"name": "adam", "learning_rate": 0.01}
LOSS = {"name": "binary_crossentropy"}
CALLBACKS = [{"name": "CSVLogger"}]
TINY = {
    "about": "Two stages of two epochs on a hundred clips.",
    "command": "audiotag fit tiny.json",
    "expect": "a run in seconds",
    "records": "records",
    "window": {"seconds": 1.0},
    "frontend": {"name": "log_mel", "num_bands": 32, "fft_length": 512, "frame_step": 320, "high_hz": 8000},
    "image_preprocess": [{"name": "standardize"}],
    "augment": [{"name": "time_mask", "max_width": 8}, {"name": "frequency_mask", "max_width": 4}],
    "model": {"name": "conv_skip", "filters": [8]},
    "stages": [
        {"name": "noisy", "subset": "noisy", "epochs": 2, "batch_size": 16}
        | {"optimizer": ADAM, "loss": LOSS, "callbacks": CALLBACKS},
        {"name": "curated", "subset": "curated", "epochs": 2, "batch_size": 16, "start_from": "noisy"}
        | {"optimizer": ADAM, "loss": LOSS, "callbacks": CALLBACKS},
    ],
}


@pytest.fixture(autouse=True)
def _no_determinism_left_behind():
    """Undoes what `fit` does to its process: XLA does not compile deterministic operations."""
    yield
    if "tensorflow" in sys.modules:
        from tensorflow.python.framework import config  # the public API can only switch it on

        config.disable_op_determinism()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Runs each file on one worker, and the files of some folders on the same one."""
    from xdist.scheduler import LoadFileScheduling

    class Scheduling(LoadFileScheduling):
        def _split_scope(self, nodeid):
            path = nodeid.split("::")[0]
            folder = path.rpartition("/")[0]
            return folder if folder in TOGETHER else path

    return Scheduling(config, log)


def pytest_collection_modifyitems(items):
    """Runs the slowest files first, so that at the end no core waits for one."""
    places = {f"test_{name}.py": place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(item.path.name, len(LONGEST)))


def pytest_collection_finish():
    """Leaves what is imported, a million objects, out of garbage collection, which else takes a tenth of the time."""
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)
    gc.enable()
    if "tensorflow" in sys.modules:
        small_networks.no_graph_optimizer()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """Counts the trials of a check; a test that has no tally is one."""
    report = yield
    tally = item.funcargs.get("tally") if hasattr(item, "funcargs") else None
    if report.when == "call":
        if tally and tally.faults and not report.failed:
            report.outcome, report.longrepr = "failed", "\n".join(tally.faults)
        for mark in item.iter_markers("check"):
            counts = dict(tally.counts) if tally else {None: ((*mark.args, 1)[1], int(report.failed))}
            if report.failed and not any(failed for _, failed in counts.values()):
                counts[None] = counts.get(None, (0, 0))[0] + 1, 1
            remarks = tally.said if tally else []
            for name, (tried, failed) in counts.items() if not report.skipped else ():
                seconds = 0 if name else report.duration
                report.user_properties.append(("check", [name or mark.args[0], tried, failed, seconds, remarks]))
                remarks = []
            if remarks and not counts:
                report.user_properties.append(("check", [mark.args[0], 0, 0, report.duration, remarks]))
    return report


def pytest_terminal_summary(terminalreporter):
    """Prints the checks of docs/reliability.md: tried, passed, failed."""
    reports = [report for some in terminalreporter.stats.values() for report in some]
    checks, remarks = {}, []
    for report in reports:
        for key, value in getattr(report, "user_properties", ()):
            if key == "check" and report.when == "call":
                name, tried, failed, seconds, lines = value
                sums = checks.setdefault(name, [0, 0, 0.0])
                checks[name] = [sums[0] + tried, sums[1] + failed, sums[2] + seconds]
                remarks += [f"{name}: {line}" for line in lines]
    if checks:
        terminalreporter.section("checks of docs/reliability.md")
        terminalreporter.write_line(f"{'check':<6}{'tried':>9}{'passed':>9}{'failed':>9}{'seconds':>9}")
        for name in sorted(checks, key=lambda name: (name[0], int(name[1:]))):
            tried, failed, seconds = checks[name]
            terminalreporter.write_line(f"{name:<6}{tried:>9}{tried - failed:>9}{failed:>9}{seconds:>9.1f}")
        for line in sorted(remarks):
            terminalreporter.write_line(line)


@pytest.fixture(scope="session")
def demo(tmp_path_factory):
    """A dataset as make-demo writes it, of 40 curated, 40 noisy and 20 test clips."""
    from audiotag.data.synthetic import make_demo

    folder = tmp_path_factory.mktemp("dataset") / "demo"
    make_demo(folder, curated=40, noisy=40, test=20)
    return folder


@pytest.fixture(scope="session")
def records(demo, tmp_path_factory):
    """Its records, at 16 kHz."""
    from audiotag.data.records import write_records
    from audiotag.data.sources import find_clips

    folder = tmp_path_factory.mktemp("records") / "demo"
    write_records(find_clips(demo), folder, sample_rate=16_000, workers=0, clips_per_shard=16)
    return folder


@pytest.fixture(scope="session")
def tiny_file(records, tmp_path_factory):
    """The file of an experiment on these records."""
    path = tmp_path_factory.mktemp("experiment") / "tiny.json"
    path.write_text(json.dumps(TINY | {"records": str(records)}))
    return path


@pytest.fixture(scope="session")
def tiny(tiny_file):
    """A function: texts as for --set → the experiment with these changes."""
    return lambda *overrides: load(tiny_file, overrides)


@pytest.fixture(scope="session")
def run(tiny, tmp_path_factory):
    """The trained run of that experiment. Tests read it and must not write into it."""
    from audiotag.training.loop import fit

    return fit(tiny(), tmp_path_factory.mktemp("runs") / "tiny", say=lambda sentence: None)


@pytest.fixture(scope="session")
def recordings():
    """A function that makes a folder of noise with labels.csv: (its `Source`, {name: int16 [N]})."""
    import numpy as np
    import soundfile as sf

    from audiotag.data.sources import find_clips

    def make(folder, lengths, *, subsets=("curated",), sample_rate=16_000):
        (folder / "audio").mkdir(parents=True)
        table, sounds = ["fname,labels,subset"], {}
        for index, length in enumerate(lengths):
            name = f"{index:04d}.wav"
            sounds[name] = np.random.default_rng(index).integers(-(2**15), 2**15, length).astype("int16")
            sf.write(folder / "audio" / name, sounds[name], sample_rate)
            table.append(f"{name},{'ab'[index % 2]},{subsets[index % len(subsets)]}")
        (folder / "labels.csv").write_text("\n".join(table) + "\n")
        return find_clips(folder), sounds

    return make


@pytest.fixture(scope="session")
def saved_model(run, tmp_path_factory):
    """The same run as a SavedModel, also read only."""
    from audiotag.serving.saved_model import export

    return export(run, tmp_path_factory.mktemp("serving") / "tiny")


@pytest.fixture(scope="session")
def wavs(records, tmp_path_factory):
    """The test clips of the records as 16 kHz WAV files with the same samples."""
    import soundfile as sf

    from audiotag.data.clips import read_clips
    from audiotag.data.pipeline import evaluation_batches
    from audiotag.data.records import read_manifest

    folder = tmp_path_factory.mktemp("wavs")
    clips = read_clips(records / "clips.csv").query("subset == 'test'").reset_index(drop=True)
    for waveform, rows in evaluation_batches(read_manifest(records), clips, window_samples=16_000, batch_size=1):
        for row, samples in zip(rows.numpy(), waveform.numpy()):
            sf.write(folder / clips["name"][row], samples[: clips["num_samples"][row]], 16_000, subtype="PCM_16")
    return sorted(folder.glob("*.wav"))


@pytest.fixture(scope="session")
def start(tmp_path_factory):
    """A function that starts `audiotag ARGV...`, or a script, in a separate process: `jobs.Starter`."""
    starter = Starter(tmp_path_factory.mktemp("logs"))
    yield starter
    starter.close()
