import errno
import fcntl
import hashlib
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile as sf
from record_folders import (
    OPTIONS,
    RATE,
    SUBSETS,
    by_name,
    finished_files,
    read_shards,
    replace_recording,
    stop_after,
    tree,
)

from audiotag import files
from audiotag.data.audio import worker_pool
from audiotag.data.clips import read_clips
from audiotag.data.records import check_records, read_manifest, shard_writing, write_records, writing
from audiotag.data.sources import find_clips
from audiotag.data.sources.fsdkaggle2019 import KNOWN_BAD
from audiotag.errors import DataError

# The files


def test_every_clip_is_in_one_shard_of_its_subset(source, complete):
    subset = dict(zip(source.clips["name"], source.clips["subset"]))
    shards = read_shards(complete)
    names = [record["name"].decode() for shard in shards.values() for record in shard]
    assert sorted(names) == sorted(source.clips["name"])
    for shard in shards.values():
        assert 1 <= len(shard) <= 8
        assert len({subset[record["name"].decode()] for record in shard}) == 1


def test_the_manifest_lists_the_records_in_their_order(complete):
    manifest = read_manifest(complete)
    shards = read_shards(complete)
    assert [shard.file for shard in manifest.shards] == list(shards)
    for shard in manifest.shards:
        content = (complete / shard.file).read_bytes()
        assert list(shard.clips) == [record["name"].decode() for record in shards[shard.file]]
        assert (shard.bytes, shard.sha256) == (len(content), hashlib.sha256(content).hexdigest())
    assert manifest.sample_rate == RATE and manifest.vocabulary == ("a", "b")


def test_clips_csv_measures_every_clip(source, complete):
    clips = read_clips(complete / "clips.csv").set_index("name")
    assert len(clips) == len(source.clips)
    for name, path in zip(source.clips["name"], source.clips["path"]):
        waveform = sf.read(path, dtype="int16")[0] / 32_768
        clip = clips.loc[name]
        assert clip["num_samples"] == len(waveform)
        assert clip["seconds"] == pytest.approx(len(waveform) / RATE, abs=1e-6)
        assert clip["peak"] == pytest.approx(abs(waveform).max(), abs=1e-6)
        assert clip["rms"] == pytest.approx(np.sqrt(np.mean(waveform**2)), abs=1e-6)
        assert clip[["trimmed_start_seconds", "trimmed_end_seconds", "gain_db"]].tolist() == [0.0, 0.0, 0.0]
        assert clip["sha256"] == hashlib.sha256(Path(path).read_bytes()).hexdigest()


def test_the_directory_has_no_other_files(complete):
    shards = {shard.file for shard in read_manifest(complete).shards}
    assert tree(complete).keys() == shards | {"manifest.json", "clips.csv", "rejects.csv"}
    assert (complete / "rejects.csv").read_text() == "name,subset,reason\n"


# The same bytes


@pytest.mark.check("A6")
def test_two_workers_and_another_order_of_rows_give_the_same_bytes(source, complete, copy, tmp_path):
    header, *rows = (copy / "labels.csv").read_text().splitlines()
    (copy / "labels.csv").write_text("\n".join([header, *np.random.default_rng(0).permutation(rows)]) + "\n")
    write_records(find_clips(copy), tmp_path / "out", **{**OPTIONS, "workers": 2})
    assert tree(tmp_path / "out") == tree(complete)


def test_other_options_give_other_bytes(source, complete, tmp_path):
    write_records(source, tmp_path / "out", **{**OPTIONS, "sample_rate": 8_000})
    assert not tree(tmp_path / "out").items() & tree(complete).items() - {("rejects.csv", b"name,subset,reason\n")}


# Options


