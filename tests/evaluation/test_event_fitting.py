import json

import numpy as np
import pandas as pd
import pytest
import soundfile as sf
from click.testing import CliRunner

from audiotag.cli import main
from audiotag.evaluation.event_fitting import ScoredRecording, fit_event_settings, measure_events
from audiotag.inference.events import EventSettings

HOP, WINDOW, SECONDS = 0.2, 1.0, 120.0


def recording(seed):
    """Scores that rise when a window covers half of an event of a or b, with short false peaks; c never occurs."""
    rng = np.random.default_rng(seed)
    starts = np.arange(0, SECONDS - WINDOW, HOP)
    onsets = np.arange(2.0, SECONDS - 6, 6.0) + rng.uniform(0, 2, len(np.arange(2.0, SECONDS - 6, 6.0)))
    labels = rng.choice(["a", "b"], len(onsets))
    events = pd.DataFrame({"start": onsets, "end": onsets + rng.uniform(0.8, 3, len(onsets)), "class": labels})
    logits = rng.normal(-4, 0.5, (len(starts), 3))
    for event in events.itertuples():
        covered = np.minimum(starts + WINDOW, event.end) - np.maximum(starts, event.start)
        logits[covered >= 0.5, "ab".index(event[3])] += 4.5
    peaks = rng.choice(len(starts), 15, replace=False)
    logits[peaks, rng.integers(0, 3, 15)] += 6  # of one window
    return ScoredRecording(starts, starts + WINDOW, 1 / (1 + np.exp(-logits)), events)


def test_fitted_settings_find_more_and_have_fewer_false_events_in_other_recordings():
    known = [recording(seed) for seed in range(2)]
    fitted = fit_event_settings(known, "abc")
    plain, _ = measure_events(known, "abc", EventSettings())
    assert measure_events(known, "abc", fitted)[0].false <= 0.35 * plain.false
    others = [recording(seed) for seed in (3, 4)]
    before, segments_before = measure_events(others, "abc", EventSettings())
    after, segments = measure_events(others, "abc", fitted)
    assert after.f1 > 0.9 > 0.3 > before.f1
    assert after.false < before.false / 4 and after.recall > before.recall
    assert segments.f1 > 0.85 > segments_before.f1
    assert fitted.edge_seconds == pytest.approx(0.5, abs=0.13)


def test_fit_events_writes_what_predict_reads(run, demo, tmp_path):
    clips = sorted((demo / "train_curated").glob("*.wav"))[:2]
    waveforms = [sf.read(path, dtype="float32") for path in clips]
    rate = waveforms[0][1]
    silence = np.zeros(2 * rate, "float32")
    sf.write(tmp_path / "field.wav", np.concatenate([silence, waveforms[0][0], silence, waveforms[1][0]]), rate)
    sf.write(tmp_path / "quiet.wav", silence, rate)
    rows = [("field.wav", 2.0, 2.5, run.vocabulary[0]), ("quiet.wav", "", "", "")]
    pd.DataFrame(rows, columns=["fname", "start", "end", "class"]).to_csv(tmp_path / "events.csv", index=False)
    arguments = ["fit-events", str(run.folder), str(tmp_path / "events.csv"), "--out", str(tmp_path / "s.json")]
    arguments += ["--collar", "5"]  # the network is not good
    outcome = CliRunner().invoke(main, arguments)
    assert outcome.exit_code == 0, outcome.output
    assert "threshold 0.5: " in outcome.stdout and "fitted: 1 events found, 0 missed" in outcome.stdout
    settings = json.loads((tmp_path / "s.json").read_text())
    assert set(settings["thresholds"]) == set(run.vocabulary)
    table = tmp_path / "found.csv"
    arguments = ["predict", str(run.folder), str(tmp_path / "field.wav"), "--events", str(table)]
    outcome = CliRunner().invoke(main, [*arguments, "--event-settings", str(tmp_path / "s.json")])
    assert outcome.exit_code == 0, outcome.output
    found = pd.read_csv(table).query("`class` == @run.vocabulary[0]")
    assert np.abs(found["start"] - 2.0).min() <= 5


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "s.json: not a JSON file"),
        (
            '{"min_seconds": -1}',
            "s.json: min_seconds: Input should be greater than or equal to 0. Write it with: audio",
        ),
        ('{"smoothing": 1}', "smoothing"),
        ('{"thresholds": {"Bell": 0.5}}', "has no threshold of the class"),
        (None, "s.json: cannot be read: No such file or directory."),
    ],
)
def test_wrong_event_settings_are_refused(run, demo, tmp_path, content, message):
    path = tmp_path / "s.json"
    if content is not None:
        path.write_text(content)
    clip = str(next((demo / "test").glob("*.wav")))
    arguments = ["predict", str(run.folder), clip, "--events", str(tmp_path / "e.csv"), "--event-settings", str(path)]
    outcome = CliRunner().invoke(main, arguments)
    assert outcome.exit_code == 1 and message in outcome.stderr, outcome.stderr


def test_event_settings_without_events_are_refused():
    outcome = CliRunner().invoke(main, ["predict", "runs/none", "a.wav", "--event-settings", "s.json"])
    assert outcome.exit_code == 2
    assert "--event-settings is for events. Add --events, --raven or --audacity" in outcome.stderr
