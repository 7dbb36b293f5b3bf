import dataclasses
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

from audiotag.cli import main
from audiotag.data.clips import read_clips
from audiotag.errors import DataError
from audiotag.evaluation.measures import evaluate, fit_thresholds
from audiotag.evaluation.scoring import out_of_fold_predictions, score_test_clips
from audiotag.reporting import run_page
from audiotag.reporting.run_page import NUM_WORST, ScoredClips, write_run_page

HOSTILE = ('<img src=x onerror="alert(1)">', "</dd></dl><script>alert(2)</script>")


@pytest.fixture(scope="module")
def scored(run):
    """The test clips scored by two folds: the run's model, and a second one with added noise."""
    clips, logits = score_test_clips(run)
    noisy_logits = logits + np.random.default_rng(0).normal(0, 2, logits.shape)
    fold_logits = np.stack([logits, noisy_logits], axis=1)
    return ScoredClips(clips, fold_logits.mean(axis=1), fold_logits, 42.0)


@pytest.fixture(scope="module")
def page_path(run, scored, tmp_path_factory):
    """The page of the run, written once."""
    path = tmp_path_factory.mktemp("report") / "report.html"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run_page, "_score_test_clips", lambda run: scored)
        patch.setattr(type(run), "trained_folds", lambda run, stage: [0, 1])
        write_run_page(run, path)
    return path


def test_it_shows_the_values_of_evaluate(run, scored, page_path, open_page):
    page = open_page(page_path)
    thresholds = fit_thresholds(*out_of_fold_predictions(run), run.vocabulary)
    overall, classes = evaluate(scored.clips, scored.logits, run.vocabulary, thresholds=thresholds)
    values = overall[overall["split"] == "all"].set_index("measure")["value"]
    assert page.locator(".cards b").all_inner_texts()[:2] == [f"{values[name]:.3f}" for name in ("lwlrap", "mAP")]
    shown = page.locator("[aria-label^='Measures of all clips'] tbody tr").first.locator("td").all_inner_texts()
    assert [text.split()[0] for text in shown[1:]] == [f"{value:.3f}" for value in values]
    assert page.locator(".meanings dt").count() == len(values)
    rows = page.locator("[aria-label^='lwlrap per class'] tbody tr").all_inner_texts()
    assert sorted(row.split("\t")[0].strip() for row in rows) == sorted(run.vocabulary)
    worst = classes.sort_values("lwlrap", kind="stable")["class"].iloc[0]
    assert rows[0].startswith(worst)
    assert page.locator("h2").all_inner_texts() == [
        "Training", "Measures", "Classes, worst first", "Confusions", "Calibration", "Folds", "Worst clips",
        "Reproduce",
    ]  # fmt: skip
    assert page.locator("polyline.line").count() >= 4  # two stages, lwlrap and loss


def until(page, condition):
    """Waits until a condition holds; the page's policy forbids Playwright's own waiting."""
    for _ in range(100):
        if page.evaluate(condition):
            return
        page.wait_for_timeout(100)
    raise AssertionError(f"did not become true: {condition}")


def test_audio_plays_and_images_have_their_size(page_path, open_page):
    page = open_page(page_path)
    assert page.locator("audio").count() == page.locator(".clips img").count() == 3 * NUM_WORST
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


def test_it_can_be_used_with_the_keyboard(page_path, open_page):
    page = open_page(page_path)
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the content"
    assert page.evaluate("document.activeElement.getBoundingClientRect().left") >= 0
    page.locator("summary").first.focus()
    page.keyboard.press("Enter")
    assert page.locator("details").first.get_attribute("open") is not None
    assert '"seed": 2019' in page.locator("pre").first.inner_text()


@pytest.mark.parametrize("width", [390, 1280, 1920])
def test_nothing_is_cut_and_no_text_is_small(page_path, open_page, width):
    page = open_page(page_path, width=width)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    cut = """[...document.querySelectorAll('main *')].filter(e => e.clientWidth && e.scrollWidth > e.clientWidth + 1
        && getComputedStyle(e).overflowX !== 'auto' && !e.closest('.scroll, pre, .spectrogram, svg, audio')).length"""
    assert page.evaluate(cut) == 0
    sizes = """[...document.querySelectorAll('main *')]
        .filter(e => [...e.childNodes].some(n => n.nodeType === 3 && n.data.trim()))
        .map(e => parseFloat(getComputedStyle(e).fontSize) * (e.tagName === 'text' ? e.getScreenCTM().a : 1))"""
    assert min(page.evaluate(sizes)) >= 11


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_is_readable_on_a_phone_in_both_color_schemes(page_path, open_page, scheme):
    page = open_page(page_path, width=390, scheme=scheme)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    style = "getComputedStyle(document.body)"
    ink, back = page.evaluate(f"[{style}.color, {style}.backgroundColor]")
    brightness = [sum(map(int, color[4:-1].split(","))) / 765 for color in (ink, back)]
    difference = brightness[1] - brightness[0]
    assert difference > 0.7 if scheme == "light" else difference < -0.7


