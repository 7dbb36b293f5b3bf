import concurrent.futures
import contextlib
import errno
import hashlib
import multiprocessing
import os
import subprocess
import sys
import time

import portalocker
import pytest

from audiotag import files
from audiotag.errors import DataError


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_an_atomic_file_has_what_was_written_and_leaves_nothing_beside_it(tmp_path):
    with files.atomic_file(tmp_path / "a.bin") as unfinished:
        unfinished.write_bytes(b"new")
        assert names(tmp_path) == [unfinished.name]
    assert names(tmp_path) == ["a.bin"]
    assert (tmp_path / "a.bin").read_bytes() == b"new"


def test_an_error_during_the_block_keeps_the_old_file_and_nothing_of_the_new_one(tmp_path):
    (tmp_path / "a.bin").write_bytes(b"old")
    with pytest.raises(KeyboardInterrupt), files.atomic_file(tmp_path / "a.bin") as unfinished:
        unfinished.write_bytes(b"ne")
        raise KeyboardInterrupt
    assert names(tmp_path) == ["a.bin"]
    assert (tmp_path / "a.bin").read_bytes() == b"old"


def test_a_new_file_replaces_the_old_one(tmp_path):
    for text in ("old", "new"):
        files.write_text(tmp_path / "a.txt", text)
    assert (tmp_path / "a.txt").read_text() == "new"


def test_the_unfinished_file_keeps_the_suffix_and_is_hidden(tmp_path):
    with files.atomic_file(tmp_path / "weights.keras") as unfinished:
        unfinished.touch()
        assert unfinished.parent == tmp_path
        assert unfinished.suffix == ".keras" and unfinished.name.startswith(".unfinished-")


def test_the_bytes_are_synced_before_the_rename_and_the_folder_after_it(tmp_path, monkeypatch):
    done = []
    monkeypatch.setattr(files, "sync", lambda path: done.append(("sync", path.name)))
    replace = os.replace
    monkeypatch.setattr(os, "replace", lambda old, new: (done.append(("rename", new.name)), replace(old, new)))
    with files.atomic_file(tmp_path / "a.bin") as unfinished:
        unfinished.write_bytes(b"new")
    assert done == [("sync", unfinished.name), ("rename", "a.bin"), ("sync", tmp_path.name)]


def test_a_failed_rename_leaves_no_temporary_file(tmp_path):
    (tmp_path / "taken").mkdir()
    with pytest.raises(OSError):
        files.write_text(tmp_path / "taken", "text")
    assert names(tmp_path) == ["taken"]


def test_text_is_utf_8_with_unchanged_line_ends(tmp_path):
    files.write_text(tmp_path / "a.txt", "Glöckchen\nBell\r\n")
    assert (tmp_path / "a.txt").read_bytes() == b"Gl\xc3\xb6ckchen\nBell\r\n"


@pytest.mark.parametrize("size", [0, 1, (1 << 20) - 1, 1 << 20, (1 << 20) + 1])
def test_sha256_is_that_of_hashlib(tmp_path, size):
    data = os.urandom(size)
    (tmp_path / "a.bin").write_bytes(data)
    assert files.sha256(tmp_path / "a.bin") == hashlib.sha256(data).hexdigest()


@pytest.mark.parametrize("code", files.DISK_FULL)
def test_the_error_of_a_full_disk_names_the_file_and_what_to_do(tmp_path, code):
    (tmp_path / "a.bin").write_bytes(b"old")
    message = "a.bin: .*: no partial file is left, and existing files are unchanged. Free some space and run the same"
    with pytest.raises(DataError, match=message), files.atomic_file(tmp_path / "a.bin") as unfinished:
        unfinished.write_bytes(b"ne")
        raise OSError(code, os.strerror(code))
    with pytest.raises(DataError, match=message.replace("a.bin", "folder")), files.atomic_folder(tmp_path / "folder"):
        raise OSError(code, os.strerror(code))
    assert names(tmp_path) == ["a.bin"] and (tmp_path / "a.bin").read_bytes() == b"old"


def test_the_old_file_moves_to_the_path_keep(tmp_path):
    for text in ("first", "second", "third"):
        with files.atomic_file(tmp_path / "a.txt", keep=tmp_path / "before.txt") as unfinished:
            unfinished.write_text(text)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"a.txt": "third", "before.txt": "second"}


def test_everything_in_a_folder_is_synced_before_the_rename(tmp_path, monkeypatch):
    done = []
    monkeypatch.setattr(files, "sync", lambda path: done.append(path.name))
    replace = os.replace
    monkeypatch.setattr(os, "replace", lambda old, new: (done.append(f"rename {new.name}"), replace(old, new)))
    with files.atomic_folder(tmp_path / "model") as unfinished:
        (unfinished / "variables").mkdir()
        for name in ("saved_model.pb", "variables/variables.index"):
            (unfinished / name).touch()
    inside = {"saved_model.pb", "variables.index", "variables", unfinished.name}
    assert set(done[:4]) == inside and done[4:] == ["rename model", tmp_path.name]


