"""Throughput of the front ends on the CPU, compared with PyTorch, TensorFlow and librosa.

    python benchmarks/frontends.py

Clips are 2 s at 44.1 kHz, in batches. Each front end of audiotag runs in a tf.function without XLA, for any batch size
and length. The first rows compute the same log-mel spectrogram: with audiotag, with torch.stft, with tf.signal.stft
and a product with the mel filters, and with librosa clip by clip in one process. The row after them is the FFT alone,
in float32, of frames that were windowed before: an upper bound for any front end that uses this FFT.
Rounds are interleaved; rates and ratios are medians over the rounds, so other load on the machine affects all rows
alike. "CPU ms" is the CPU time of all threads per clip, and the ratios in brackets are those of CPU time: they hold on
a busy machine, too. "max error" is the largest difference from librosa, on pure tones, down to the floor.
audiotag does not need PyTorch; `pip install torch` adds its row.
"""

import argparse
import os
import statistics
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import librosa
import numpy as np
import tensorflow as tf

from audiotag.config.starter import SAMPLE_RATES
from audiotag.layers import FRONTENDS

try:
    import torch
except ImportError:
    torch = None

SAMPLE_RATE = 44_100
FFT_LENGTH, FRAME_STEP, NUM_BANDS, LOW_HZ = 2560, 694, 128, 20.0  # as S0 and S1: 2 s are an image of 128 x 128
LIBROSA_STRIDE = 8  # librosa is slow: it gets every eighth clip of a batch
AUDIOTAG, TORCH, TENSORFLOW, LIBROSA = "audiotag log_mel", "torch.stft + mel", "tf.signal.stft + mel", "librosa"
FLOAT64 = "audiotag log_mel, float64"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=11)
    args = parser.parse_args()
    clips = tones(args.batch_size)
    print(
        f"{len(clips)} clips of {clips.shape[1] / SAMPLE_RATE:g} s at {SAMPLE_RATE} Hz; {os.cpu_count()} cores, "
        f"load {os.getloadavg()[0]:.1f}"
    )
    compare(log_mels(clips) | front_ends(clips), num_rounds=args.rounds)


def tones(num_clips):
    """Clips of one pure tone each: float32 [B, N], 2 s long."""
    seconds = np.arange(2 * SAMPLE_RATE) / SAMPLE_RATE
    hz = np.geomspace(50, 20_000, num_clips)[:, None]
    return np.sin(2 * np.pi * hz * seconds).astype("float32")


