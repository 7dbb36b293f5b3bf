import dataclasses
import tracemalloc

import numpy as np
import pandas as pd
import pytest
import soundfile as sf
from waveforms import noise

import audiotag
from audiotag.errors import ConfigError, DataError
from audiotag.inference.embedding_files import embed_files, write_embeddings
from audiotag.runs.models import load_tagger
from audiotag.serving.saved_model import load_predictor

RATE = 16_000


@pytest.fixture(scope="module")
def predictor(run):
    return load_predictor(run.folder)


@pytest.fixture(scope="module")
def sounds(tmp_path_factory):
    """Files of 0.3, 1 and 4.2 seconds: {path: float32 [N]}."""
    folder, sounds = tmp_path_factory.mktemp("sounds"), {}
    for number, seconds in enumerate((0.3, 1.0, 4.2)):
        path = folder / f"{number}.wav"
        sf.write(path, 0.3 * noise(round(seconds * RATE), seed=number), RATE, subtype="FLOAT")
        sounds[path] = sf.read(path, dtype="float32")[0]
    return sounds


def test_each_window_has_the_embedding_of_its_samples(run, predictor, sounds):
    table, embeddings = audiotag.embed(predictor, list(sounds))
    tagger = load_tagger(run, 0, "curated")
    assert embeddings.dtype == np.float32 and embeddings.shape == (len(table), 8)
    for fname, start, end, embedding in zip(*(table[key] for key in table), embeddings):
        sound = next(sound for path, sound in sounds.items() if str(path) == fname)
        window = np.resize(sound[round(start * RATE) : round(end * RATE)], RATE)[None]
        np.testing.assert_allclose(embedding, tagger.embeddings(window)[0], rtol=1e-4, atol=1e-5)
    of_longest = table[table["fname"] == str(list(sounds)[-1])]
    np.testing.assert_allclose(of_longest["start"], [*np.arange(0, 3.2, 0.5), 3.2])


def test_the_embedding_of_a_clip_is_the_mean_over_its_windows(run, sounds):
    windows, each = audiotag.embed(run, list(sounds))
    clips, means = audiotag.embed(run, list(sounds), per="clip")
    assert clips["fname"].tolist() == [str(path) for path in sounds]
    assert clips["end"].tolist() == [0.3, 1.0, 4.2]
    for name, mean in zip(clips["fname"], means):
        np.testing.assert_allclose(mean, each[windows["fname"] == name].mean(axis=0), rtol=1e-5, atol=1e-6)


def test_an_export_has_the_embeddings_of_its_run(saved_model, predictor, sounds):
    for ours, expected in zip(audiotag.embed(saved_model, list(sounds)), audiotag.embed(predictor, list(sounds))):
        np.testing.assert_array_equal(ours, expected)


@pytest.mark.parametrize("suffix", [".npz", ".parquet"])
def test_what_is_written_is_read_back(predictor, sounds, tmp_path, suffix):
    table, embeddings = audiotag.embed(predictor, list(sounds))
    path = tmp_path / f"embeddings{suffix}"
    assert write_embeddings(path, embed_files(predictor, list(sounds))) == len(table)
    if suffix == ".npz":
        with np.load(path) as file:
            columns, written = {key: file[key] for key in table}, file["embeddings"]
    else:
        columns = pd.read_parquet(path)
        written = np.stack(columns["embedding"])
    for key in table:
        np.testing.assert_array_equal(columns[key], table[key])
    np.testing.assert_array_equal(written, embeddings)
    assert list(tmp_path.iterdir()) == [path]


def test_memory_does_not_grow_with_the_recording(tmp_path):
    path, vectors = tmp_path / "long.npz", np.ones((64, 1024), "float32")
    parts = ((pd.DataFrame({"fname": ["a"] * 64, "start": 0.0, "end": 1.0}), vectors) for _ in range(400))
    tracemalloc.start()
    write_embeddings(path, parts)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert path.stat().st_size > 100e6 > 5 * peak


def test_another_ending_and_an_ensemble_are_refused(predictor, sounds, tmp_path):
    with pytest.raises(ConfigError, match=r"a\.csv: found the ending '\.csv'\. Expected \.npz or \.parquet\."):
        write_embeddings(tmp_path / "a.csv", [])
    with pytest.raises(DataError, match=r"^the model has no embeddings: it is an ensemble"):
        next(embed_files(dataclasses.replace(predictor, embeddings=None), list(sounds)))