@pytest.mark.parametrize(
    "options, message",
    [
        ({"trim": "both"}, "trim 'both': expected relative or absolute; leave it out to keep the silence"),
        ({"trim": "relative", "trim_db": 0}, "trim_db 0: expected a number of dB above 0, at most 120"),
        ({"trim": "relative", "trim_db": float("nan")}, "trim_db nan: expected a number of dB"),
        (
            {"trim": "absolute", "trim_db": 40},
            "trim_db 40: only trim 'relative' uses it, and trim is 'absolute'. Leave",
        ),
        ({"trim_db": 40}, "trim_db 40: only trim 'relative' uses it, and trim is None"),
        ({"peak_db": 0.1}, "peak_db 0.1: expected -60 to 0 dBFS; 0 is full scale, above which samples are clipped"),
        ({"peak_db": float("nan")}, "peak_db nan: expected -60 to 0 dBFS"),
    ],
)
def test_a_wrong_trim_or_peak_is_refused(source, tmp_path, options, message):
    with pytest.raises(DataError, match=message):
        write_records(source, tmp_path / "out", **OPTIONS, **options)
    assert not (tmp_path / "out").exists()


def test_an_unknown_codec_is_refused(source, tmp_path):
    with pytest.raises(DataError, match="codec 'wav': expected one of pcm, flac, source"):
        write_records(source, tmp_path / "out", codec="wav")


# Clips known to be bad


@pytest.fixture(scope="module")
def kaggle(tmp_path_factory):
    """FSDKaggle2019 in miniature: its six bad clips and two good ones."""
    folder = tmp_path_factory.mktemp("kaggle")
    (folder / "train_curated").mkdir()
    names = [*KNOWN_BAD, "00000001.wav", "00000002.wav"]
    for name in names:
        sf.write(folder / "train_curated" / name, np.zeros(500, "int16"), RATE)
    (folder / "train_curated.csv").write_text("fname,labels\n" + "".join(f"{name},Bark\n" for name in names))
    (folder / "sample_submission.csv").write_text("fname,Bark\nx.wav,0\n")
    return find_clips(folder)


@pytest.mark.check("A8")
def test_known_bad_clips_are_left_out_and_listed_with_the_reason(kaggle, tmp_path):
    write_records(kaggle, tmp_path, **OPTIONS)
    assert sorted(by_name(tmp_path)) == ["00000001.wav", "00000002.wav"]
    rejects = pd.read_csv(tmp_path / "rejects.csv")
    assert dict(zip(rejects["name"], rejects["reason"])) == KNOWN_BAD
    assert len(read_clips(tmp_path / "clips.csv")) + len(rejects) == len(kaggle.clips)


def test_known_bad_clips_can_be_kept(kaggle, tmp_path):
    write_records(kaggle, tmp_path, keep_known_bad=True, **OPTIONS)
    assert by_name(tmp_path).keys() == {*KNOWN_BAD, "00000001.wav", "00000002.wav"}
    assert len(pd.read_csv(tmp_path / "rejects.csv")) == 0


# Clips that cannot be decoded


def damage_recordings(folder):
    """Damages eight of the sixty recordings in four ways; their names."""
    bad = [f"{index:04d}.wav" for index in range(3, 60, 8)]
    for name, content in zip(bad, [b"", b"not audio", b"RIFF" + bytes(4) + b"WAVE", b"ID3"] * 2):
        (folder / "audio" / name).write_bytes(content)
    return bad


def test_bad_clips_stop_make_records_at_the_end_with_file_row_and_reason(copy, tmp_path):
    bad, out = damage_recordings(copy), tmp_path / "out"
    with pytest.raises(DataError) as error:
        write_records(find_clips(copy), out, **OPTIONS)
    message = str(error.value)
    assert message.startswith("8 of 60 clips cannot be used:\n  labels.csv line ")
    assert "\n  and 3 more\n" in message and str(out / "rejects.csv") in message and "--skip-bad" in message
    rejects = pd.read_csv(out / "rejects.csv")
    assert rejects["name"].tolist() == bad
    for index, (name, reason) in enumerate(zip(rejects["name"], rejects["reason"])):
        expected = ["is empty", "cannot decode", "without a data chunk", "cannot decode"][index % 4]
        assert reason.startswith(f"{name}: ") and expected in reason
    for line in message.splitlines()[1:6]:
        row, name, _ = line.strip().split(": ", 2)
        assert name in bad and row == f"labels.csv line {int(name[:4]) + 2}"
    assert not (out / "manifest.json").exists() and not (out / "clips.csv").exists()
    with pytest.raises(DataError, match="has not finished here. Run it again"):
        read_manifest(out)


