import dataclasses
import os
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

from audiotag.cli import main
from audiotag.errors import DataError
from audiotag.evaluation.measures import evaluate
from audiotag.evaluation.scoring import held_out_answers, score_test_clips
from audiotag.reporting import run_page
from audiotag.reporting.run_page import WORST, Judged, write_report

HOSTILE = ('<img src=x onerror="alert(1)">', "</dd></dl><script>alert(2)</script>")


@pytest.fixture(scope="module")
def judged(run):
    """The test clips as two folds judge them: the run's model, and a second that hears noise too."""
    clips, logits = score_test_clips(run)
    other = logits + np.random.default_rng(0).normal(0, 2, logits.shape)
    members = np.stack([logits, other], axis=1)
    return Judged(clips, members.mean(axis=1), members, 42.0)


@pytest.fixture(scope="module")
def page_path(run, judged, tmp_path_factory):
    """The page of the run, written once."""
    path = tmp_path_factory.mktemp("report") / "report.html"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run_page, "_hear_test_clips", lambda run: judged)
        patch.setattr(type(run), "trained_folds", lambda run, stage: [0, 1])
        write_report(run, path)
    return path


def test_it_says_what_evaluate_says(run, judged, page_path, look):
    page = look(page_path)
    overall, classes = evaluate(judged.clips, judged.logits, run.vocabulary)
    assert page.locator(".cards b").all_inner_texts()[:2] == [f"{value:.3f}" for value in overall["value"][:2]]
    rows = page.locator("[aria-label^='lwlrap class by class'] tbody tr").all_inner_texts()
    assert sorted(row.split("\t")[0].strip() for row in rows) == sorted(run.vocabulary)
    worst = classes.sort_values("lwlrap", kind="stable")["class"].iloc[0]
    assert rows[0].startswith(worst)
    assert page.locator("h2").all_inner_texts() == [
        "Training", "Measures", "Classes, the worst first", "Most confused", "Calibration", "What each fold adds",
        "Worst clips", "How it was made",
    ]  # fmt: skip
    assert page.locator("polyline.line").count() >= 4  # two stages, lwlrap and loss


def until(page, condition):
    """Returns when a condition holds in the page, whose policy lets nobody but evaluate look."""
    for _ in range(100):
        if page.evaluate(condition):
            return
        page.wait_for_timeout(100)
    raise AssertionError(f"never: {condition}")


def test_players_play_and_pictures_have_their_size(page_path, look):
    page = look(page_path)
    assert page.locator("audio").count() == page.locator(".clips img").count() == 3 * WORST
    until(page, "[...document.querySelectorAll('audio')].every(a => a.readyState >= 1)")
    assert page.evaluate("[...document.querySelectorAll('audio')].every(a => a.duration > 0.2 && !a.error)")
    page.locator("audio").first.scroll_into_view_if_needed()
    page.locator("audio").first.focus()
    page.keyboard.press("Space")
    until(page, "document.querySelector('audio').currentTime > 0.05")
    sizes = page.evaluate("[...document.querySelectorAll('.clips img')].map(i => [i.naturalWidth, i.naturalHeight])")
    assert all(width > 50 and height == 96 for width, height in sizes)
    everything = "[...document.querySelectorAll('audio, img, svg')]"
    assert page.evaluate(f"{everything}.every(element => element.getBoundingClientRect().width > 100)")


def test_it_can_be_used_by_keyboard(page_path, look):
    page = look(page_path)
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "To the content"
    assert page.evaluate("document.activeElement.getBoundingClientRect().left") >= 0
    page.locator("summary").first.focus()
    page.keyboard.press("Enter")
    assert page.locator("details").first.get_attribute("open") is not None
    assert '"seed": 2019' in page.locator("pre").first.inner_text()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_is_readable_on_a_phone_by_day_and_by_night(page_path, look, scheme):
    page = look(page_path, width=390, scheme=scheme)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    style = "getComputedStyle(document.body)"
    ink, back = page.evaluate(f"[{style}.color, {style}.backgroundColor]")
    light = [sum(map(int, colour[4:-1].split(","))) / 765 for colour in (ink, back)]
    assert light[1] - light[0] > 0.7 if scheme == "light" else light[0] - light[1] > 0.7


