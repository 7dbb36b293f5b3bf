"""A server that tags recordings: POST /predict with the bytes of an audio file returns the probability of each class.

    pip install starlette uvicorn 'audiotag-trainer[onnx]'
    python server.py demo.onnx
    curl --data-binary @bell.wav http://127.0.0.1:8000/predict

The model is an ONNX or LiteRT file, for which TensorFlow is not imported, or a SavedModel. Requests that wait are
scored together.
"""

import argparse
import asyncio
import contextlib
import io
from pathlib import Path

import numpy as np
import soundfile
import soxr
import uvicorn
from batching import Batcher, Full
from scipy.special import expit
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route

MAX_BYTES = 20_000_000  # of a request
MAX_SECONDS = 600


def load(path):
    """(function for a `Batcher`, sample rate, class names) of a model."""
    if Path(path).is_dir():
        import tensorflow as tf

        model = tf.saved_model.load(str(path))
        padded = model.signatures["padded"]

        def score(waveform, num_samples):
            found = padded(waveform=tf.constant(waveform), num_samples=tf.constant(num_samples))
            return found["probabilities"].numpy()

        return score, int(model.sample_rate()), [name.decode() for name in model.class_names().numpy()]
    import audiotag

    model = audiotag.load_model(path)
    return lambda waveform, _: expit(model.logits(waveform)), model.audio_config["sample_rate"], model.vocabulary


def decode(content, sample_rate):
    """The samples of a file as float32 [N]: its channels averaged, at the rate of the model."""
    with soundfile.SoundFile(io.BytesIO(content)) as file:
        if file.frames > MAX_SECONDS * file.samplerate:
            raise ValueError(f"the recording is longer than {MAX_SECONDS} s")
        waveform, rate = file.read(dtype="float32", always_2d=True).mean(axis=1), file.samplerate
    if not np.isfinite(waveform).all():
        raise ValueError("the recording has samples that are not finite")
    return waveform if rate == sample_rate else soxr.resample(waveform, rate, sample_rate)


def make_app(path):
    """The application for a model."""
    score, sample_rate, names = load(path)

    @contextlib.asynccontextmanager
    async def running(app):
        app.state.batcher = Batcher(score)
        task = asyncio.create_task(app.state.batcher.run())
        yield
        task.cancel()

    async def predict(request):
        content = bytearray()
        async for chunk in request.stream():
            content += chunk
            if len(content) > MAX_BYTES:
                return JSONResponse({"error": f"more than {MAX_BYTES} bytes"}, 413)
        try:
            waveform = await asyncio.to_thread(decode, bytes(content), sample_rate)
        except soundfile.LibsndfileError:
            return JSONResponse({"error": "not a recording that can be read"}, 400)
        except ValueError as error:
            return JSONResponse({"error": str(error)}, 400)
        try:
            scores = await request.app.state.batcher.predict(waveform)
        except Full:
            return JSONResponse({"error": "too many requests wait; try again"}, 503, {"Retry-After": "1"})
        return JSONResponse(dict(zip(names, map(float, scores))))

    async def health(request):
        batcher = request.app.state.batcher
        return JSONResponse({"waiting": len(batcher.waiting), "largest_batch": batcher.largest_batch})

    return Starlette(routes=[Route("/predict", predict, methods=["POST"]), Route("/health", health)], lifespan=running)


def main():
    """Serves a model until Ctrl-C."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="a file that ends in .onnx or .tflite, or the folder of a SavedModel")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000)
    options = parser.parse_args()
    app = make_app(options.model)
    uvicorn.run(app, host=options.host, port=options.port, log_level="warning", timeout_keep_alive=60)


if __name__ == "__main__":
    main()
