"""The same clips made into a dataset by tensorflow-datasets alone, to be mistreated alike; prints how many it made."""

import sys
from pathlib import Path

import numpy as np
import tensorflow_datasets as tfds

CLIPS = 512


class Clips(tfds.core.GeneratorBasedBuilder):
    """Waveforms of noise."""

    VERSION = tfds.core.Version("1.0.0")
    pkg_dir_path = Path(__file__).parent

    def _info(self):
        sound = tfds.features.Tensor(shape=(None,), dtype=np.int16)
        features = tfds.features.FeaturesDict({"name": tfds.features.Text(), "audio": sound})
        return self.dataset_info_from_configs(features=features)

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples()}

    def _generate_examples(self):
        for number in range(CLIPS):
            print(number, flush=True)
            sound = np.random.default_rng(number).integers(-(2**15), 2**15, 60 + number % 300).astype("int16")
            yield number, {"name": f"{number}.wav", "audio": sound}


def main(folder, then="make"):
    builder = Clips(data_dir=folder)
    if then == "make":
        builder.download_and_prepare()
        return
    read = builder.as_dataset(split="train")
    names = sorted(clip["name"].decode() for clip in tfds.as_numpy(read))
    print(Path(folder).name, len(names), len(set(names)), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