def test_once_they_are_fixed_it_finishes_and_complete_shards_are_not_made_again(source, complete, copy, tmp_path):
    out = tmp_path / "out"
    originals = {name: (copy / "audio" / name).read_bytes() for name in ("0007.wav", "0008.wav")}
    for name in originals:
        (copy / "audio" / name).write_bytes(b"")
    with pytest.raises(DataError, match="2 of 60 clips"):
        write_records(find_clips(copy), out, **OPTIONS)
    before = {path.name: path.stat().st_mtime_ns for path in (out / ".work").glob("clips-*.tfrecord")}
    for name, content in originals.items():
        (copy / "audio" / name).write_bytes(content)
    manifest = write_records(find_clips(copy), out, **OPTIONS)
    assert tree(out) == tree(complete)
    for shard in manifest.shards:
        unchanged = (out / shard.file).stat().st_mtime_ns == before[shard.file]
        assert unchanged == originals.keys().isdisjoint(shard.clips)


@pytest.mark.check("A8")
def test_skip_bad_leaves_them_out_and_lists_the_reasons(copy, tmp_path):
    bad, out = damage_recordings(copy), tmp_path / "out"
    write_records(find_clips(copy), out, skip_bad=True, **OPTIONS)
    rejects, clips = pd.read_csv(out / "rejects.csv"), read_clips(out / "clips.csv")
    assert rejects["name"].tolist() == bad and rejects["subset"].isin(SUBSETS).all()
    assert len(clips) == 52 and by_name(out).keys() == set(clips["name"])
    assert list(check_records(out)) == []


@pytest.mark.check("A8")
def test_a_shard_with_only_bad_clips_is_not_published(copy, tmp_path):
    damage_recordings(copy)
    out = tmp_path / "out"
    manifest = write_records(find_clips(copy), out, skip_bad=True, **{**OPTIONS, "clips_per_shard": 1})
    assert len(manifest.shards) == 52 and list(check_records(out)) == []
    assert len([*out.glob("clips-*.tfrecord")]) == 52


@pytest.mark.check("A8")
def test_make_records_stopped_by_bad_clips_continues_without_them(copy, tmp_path):
    for name in ("0007.wav", "0008.wav"):
        (copy / "audio" / name).write_bytes(b"")
    out, source = tmp_path / "out", find_clips(copy)
    with pytest.raises(DataError, match="(?s)2 of 60 clips .*, or leave them out with --skip-bad.* add --overwrite"):
        write_records(source, out, **OPTIONS)
    before = {path.name: path.stat().st_mtime_ns for path in (out / ".work").glob("clips-*.tfrecord")}
    manifest = write_records(source, out, skip_bad=True, **OPTIONS)
    write_records(source, tmp_path / "at once", skip_bad=True, **OPTIONS)
    assert tree(out) == tree(tmp_path / "at once")
    kept = [shard.file for shard in manifest.shards if (out / shard.file).stat().st_mtime_ns == before[shard.file]]
    assert len(kept) >= len(manifest.shards) - 2


def test_clips_left_out_by_skip_bad_are_decoded_again_without_it(source, complete, copy, tmp_path):
    out, bad = tmp_path / "out", copy / "audio" / "0007.wav"
    content = bad.read_bytes()
    bad.write_bytes(b"")
    stop_after(find_clips(copy), out, 59, skip_bad=True)
    bad.write_bytes(content)
    write_records(find_clips(copy), out, **OPTIONS)
    assert tree(out) == tree(complete)


def test_a_source_with_only_bad_clips_is_refused(recordings, tmp_path):
    source, _ = recordings(tmp_path / "in", [500, 500])
    for name in source.clips["name"]:
        (tmp_path / "in" / "audio" / name).write_bytes(b"")
    with pytest.raises(DataError, match="out: none of the 2 clips can be used; .*rejects.csv says why"):
        write_records(source, tmp_path / "out", skip_bad=True, **OPTIONS)
    assert not (tmp_path / "out" / "manifest.json").exists()


