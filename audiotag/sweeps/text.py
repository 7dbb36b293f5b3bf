"""A comparison as text for a terminal."""

import math
from typing import TYPE_CHECKING

import pandas as pd

from audiotag.errors import shortened

if TYPE_CHECKING:
    from audiotag.sweeps.results import Comparison

MAX_VALUE = 60  # characters of a value


def comparison_text(comparison: "Comparison") -> str:
    """The tables of a comparison, its notes and commands."""
    blocks = [
        f"{caption(rows)}\n{_printed(summary_table(rows, comparison.measure))}"
        for _, rows in comparison.table.groupby("on", sort=False)
    ]
    if len(comparison.differences):
        shown = comparison.differences.map(lambda text: shortened(text, MAX_VALUE))
        blocks.append(f"What differs\n{_printed(shown)}")
    blocks += comparison.notes
    commands = comparison.runs.drop_duplicates("folder")
    commands = commands[commands["command"] != ""].drop_duplicates("setting")
    blocks.append("\n".join(["A run of each:", *(f"  {command}" for command in commands["command"])]))
    return "\n\n".join(blocks)


def caption(rows: pd.DataFrame) -> str:
    """What a table was measured on."""
    first = rows.iloc[0]
    settings = rows["setting"].nunique()
    shown = (
        _numbered(settings, "setting") if settings == first["trials"] else f"{settings} of {first['trials']} settings"
    )
    runs = rows.drop_duplicates("setting")["runs"].sum()
    counts = [shown, _numbered(runs, "run"), _numbered(first["seeds"], "seed")]
    return (
        f"On {first['clips']:,} {first['on']} of {first['recordings']:,} recordings, {', '.join(counts)}; "
        "± is the standard deviation over seeds, in brackets are 95% intervals over seeds and recordings"
    )


def _numbered(number, unit):
    return f"{number} {unit}{'' if number == 1 else 's'}"


def summary_table(rows: pd.DataFrame, measure: str) -> pd.DataFrame:
    """A row per setting: the first measure in full, the means of the others."""
    full = rows[rows["measure"] == measure].reset_index(drop=True)
    shown = pd.DataFrame({"": full["setting"]})
    shown[measure] = [
        f"{row.mean:.3f}{_signed_sd(row.sd)} ({row.low:.3f} to {row.high:.3f})" for row in full.itertuples()
    ]
    if (full["seeds"] > 1).any():
        shown["range"] = [f"{row.least:.3f} to {row.greatest:.3f}" for row in full.itertuples()]
    if full["difference"].notna().any():
        shown["difference"] = [_difference(row) for row in full.itertuples()]
    for name in [name for name in rows["measure"].unique() if name != measure]:
        shown[name] = [f"{value:.3f}" for value in rows["mean"][rows["measure"] == name]]
    shown["minutes"] = [f"{value:.1f}" for value in full["minutes"]]
    return shown


def _signed_sd(sd):
    return "" if math.isnan(sd) else f" ± {sd:.3f}"


def _difference(row):
    if math.isnan(row.difference):
        return "–"
    return f"{row.difference:+.3f} ({row.difference_low:+.3f} to {row.difference_high:+.3f})"


def _printed(table):
    """A table of texts, the first column to the left."""
    widths = [max(map(len, [str(name), *table[name]])) for name in table]
    lines = [[*map(str, table.columns)], *table.itertuples(index=False, name=None)]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if place == 0 else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(line, widths))
        ).rstrip()
        for line in lines
    )