def log_mels(clips):
    """The same log-mel spectrogram with every library: {name: (number of clips, function without arguments)}."""
    filters = librosa.filters.mel(sr=SAMPLE_RATE, n_fft=FFT_LENGTH, n_mels=NUM_BANDS, fmin=LOW_HZ).T  # [F, M]
    options = {"num_bands": NUM_BANDS, "fft_length": FFT_LENGTH, "frame_step": FRAME_STEP, "low_hz": LOW_HZ}
    layers = [FRONTENDS["log_mel"](sample_rate=SAMPLE_RATE, **options, dtype=dtype) for dtype in (None, "float64")]
    frames = tf.random.normal((len(clips), 1 + clips.shape[1] // FRAME_STEP, FFT_LENGTH))
    fft = tf.function(lambda: tf.signal.rfft(frames))
    return {
        AUDIOTAG: (len(clips), in_graph(layers[0], clips)),
        TORCH: (len(clips), torch_log_mel(clips, filters) if torch else None),
        TENSORFLOW: (len(clips), in_graph(tensorflow_log_mel(filters), clips)),
        LIBROSA: (len(clips[::LIBROSA_STRIDE]), lambda: librosa_log_mel(clips[::LIBROSA_STRIDE])),
        FLOAT64: (len(clips), in_graph(layers[1], clips)),
        "the FFT alone, float32": (len(clips), fft),
    }


def front_ends(clips):
    """The same table for all front ends of audiotag, with their defaults, but those that need another sample rate."""
    return {
        f"audiotag {name}, defaults": (len(clips), in_graph(layer(sample_rate=SAMPLE_RATE), clips))
        for name, layer in FRONTENDS.items()
        if SAMPLE_RATES.get(name, SAMPLE_RATE) == SAMPLE_RATE
    }


def in_graph(function, clips):
    """A function that runs `function` on the clips in a graph for any batch size and length."""
    graph = tf.function(function, input_signature=[tf.TensorSpec((None, None))])
    clips = tf.constant(clips)
    return lambda: graph(clips).numpy()


def tensorflow_log_mel(filters):
    """A log-mel spectrogram with tf.signal, in float32."""

    def log_mel(waveform):
        margin = [[0, 0], [FFT_LENGTH // 2, FFT_LENGTH // 2]]
        spectrum = tf.signal.stft(tf.pad(waveform, margin), FFT_LENGTH, FRAME_STEP, fft_length=FFT_LENGTH)  # [B, T, F]
        mel = tf.matmul(tf.square(tf.abs(spectrum)), filters)  # [B, T, M]
        decibels = 10 / np.log(10) * tf.math.log(tf.maximum(mel, 1e-10))
        return tf.maximum(decibels, tf.reduce_max(decibels, axis=(1, 2), keepdims=True) - 80)

    return log_mel


def torch_log_mel(clips, filters):
    """A log-mel spectrogram with PyTorch, in float32, on all cores."""
    clips, filters, window = torch.from_numpy(clips), torch.from_numpy(filters), torch.hann_window(FFT_LENGTH)

    @torch.inference_mode()
    def log_mel():
        spectrum = torch.stft(
            clips, FFT_LENGTH, FRAME_STEP, window=window, center=True, pad_mode="constant", return_complex=True
        )  # [B, F, T]
        mel = spectrum.abs().square().transpose(1, 2) @ filters  # [B, T, M]
        decibels = 10 * mel.clamp(min=1e-10).log10()
        return torch.maximum(decibels, decibels.amax(dim=(1, 2), keepdim=True) - 80).numpy()

    return log_mel


def librosa_log_mel(clips):
    """A log-mel spectrogram with librosa, clip by clip: [B, T, M]."""
    spectrograms = []
    for clip in clips:
        mel = librosa.feature.melspectrogram(
            y=clip, sr=SAMPLE_RATE, n_fft=FFT_LENGTH, hop_length=FRAME_STEP, n_mels=NUM_BANDS, fmin=LOW_HZ
        )
        spectrograms.append(librosa.power_to_db(mel).T)
    return np.stack(spectrograms)  # [B, T, M]


def compare(table, *, num_rounds):
    """Measures all rows in interleaved rounds and prints their rates and the errors of the log-mel spectrograms."""
    rates, cpu_rates, errors = {name: [] for name in table}, {name: [] for name in table}, {}
    expected = table[LIBROSA][1]()
    for number in range(num_rounds + 1):
        for name, (num_clips, run) in table.items():
            if run is None:
                continue
            started, cpu_started = time.perf_counter(), time.process_time()
            result = run()
            seconds, cpu_seconds = time.perf_counter() - started, time.process_time() - cpu_started
            if number:  # the first round traces
                rates[name].append(num_clips / seconds)
                cpu_rates[name].append(num_clips / cpu_seconds)
            elif name in (AUDIOTAG, FLOAT64, TORCH, TENSORFLOW):
                errors[name] = np.abs(result[::LIBROSA_STRIDE] - expected).max()
    print(
        f"{'':34} {'clips/s':>8} {'min':>7} {'max':>7} {'CPU ms':>7} {'of torch':>16} {'of tf.signal':>16} "
        f"{'of librosa':>16} {'max error':>11}"
    )
    for name, rate in rates.items():
        if not rate:
            print(f"{name:34} torch is not installed")
            continue
        ratios = [
            f"{ratio(rate, rates[other])} ({ratio(cpu_rates[name], cpu_rates[other])})"
            for other in (TORCH, TENSORFLOW, LIBROSA)
        ]
        print(
            f"{name:34} {statistics.median(rate):8.0f} {min(rate):7.0f} {max(rate):7.0f} "
            f"{1000 / statistics.median(cpu_rates[name]):7.2f} {ratios[0]:>16} {ratios[1]:>16} {ratios[2]:>16} "
            f"{f'{errors[name]:.1e} dB' if name in errors else '':>11}"
        )


def ratio(rate, other):
    """The median over the rounds of rate / other, or a dash if `other` is empty."""
    return f"{statistics.median(a / b for a, b in zip(rate, other)):.2f}x" if other else "-"


if __name__ == "__main__":
    main()