def test_a_disk_that_is_too_full_is_reported_before_anything_is_decoded(source, tmp_path, monkeypatch):
    monkeypatch.setattr(shard_writing, "prepare", None)
    usage = shutil.disk_usage(tmp_path)
    needed = sum(2 * clip for clip in 400 + np.arange(60))
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=needed // 2))
    with pytest.raises(DataError, match="out: about 0.1 MB are to be written, and 0.0 MB are free there. Make"):
        write_records(source, tmp_path / "out", **OPTIONS)
    assert not tree(tmp_path / "out")


@pytest.mark.check("A7")
def test_a_decoder_that_crashes_is_one_bad_clip(source, tmp_path, monkeypatch):
    def in_order(function, paths, *, workers):
        for path in paths:
            yield (None, "its worker died of SIGSEGV") if path.endswith("0007.wav") else (function(path), None)

    monkeypatch.setattr(worker_pool, "in_order", in_order)
    write_records(source, tmp_path, skip_bad=True, **{**OPTIONS, "workers": 1})
    rejects = pd.read_csv(tmp_path / "rejects.csv")
    remedy = "Leave this file out, or convert it with another program."
    assert rejects[["name", "reason"]].values.tolist() == [
        ["0007.wav", f"0007.wav: its worker died of SIGSEGV. {remedy}"]
    ]


# A directory that is not empty


def test_a_finished_directory_is_not_changed_and_nothing_is_decoded(source, complete, monkeypatch):
    before = {path: path.stat().st_mtime_ns for path in complete.iterdir()}
    content = tree(complete)
    monkeypatch.setattr(shard_writing, "prepare", None)
    assert write_records(source, complete, **OPTIONS) == read_manifest(complete)
    assert tree(complete) == content
    assert {path: path.stat().st_mtime_ns for path in complete.iterdir()} == before


def test_other_options_are_refused_and_overwrite_replaces(source, complete, tmp_path):
    out = shutil.copytree(complete, tmp_path / "out")
    other = {**OPTIONS, "clips_per_shard": 30}
    with pytest.raises(DataError, match="out: holds finished records of other clips or options. Choose another --out"):
        write_records(source, out, **other)
    assert tree(out) == tree(complete)
    write_records(source, out, overwrite=True, **other)
    assert len(read_manifest(out).shards) == 3 and len([*out.glob("clips-*.tfrecord")]) == 3
    write_records(source, out, overwrite=True, **OPTIONS)
    assert tree(out) == tree(complete)


def test_an_unfinished_directory_of_other_options_is_refused_and_overwrite_replaces(source, complete, tmp_path):
    stop_after(source, tmp_path, 30)
    with pytest.raises(DataError, match="has unfinished records of other clips or options.*--overwrite"):
        write_records(source, tmp_path, **{**OPTIONS, "sample_rate": 8_000})
    write_records(source, tmp_path, overwrite=True, **OPTIONS)
    assert tree(tmp_path) == tree(complete)


def test_overwrite_keeps_the_old_records_if_the_new_ones_do_not_fit(source, complete, tmp_path, monkeypatch):
    out = shutil.copytree(complete, tmp_path / "out")
    usage, needed = shutil.disk_usage(out), sum(2 * clip for clip in 400 + np.arange(60))
    for free in (0, needed - 1):  # the old records do not count as room: they stay
        monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=free))
        with pytest.raises(DataError, match="0.1 MB are to be written, .* The old records stay until the"):
            write_records(source, out, overwrite=True, **OPTIONS, peak_db=-1)
        assert tree(out) == tree(complete)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=needed))
    write_records(source, out, overwrite=True, **OPTIONS, peak_db=-1)
    assert list(check_records(out)) == [] and read_manifest(out).options["peak_db"] == -1


