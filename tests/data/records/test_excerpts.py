"""Clips that are parts of recordings: selection tables of Raven, label tracks of Audacity, segments of AudioSet."""

import numpy as np
import pandas as pd
import pytest
import soundfile as sf
from dataset_trees import RAVEN, RAVEN_HEADER
from source_folders import make

from audiotag.data.audio.decoding import decode_excerpt
from audiotag.data.clips import read_clips
from audiotag.data.pipeline import evaluation_batches
from audiotag.data.records import write_records
from audiotag.data.sources import find_clips
from audiotag.errors import DataError
from audiotag.reporting.dataset_page import read_source

RATE = 8_000
NIGHT = np.random.default_rng(0).integers(-(2**15), 2**15, 2 * RATE).astype("<i2")  # [N]
OPTIONS = {"sample_rate": RATE, "workers": 0}


@pytest.fixture
def marked(tmp_path):
    source = make(tmp_path / "in", {name: text for name, text in RAVEN.items() if text})
    for name, sound in (("night", NIGHT), ("day", NIGHT[::-1])):
        sf.write(source / f"{name}.wav", sound, RATE)
    return source


def test_a_record_is_the_marked_part(marked, tmp_path):
    manifest = write_records(find_clips(marked), tmp_path / "out", **OPTIONS)
    clips = read_clips(tmp_path / "out" / "clips.csv")
    assert dict(zip(clips["name"], clips["num_samples"])) == {
        "day@0.000-1.000.wav": RATE,
        "night@0.500-1.500.wav": RATE,
        "night@1.200-1.400.wav": 1_600,
        "night@1.500-1.900.wav": 3_200,
    }
    for waveforms, rows in evaluation_batches(manifest, clips, window_samples=RATE, batch_size=1):
        for row, waveform in zip(rows.numpy(), waveforms.numpy()):
            name, length = clips["name"][row], clips["num_samples"][row]
            start = round(float(name.partition("@")[2].partition("-")[0]) * RATE)
            sound = NIGHT[::-1] if name.startswith("day") else NIGHT
            np.testing.assert_array_equal(waveform[:length], sound[start : start + length])
    assert write_records(find_clips(marked), tmp_path / "out", **OPTIONS) == manifest
    sf.write(marked / "night.wav", NIGHT // 2, RATE)
    with pytest.raises(DataError, match="the records are of other audio: 3 of 4 recordings have changed since"):
        write_records(find_clips(marked), tmp_path / "out", **OPTIONS)


def test_worker_processes_write_the_same(marked, tmp_path):
    one = write_records(find_clips(marked), tmp_path / "one", **OPTIONS)
    two = write_records(find_clips(marked), tmp_path / "two", **OPTIONS | {"workers": 1})
    assert one.shards == two.shards and one.fingerprint == two.fingerprint


def test_a_mark_after_the_end_is_one_bad_clip(marked, tmp_path):
    text = RAVEN_HEADER + "1\tS\t1\t0.0\t5.0\t0\t8000\tlark\n2\tS\t1\t3.0\t4.0\t0\t8000\tlark\n"
    make(marked, {"day.Table.1.selections.txt": text})
    write_records(find_clips(marked), tmp_path / "out", skip_bad=True, **OPTIONS)
    rejects = pd.read_csv(tmp_path / "out" / "rejects.csv")
    assert rejects["name"].tolist() == ["day@3.000-4.000.wav"]
    assert "ends before 3 s, where a clip begins" in rejects["reason"][0]
    clips = read_clips(tmp_path / "out" / "clips.csv").set_index("name")
    assert clips["num_samples"]["day@0.000-5.000.wav"] == 2 * RATE  # to the end of the recording


def test_explore_measures_the_marked_parts(marked):
    clips, vocabulary = read_source(marked, num_workers=1)
    assert vocabulary == ("frog", "lark", "owl")
    assert clips["seconds"].tolist() == [1.0, 1.0, 0.2, 0.4]


@pytest.mark.parametrize("kind", ["WAV", "FLAC", "OGG", "MP3", "AIFF"])
def test_a_part_of_any_format_is_where_it_was_marked(tmp_path, kind):
    path = tmp_path / f"a.{kind.lower()}"
    sf.write(path, NIGHT / 2**16, RATE, format=kind)
    whole = sf.read(path, dtype="float32")[0]
    waveform, rate = decode_excerpt(path, 0.75, 1.25)
    assert rate == RATE
    np.testing.assert_allclose(waveform, whole[6_000:10_000], rtol=0, atol=1e-3)


def test_a_class_of_which_all_clips_are_left_out_stops(marked, tmp_path):
    text = RAVEN_HEADER + "1\tS\t1\t3.0\t4.0\t0\t8000\tlark\n"
    make(marked, {"day.Table.1.selections.txt": text})
    with pytest.raises(DataError, match="all training clips of 1 classes are left out: lark. .*rejects.csv says why"):
        write_records(find_clips(marked), tmp_path / "out", skip_bad=True, **OPTIONS)
