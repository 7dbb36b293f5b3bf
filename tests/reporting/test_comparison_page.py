import dataclasses

import pytest

from audiotag.reporting.comparison_page import write_comparison_page
from audiotag.runs.directory import open_run
from audiotag.sweeps.results import compare, entries_of
from audiotag.sweeps.text import summary_table

HOSTILE = '<img src=x onerror="alert(1)">'


@pytest.fixture(scope="module")
def comparison(run):
    """The run, compared with itself under another name."""
    entries = entries_of([run, open_run(run.folder)])
    return compare([entries[0], dataclasses.replace(entries[1], setting=HOSTILE)], test=True)


def test_it_shows_the_printed_tables_and_overlaid_curves(comparison, run, tmp_path, open_page):
    write_comparison_page(comparison, tmp_path / "page.html", title="Two runs")
    for width in (390, 1280):
        page = open_page(tmp_path / "page.html", width=width)
        assert page.locator("h2").all_inner_texts() == ["Measures", "Training", "Reproduce"]
        for number, (_, rows) in enumerate(comparison.table.groupby("on", sort=False)):
            expected = summary_table(rows, comparison.measure)
            shown = page.locator("table").nth(number).locator("tbody tr").all_inner_texts()
            assert [text.replace("\xa0", " ").split("\t")[:2] for text in shown] == expected.iloc[
                :, :2
            ].to_numpy().tolist()
        assert page.locator("svg.bar .dot").count() == 2  # a difference on each set of clips
        chart = page.locator("section", has_text="curated: validation lwlrap")
        assert chart.locator("polyline.line").count() == 2
        assert chart.locator(".legend li").all_inner_texts() == ["tiny", HOSTILE]
        assert f"--run {run.folder}" in page.locator("pre").inner_text()
        assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
