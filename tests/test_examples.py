"""The notebook and the serving client of examples/; test_custom_components.py tests the package of components."""

import asyncio
import json
import shutil
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from scipy.special import expit

from audiotag.inference.predictor import mean_logits, pool_windows

EXAMPLES = Path(__file__).parents[1] / "examples"
CLIENT = EXAMPLES / "serving_client.py"


def test_the_notebook_about_front_ends_runs():
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    notebook = json.loads((EXAMPLES / "features.ipynb").read_text())
    cells = ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]
    names = {}
    try:
        for number, cell in enumerate(cells):
            exec(compile(cell.replace("plt.show()", ""), f"cell {number}", "exec"), names)
        figures = plt.get_fignums()
    finally:
        plt.close("all")
    assert len(figures) == 3
    assert not np.array_equal(names["image"], names["masked"])
    assert set(names["spectrograms"]) == set(names["layers"].FRONTENDS) - {
        "raw_waveform",
        "yamnet_mel",
        "efficientat_mel",
    }


def test_the_notebook_is_stored_without_outputs():
    notebook = json.loads((EXAMPLES / "features.ipynb").read_text())
    assert not any(cell["outputs"] for cell in notebook["cells"] if cell["cell_type"] == "code")


@pytest.mark.parametrize("how", ["mean", "max", "log_mean_exp"])
def test_the_page_pools_the_windows_of_several_models_as_predict_does(how):
    node = shutil.which("node")
    if node is None:
        pytest.skip("node is not installed: apt-get install nodejs")
    logits = np.random.default_rng(0).normal(0, 4, (7, 3, 5))  # [W, M, K]
    logits[0, 0, 0] = 800.0
    code = f"{(EXAMPLES / 'browser' / 'tagger.js').read_text()}\n"
    code += f"console.log(JSON.stringify([...pool({json.dumps(logits.reshape(7, 15).tolist())}, 5, '{how}')]))"
    found = json.loads(subprocess.run([node, "-"], input=code, capture_output=True, text=True, check=True).stdout)
    np.testing.assert_allclose(found, expit(mean_logits(pool_windows(logits, how))), rtol=1e-5)


def in_a_loop(function):
    """What a coroutine returns, in a thread of its own: another test may have left a loop running in this one."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(lambda: asyncio.run(function())).result()


@pytest.fixture
def run_client(start):
    """A function that runs the client in a process of its own: the lines that it prints, one per file."""

    def run_client(*arguments):
        job = start(*arguments, script=CLIENT)
        assert job.wait() == 0, job.output()
        return [line for line in job.output().splitlines() if ".wav: " in line]

    return run_client


@pytest.fixture
def served(saved_model):
    """The URL of a server that answers in the JSON of TensorFlow Serving's REST API, and the bodies it was sent."""
    import tensorflow as tf

    model, bodies = tf.saved_model.load(str(saved_model)), []

    class Answer(BaseHTTPRequestHandler):
        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            bodies.append(body)
            (instance,) = body["instances"]
            waveform = instance["waveform"] + 7 * instance["waveform"][:1]  # padded, as TensorFlow Serving does it
            outputs = model.signatures[body["signature_name"]](
                waveform=tf.constant([waveform]), num_samples=tf.constant([instance["num_samples"]])
            )
            rows = [
                {name: row.tolist() for name, row in zip(outputs, clip)}
                for clip in zip(*(value.numpy() for value in outputs.values()))
            ]
            answer = json.dumps({"predictions": rows}).encode()
            self.send_response(200 if self.path == "/v1/models/tiny:predict" else 404)
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *arguments):
            """Prints nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/v1/models/tiny", bodies
    server.shutdown()
    server.server_close()


def test_the_client_predicts_as_audiotag_with_a_saved_model_and_over_rest(saved_model, served, run_client, run, wavs):
    import audiotag

    url, bodies = served
    by_folder = run_client(saved_model, *wavs[:3])
    classes = saved_model / "assets/class_names.txt"
    by_rest = run_client(url, *wavs[:3], "--sample-rate", 16_000, "--classes", classes)
    assert by_folder == by_rest
    table = audiotag.predict(run, wavs[:3])
    names = list(audiotag.load_model(run).vocabulary)
    for line, (_, row) in zip(by_folder, table.iterrows(), strict=True):
        best = row[names].astype(float).sort_values(ascending=False, kind="stable")
        assert f": {best.index[0]} {best.iloc[0]:.2f}," in line
    assert len(bodies) == 3 and {body["signature_name"] for body in bodies} == {"padded"}


def test_the_client_reads_any_rate_and_number_of_channels(tmp_path, monkeypatch):
    import soundfile

    monkeypatch.syspath_prepend(EXAMPLES)
    import serving_client

    soundfile.write(tmp_path / "stereo.wav", np.full((44_100, 2), [0.5, 0.1]), 44_100)
    waveform = serving_client.read_waveform(tmp_path / "stereo.wav", 16_000)
    assert waveform.shape == (16_000,)
    np.testing.assert_allclose(waveform[1_000:-1_000], 0.3, atol=1e-3)
    with pytest.raises(SystemExit):
        monkeypatch.setattr(sys, "argv", ["serving_client.py", "http://127.0.0.1:1/v1/models/tiny", "a.wav"])
        serving_client.main()


def sums(waveform, num_samples):
    """Two numbers of each clip that do not depend on its padding."""
    return np.stack([waveform.sum(axis=1, dtype="float64"), num_samples], axis=1)


def test_requests_that_wait_are_scored_together_and_get_their_own_scores(monkeypatch):
    monkeypatch.syspath_prepend(EXAMPLES / "server")
    import batching

    rng = np.random.default_rng(0)
    waveforms = [rng.standard_normal(length).astype("float32") for length in rng.integers(0, 300, 200)]
    shapes = []

    async def ask():
        batcher = batching.Batcher(
            lambda waveform, num_samples: shapes.append(waveform.shape) or sums(waveform, num_samples),
            max_clips=16,
            max_samples=2_000,
        )
        task = asyncio.create_task(batcher.run())
        found = await asyncio.gather(*map(batcher.predict, waveforms))
        task.cancel()
        return np.array(found)

    expected = [(waveform.sum(dtype="float64"), len(waveform)) for waveform in waveforms]
    np.testing.assert_allclose(in_a_loop(ask), expected, atol=1e-9)
    assert max(rows for rows, _ in shapes) > 8 and sum(rows for rows, _ in shapes) == 200
    assert all(rows <= 16 and rows * columns <= 2_000 for rows, columns in shapes)


def test_an_error_ends_a_batch_and_not_the_server(monkeypatch):
    monkeypatch.syspath_prepend(EXAMPLES / "server")
    import batching

    def score(waveform, num_samples):
        if waveform[0, 0] == 1:
            raise ValueError("broken")
        return sums(waveform, num_samples)

    async def ask():
        batcher = batching.Batcher(score, max_waiting=1)
        first = asyncio.create_task(batcher.predict(np.ones(1, "float32")))
        await asyncio.sleep(0)
        with pytest.raises(batching.Full):
            await batcher.predict(np.zeros(1, "float32"))
        task = asyncio.create_task(batcher.run())
        with pytest.raises(ValueError, match="broken"):
            await first
        found = await batcher.predict(np.full(3, 2, "float32"))
        task.cancel()
        return found

    assert in_a_loop(ask).tolist() == [6, 3]
