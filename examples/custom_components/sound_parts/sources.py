"""A dataset source: a file clips.tsv with the columns file and sound beside the recordings."""

import pandas as pd

from audiotag.data.sources import Layout


def is_tsv(folder):
    """Whether the folder is such a source."""
    return (folder / "clips.tsv").is_file()


def read_tsv(folder):
    """The table of clips, the vocabulary (None: the labels that occur), and the folder of each subset."""
    table = pd.read_csv(folder / "clips.tsv", sep="\t", dtype=str)
    clips = pd.DataFrame({"name": table["file"], "subset": "curated", "labels": table["sound"]})
    return clips.assign(usage="", fold=0, group=""), None, {"curated": folder}


TSV = Layout("a file clips.tsv beside the recordings", is_tsv, read_tsv)
