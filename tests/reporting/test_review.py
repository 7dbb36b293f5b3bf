"""The page of `review` in a browser: one run, whose records have wrong labels and hostile names."""

import contextlib
import csv
import http.client
import json
import re
import shlex
import shutil
import signal
import socket
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from selection_runs import STAGE, TWO_FOLDS, fit, table

from audiotag.cli import main
from audiotag.data.clips import read_clips
from audiotag.data.corrections import corrected, read_corrections
from audiotag.data.records import write_records
from audiotag.data.sources import find_clips
from audiotag.errors import DataError
from audiotag.files import as_cell, from_cell
from audiotag.reporting import review_server
from audiotag.reporting.review_clips import training_queue
from audiotag.reporting.review_files import open_file_review
from audiotag.runs.directory import find_records, open_run

NUM_PLANTED = 40
CLASSES = {"Alarm_clock": '<b onclick="alert(1)">Alarm</b>\'s', "Bell": "פעמון", "Drip": "'=Drip & co"}
HOSTILE_NAMES = {"train_curated": ('<img src=x onerror="alert(2)">.wav', "\u202eרעש.wav")}


@pytest.fixture(scope="module")
def planted(demo, tmp_path_factory):
    """A dataset of which two in three training clips have a wrong label, and the true labels of these by clip."""
    folder = shutil.copytree(demo, tmp_path_factory.mktemp("planted") / "demo")
    truth, rng = {}, np.random.default_rng(0)
    for name, audio in (("train_curated", "train_curated"), ("train_noisy", "train_noisy"), ("test_labels", "test")):
        with open(folder / f"{name}.csv", newline="") as file:
            header, *rows = csv.reader(file)
        if audio != "test":
            for row in rows[3 * NUM_PLANTED // 4 :]:
                (folder / audio / row[0]).unlink()
            rows = rows[: 3 * NUM_PLANTED // 4]
        for row in rows:
            row[1] = ",".join(CLASSES.get(label, label) for label in row[1].split(","))
        for row, new in zip(rows, HOSTILE_NAMES.get(name, ())):
            (folder / audio / row[0]).rename(folder / audio / new)
            row[0] = new
        classes = sorted({label for row in rows for label in row[1].split(",")})
        for row in rows[: NUM_PLANTED // 2] if audio != "test" else ():
            truth[row[0]] = row[1].split(",")
            row[1] = str(rng.choice([label for label in classes if label not in truth[row[0]]]))
        with open(folder / f"{name}.csv", "w", newline="") as file:
            csv.writer(file).writerows([header, *rows])
    with open(folder / "sample_submission.csv", newline="") as file:
        rows = [[CLASSES.get(cell, cell) for cell in row] for row in csv.reader(file)]
    with open(folder / "sample_submission.csv", "w", newline="") as file:
        csv.writer(file).writerows(rows)  # its header names the classes
    return folder, truth


@pytest.fixture(scope="module")
def reviewed(planted, tiny, tmp_path_factory):
    """A run of one epoch in two folds: every training clip has out-of-fold predictions."""
    folder = tmp_path_factory.mktemp("reviewed")
    write_records(find_clips(planted[0]), folder / "records", sample_rate=16_000, workers=0)
    stages = [STAGE | {"name": "all", "subset": ["curated", "noisy"], "epochs": 1, "keep": "last"}]
    options = (f"records={folder / 'records'}", "model.filters=[4]", f"stages={json.dumps(stages)}", TWO_FOLDS)
    return fit(tiny(*options), folder / "run")


@pytest.fixture(scope="module")
def labels_of(reviewed):
    """The labels of each clip in the records."""
    clips = read_clips(find_records(reviewed).directory / "clips.csv")
    return {name: labels.split(",") for name, labels in zip(clips["name"], clips["labels"])}


class Page:
    """A page of `review`, used by keyboard alone."""

    def __init__(self, page, labels_of):
        self.page, self.labels_of = page, labels_of

    @property
    def clip(self):
        """The name of the shown clip; "" at the end."""
        return self.page.evaluate("document.body.dataset.clip")

    @property
    def notice(self):
        return self.page.locator("#notice").inner_text()

    def until(self, holds):
        """Waits until a function returns something true; the policy of the page allows no expression in it."""
        end = time.monotonic() + 60
        while not holds():
            assert time.monotonic() < end, (self.notice, self.clip)
            self.page.wait_for_timeout(20)

    def press(self, *keys):
        for key in keys:
            self.page.keyboard.press(key)

    def decide(self, *keys):
        """Presses keys and waits for the next clip; returns the clip that was decided."""
        clip = self.clip
        self.press(*keys)
        self.until(lambda: self.clip != clip)
        return clip

    def show_all(self):
        """Empties the filter of margins: the fifth field."""
        self.press("f", *["Tab"] * 4, "Control+a", "Delete", "Escape", "f")

    def digit(self, label):
        """The key of a class among the predicted ones, or None."""
        shown = self.page.locator("#predictions bdi").all_inner_texts()
        return f"Digit{shown.index(label) + 1}" if label in shown else None

    def search(self, key, label):
        self.press(key)
        self.page.keyboard.type(label)
        self.press("Enter")

    def put_right(self, truth):
        """Gives the shown clip other labels."""
        clip = self.clip
        if len(truth) == 1 and (digit := self.digit(truth[0])):
            return self.decide(digit)
        if len(truth) == 1:
            self.search("c", truth[0])
        else:
            for label in [label for label in truth if label not in self.labels_of[clip]]:
                digit = self.digit(label)
                self.press(f"Shift+{digit}") if digit else self.search("+", label)
            for label in [label for label in self.labels_of[clip] if label not in truth]:
                self.press(f"Shift+{self.digit(label)}")
            self.press("Enter")
        self.until(lambda: self.clip != clip)
        return clip


@pytest.fixture(scope="module")
def serve(reviewed, start):
    """A function that starts `review`: (its job, the address of the page)."""
    jobs = []

    def serve(corrections, *options):
        options = [*(["--corrections", corrections] if corrections else []), *options]
        job = start("review", reviewed.folder, "--no-browser", "--who", "Ana", *options)
        jobs.append(job)
        assert job.shows(r"http://\S+"), job.output()
        return job, re.search(r"http://\S+", job.output())[0]

    yield serve
    for job in jobs:
        with contextlib.suppress(ProcessLookupError):  # a test has ended it
            job.kill().wait()


@pytest.fixture
def browse(chromium, labels_of):
    """A function that opens an address in a browser of its own; it logs nothing and asks only this server."""
    contexts, events = [], []

    def browse(address, *, width=1200, scheme="light"):
        contexts.append(chromium.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme))
        page = contexts[-1].new_page()
        page.set_default_timeout(20_000)
        origin = address.split("?")[0]
        expected = re.compile(
            "409|422|ERR_CONNECTION_REFUSED|ERR_EMPTY_RESPONSE|ERR_CONNECTION_RESET"
        )  # conflicts and kills
        page.on("console", lambda message: None if expected.search(message.text) else events.append(message.text))
        page.on("pageerror", lambda error: events.append(str(error)))
        page.on("dialog", lambda dialog: (events.append(dialog.message), dialog.dismiss()))
        page.on("request", lambda request: None if request.url.startswith(origin) else events.append(request.url))
        page.goto(address)
        opened = Page(page, labels_of)
        opened.until(lambda: opened.clip is not None)
        return opened

    yield browse
    for context in contexts:
        context.close()
    assert not events


def rows_of(path, run):
    """{clip: (labels, weight, why)} of a file of corrections."""
    table = read_corrections(path, run.vocabulary)
    return {row.clip: (row.labels.split(","), row.weight, row.why) for row in table.itertuples()}


def test_wrong_labels_are_put_right_by_keyboard_alone_and_survive_kills(
    planted, reviewed, labels_of, serve, browse, tmp_path
):
    truth, path, decided, undone = planted[1], tmp_path / "corrections.csv", {}, ""
    job, address = serve(path)
    page = browse(address)
    assert page.page.url == address.split("?")[0]  # the token is no longer in the address
    page.show_all()
    while page.clip:
        if len(decided) in (15, 45):  # between two decisions
            job.kill().wait()
            assert rows_of(path, reviewed) == decided
            page.page.context.close()
            job, address = serve(path)
            page = browse(address)
            page.show_all()
            assert page.clip not in decided
        clip = page.clip
        if clip in truth:
            page.put_right(truth[clip])
            decided[clip] = (sorted(truth[clip]), 1.0, "changed")
        else:
            page.decide(*{0: ["Enter"], 1: ["x"], 2: ["u"]}[len(decided) % 3])
            weight, why = {0: (1.0, "accepted"), 1: (0.0, "removed"), 2: (1.0, "unsure")}[len(decided) % 3]
            decided[clip] = (labels_of[clip], weight, why)
        if len(decided) == 30 and not undone:
            undone = clip
            page.press("z")
            page.until(lambda: page.notice == "Undone.")
            assert page.clip == clip
            del decided[clip]
            assert clip not in rows_of(path, reviewed)
    found = rows_of(path, reviewed)
    assert {clip: (sorted(labels), *rest) for clip, (labels, *rest) in found.items()} == {
        clip: (sorted(labels), *rest) for clip, (labels, *rest) in decided.items()
    }
    assert len(truth) == NUM_PLANTED and set(truth) < set(found)
    table = read_corrections(path, reviewed.vocabulary)
    assert set(table["who"]) == {"Ana"} and table["when"].str.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ").all()
    clips = read_clips(find_records(reviewed).directory / "clips.csv").query("subset != 'test'")
    fitted = corrected(clips, table).set_index("name")["labels"]
    assert all(sorted(fitted[clip].split(",")) == sorted(labels) for clip, labels in truth.items())
    assert "All 60 clips are decided." in page.page.locator("#done").inner_text()
    assert f"--set corrections={path}" in page.page.locator("#done-command").inner_text()
    job.kill(signal.SIGINT)
    assert job.wait() == 0 and "40 changed" in job.output()


def in_process(*words):
    """Runs a command here; its output."""
    outcome = CliRunner().invoke(main, [str(word) for word in words])
    assert outcome.exit_code == 0, outcome.output
    return outcome.stdout


def test_unlabeled_recordings_are_labeled_and_trained_with(planted, reviewed, serve, browse, monkeypatch):
    folder = planted[0].parent  # holds the recordings of the run, so the table begins with its clips
    sounds, labels_file = folder / "new sounds", folder / "labels.csv"
    shutil.copytree(planted[0] / "test", sounds, ignore=lambda _, names: sorted(names)[6:])
    (sounds / "broken.wav").write_bytes(b"RIFF")
    monkeypatch.chdir(folder)
    in_process("label-next", reviewed.folder, sounds, "--top", 5, "--csv", "next.csv")
    chosen = [f"new sounds/{Path(name).name}" for name in pd.read_csv("next.csv")["fname"]]
    options = "--files", folder / "next.csv", "--labels", labels_file
    job, address = serve(None, *options)
    assert f"Decisions go to {labels_file}. It begins with the 80 clips of the run." in job.output()
    page = browse(address)
    first = page.page.locator("#predictions bdi").first.inner_text()
    assert page.page.locator("#labels").inner_text() == "none yet"
    assert len(page.page.locator("#examples section").all()) > 1  # of the likeliest classes
    page.press("Enter")
    page.until(lambda: "Choose a class first" in page.notice)
    decided = {page.decide("Digit1"): (first, "labeled")}
    rows = pd.read_csv(labels_file, keep_default_na=False).set_index("fname")
    assert len(rows) == 81 and rows.loc[chosen[0], ["labels", "subset", "who", "why"]].tolist() == [
        *(as_cell(first), "curated", "Ana", "labeled")
    ]
    decided[page.decide("Digit0")] = "", "labeled"
    decided[page.decide("x")] = "", "removed"
    decided[page.decide("u")] = "", "unsure"
    page.press("z")
    page.until(lambda: page.notice == "Undone.")
    page.search("c", reviewed.vocabulary[1])
    page.until(lambda: page.clip == chosen[4])
    decided[chosen[3]] = reviewed.vocabulary[1], "labeled"
    decided[page.decide("u")] = "", "unsure"
    assert list(decided) == chosen
    job.kill(signal.SIGINT)
    assert job.wait() == 0 and "3 labeled, 1 removed, 1 unsure. Train with them:" in job.output()
    make, fit_again = map(shlex.split, job.output().splitlines()[-2:])
    assert make[:3] == ["audiotag", "make-records", str(labels_file)] and fit_again[:2] == ["audiotag", "fit"]
    in_process(*make[1:], "--workers", 0)
    clips = read_clips(folder / "tfrecords" / "run-labeled" / "clips.csv").set_index("name")
    new = {name: labels for name, (labels, why) in decided.items() if why == "labeled"}
    assert clips.loc[list(new), "labels"].to_dict() == new and len(clips) == 83
    assert clips["subset"].value_counts().to_dict() == {"curated": 33, "noisy": 30, "test": 20}
    in_process(*fit_again[1:], "--fold", 0)
    folds = pd.read_csv(reviewed.folder.with_name("run-labeled") / "folds.csv", index_col="name")
    assert set(new) <= set(folds.index)
    with pytest.raises(DataError, match="has labels of all these recordings"):
        open_file_review(reviewed, [str(planted[0] / "train_noisy")], labels_file)
    with pytest.raises(DataError, match=r"is not in the folder of .*\. Give --labels a table in a folder that holds"):
        open_file_review(reviewed, [str(sounds)], folder / "elsewhere" / "labels.csv")


def test_two_pages_at_once_and_an_editor_lose_nothing(reviewed, serve, browse, tmp_path):
    path = tmp_path / "corrections.csv"
    _, address = serve(path)
    one, other = browse(address), browse(address)
    clip = one.clip
    assert other.clip == clip
    one.decide("Digit1")
    other.press("Digit2")
    other.until(lambda: "changed meanwhile" in other.notice)
    assert "by Ana. Decide again if you disagree" in other.notice and other.clip == clip
    other.decide("u")  # after it has seen the first decision
    decided = {clip: "unsure"}
    other.press(*["ArrowRight"] * 20)
    other.until(lambda: other.page.locator("#place").inner_text().startswith("22 "))
    for _ in range(4):
        decided[one.decide("x")] = "removed"
        decided[other.decide("u")] = "unsure"
    assert {name: why for name, (_, _, why) in rows_of(path, reviewed).items()} == decided
    name = one.clip
    lines = [line for line in path.read_text().splitlines(keepends=True) if not line.startswith(f"{name},")]
    path.write_text("".join(lines) + f"{name},{reviewed.vocabulary[0]},0.5,by hand,,,,\n")
    one.press("Enter")
    one.until(lambda: "weight 0.5" in one.notice)
    assert len(rows_of(path, reviewed)) == len(decided) + 1
    path.write_text(path.read_text() + "nothing,Brak,1,,,,,\n")
    one.press("Enter")
    one.until(lambda: "unknown label" in one.notice)
    assert one.notice.startswith("Not saved. ") and "corrections.csv line" in one.notice


def test_no_width_overflows(serve, browse, tmp_path):
    _, address = serve(tmp_path / "corrections.csv")
    for width, scheme in ((320, "light"), (320, "dark"), (1600, "light"), (1600, "dark")):
        page = browse(address, width=width, scheme=scheme)
        page.until(lambda page=page: page.page.locator("#image img").evaluate("image => image.naturalWidth") > 100)
        for key in ("f", "Escape", "?", "Escape", "c", "Escape"):
            assert page.page.evaluate("document.documentElement.scrollWidth <= innerWidth")
            page.press(key)
        assert page.page.locator("#hz span").count() >= 4 and page.page.locator("#seconds span").count() >= 2
        dark = page.page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(23, 24, 26)"
        assert dark == (scheme == "dark")


def test_hostile_names_are_texts_and_a_clip_plays_with_a_cursor(reviewed, serve, browse, tmp_path):
    names = training_queue(reviewed).table["clip"].tolist()
    _, address = serve(tmp_path / "corrections.csv")
    page = browse(address)
    page.show_all()
    for name in sorted(HOSTILE_NAMES["train_curated"], key=names.index):
        page.press(*["ArrowRight"] * (names.index(name) - names.index(page.clip)))
        page.until(lambda name=name: page.clip == name)
        assert page.page.locator("#name").inner_text() == name
    page.press("+")
    assert set(CLASSES.values()) < set(page.page.locator("#found bdi").all_inner_texts())
    page.press("Escape")
    playing = lambda: page.page.locator("#play").get_attribute("aria-pressed") == "true"
    cursor = lambda: page.page.locator("#cursor").evaluate("cursor => cursor.style.left")
    page.until(playing)  # clips play as they open, from the first key on
    left = cursor()
    page.until(lambda: cursor() != left)
    page.press(" ")
    page.until(lambda: not playing())
    page.press("q")
    page.until(lambda: "an example of" in page.page.locator("#sounding").inner_text() and playing())


def asking(address):
    """Of the page at an address: its origin, its token, its cookie, and a function (status, text) of a request."""
    origin, token = address.split("/?token=")
    host = origin.removeprefix("http://")

    def ask(method, path, content, **headers):
        connection = http.client.HTTPConnection(host)
        body = json.dumps(content) if method == "POST" else None
        connection.request(method, path, body, {key.replace("_", "-"): value for key, value in headers.items()})
        response = connection.getresponse()
        text = response.read().decode(errors="replace")
        connection.close()
        assert response.headers["Content-Security-Policy"].startswith("default-src 'none'; script-src 'self'")
        return response.status, text

    return origin, token, {"Cookie": f"audiotag-review-{host.split(':')[1]}={token}"}, ask


def test_the_loop_of_fit_review_fit_and_compare_closes(planted, reviewed, serve, tmp_path):
    path = tmp_path / "corrections.csv"
    _, address = serve(path)
    origin, _, cookie, ask = asking(address)
    for clip, labels in planted[1].items():
        decision = {"clip": clip, "version": "", "labels": labels, "why": "changed"}
        assert ask("POST", "/decisions", decision, **cookie, Origin=origin)[0] == 200
    again = tmp_path / "again"
    in_process("fit", reviewed.folder / "experiment.json", "--run", again, "--set", f"corrections={path}")
    trained = table(open_run(again), 0, "all", "training_clips.csv").set_index("name")["labels"].map(from_cell)
    present = [clip for clip in planted[1] if clip in trained]
    assert present and all(sorted(trained[clip].split(",")) == sorted(planted[1][clip]) for clip in present)
    said = in_process("compare", reviewed.folder, again)
    assert re.search(r"corrections +null +\"40 changed \([0-9a-f]{7}\)\"", said), said
    assert re.search(r"again.*[+-]0\.\d+ \([+-]?0\.\d+ to [+-]?0\.\d+\)", said), said


def test_only_the_page_itself_changes_anything(reviewed, serve, tmp_path):
    path = tmp_path / "corrections.csv"
    _, address = serve(path)
    origin, token, cookie, ask_any = asking(address)
    host = origin.removeprefix("http://")
    name = read_clips(find_records(reviewed).directory / "clips.csv").query("subset != 'test'")["name"].iloc[0]
    decision = {"clip": name, "version": "", "labels": [reviewed.vocabulary[0]], "why": "changed"}
    ask = lambda method, path, **headers: ask_any(method, path, decision, **headers)

    assert ask("GET", "/", **cookie)[0] == 200
    assert ask("GET", f"/?token={token}")[0] == 303
    refused = [
        ("GET", "/", {}),
        ("GET", "/?token=x", {}),
        ("GET", f"/session?token={token}", {}),
        ("GET", "/session", cookie | {"Host": "evil.example"}),
        ("GET", "/session", cookie | {"Host": f"evil.example:{host.split(':')[1]}"}),
        ("GET", "/session", cookie | {"Sec-Fetch-Site": "same-site"}),  # another port of this computer
        ("GET", "/clips/0/sound", cookie | {"Sec-Fetch-Site": "cross-site"}),
        ("POST", "/decisions", {"Origin": origin}),
        ("POST", "/decisions", cookie),
        ("POST", "/decisions", cookie | {"Origin": "http://evil.example"}),
        ("POST", "/decisions", cookie | {"Origin": "null"}),
        ("POST", "/decisions", cookie | {"Origin": origin.replace("127.0.0.1", "localhost")}),
    ]
    for method, target, headers in refused:
        status, text = ask(method, target, **headers)
        assert status == 403 and "error" in json.loads(text), (target, headers)
    assert ask("GET", "/decisions", **cookie)[0] == 405
    assert not path.exists()
    assert ask("POST", "/decisions", **cookie, Origin=origin)[0] == 200
    assert rows_of(path, reviewed) == {name: ([reviewed.vocabulary[0]], 1.0, "changed")}
    decision["version"], decision["labels"] = "x", ["Brak"]
    status, text = ask("POST", "/decisions", **cookie, Origin=origin)
    assert status == 422 and "unknown label 'Brak'" in json.loads(text)["error"]


def test_test_clips_are_read_only_unless_asked_for(reviewed, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    review = review_server.open_review(reviewed, worst_test=True)
    name = review.clips.names[0]
    decision = {"clip": name, "version": "", "labels": [reviewed.vocabulary[0]], "why": "changed"}
    margins = review.clips.summary()["margins"]
    assert len(margins) == 20 and margins == sorted(margins, reverse=True)
    with pytest.raises(DataError, match=r"^these clips are read-only\. Start audiotag review with --edit-test"):
        review.decide(decision)
    review = review_server.open_review(reviewed, worst_test=True, edit_test=True)
    review.decide(decision)
    assert [*rows_of("test_corrections.csv", reviewed)] == [name]
    with pytest.raises(DataError, match=r"test_corrections\.csv: there is no training clip"):
        review_server.open_review(reviewed, "test_corrections.csv")


def test_records_that_move_a_clip_without_labels_and_a_port_in_use_are_explained(reviewed, tmp_path):
    review = review_server.open_review(reviewed, tmp_path / "corrections.csv", who="Ana")
    records = find_records(reviewed).directory
    moved = records.rename(records.with_name("moved"))
    try:
        assert re.search(r"cannot be read: .*--records and their place", review.clip(0)["problem"])
    finally:
        moved.rename(records)
    decision = {"clip": review.clips.names[0], "version": "", "labels": [], "why": "changed"}
    with pytest.raises(DataError, match=r"^a clip needs a label\. Choose one, or remove the clip"):
        review.decide(decision)
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(DataError, match=rf"^--port {port}: the port is in use\. Give another"):
            review_server.open_socket(port)