def test_the_header_of_every_clip_counts_for_the_needed_space(recordings, tmp_path, monkeypatch):
    source, _ = recordings(tmp_path / "in", [500] * 100)
    sf.write(tmp_path / "in" / "audio" / "long.flac", np.zeros(9_500_000, "int16"), 44_100, format="FLAC")
    (tmp_path / "in" / "audio" / "long.flac").rename(tmp_path / "in" / "audio" / "0037.flac")
    (tmp_path / "in" / "audio" / "0037.wav").unlink()
    table = tmp_path / "in" / "labels.csv"
    table.write_text(table.read_text().replace("0037.wav", "0037.flac"))
    assert (tmp_path / "in" / "audio" / "0037.flac").stat().st_size < 40_000  # and 19 MB as PCM
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=15_000_000))
    with pytest.raises(DataError, match=r"out: about 19\.3 MB are to be written, and 15\.0 MB are free"):
        write_records(find_clips(tmp_path / "in"), tmp_path / "out", **{**OPTIONS, "sample_rate": 44_100})
    assert not tree(tmp_path / "out")


def test_overwrite_leaves_nothing_of_a_killed_writer(source, complete, tmp_path):
    out = shutil.copytree(complete, tmp_path / "out")
    (out / ".unfinished-99-clips.csv").touch()
    write_records(source, out, overwrite=True, **OPTIONS)
    assert tree(out) == tree(complete)


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("table", ["clips.csv", "rejects.csv"])
def test_a_table_that_make_records_did_not_write_is_not_replaced(source, tmp_path, table, overwrite):
    (tmp_path / table).write_text("fname,labels,note\na.wav,X,mine\n")
    with pytest.raises(
        DataError, match=f"{table}: there are no records beside it, so make-records did not write it. Choose"
    ):
        write_records(source, tmp_path, overwrite=overwrite, **OPTIONS)
    assert tree(tmp_path) == {table: b"fname,labels,note\na.wav,X,mine\n"}


@pytest.mark.parametrize("folder", [".", "audio", "records", "audio/records", "../in/records"])
def test_records_are_not_written_into_the_dataset(copy, folder):
    before = tree(copy)
    with pytest.raises(DataError, match="the folder of the dataset. Choose another --out, for the records alone"):
        write_records(find_clips(copy), copy / folder, overwrite=True, **OPTIONS)
    assert tree(copy) == before


@pytest.mark.parametrize("folder", [".", "audio"])
def test_records_are_not_written_among_the_recordings_of_a_table(copy, folder):
    before, (table,) = tree(copy), copy.glob("*.csv")
    with pytest.raises(DataError, match="the recordings are in it. Choose another --out, for the records alone"):
        write_records(find_clips(table), copy / folder, overwrite=True, **OPTIONS)
    assert tree(copy) == before


