"""The page of a comparison of runs: tables, differences, and learning curves.

The curves of settings are over each other, each the mean of its runs.
"""

from collections.abc import Iterator
from pathlib import Path

import pandas as pd
from markupsafe import Markup

from audiotag import __version__
from audiotag.config.schema import expand_rounds
from audiotag.reporting.page import cells, chart_column, difference_bar, line_chart, write_page
from audiotag.runs.directory import Run, open_run
from audiotag.sweeps.results import Comparison
from audiotag.sweeps.text import caption, summary_table

NO_BREAK = "\u00a0"  # a space


def write_comparison_page(comparison: Comparison, path: str | Path, *, title: str) -> None:
    """Writes the page of a comparison.

    Args:
        comparison: What `compare` or `sweep` returns.
        path: The HTML file to write.
        title: The title of the page.
    """
    write_page(
        path,
        "comparison.html",
        version=__version__,
        title=title,
        tables=[
            {"caption": caption(rows), "cells": cells(_with_bars(rows, comparison.measure))}
            for _, rows in comparison.table.groupby("on", sort=False)
        ],
        differences=cells(comparison.differences),
        curves=[*_curves(comparison)],
        notes=comparison.notes,
        commands="\n".join(comparison.runs.drop_duplicates("folder")["command"]),
    )


def _with_bars(rows, measure):
    """The printed table, its cells with few line breaks, with a bar per difference."""
    table, full = summary_table(rows, measure), rows[rows["measure"] == measure]
    table.iloc[:, 1:] = table.iloc[:, 1:].map(lambda text: text.replace(" ", NO_BREAK).replace(f"{NO_BREAK}(", " ("))
    if "difference" in table:
        widest = max(full[["difference_low", "difference_high"]].abs().max(axis=None), 1e-9)  # 0: of equal runs
        bars = [
            difference_bar(row.difference, row.difference_low, row.difference_high, widest) for row in full.itertuples()
        ]
        table.insert(table.columns.get_loc("difference") + 1, " ", chart_column(bars))
    return table


def _curves(comparison: Comparison) -> Iterator[dict[str, str | Markup]]:
    """A chart per stage and logged value: a line per setting, the mean of its runs and folds."""
    found: dict[str, dict[str, list[pd.DataFrame]]] = {}
    for setting, folder in comparison.runs[["setting", "folder"]].drop_duplicates().itertuples(index=False):
        for stage, history in _histories(open_run(folder)):
            found.setdefault(stage, {}).setdefault(setting, []).append(history)
    for stage, histories in found.items():
        means = {setting: pd.concat(several).groupby("epoch").mean() for setting, several in histories.items()}
        for column in dict.fromkeys(column for mean in means.values() for column in mean):
            lines = {
                setting: (mean.index + 1, mean[column])
                for setting, mean in means.items()
                if column in mean and mean[column].notna().sum() > 1  # with one epoch there is no curve
            }
            name = column.replace("val_", "validation ").replace("_", " ")
            if lines:
                yield {"title": f"{stage}: {name}", "chart": line_chart(lines, x="epoch", y=name)}


def _histories(run: Run) -> Iterator[tuple[str, pd.DataFrame]]:
    """(stage, loss and monitored value after each epoch) of each fold that has stored them."""
    for stage in expand_rounds(run.experiment):
        for fold in range(run.experiment.num_folds):
            path = run.stage_files(fold, stage.name).history
            if path.is_file():
                columns = ["epoch", "loss", "val_loss", run.experiment.monitored]
                history = pd.read_csv(path)
                yield stage.name, history[[*dict.fromkeys(name for name in columns if name in history)]]
