import shutil

import numpy as np
import pandas as pd
import pytest

import audiotag
from audiotag.data.clips import read_clips
from audiotag.errors import ConfigError
from audiotag.evaluation.measures import MEASURES
from audiotag.runs.directory import find_records, open_run
from audiotag.sweeps import results
from audiotag.sweeps.results import Entry, compare, differing_keys, entries_of


@pytest.fixture(scope="session")
def runs(swept):
    """The runs of the sweep by name."""
    return {path.parent.name: open_run(path.parent) for path in sorted(swept[0].glob("*/data.json"))}


def rows_of(comparison, **columns):
    """The rows of the table with these values."""
    table = comparison.table
    for column, value in columns.items():
        table = table[table[column] == value]
    return table


def test_means_deviations_and_differences_are_those_of_the_runs(swept, runs):
    _, comparison = swept
    values = {
        name: audiotag.evaluate(run, out_of_fold=True).overall.query("split == 'all'").set_index("measure")["value"]
        for name, run in runs.items()
    }
    for measure in MEASURES:
        both = {
            setting: np.array([values[f"{folder}-{seed}"][measure] for seed in (1, 2)])
            for setting, folder in (("as it is", "as-it-is"), ("no masks", "no-masks"))
        }
        for setting, expected in both.items():
            (row,) = rows_of(comparison, on="validation clips", setting=setting, measure=measure).itertuples()
            assert (row.runs, row.seeds) == (2, 2)
            np.testing.assert_allclose([row.mean, row.sd], [expected.mean(), expected.std(ddof=1)])
            np.testing.assert_allclose([row.least, row.greatest], [expected.min(), expected.max()])
            assert row.low <= row.mean <= row.high
        np.testing.assert_allclose(row.difference, (both["no masks"] - both["as it is"]).mean(), atol=1e-12)
        assert row.difference_low <= row.difference <= row.difference_high


def test_only_the_best_by_validation_clips_is_measured_on_test_clips(swept):
    _, comparison = swept
    rows = rows_of(comparison, on="validation clips", measure="lwlrap").set_index("setting")
    assert comparison.best == rows["mean"].idxmax()
    assert set(rows_of(comparison, on="test clips")["setting"]) == {comparison.best}
    assert comparison.notes[-1] == (
        f"Best of 2 by lwlrap on validation clips: {comparison.best}. It alone was measured on the test clips."
    )
    other = ({"as it is", "no masks"} - {comparison.best}).pop()
    assert not ((comparison.runs["on"] == "test clips") & (comparison.runs["setting"] == other)).any()


def test_all_are_measured_on_test_clips_on_request(swept, runs):
    comparison = compare([*entries_of([*runs.values()])], test=True)
    assert set(rows_of(comparison, on="test clips")["setting"]) == {"as-it-is-1", "no-masks-1"}
    assert "must not choose between them" in comparison.notes[-1]
    overall = audiotag.evaluate(runs["no-masks-2"]).overall.query("split == 'all'").set_index("measure")["value"]
    row = comparison.runs.query("`on` == 'test clips' and folder.str.endswith('no-masks-2')").iloc[0]
    np.testing.assert_allclose([row[measure] for measure in MEASURES], overall[[*MEASURES]])


def test_without_validation_nothing_is_chosen(runs):
    none = {name: run.experiment.model_copy(update={"validation": None}) for name, run in runs.items()}
    entries = [Entry(name, type(run)(**{**vars(run), "experiment": none[name]})) for name, run in [*runs.items()][:2]]
    with pytest.raises(audiotag.errors.DataError, match="no run has validation clips, .* with --test"):
        compare(entries)


def test_runs_that_differ_in_seed_alone_are_one_setting(runs):
    entries = entries_of([runs[name] for name in ("no-masks-2", "as-it-is-1", "no-masks-1")])
    assert [entry.setting for entry in entries] == ["no-masks-2", "as-it-is-1", "no-masks-2"]


