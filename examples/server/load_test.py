"""Asks a running server.py many requests of mixed length, 64 at a time.

    python load_test.py --requests 10000 --process 12345

Prints the time of a request (median and 99th percentile), the largest difference of an answer from that to the same
request alone, and, on Linux, the memory of the server's process at the beginning and at the end.
"""

import argparse
import http.client
import io
import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import soundfile

RATE = 16_000
CONNECTIONS = threading.local()


def main():
    """Prints the results, and ends with 1 if an answer differs by more than 1e-5."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--server", default="127.0.0.1:8000")
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--at-a-time", type=int, default=64)
    parser.add_argument("--different", type=int, default=100, help="recordings of 0.1 to 10 s")
    parser.add_argument("--process", type=int, help="the number of the server's process")
    options = parser.parse_args()
    recordings = [recording(seed) for seed in range(options.different)]
    alone = [ask(options.server, content)[0] for content in recordings]

    def one(number):
        found, seconds = ask(options.server, recordings[number % len(recordings)])
        return seconds, np.abs(found - alone[number % len(recordings)]).max()

    with ThreadPoolExecutor(options.at_a_time) as threads:
        list(threads.map(one, range(options.requests // 10)))  # buffers grow to their size
        before, begun = memory(options.process), time.perf_counter()
        results = np.array(list(threads.map(one, range(options.requests))))
        total = time.perf_counter() - begun
    median, high = np.quantile(results[:, 0], [0.5, 0.99])
    print(f"{options.requests} requests, {options.at_a_time} at a time: {options.requests / total:.1f} per second")
    print(f"seconds per request: median {median:.3f}, 99th percentile {high:.3f}")
    print(f"largest difference from the answers to single requests: {results[:, 1].max():.1e}")
    if before:
        print(f"memory of the server: {before:.0f} MB before, {memory(options.process):.0f} MB after")
    raise SystemExit(bool(results[:, 1].max() > 1e-5))


def recording(seed):
    """The bytes of a WAV file of noise of 0.1 to 10 s."""
    rng, file = np.random.default_rng(seed), io.BytesIO()
    waveform = 10 ** rng.uniform(-3, -0.5) * rng.standard_normal(int(rng.uniform(0.1, 10) * RATE))
    soundfile.write(file, np.clip(waveform, -1, 1), RATE, format="WAV")
    return file.getvalue()


def ask(server, content):
    """(the probabilities [K], seconds) of a request; each thread keeps its connection."""
    if not hasattr(CONNECTIONS, "connection"):
        CONNECTIONS.connection = http.client.HTTPConnection(server, timeout=600)
    begun = time.perf_counter()
    CONNECTIONS.connection.request("POST", "/predict", content)
    response = CONNECTIONS.connection.getresponse()
    answer = json.loads(response.read())
    if response.status != 200:
        raise RuntimeError(f"{response.status}: {answer}")
    return np.array(list(answer.values())), time.perf_counter() - begun


def memory(process):
    """The resident memory of a process in MB; None if it is not known."""
    try:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
    except OSError:
        return None
    return next(int(line.split()[1]) / 1000 for line in lines if line.startswith("VmRSS"))


if __name__ == "__main__":
    main()
