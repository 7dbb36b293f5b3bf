"""Training on records at a URL, into a run at a URL."""

import pytest
from object_store import objects, served

import audiotag
from audiotag.data.records import write_records
from audiotag.data.sources import find_clips


def test_a_run_and_its_records_may_be_in_a_store_that_fails(demo, tiny, run, tmp_path):
    with served(tmp_path / "cache", every=5) as store:
        place, there = f"{store.url}/records", f"{store.url}/runs/tiny"
        write_records(find_clips(demo), place, sample_rate=16_000, workers=0, clips_per_shard=16)
        audiotag.fit(tiny().model_copy(update={"records": place}), there, quiet=True)
        assert store.num_failed > 5 and "run.json" in objects(there)
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("AUDIOTAG_CACHE", str(tmp_path / "other"))  # as on another machine
            copy = audiotag.open_run(there)
            assert copy.experiment.records == place and copy.folder.is_relative_to(tmp_path / "other")
            differing = {"seconds": 0, "sha256": ""}  # a file of weights has the names of layers, which Keras counts
            for stage in ("noisy", "curated"):
                assert copy.result(0, stage) | differing == run.result(0, stage) | differing
            assert audiotag.evaluate(there).overall.equals(audiotag.evaluate(run).overall)
