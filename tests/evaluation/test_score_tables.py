import importlib.util

import numpy as np
import pandas as pd
import pytest

from audiotag.errors import ConfigError
from audiotag.evaluation.score_tables import scores_table, write_scores

VOCABULARY = ("Bark", "Church, bell", "None")
NAMES = ["a.wav", "None", "c d.wav"]
LOGITS = np.array([[40.0, 41.0, -800.0], [1 / 3, 0.0, -1e-17], [2.0, 3.0, 4.0]])


@pytest.fixture(params=["csv", "parquet"])
def path(request, tmp_path):
    if request.param == "parquet":
        pytest.importorskip("pyarrow")
    return tmp_path / f"scores.{request.param}"


def test_names_and_logits_are_read_back_exactly(path):
    write_scores(path, scores_table(NAMES, LOGITS, VOCABULARY))
    read = {".parquet": pd.read_parquet, ".csv": lambda path: pd.read_csv(path, dtype=str, keep_default_na=False)}
    table = read[path.suffix](path)
    logits = table[[f"{label} logit" for label in VOCABULARY]].to_numpy(float)
    assert table["fname"].tolist() == NAMES
    np.testing.assert_array_equal(logits, LOGITS)
    assert logits[0, 0] < logits[0, 1]  # whose probabilities are both 1


def test_probabilities_are_in_the_columns_of_their_classes():
    table = scores_table(NAMES, LOGITS, VOCABULARY)
    assert table.columns.tolist() == ["fname", *VOCABULARY, *(f"{label} logit" for label in VOCABULARY)]
    np.testing.assert_allclose(table[list(VOCABULARY)], 1 / (1 + np.exp(-LOGITS.clip(-700))), atol=1e-300)


def test_parquet_without_pyarrow_names_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(
        ConfigError, match=r"Parquet needs pyarrow. Install it with: pip install 'audiotag-trainer\[parquet\]'"
    ):
        write_scores(tmp_path / "scores.parquet", scores_table(NAMES, LOGITS, VOCABULARY))
    assert not (tmp_path / "scores.parquet").exists()