def test_an_atomic_folder_replaces_a_folder_a_file_or_a_link(tmp_path):
    (tmp_path / "file").write_text("old")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    (tmp_path / ".removed-99-file").mkdir()  # of a killed process
    for name in ("folder", "folder", "file", "link"):
        with files.atomic_folder(tmp_path / name) as unfinished:
            (unfinished / f"of {name}").touch()
    assert names(tmp_path) == ["file", "folder", "link"]
    assert names(tmp_path / "file") == ["of file"]


def test_the_old_folder_comes_back_if_the_new_one_cannot_be_renamed(tmp_path, monkeypatch):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "old").touch()
    replace = os.replace

    def replace_on_a_full_disk(old, new):
        if ".unfinished" in old.name:
            raise OSError(28, "No space left on device")
        replace(old, new)

    monkeypatch.setattr(os, "replace", replace_on_a_full_disk)
    with (
        pytest.raises(DataError, match="existing files are unchanged"),
        files.atomic_folder(tmp_path / "a") as unfinished,
    ):
        (unfinished / "new").touch()
    assert names(tmp_path) == ["a"] and names(tmp_path / "a") == ["old"]


def test_a_lock_is_exclusive_or_shared(tmp_path):
    path = tmp_path / "lock"
    with files.locked(path, "busy", shared=True), files.locked(path, "busy", shared=True):
        with pytest.raises(files.Busy, match="busy"), files.locked(path, "busy"):
            pytest.fail("held")
    with files.locked(path, "busy"), pytest.raises(files.Busy), files.locked(path, "busy"):
        pytest.fail("held")


def test_a_lock_file_that_was_removed_in_the_meantime_does_not_count(tmp_path, monkeypatch):
    lock = portalocker.lock
    monkeypatch.setattr(portalocker, "lock", lambda file, how: (lock(file, how), (tmp_path / "lock").unlink()))
    with pytest.raises(files.Busy), files.locked(tmp_path / "lock", "busy"):
        pytest.fail("held")


