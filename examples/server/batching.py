"""Scores the requests that wait together, so that a busy server runs its model on batches."""

import asyncio
from concurrent.futures import ThreadPoolExecutor

import numpy as np


class Full(Exception):
    """Too many requests wait."""


class Batcher:
    """Scores waveforms in the order in which they come, as many at a time as wait.

    Args:
        score: A function: waveform float32 [B, N], num_samples int32 [B] → [B, K]. Zeros follow the `num_samples` of a
            clip. One thread calls it.
        max_clips: Clips in a batch.
        max_samples: Samples in a batch, padding included; a longer clip is scored alone.
        max_waiting: Requests that wait; more are refused.
    """

    def __init__(self, score, *, max_clips=32, max_samples=1 << 22, max_waiting=1000):
        self.score = score
        self.max_clips = max_clips
        self.max_samples = max_samples
        self.max_waiting = max_waiting
        self.waiting = []  # (waveform, future of its scores)
        self.arrived = asyncio.Event()
        self.thread = ThreadPoolExecutor(1)
        self.largest_batch = 0

    async def predict(self, waveform):
        """The scores [K] of a waveform float32 [N]."""
        if len(self.waiting) >= self.max_waiting:
            raise Full
        future = asyncio.get_running_loop().create_future()
        self.waiting.append((waveform, future))
        self.arrived.set()
        return await future

    async def run(self):
        """Scores what waits, until it is cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            await self.arrived.wait()
            batch = self._next_batch()
            try:
                found = await loop.run_in_executor(self.thread, self._score, [waveform for waveform, _ in batch])
                for (_, future), scores in zip(batch, found):
                    if not future.done():  # the client may be gone
                        future.set_result(scores)
            except Exception as error:  # of one batch; the server goes on
                for _, future in batch:
                    if not future.done():
                        future.set_exception(error)

    def _next_batch(self):
        """Takes the first requests that fit into a batch."""
        longest, count = 0, 0
        for waveform, _ in self.waiting[: self.max_clips]:
            longest = max(longest, len(waveform))
            if count and longest * (count + 1) > self.max_samples:
                break
            count += 1
        batch, self.waiting = self.waiting[:count], self.waiting[count:]
        if not self.waiting:
            self.arrived.clear()
        self.largest_batch = max(self.largest_batch, count)
        return batch

    def _score(self, waveforms):
        """The scores of several waveforms: [B, K]."""
        num_samples = np.array([len(waveform) for waveform in waveforms], "int32")
        padded = np.zeros((len(waveforms), max(num_samples.max(), 1)), "float32")
        for row, waveform in zip(padded, waveforms):
            row[: len(waveform)] = waveform
        return self.score(padded, num_samples)