@pytest.mark.check("A5")
def test_a_second_writer_at_the_same_time_is_refused(source, complete, tmp_path):
    (tmp_path / ".work").mkdir()
    with open(tmp_path / ".work" / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(DataError, match="another make-records is writing here. Wait for it, or choose another"):
            write_records(source, tmp_path, overwrite=True, **OPTIONS)
    assert tree(tmp_path).keys() == {".work/lock"}
    write_records(source, tmp_path, **OPTIONS)
    assert tree(tmp_path) == tree(complete)


# Resumption


@pytest.mark.check("A1")
@pytest.mark.parametrize("clips", range(0, 60, 7))
def test_stopped_anywhere_it_leaves_no_final_files_and_resumes_to_the_same_bytes(source, complete, tmp_path, clips):
    stop_after(source, tmp_path, clips)
    assert finished_files(tmp_path).items() <= tree(complete).items()
    assert not finished_files(tmp_path)
    write_records(source, tmp_path, **OPTIONS)
    assert tree(tmp_path) == tree(complete)


@pytest.mark.check("A1")
def test_a_shard_damaged_before_the_resumption_is_made_again(source, complete, tmp_path):
    stop_after(source, tmp_path, 30)
    shard = min((tmp_path / ".work").glob("clips-*.tfrecord"))
    shard.write_bytes(shard.read_bytes()[:-1])
    write_records(source, tmp_path, **OPTIONS)
    assert tree(tmp_path) == tree(complete)


@pytest.mark.check("A1")
@pytest.mark.parametrize("content", [b"", b"{}", b"[]", b"7", b"\xff", b"[" * 100_000])
def test_damaged_metadata_is_ignored(source, complete, tmp_path, content):
    stop_after(source, tmp_path, 30)
    written = sorted((tmp_path / ".work").glob("*.json"))
    assert len(written) == 5 and written[-1].name == "fingerprint.json"
    for file in (written[0], written[-1]):
        file.write_bytes(content)
    write_records(source, tmp_path, **OPTIONS)
    assert tree(tmp_path) == tree(complete)


@pytest.mark.check("A1")
def test_metadata_of_other_work_is_ignored(source, complete, tmp_path):
    stop_after(source, tmp_path, 30)
    (tmp_path / ".work" / "fingerprint.json").unlink()
    write_records(source, tmp_path, **OPTIONS, peak_db=-1.0)
    assert {record["num_samples"] for record in by_name(tmp_path).values()} == set(range(400, 460))
    assert read_clips(tmp_path / "clips.csv")["peak"].round(3).unique() == [0.891]


def test_finished_records_need_no_write_access(copy, made, monkeypatch):
    before = tree(made)

    def refuse(*_, **__):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    (copy / "audio" / "0007.wav").touch()
    (made / ".work").mkdir()
    for module, name in ((os, "mkdir"), (os, "unlink"), (os, "rmdir"), (os, "replace"), (files, "locked")):
        monkeypatch.setattr(module, name, refuse)
    monkeypatch.setattr(files, "atomic_file", refuse)
    assert write_records(find_clips(copy), made, **OPTIONS) == read_manifest(made)
    assert tree(made) == before
    monkeypatch.undo()
    write_records(find_clips(copy), made, **OPTIONS)
    assert not (made / ".work").exists()  # of a process that was killed


# Recordings that are replaced under the same names


@pytest.mark.check("A9")
def test_after_a_recording_is_replaced_between_kill_and_resumption_only_its_shard_is_made_again(copy, tmp_path):
    stop_after(find_clips(copy), tmp_path / "out", 40)
    before = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "out" / ".work").glob("clips-*.tfrecord")}
    first = json.loads((tmp_path / "out" / ".work" / f"{min(before)}.json").read_text())["content"]["clips"][0]["name"]
    replace_recording(copy / "audio" / first)
    write_records(find_clips(copy), tmp_path / "out", **OPTIONS)
    write_records(find_clips(copy), tmp_path / "at once", **OPTIONS)
    assert tree(tmp_path / "out") == tree(tmp_path / "at once")
    kept = [name for name in before if (tmp_path / "out" / name).stat().st_mtime_ns == before[name]]
    assert len(before) >= 4 and kept == [name for name in before if name != min(before)]


@pytest.mark.check("A9")
def test_a_recording_replaced_during_make_records_stops_it_and_the_next_one_makes_its_shard_again(
    copy, tmp_path, monkeypatch
):
    out, done, true_prepare = tmp_path / "out", [], shard_writing.prepare

    def prepare(path, **options):
        done.append(path)
        if len(done) == 20:
            replace_recording(Path(done[0]))
        return true_prepare(path, **options)

    monkeypatch.setattr(shard_writing, "prepare", prepare)
    with pytest.raises(DataError) as error:
        write_records(find_clips(copy), out, **OPTIONS)
    assert str(error.value) == (
        f"1 of 60 recordings changed while make-records ran, the first is {done[0]}. Run the same command again when "
        "nothing writes to them: only their shards are made again."
    )
    assert not finished_files(out)
    write_records(find_clips(copy), out, **OPTIONS)
    assert 60 < len(done) <= 68
    write_records(find_clips(copy), tmp_path / "at once", **OPTIONS)
    assert tree(out) == tree(tmp_path / "at once")


# Records that are replaced


def test_bad_clips_under_overwrite_are_listed_in_the_work_folder(copy, made):
    before = tree(made)
    (copy / "audio" / "0007.wav").write_bytes(b"")
    with pytest.raises(DataError, match=r"1 of 60 clips cannot be used(?s:.*)out/\.work/rejects\.csv names them all"):
        write_records(find_clips(copy), made, overwrite=True, **OPTIONS)
    assert before.items() <= tree(made).items() and list(check_records(made)) == []
    assert pd.read_csv(made / ".work" / "rejects.csv")["name"].tolist() == ["0007.wav"]


