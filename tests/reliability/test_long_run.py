"""D11: memory and open files do not grow during a long training."""

import os
import resource
from pathlib import Path

import numpy as np
import pytest

from audiotag.training import loop


@pytest.mark.check("D11")
def test_memory_and_open_files_do_not_grow(tiny, tier, tally, tmp_path, monkeypatch):
    epochs, steps, seen = tier(36, 100), tier(5, 20), []
    end = loop.SaveState.on_epoch_end

    def record(callback, epoch, logs=None):
        end(callback, epoch, logs)
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        seen.append((pages * resource.getpagesize() / 1e6, len(os.listdir("/proc/self/fd"))))

    monkeypatch.setattr(loop.SaveState, "on_epoch_end", record)
    overrides = ["model.filters=[4]", "stages.curated.epochs=1", f"stages.noisy.epochs={epochs}"]
    loop.fit(tiny(*overrides, f"stages.noisy.steps_per_epoch={steps}", "stages.noisy.batch_size=8"), tmp_path / "run")
    megabytes, handles = np.array(seen[epochs // 2 : epochs]).T
    slope = np.polyfit(range(len(megabytes)), megabytes, 1)[0]
    with tally.trial("memory"):
        assert slope < 1
    with tally.trial("open files"):
        assert np.median(handles[-5:]) <= np.median(handles[:5])
    tally.say(f"over {epochs} epochs of {steps} steps memory grows by {slope:.2f} MB per epoch")
