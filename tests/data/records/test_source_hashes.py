import time

import pytest
from record_folders import OPTIONS

from audiotag.data.records import source_hashes, write_records
from audiotag.data.records.source_hashes import CACHE
from audiotag.data.sources import find_clips


def test_unchanged_recordings_are_not_read_again(copy, made, hashed):
    for _ in range(2):
        write_records(find_clips(copy), made, **OPTIONS)
    assert hashed == []
    (copy / "audio" / "0007.wav").touch()
    for _ in range(2):
        time.sleep(0.05)
        write_records(find_clips(copy), made, **OPTIONS)
    assert hashed == ["0007.wav"]


@pytest.mark.parametrize("content", [None, b"", b"{}", b"[" * 100_000, b'{"files": {}, "sha256": "0"}'])
def test_without_a_valid_cache_the_recordings_are_hashed_again(copy, made, hashed, content):
    (made / CACHE).unlink() if content is None else (made / CACHE).write_bytes(content)
    for _ in range(2):
        write_records(find_clips(copy), made, **OPTIONS)
    assert sorted(hashed) == sorted(path.name for path in (copy / "audio").iterdir())


def test_a_cache_with_an_altered_hash_is_ignored(copy, made, hashed):
    cache = (made / CACHE).read_text()
    sha256 = source_hashes.identify(copy / "audio" / "0007.wav")[1]
    (made / CACHE).write_text(cache.replace(sha256, sha256[::-1]))
    write_records(find_clips(copy), made, **OPTIONS)
    assert len(hashed) == 61