@pytest.mark.check("E3")
def test_hostile_labels_do_no_harm(run, judged, tmp_path, look, monkeypatch):
    spoil = dict(zip(run.vocabulary, (*HOSTILE, *run.vocabulary[2:])))
    rename = lambda clips: clips.assign(
        labels=[",".join(spoil[label] for label in labels.split(",")) for labels in clips["labels"]]
    )
    clips, logits = held_out_answers(run)
    monkeypatch.setattr(run_page, "held_out_answers", lambda run: (rename(clips), logits))
    monkeypatch.setattr(
        run_page, "_hear_test_clips", lambda run: dataclasses.replace(judged, clips=rename(judged.clips), members=None)
    )
    hostile = dataclasses.replace(run, vocabulary=tuple(spoil.values()))
    write_report(hostile, tmp_path / "report.html")
    page = look(tmp_path / "report.html")
    assert page.locator("script").count() == 0 and page.locator("[onerror]").count() == 0
    assert page.get_by_text(HOSTILE[0]).count() >= 1


def test_without_labelled_test_clips_the_held_out_ones_judge(run, tmp_path, monkeypatch):
    monkeypatch.setattr(run_page, "_hear_test_clips", lambda run: None)
    write_report(run, tmp_path / "report.html")
    text = (tmp_path / "report.html").read_text()
    assert "Measured on 8 held-out curated clips." in text and "fold 0" in text and "Disputed" not in text


def test_windows_a_second_are_those_of_all_steps_and_a_resumed_stage_has_none(run, tiny, tmp_path):
    run = dataclasses.replace(run, folder=shutil.copytree(run.folder, tmp_path / "run"))
    stage = run.stage_folder(0, "noisy")
    for name, seconds in (("heard.csv", 1_000), ("finished.json", 1_120)):
        os.utime(stage / name, (seconds, seconds))
    assert run_page._stages(run).loc[0, ["clips", "minutes", "windows/s"]].tolist() == [40, 2.0, 2 * 2 * 16 / 120]
    drawn = dataclasses.replace(run, experiment=tiny("stages.noisy.steps=30"))
    assert run_page._stages(drawn)["windows/s"][0] == 2 * 30 * 16 / 120
    overall = pd.DataFrame({"part": []})
    judged = Judged(None, None, None, None)
    assert [card["name"] for card in run_page._cards(run, overall, judged)] == ["minutes of training"]
    (stage / "resumed").touch()
    assert run_page._stages(run)[["minutes", "windows/s"]].isna()[:1].all(axis=None)
    assert run_page._cards(run, overall, judged) == []


def test_confused_pairs_as_counted_by_hand():
    clips = pd.DataFrame({"labels": ["Bark", "Bark", "Bark,Rain", "Rain", "Meow"]})
    logits = np.array([[1, 0, 0], [0, 1, 0], [0, 1, 0], [0, 0, 1], [1, 0, 0]], float)
    table = run_page._confused(Judged(clips, logits, None, 1.0), ("Bark", "Meow", "Rain"))
    assert table.to_dict("records") == [
        {"given": "Bark", "heard": "Meow", "clips": 2, "of_given": pytest.approx(2 / 3)},
        {"given": "Meow", "heard": "Bark", "clips": 1, "of_given": 1.0},
        {"given": "Rain", "heard": "Meow", "clips": 1, "of_given": 0.5},
    ]


def test_the_worst_clips_are_the_worst(run, judged):
    missed, false, disputed = run_page._worst_clips(run, judged, held_out_answers(run), "test clips")
    assert [len(kind["clips"]) for kind in (missed, false, disputed)] == [WORST] * 3
    shares = [float(clip["lwlrap"]) for clip in missed["clips"]]
    assert shares == sorted(shares) and shares[0] < 0.3
    held = set(held_out_answers(run)[0]["name"])
    assert {clip["name"] for clip in disputed["clips"]} <= held


def test_the_command_writes_into_the_run(run, tmp_path):
    folder = Path(shutil.copytree(run.folder, tmp_path / "run"))
    result = CliRunner().invoke(main, ["report", str(folder)])
    assert result.exit_code == 0, result.output
    assert result.output.splitlines()[-1] == f"Page: {folder / 'report.html'}"
    text = (folder / "report.html").read_text()
    assert "What run has learned" in text and "http://" not in text and "https://" not in text


def test_a_run_that_is_not_trained_has_no_report(run, tmp_path):
    folder = shutil.copytree(run.folder, tmp_path / "run", ignore=shutil.ignore_patterns("curated"))
    with pytest.raises(DataError, match="no fold is trained to its end yet"):
        write_report(dataclasses.replace(run, folder=Path(folder)), tmp_path / "report.html")