@pytest.mark.check("E3")
def test_hostile_labels_are_harmless(run, scored, tmp_path, open_page, monkeypatch):
    hostile = dict(zip(run.vocabulary, (*HOSTILE, *run.vocabulary[2:])))
    rename = lambda clips: clips.assign(
        labels=[",".join(hostile[label] for label in labels.split(",")) for labels in clips["labels"]]
    )
    clips, logits = out_of_fold_predictions(run)
    monkeypatch.setattr(run_page, "out_of_fold_predictions", lambda run: (rename(clips), logits))
    monkeypatch.setattr(
        run_page,
        "_score_test_clips",
        lambda run: dataclasses.replace(scored, clips=rename(scored.clips), fold_logits=None),
    )
    write_run_page(dataclasses.replace(run, vocabulary=tuple(hostile.values())), tmp_path / "report.html")
    page = open_page(tmp_path / "report.html")
    assert page.locator("script").count() == 0 and page.locator("[onerror]").count() == 0
    assert page.get_by_text(HOSTILE[0]).count() >= 1


def test_without_labeled_test_clips_out_of_fold_predictions_are_evaluated(run, tmp_path, monkeypatch):
    monkeypatch.setattr(run_page, "_score_test_clips", lambda run: None)
    write_run_page(run, tmp_path / "report.html")
    text = (tmp_path / "report.html").read_text()
    assert "Evaluated on 8 out-of-fold clips." in text and "fold 0" in text and "Disputed" not in text


def test_minutes_and_windows_per_second_are_those_of_all_steps_of_a_stage(run, tiny, tmp_path):
    run = dataclasses.replace(run, folder=shutil.copytree(run.folder, tmp_path / "run"))
    for stage, seconds, resumed in (("noisy", 120.0, False), ("curated", 60.0, True)):
        path = run.stage_files(0, stage).result
        path.write_text(json.dumps(run.result(0, stage) | {"seconds": seconds, "resumed": resumed}))
    table = run_page._stages(run)
    assert table.loc[0, ["clips", "minutes", "windows/s"]].tolist() == [40, 2.0, 2 * 2 * 16 / 120]
    assert table["minutes"].tolist() == [2.0, 1.0] and table["resumed"].tolist() == ["no", "yes"]
    drawn = dataclasses.replace(run, experiment=tiny("stages.noisy.steps_per_epoch=30"))
    assert run_page._stages(drawn)["windows/s"][0] == 2 * 30 * 16 / 120
    run.stage_files(0, "noisy").training_clips.unlink()
    assert run_page._stages(run)["clips"][0] == "–" and np.isnan(run_page._stages(run)["windows/s"][0])
    (card,) = run_page._cards(run, pd.DataFrame({"split": [], "measure": []}), ScoredClips(None, None, None, None))
    assert card == {"name": "minutes of training", "value": "3.0", "more": "all folds and stages"}


def test_every_metric_has_curves_the_monitored_one_first(run, tiny, tmp_path):
    shutil.copytree(run.folder, tmp_path / "run")
    experiment = tiny('metrics=[{"name": "lwlrap"}, {"name": "categorical_accuracy"}]', "monitor=val_loss")
    other = dataclasses.replace(run, folder=tmp_path / "run", experiment=experiment)
    history = other.stage_files(0, "noisy").history
    table = pd.read_csv(history).assign(categorical_accuracy=0.5, val_categorical_accuracy=0.25)
    table.to_csv(history, index=False)
    titles = [curve["title"] for curve in run_page._curves(other)]
    assert titles[:3] == [f"{name} of the noisy stage" for name in ("loss", "lwlrap", "categorical accuracy")]


def test_lengths_are_counted_in_frames_of_the_front_end(run):
    training, test = run_page._lengths(run)
    counts = run_page.find_records(run).count_clips()
    frames = np.array([float(label) for label in re.findall(r'y="142.0" text-anchor="middle">([\d.]+)', test["chart"])])
    clips = read_clips(run_page.find_records(run).directory / "clips.csv")
    step = run.experiment.frontend.frame_step
    assert frames.max() <= clips["num_samples"].max() / step + 1 < 2 * frames.max()
    assert training["title"] == "frames of the training and validation clips" and counts["test"]
    front_end = run_page.create(run.experiment.frontend, run_page.FRONTENDS, sample_rate=run.sample_rate)
    num_frames = front_end(np.zeros((1, run.window_samples), "float32")).shape[1]
    assert test["comment"] == f"A window has {num_frames} frames."


