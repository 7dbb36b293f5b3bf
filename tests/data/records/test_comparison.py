import os
import shutil

import numpy as np
import pytest
import soundfile as sf
from record_folders import OPTIONS, by_name, replace_recording, tree

from audiotag.data.records import read_manifest, write_records
from audiotag.data.records.source_hashes import CACHE
from audiotag.data.sources import find_clips
from audiotag.errors import DataError


@pytest.mark.check("A9")
def test_replaced_recordings_are_refused_and_overwrite_accepts_them(copy, made):
    before = tree(made)
    for path in (copy / "audio").iterdir():
        replace_recording(path, int(path.stem) + 1_000)
    message = (
        "out: the records are of other audio: 60 of 60 recordings have changed since, the first is "
        ".*0000.wav. Make the records again with --overwrite, or choose another --out."
    )
    with pytest.raises(DataError, match=message):
        write_records(find_clips(copy), made, **OPTIONS)
    assert tree(made) == before
    write_records(find_clips(copy), made, overwrite=True, **OPTIONS)
    for name, record in by_name(made).items():
        samples = sf.read(copy / "audio" / name, dtype="int16")[0]
        np.testing.assert_array_equal(np.frombuffer(record["audio"], "<i2"), samples)


@pytest.mark.check("A9", 4)
def test_a_replaced_recording_is_found_even_with_the_same_size_and_time(copy, made, tmp_path):
    path = copy / "audio" / "0007.wav"
    content = path.read_bytes()
    other = tmp_path / "other.wav"
    other.write_bytes(content)
    replace_recording(other)

    def copied_over():  # as by cp -p or mv
        shutil.copy2(other, path)

    def moved_over():
        shutil.copy2(other, tmp_path / "moved.wav")
        os.replace(tmp_path / "moved.wav", path)

    def truncated():
        path.write_bytes(content[:-2])

    for change in (lambda: replace_recording(path), copied_over, moved_over, truncated):
        change()
        with pytest.raises(DataError, match="1 of 60 recordings have changed since, the first is .*0007"):
            write_records(find_clips(copy), made, **OPTIONS)
        path.write_bytes(content)
        write_records(find_clips(copy), made, **OPTIONS)


@pytest.mark.check("A9")
def test_a_recording_that_is_missing_or_renamed_is_reported(copy, made):
    source, path = find_clips(copy), copy / "audio" / "0007.wav"
    path.rename(copy / "audio" / "7.wav")
    with pytest.raises(DataError, match="1 of 60 recordings .*, the first is .*0007.wav, which is no longer there"):
        write_records(source, made, **OPTIONS)
    table = copy / "labels.csv"
    table.write_text(table.read_text().replace("0007.wav", "7.wav"))
    message = "other clips or options. .* difference: clips only in the records: 1, the first is 0007.wav"
    with pytest.raises(DataError, match=message):
        write_records(find_clips(copy), made, **OPTIONS)


def test_a_difference_of_options_labels_or_classes_is_reported(copy, made):
    message = "difference: sample_rate is 16000 in the finished records and 8000 in this command, trim is None in the"
    with pytest.raises(DataError, match=message):
        write_records(find_clips(copy), made, **{**OPTIONS, "sample_rate": 8_000, "trim": "absolute"})
    table = copy / "labels.csv"
    table.write_text(table.read_text().replace("0007.wav,b", "0007.wav,a"))
    with pytest.raises(DataError, match="difference: labels, subsets or other columns of the clips"):
        write_records(find_clips(copy), made, **OPTIONS)
    table.write_text(table.read_text().replace("0007.wav,a", "0007.wav,c"))
    with pytest.raises(DataError, match="difference: the classes"):
        write_records(find_clips(copy), made, **OPTIONS)


@pytest.mark.check("A9")
def test_a_rejected_clip_that_can_be_read_now_is_other_audio(copy, tmp_path):
    bad, out = copy / "audio" / "0007.wav", tmp_path / "out"
    content = bad.read_bytes()
    bad.write_bytes(b"not audio")
    write_records(find_clips(copy), out, skip_bad=True, **OPTIONS)
    write_records(find_clips(copy), out, skip_bad=True, **OPTIONS)
    bad.write_bytes(content)
    with pytest.raises(DataError, match="1 of 60 recordings have changed since, the first is .*0007.wav"):
        write_records(find_clips(copy), out, skip_bad=True, **OPTIONS)
    (out / CACHE).unlink()  # the only place with the hash of a rejected clip
    with pytest.raises(DataError, match="out: holds finished records of other clips or options"):
        write_records(find_clips(copy), out, skip_bad=True, **OPTIONS)


@pytest.mark.check("A9")
def test_a_copy_of_the_recordings_has_the_same_fingerprint(copy, made, tmp_path, hashed):
    other = shutil.copytree(copy, tmp_path / "elsewhere", copy_function=shutil.copy)  # with new times
    before = tree(made)
    assert write_records(find_clips(other), made, **OPTIONS).fingerprint == read_manifest(made).fingerprint
    assert tree(made) == before and len(hashed) == 60
    write_records(find_clips(other), tmp_path / "again", **OPTIONS)
    assert tree(tmp_path / "again") == before
