"""Runs at URLs."""

import pytest
from object_store import ended_after, objects, served

from audiotag import remote
from audiotag.errors import DataError
from audiotag.remote import Store
from audiotag.runs.mirror import Mirror, local_run, trained_at

FIRST = {"experiment.json": "{}", "fold-0/train/training_state.npz": "one", "data.json": "{}"}
SECOND = FIRST | {"fold-0/train/training_state.npz": "two", "fold-0/train/result.json": "{}"}


@pytest.fixture
def url(tmp_path, monkeypatch):
    import fsspec

    monkeypatch.setenv("AUDIOTAG_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(remote, "ATTEMPTS", 1)
    fsspec.filesystem("memory").store.clear()
    return "memory://bucket/runs/demo"


def fill(folder, content):
    """Makes a folder hold exactly these files, and a hidden one."""
    for path in folder.rglob("*"):
        if path.is_file():
            path.unlink()
    for name, text in {**content, ".lock": ""}.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


def content_of(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_text()
        for path in folder.rglob("*")
        if path.is_file() and path.name != ".lock"
    }


def test_a_run_is_the_same_on_another_machine(tmp_path, monkeypatch):
    with served(tmp_path / "cache", every=3) as store:
        url = f"{store.url}/runs/demo"
        for content in (FIRST, SECOND, FIRST):
            with trained_at(url) as folder:
                fill(folder, content)
            monkeypatch.setenv("AUDIOTAG_CACHE", str(tmp_path / f"other{len(content)}"))
            assert content_of(local_run(url)) == content
        assert store.num_failed > 5


def test_a_run_whose_upload_is_interrupted_is_its_state_before_or_after(url, monkeypatch):
    with trained_at(url) as folder:
        fill(folder, FIRST)
    for last in range(1, 50):
        mirror = Mirror(url, "training")
        mirror.pull()
        fill(mirror.folder, SECOND)
        with ended_after(last, monkeypatch):
            mirror.push()
            break
        assert content_of(local_run(url)) in (FIRST, SECOND)
    assert last > 3 and content_of(local_run(url)) == SECOND


def test_two_machines_do_not_train_one_run(url, tmp_path, monkeypatch):
    with trained_at(url) as folder:
        fill(folder, FIRST)
        with pytest.raises(DataError, match="another fit is training here"), trained_at(url):
            pass
        monkeypatch.setenv("AUDIOTAG_CACHE", str(tmp_path / "other"))
        other = Mirror(url, "training")
        other.pull()
    fill(other.folder, SECOND)
    with pytest.raises(DataError, match="another fit trains this run"):
        other.push()
    assert content_of(local_run(url)) == FIRST


def test_a_damaged_run_is_refused(url):
    with pytest.raises(DataError, match=r"no run: it has no run.json"):
        local_run(url)
    with trained_at(url) as folder:
        fill(folder, FIRST)
    store = Store(url)
    name = next(name for name in objects(url) if name.startswith("fold-0"))
    store.write(name, b"oen")
    with pytest.raises(DataError, match=f"{name}: damaged: its SHA-256"):
        local_run(url)
    store.remove(name)
    with pytest.raises(DataError, match="that run.json lists is missing"):
        local_run(url)
    store.write("run.json", store.read("run.json").replace(b'"bytes": 2', b'"bytes": 3'))
    with pytest.raises(DataError, match="run.json: damaged"):
        local_run(url)


def test_a_run_that_fails_before_it_begins_leaves_nothing(url):
    with pytest.raises(DataError, match="no records"), trained_at(url):
        raise DataError("no records")
    assert objects(url) == {}
