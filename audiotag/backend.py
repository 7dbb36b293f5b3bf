"""The backend of Keras: which it is, and functions that it compiles."""

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from typing import Any

import keras

from audiotag.errors import DataError


def on_tensorflow() -> bool:
    """Whether Keras runs on TensorFlow in this process."""
    return keras.backend.backend() == "tensorflow"


def refuse_other_backends(what: str) -> None:
    """Refuses what only TensorFlow can do.

    Raises:
        DataError: Keras runs on another backend.
    """
    if not on_tensorflow():
        raise DataError(
            f"{what} needs TensorFlow, and Keras runs on {keras.backend.backend()}. Set KERAS_BACKEND=tensorflow for "
            "this command. A run can be used on every backend."
        )


def run_in_tensorflow(arguments: list[str]) -> None:
    """Runs a command of audiotag in a process on TensorFlow, on the CPU.

    Its output is shown.

    Args:
        arguments: Those of `audiotag`.

    Raises:
        DataError: It failed.
    """
    environment = os.environ | {"KERAS_BACKEND": "tensorflow", "CUDA_VISIBLE_DEVICES": "-1"}
    environment["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
    done = subprocess.run([sys.executable, "-m", "audiotag", *arguments], env=environment, check=False)
    if done.returncode:
        raise DataError(
            f"audiotag {arguments[0]} with KERAS_BACKEND=tensorflow ended with exit code {done.returncode}."
        )


def compiled(function: Callable[[Any], Any], models: Sequence[keras.Model]) -> Callable[[Any], Any]:
    """The same function, compiled once for all calls.

    JAX compiles it once for each shape.

    Args:
        function: A function of a tensor that calls models.
        models: The models. Each call uses the values that their variables have then.
    """
    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        return tf.function(function, reduce_retracing=True, autograph=False)
    if backend != "jax":
        return lambda inputs: function(keras.ops.convert_to_tensor(inputs))
    import jax

    variables = [variable for model in models for variable in model.variables]

    @jax.jit
    def stateless(values, inputs):
        with keras.StatelessScope(state_mapping=list(zip(variables, values))):
            return function(inputs)

    return lambda inputs: stateless([variable.value for variable in variables], keras.ops.convert_to_tensor(inputs))