def test_the_f_of_the_most_probable_class_is_a_bar_in_single_label_tasks(run, scored):
    _, classes = evaluate(scored.clips, scored.logits, run.vocabulary, thresholds=0.0)
    table = run_page._classes(classes.assign(f_top_1=[0.5, np.nan, *[1.0] * (len(classes) - 2)]), "single_label")
    widths = [chart and chart.split('width="')[1].split('"')[0] for chart in table["f_top_1_bar"]]
    assert sorted(widths) == sorted(["80.0", "", *["160.0"] * (len(classes) - 2)])
    assert "f_top_1_bar" not in run_page._classes(classes, "multi_label")


def test_confusions_as_counted_by_hand():
    clips = pd.DataFrame({"labels": ["Bark", "Bark", "Bark,Rain", "Rain", "Meow"]})
    logits = np.array([[1, 0, 0], [0, 1, 0], [0, 1, 0], [0, 0, 1], [1, 0, 0]], float)
    table = run_page._confusions(ScoredClips(clips, logits, None, 1.0), ("Bark", "Meow", "Rain"))
    assert table.to_dict("records") == [
        {"given": "Bark", "predicted": "Meow", "clips": 2, "fraction_of_given": pytest.approx(2 / 3)},
        {"given": "Meow", "predicted": "Bark", "clips": 1, "fraction_of_given": 1.0},
        {"given": "Rain", "predicted": "Meow", "clips": 1, "fraction_of_given": 0.5},
    ]


def test_a_confusion_matrix_as_counted_by_hand(monkeypatch):
    clips = pd.DataFrame({"labels": ["Bark", "Bark", "Bark,Rain", "Bark,Rain", "Rain", "Meow"]})
    logits = np.array([[1, 0, 0], [0, 1, 0], [0, 1, 0], [1, 0, 0], [0, 0, 1], [1, 0, 0]], float)
    monkeypatch.setattr(run_page, "confusion_matrix", lambda counts, names: (counts.tolist(), names))
    scored = ScoredClips(clips, logits, None, 1.0)
    matrix, left_out = run_page._confusion_matrix(scored, ("Bark", "Meow", "Rain"))
    assert matrix == ([[2, 2, 0], [1, 0, 0], [0, 1, 1]], ["Bark", "Meow", "Rain"]) and left_out == ""
    monkeypatch.setattr(run_page, "MAX_CLASSES", 2)
    matrix, left_out = run_page._confusion_matrix(scored, ("Bark", "Meow", "Rain"))
    assert matrix == ([[2, 2], [1, 0]], ["Bark", "Meow"]) and "2 classes with the most confusions" in left_out


@pytest.mark.parametrize(
    ("validation", "training", "best", "expected"),
    [
        (
            [0.9, 0.5, 0.4, 0.3],
            [0.9, 0.6, 0.5, 0.4],
            4,
            "The weights of epoch 4 of 4 were kept: more epochs may improve",
        ),
        ([0.9, 0.5, 0.6, 0.7], [0.9, 0.6, 0.5, 0.4], 2, "Overfitting: after epoch 2 the validation loss rose by 40 %"),
        (
            [0.9, 0.5, 0.51, 0.5],
            [0.9, 0.6, 0.5, 0.4],
            2,
            "It stopped improving after epoch 2 of 4, without overfitting",
        ),
        ([np.nan, np.nan, np.nan, 0.3], [0.9, 0.6, 0.5, 0.4], 4, ""),
    ],
)
def test_a_sentence_says_whether_a_stage_overfits(validation, training, best, expected):
    history = pd.DataFrame({"epoch": range(4), "loss": training, "val_loss": validation})
    comment = run_page._comment([history, history], best)
    assert comment.startswith(expected) and bool(comment) == bool(expected)


def test_the_worst_clips_are_the_worst(run, scored):
    missed, false, disputed = run_page._worst_clips(run, scored, out_of_fold_predictions(run))
    assert [len(kind["clips"]) for kind in (missed, false, disputed)] == [NUM_WORST] * 3
    lwlraps = [float(clip["lwlrap"]) for clip in missed["clips"]]
    assert lwlraps == sorted(lwlraps) and lwlraps[0] < 0.3
    oof_names = set(out_of_fold_predictions(run)[0]["name"])
    assert {clip["name"] for clip in disputed["clips"]} <= oof_names


def test_the_command_writes_into_the_run(run, tmp_path):
    folder = Path(shutil.copytree(run.folder, tmp_path / "run"))
    result = CliRunner().invoke(main, ["report", str(folder)])
    assert result.exit_code == 0, result.output
    assert result.output.splitlines()[-1] == f"Page: {folder / 'report.html'}"
    text = (folder / "report.html").read_text()
    assert "Run run" in text and "http://" not in text and "https://" not in text


def test_an_untrained_run_has_no_page(run, tmp_path):
    folder = shutil.copytree(run.folder, tmp_path / "run", ignore=shutil.ignore_patterns("curated"))
    with pytest.raises(DataError, match="no fold is fully trained yet"):
        write_run_page(dataclasses.replace(run, folder=Path(folder)), tmp_path / "report.html")