def test_a_stopped_overwrite_resumes_from_its_shards_and_keeps_the_old_records_until_then(source, complete, tmp_path):
    out = shutil.copytree(complete, tmp_path / "out")
    stop_after(source, out, 30, overwrite=True, peak_db=-1.0)
    assert finished_files(out) == finished_files(complete)
    made = {path.name: path.stat().st_mtime_ns for path in (out / ".work").glob("clips-*.tfrecord")}
    assert len(made) >= 3
    write_records(source, out, overwrite=True, peak_db=-1.0, **OPTIONS)
    assert {name: (out / name).stat().st_mtime_ns for name in made} == made
    write_records(source, tmp_path / "at once", peak_db=-1.0, **OPTIONS)
    assert tree(out) == tree(tmp_path / "at once")


def test_overwrite_with_other_options_discards_unfinished_work_and_keeps_the_old_records(source, complete, tmp_path):
    out = shutil.copytree(complete, tmp_path / "out")
    stop_after(source, out, 30, overwrite=True, peak_db=-1.0)
    write_records(source, out, **OPTIONS)
    assert tree(out) == tree(complete)  # the unfinished work is removed
    stop_after(source, out, 30, overwrite=True, peak_db=-1.0)
    stop_after(source, out, 10, overwrite=True, peak_db=-2.0)
    assert finished_files(out) == finished_files(complete)
    assert len([*(out / ".work").glob("clips-*.tfrecord")]) == 1
    with pytest.raises(DataError, match="finished records of other clips or options.*peak_db is None in the finished"):
        write_records(source, out, peak_db=-2.0, **OPTIONS)
    assert finished_files(out) == finished_files(complete)


def stop_before_publishing(source, out, **options):
    """Writes records until they are complete, and stops before they are published."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(writing, "_publish", None)
        with pytest.raises(TypeError):
            write_records(source, out, **OPTIONS, **options)
    assert (out / ".work" / "manifest.json").exists()


@pytest.mark.parametrize("overwrite", [False, True])
def test_complete_records_are_published_without_decoding(source, complete, tmp_path, monkeypatch, overwrite):
    out = tmp_path / "out"
    if overwrite:
        write_records(source, out, **OPTIONS, peak_db=-1)
    stop_before_publishing(source, out, overwrite=overwrite)
    monkeypatch.setattr(shard_writing, "prepare", None)
    write_records(source, out, overwrite=overwrite, **OPTIONS)
    assert tree(out) == tree(complete)


def test_complete_records_do_not_replace_others_without_overwrite(source, complete, tmp_path):
    out = shutil.copytree(complete, tmp_path / "out")
    stop_before_publishing(source, out, overwrite=True, peak_db=-1)
    with pytest.raises(DataError, match="finished records of other clips or options.*peak_db is None in the finished"):
        write_records(source, out, peak_db=-1, **OPTIONS)
    assert finished_files(out) == finished_files(complete)


@pytest.mark.parametrize("damaged", ["manifest.json", "clips.csv", "clips-00001-of-00009.tfrecord"])
def test_complete_records_that_were_damaged_before_publishing_are_made_again(source, complete, tmp_path, damaged):
    stop_before_publishing(source, tmp_path)
    path = tmp_path / ".work" / damaged
    path.write_bytes(path.read_bytes()[:-1])
    write_records(source, tmp_path, **OPTIONS)
    assert tree(tmp_path) == tree(complete)


@pytest.mark.check("A9")
def test_a_recording_replaced_before_complete_records_are_published_is_made_again(copy, made):
    stop_before_publishing(find_clips(copy), made, overwrite=True, peak_db=-1)
    replace_recording(copy / "audio" / "0007.wav")
    write_records(find_clips(copy), made, overwrite=True, peak_db=-1, **OPTIONS)
    sha256 = read_clips(made / "clips.csv").set_index("name").loc["0007.wav", "sha256"]
    assert sha256 == hashlib.sha256((copy / "audio" / "0007.wav").read_bytes()).hexdigest()
