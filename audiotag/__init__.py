"""Trains and serves audio taggers on few reliable and many noisy labels.

The Python API does what the commands do. TensorFlow and pandas are imported by the functions that
need them, so that `import audiotag` costs nothing.

  experiment = audiotag.load_experiment("experiments/demo.json", ["stages.noisy.epochs=2"])
  run = audiotag.fit(experiment, "runs/demo")
  print(audiotag.evaluate(run))
  table = audiotag.predict(run, ["bell.wav", "street.mp3"])

The packages layers, losses, metrics and models are for Keras code of your own, and testing checks it.
"""

import importlib
from typing import TYPE_CHECKING

__version__ = "0.1.0"
__all__ = [
    "Evaluation",
    "advise",
    "compare",
    "embed",
    "evaluate",
    "explore",
    "fit",
    "label_next",
    "load_experiment",
    "load_model",
    "open_run",
    "predict",
    "sweep",
]

SUBPACKAGES = ("layers", "losses", "metrics", "models", "testing")

if TYPE_CHECKING:
    from audiotag import layers as layers
    from audiotag import losses as losses
    from audiotag import metrics as metrics
    from audiotag import models as models
    from audiotag import testing as testing
    from audiotag.api import (
        Evaluation,
        advise,
        compare,
        embed,
        evaluate,
        explore,
        fit,
        label_next,
        load_experiment,
        load_model,
        open_run,
        predict,
        sweep,
    )
else:

    def __getattr__(name):
        """Imports a name of the API at its first use (PEP 562)."""
        if name in __all__:
            return getattr(importlib.import_module("audiotag.api"), name)
        if name in SUBPACKAGES:
            return importlib.import_module(f"audiotag.{name}")
        raise AttributeError(
            f"module 'audiotag' has no attribute {name!r}. Accepted: {', '.join([*__all__, *SUBPACKAGES])}."
        )


def __dir__() -> list[str]:
    """The names of the API too, for completion in notebooks."""
    return sorted({*globals(), *__all__, *SUBPACKAGES})