def test_corrections_that_change_labels_make_a_setting_of_their_own(runs, tmp_path):
    run = runs["as-it-is-1"]
    name = read_clips(find_records(run).directory / "clips.csv").query("subset == 'curated'")["name"].iloc[0]
    tables = {"removed": f"{name},Bell,0\n", "same": "", "changed": f'{name},"Bell,Hum",1\n'}
    for folder, row in tables.items():
        shutil.copytree(run.folder, tmp_path / folder)
        if row:
            (tmp_path / folder / "corrections.csv").write_text(f"clip,labels,weight\n{row}")
    entries = entries_of([run, *(open_run(tmp_path / folder) for folder in tables)])
    assert [entry.setting for entry in entries] == [run.folder.name, "removed", run.folder.name, "changed"]
    (row,) = results._differences(entries).to_dict("records")
    assert row["key"] == "corrections" and row[run.folder.name] == "null"
    assert row["removed"].startswith('"1 left out (') and row["changed"].startswith('"1 changed (')


def test_only_the_keys_that_differ_are_listed(swept):
    _, comparison = swept
    (row,) = comparison.differences.to_dict("records")
    assert row["key"] == "augment" and row["no masks"] == "[]" and row["as it is"].startswith('[{"name": "time_mask"')
    entry = lambda name, epochs: {"name": name, "epochs": epochs}
    one, other = {"stages": [entry("a", 1), entry("b", 2)]}, {"stages": [entry("a", 1), entry("b", 3)]}
    assert [*differing_keys([one, one, other])] == [("stages.b.epochs", [2, 2, 3])]
    assert [*differing_keys([{"a": [1, 2]}, {"a": [1]}])] == [("a", [[1, 2], [1]])]
    with_both, with_one = {"a": [{"name": "x"}, {"name": "y"}]}, {"a": [{"name": "x"}]}
    assert [*differing_keys([with_both, with_one])] == [("a", [[{"name": "y"}], []])]


def test_the_printed_table_states_clips_recordings_seeds_and_commands(swept):
    folder, comparison = swept
    text = str(comparison)
    first = rows_of(comparison, on="validation clips").iloc[0]
    assert text.startswith(
        f"On {first['clips']} validation clips of {first['recordings']} recordings, 2 settings, 4 runs, 2 seeds;"
    )
    row = rows_of(comparison, on="validation clips", setting="no masks", measure="lwlrap").iloc[0]
    assert f"{row['mean']:.3f} ± {row['sd']:.3f} ({row['low']:.3f} to {row['high']:.3f})" in text
    assert f"{row['difference']:+.3f} ({row['difference_low']:+.3f} to {row['difference_high']:+.3f})" in text
    assert f"--run {folder / 'no-masks-1'} " in text
    assert "Clips without a group in the table of clips count as recordings of their own." in text


def test_the_files_hold_the_tables(swept):
    folder, comparison = swept
    assert (folder / "table.txt").read_text() == f"{comparison}\n"
    table = pd.read_csv(folder / "table.csv")
    assert table.columns.tolist() == comparison.table.columns.tolist()
    np.testing.assert_allclose(table["mean"], comparison.table["mean"])
    assert len(pd.read_csv(folder / "runs.csv")) == 6  # four on validation clips, two on test clips
    assert pd.read_csv(folder / "differences.csv")["key"].tolist() == ["augment"]


def test_one_seed_has_an_interval_over_recordings(runs):
    comparison = compare(entries_of([runs["as-it-is-1"], runs["no-masks-1"]]))
    (row,) = rows_of(comparison, on="validation clips", setting="no-masks-1", measure="mAP").itertuples()
    assert np.isnan(row.sd) and row.low <= row.mean <= row.high
    assert comparison.notes[0] == "With one seed, intervals are about other recordings only, not about other seeds."
    assert " ± 0." not in str(comparison) and "range" not in str(comparison)


def test_an_unknown_measure_is_refused(runs):
    with pytest.raises(ConfigError, match="there is no measure 'lrap'. Did you mean 'lwlrap'"):
        audiotag.compare([runs["as-it-is-1"]], measure="lrap")