@pytest.mark.check("A12")
def test_a_lock_ends_with_its_process_even_by_kill(tmp_path):
    code = (
        "import pathlib, sys, time; from audiotag import files\n"
        "with files.locked(pathlib.Path(sys.argv[1]), ''): print(1, flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code, tmp_path / "lock"], stdout=subprocess.PIPE) as holder:
        holder.stdout.readline()
        with pytest.raises(files.Busy), files.locked(tmp_path / "lock", "busy"):
            pytest.fail("held")
        holder.kill()
    with files.locked(tmp_path / "lock", "busy"):
        pass


@pytest.mark.check("A12")
@pytest.mark.parametrize("code", sorted(set(files.NO_LOCKS)), ids=errno.errorcode.get)
@pytest.mark.parametrize("shared", [False, True])
def test_without_locks_it_warns_once_for_each_file_system(tmp_path, monkeypatch, capsys, code, shared):
    def refuse(file, how):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(portalocker.portalocker, "LOCKER", refuse)
    monkeypatch.setattr(files, "_warned_about", set())
    for name in ("a", "b"):
        with files.locked(tmp_path / name, "busy", shared=shared), files.locked(tmp_path / name, "busy"):
            pass
    assert capsys.readouterr().err == (
        f"Warning: {tmp_path / 'a'}: this file system has no file locks, so nothing keeps two commands from writing to "
        f"this folder at the same time. Run one at a time.\n"
    )


def test_another_error_of_a_lock_is_raised(tmp_path, monkeypatch):
    def fail(file, how):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(portalocker.portalocker, "LOCKER", fail)
    with pytest.raises(OSError, match="Input/output error"), files.locked(tmp_path / "lock", "busy"):
        pytest.fail("held")


def test_space_is_reserved_at_once_or_by_zeros(tmp_path, monkeypatch):
    size = (5 << 19) + 3
    files.reserve_space(tmp_path / "at once", size)
    monkeypatch.delattr(os, "posix_fallocate")
    files.reserve_space(tmp_path / "zeros", size)
    assert (tmp_path / "at once").read_bytes() == (tmp_path / "zeros").read_bytes() == bytes(size)
    assert (tmp_path / "zeros").stat().st_blocks * 512 >= size
    with pytest.raises(OSError, match="No space left"):
        files.reserve_space("/dev/full", size)


def test_on_windows_a_rename_waits_for_readers(tmp_path, monkeypatch):
    (tmp_path / "a").touch()
    replace, readers = os.replace, iter(range(3))

    def replace_once_closed(old, new):
        if next(readers, None) is not None:
            raise PermissionError(errno.EACCES, "open in another process")
        replace(old, new)

    monkeypatch.setattr(os, "replace", replace_once_closed)
    with pytest.raises(PermissionError):
        files.rename(tmp_path / "a", tmp_path / "b")
    monkeypatch.setattr(files, "WINDOWS", True)
    files.rename(tmp_path / "a", tmp_path / "b")
    assert names(tmp_path) == ["b"]
    monkeypatch.setattr(files, "RENAMING_SECONDS", 0.1)
    readers = iter(range(1_000))
    with pytest.raises(PermissionError):
        files.rename(tmp_path / "b", tmp_path / "a")


def test_a_folder_that_another_process_puts_there_is_replaced_on_windows_too(tmp_path, monkeypatch):
    replace, others = os.replace, iter(range(3))

    def refuse_folders(old, new):
        if ".unfinished" in old.name and next(others, None) is not None:
            new.mkdir()
        if new.is_dir():
            raise PermissionError(errno.EACCES, "Access is denied")
        replace(old, new)

    monkeypatch.setattr(os, "replace", refuse_folders)
    monkeypatch.setattr(files, "WINDOWS", True)
    with files.atomic_folder(tmp_path / "a") as unfinished:
        (unfinished / "new").touch()
    assert names(tmp_path) == ["a"] and names(tmp_path / "a") == ["new"]


@pytest.mark.parametrize("windows", [False, True])
def test_a_folder_is_removed_unless_it_is_locked(tmp_path, monkeypatch, windows):
    monkeypatch.setattr(files, "WINDOWS", windows)
    folder = tmp_path / "run"
    folder.mkdir()
    with files.locked(folder / ".lock", ""), pytest.raises(files.Busy, match="busy"):
        files.remove_unless_locked(folder, folder / ".lock", "busy")
    assert names(folder) == [".lock"]
    files.remove_unless_locked(folder, folder / ".lock", "busy")
    assert names(tmp_path) == []


# Two `fit --fold` of one run that end together

PARTS = ("saved_model.pb", "variables.index", "variables.data")


def publish(folder, worker, times):
    """Replaces a folder many times."""
    for number in range(times):
        with files.atomic_folder(folder) as unfinished:
            for part in PARTS:
                (unfinished / part).write_text(f"{worker}, {number}")


def read(folder):
    """The texts of a folder's files, all of one version: opens the folder again if it is replaced meanwhile."""
    end = time.monotonic() + 60
    while time.monotonic() < end:
        with contextlib.suppress(FileNotFoundError):
            handle = os.open(folder, os.O_RDONLY)
            try:
                inside = lambda name, flags: os.open(name, flags, dir_fd=handle)
                texts = []
                for part in PARTS:
                    with open(part, opener=inside) as file:
                        texts.append(file.read())
                return texts
            finally:
                os.close(handle)
    raise TimeoutError(folder)


@pytest.mark.check("D13", 2_000)
def test_processes_that_publish_a_folder_at_the_same_time_all_succeed(tmp_path):
    workers, times, reads = 4, 500, 0
    folder = tmp_path / "saved_model"
    publish(folder, "first", 1)
    with concurrent.futures.ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool:
        jobs = [pool.submit(publish, folder, worker, times) for worker in range(workers)]
        while not all(job.done() for job in jobs):
            texts = read(folder)
            assert len(set(texts)) == 1 and texts[0], texts
            reads += 1
        for job in jobs:
            job.result()
    assert reads > 100
    assert names(tmp_path) == ["saved_model"] and names(folder) == sorted(PARTS)


def test_a_folder_that_another_process_puts_there_between_the_renames_is_replaced_too(tmp_path, monkeypatch):
    (tmp_path / "a").mkdir()
    replace, others = os.replace, iter(range(3))

    def replace_after_another(old, new):
        if ".unfinished" in old.name and next(others, None) is not None:
            (new / "of another").mkdir(parents=True)
        replace(old, new)

    monkeypatch.setattr(os, "replace", replace_after_another)
    with files.atomic_folder(tmp_path / "a") as unfinished:
        (unfinished / "new").touch()
    assert names(tmp_path) == ["a"] and names(tmp_path / "a") == ["new"]


def test_a_folder_that_another_process_takes_away_before_the_rename_is_no_error(tmp_path, monkeypatch):
    (tmp_path / "a").mkdir()
    replace = os.replace

    def taken(old, new):
        if old == tmp_path / "a":
            old.rmdir()
        replace(old, new)

    monkeypatch.setattr(os, "replace", taken)
    with files.atomic_folder(tmp_path / "a") as unfinished:
        (unfinished / "new").touch()
    assert names(tmp_path) == ["a"] and names(tmp_path / "a") == ["new"]


def test_two_processes_with_one_id_write_to_different_names(tmp_path):
    with files.atomic_folder(tmp_path / "a") as first, files.atomic_folder(tmp_path / "a") as second:
        assert first != second and first.is_dir()
        (first / "new").touch()
    assert names(tmp_path) == ["a"]
