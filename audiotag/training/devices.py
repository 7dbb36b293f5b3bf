"""Training on several devices.

With TensorFlow they are those of one process. With JAX there may be several processes: all compute the same
steps, each on its own rows of a batch. Process 0 does everything else: it prepares each stage, writes the run, and
sends to the others what they need for the steps.
"""

import atexit
import contextlib
import functools
import io
import itertools
import json
import os
import sys
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any, Literal

import keras
import numpy as np
import tensorflow as tf

from audiotag.config.schema import Experiment, stage_of
from audiotag.errors import AudiotagError, ConfigError, DataError
from audiotag.models.tagger import Tagger
from audiotag.training.traced_models import TracedModels

# A process is considered dead after so long without a heartbeat. JAX waits 100 s.
HEARTBEAT_SECONDS = 30
# At the end processes wait for the one that scores and exports, which may take long. JAX waits 300 s.
FOREVER_SECONDS = 7 * 24 * 3600
SEED_STATE = "seed_generator_state"  # the name of the variable of a keras.random.SeedGenerator: [seed, draws so far]
MOST_DRAWS = 1 << 24  # by which the draws of two devices are apart
WATCH_SECONDS = 1.0  # between looks for a message of a process that failed
STOPPED = "audiotag/stopped"  # the key with the message of a process that failed
# Variables that keras.distribution.initialize reads.
ADDRESSES, NUM_PROCESSES, PROCESS_ID = (
    f"KERAS_DISTRIBUTION_{name}" for name in ("JOB_ADDRESSES", "NUM_PROCESSES", "PROCESS_ID")
)


class Replicas(keras.distribution.DataParallel):
    """Keras' DataParallel over batches that are split among processes already.

    Batches of validation clips have any size, so each device has them complete.
    """

    def __init__(self, devices: Sequence[str]):
        super().__init__(devices=devices, auto_shard_dataset=False)
        self.validates = False

    def get_data_layout(self, data_shape: Sequence[int]) -> keras.distribution.TensorLayout:
        """How a batch is placed: its rows are split among the devices, in training."""
        if self.validates:
            return keras.distribution.TensorLayout([None] * len(data_shape), self.device_mesh)
        return super().get_data_layout(data_shape)


class Devices:
    """The devices that train together, whatever the backend.

    Args:
        number: How many there are.

    Attributes:
        models: Models whose variables all devices have.
        index: Which process this is.
        num_processes: How many there are.
    """

    def __init__(self, number: int) -> None:
        self.number = number
        self.models = TracedModels()
        self.index = 0
        self.num_processes = 1

    @property
    def share(self) -> tuple[int, int]:
        """The part of each batch that this process reads: (which, of how many)."""
        return self.index, self.num_processes

    def check(self, experiment: Experiment) -> None:
        """Refuses an experiment that these devices cannot train.

        Raises:
            ConfigError: A batch size is not a multiple of the number of devices.
        """
        for stage in experiment.stages:
            if stage.batch_size % self.number:
                raise ConfigError(
                    f"stages.{stage_of(stage.name)}.batch_size: {stage.batch_size} windows cannot be split evenly "
                    f"among {self.number} devices. Expected a multiple of {self.number}."
                )

    def building(self) -> AbstractContextManager[None]:
        """In the block variables are created on all devices."""
        raise NotImplementedError

    def prepare(self, tagger: Tagger) -> None:
        """Changes a compiled model so that it trains as on one device."""

    def assign(self, variables: Iterable[keras.Variable], arrays: Iterable[np.ndarray]) -> None:
        """Gives variables of all devices their values."""
        raise NotImplementedError

    def send(self, content: dict[str, Any] | None, arrays: Sequence[np.ndarray] = ()) -> None:
        """Sends a JSON object and arrays to the processes that `receive`.

        None ends them.
        """

    def receive(self) -> tuple[Any, list[np.ndarray]]:
        """What process 0 sends next."""
        raise NotImplementedError

    def training(self) -> AbstractContextManager[None]:
        """In the block batches are split among the devices."""
        return contextlib.nullcontext()

    def callbacks(self, validator: Tagger) -> list[keras.callbacks.Callback]:
        """Callbacks that must come before all others.

        Args:
            validator: A model on one device that is the same but for its weights.
        """
        raise NotImplementedError


class MirroredDevices(Devices):
    """The GPUs of one machine, with TensorFlow's MirroredStrategy.

    Each has all variables and computes its rows of a batch. The gradients of all are added, so weights stay equal.

    Args:
        names: Those of the devices, such as "/device:GPU:0".
    """

    def __init__(self, names: Sequence[str]) -> None:
        super().__init__(len(names))
        self.strategy = _strategy(tuple(names))

    def check(self, experiment: Experiment) -> None:
        """Refuses an experiment that these devices cannot train.

        Raises:
            ConfigError: A batch size is not a multiple of the number of devices, or Keras does not train with a setting
                on several.
        """
        super().check(experiment)
        refused = ["jit_compile"] if experiment.jit_compile else []
        for stage in experiment.stages:
            if getattr(stage.optimizer, "gradient_accumulation_steps", None):
                refused.append(f"stages.{stage_of(stage.name)}.optimizer.gradient_accumulation_steps")
        if refused:
            raise ConfigError(
                f"{refused[0]}: on TensorFlow Keras trains with it on one device only. Leave it out, set "
                "KERAS_BACKEND=jax, or leave out --devices."
            )

    def building(self) -> AbstractContextManager[None]:
        """In the block variables are created on all devices."""
        return self.strategy.scope()

    def prepare(self, tagger: Tagger) -> None:
        """Lets a model normalize and clip gradients by the complete batch."""
        for layer in tagger._flatten_layers():
            if isinstance(layer, keras.layers.BatchNormalization):
                layer.synchronized = True
        _add_gradients_first(tagger.optimizer)

    def assign(self, variables: Iterable[keras.Variable], arrays: Iterable[np.ndarray]) -> None:
        """Gives variables of all devices their values.

        Each device draws random numbers of its own, the first those of one device alone.
        """
        for variable, array in zip(variables, arrays, strict=True):
            variable.assign(array)
            if variable.name == SEED_STATE:
                for index, of_device in enumerate(self.strategy.experimental_local_results(variable.value)):
                    of_device.assign_add([0, index * MOST_DRAWS])

    def callbacks(self, validator: Tagger) -> list[keras.callbacks.Callback]:
        """A callback that validates on one device."""
        return [_ValidateOnOne(validator)]


_strategies: dict[tuple[str, ...], tf.distribute.Strategy] = {}  # at most one


def _strategy(names):
    """The strategy of this process: a second one would use the keys of the first for its collective operations."""
    if not _strategies:
        _strategies[names] = tf.distribute.MirroredStrategy(names)
    if names not in _strategies:
        (others,) = _strategies
        raise ConfigError(
            f"--devices: this process trained on {len(others)} devices, and TensorFlow cannot change to {len(names)} "
            "in it. Start a new process."
        )
    return _strategies[names]


def _add_gradients_first(optimizer):
    """Adds the gradients of all devices before an optimizer checks and clips them; Keras adds them afterwards."""
    apply, inner = optimizer.apply, getattr(optimizer, "inner_optimizer", optimizer)
    assert callable(inner._all_reduce_sum_gradients), "Keras adds gradients in another way"

    def apply_sums(grads, trainable_variables=None):
        context = tf.distribute.get_replica_context()
        sums = iter(context.all_reduce(tf.distribute.ReduceOp.SUM, [grad for grad in grads if grad is not None]))
        return apply([None if grad is None else next(sums) for grad in grads], trainable_variables)

    optimizer.apply = apply_sums
    inner._all_reduce_sum_gradients = list


class _ValidateOnOne(keras.callbacks.Callback):
    """Validates with a model on one device, as batches of clips have any size, and metrics of all clips no sum."""

    def __init__(self, validator):
        super().__init__()
        self.validator = validator

    def on_train_begin(self, logs=None):
        """Replaces how the model validates."""
        self.model.evaluate = self._evaluate

    def on_test_batch_begin(self, batch, logs=None):
        """Copies the weights, which callbacks may have changed at the beginning."""
        if batch == 0:
            for variable, trained in zip(self.validator.variables, self.model.variables, strict=True):
                variable.assign(keras.ops.convert_to_numpy(trained))

    def _evaluate(self, x, callbacks, **_):
        return self.validator.evaluate(x, callbacks=callbacks, return_dict=True, verbose=0)


class JaxDevices(Devices):
    """Devices of one or several processes, with Keras' distribution for JAX.

    Args:
        distribution: A `Replicas`.
        group: The processes, if there are several.
    """

    def __init__(self, distribution: Replicas, group: "_Group | None") -> None:
        super().__init__(distribution.num_model_replicas)
        self.distribution = distribution
        self.group = group
        if group is not None:
            self.index, self.num_processes = group.index, group.num_processes

    def building(self) -> AbstractContextManager[None]:
        """In the block variables are created on all devices."""
        return self.training()

    def assign(self, variables: Iterable[keras.Variable], arrays: Iterable[np.ndarray]) -> None:
        """Gives variables of all devices their values, the same in all processes."""
        import jax

        for variable, array in zip(variables, arrays, strict=True):
            sharding = self.distribution.get_variable_layout(variable).backend_layout
            variable.assign(jax.make_array_from_callback(array.shape, sharding, functools.partial(_part, array)))

    def send(self, content: dict[str, Any] | None, arrays: Sequence[np.ndarray] = ()) -> None:
        """Sends a JSON object and arrays to the processes that `receive`; None ends them.

        Raises:
            DataError: Another process died.
        """
        if self.group is None:
            return
        file = io.BytesIO()
        np.savez(file, *arrays, content=np.frombuffer(json.dumps(content).encode(), "uint8"))
        with self._explain_lost_process():
            self.group.broadcast(np.frombuffer(file.getvalue(), "uint8"))

    def receive(self) -> tuple[Any, list[np.ndarray]]:
        """What process 0 sends next.

        Raises:
            DataError: Another process died.
        """
        assert self.group is not None
        with self._explain_lost_process():
            content = self.group.broadcast(None)
        with np.load(io.BytesIO(content.tobytes()), allow_pickle=False) as file:
            return json.loads(file["content"].tobytes()), [file[f"arr_{n}"] for n in range(len(file.files) - 1)]

    @contextlib.contextmanager
    def training(self) -> Iterator[None]:
        """In the block variables are created on all devices.

        Batches are split among them.

        Raises:
            DataError: Another process died, so a step could not be computed.
        """
        with self._explain_lost_process(), self.distribution.scope():
            try:
                yield
            finally:
                self.distribution.validates = False

    @contextlib.contextmanager
    def _explain_lost_process(self):
        """Turns JAX's error about a process that died into one that says what to do."""
        import jax

        try:
            yield
        except jax.errors.JaxRuntimeError as error:
            if self.group is None or "RESOURCE_EXHAUSTED" in str(error):
                raise
            self.group.lost = True
            raise DataError(
                f"another of the {self.num_processes} processes has ended or cannot be reached "
                f"({str(error).splitlines()[0]}). What was saved before is unchanged. Start all of them again with the "
                "same commands; training continues from there."
            ) from error

    def callbacks(self, validator: Tagger) -> list[keras.callbacks.Callback]:
        """A callback that lets processes wait for each other."""
        return [_Synchronize(self)]


def _part(array, index):
    return array[index]


class _Synchronize(keras.callbacks.Callback):
    """Tells training from validation, and lets processes wait for each other before either.

    Collective operations of CPUs fail after 30 s; meanwhile process 0 may write a checkpoint.
    """

    def __init__(self, devices):
        super().__init__()
        self.devices = devices

    def on_epoch_begin(self, epoch, logs=None):
        """Waits until every process is here."""
        self._wait()

    def on_test_begin(self, logs=None):
        """Waits, and has complete batches on each device from now on."""
        self.devices.distribution.validates = True
        self._wait()

    def on_test_end(self, logs=None):
        """Splits batches again."""
        self.devices.distribution.validates = False

    def _wait(self):
        if self.devices.group is not None:
            self.devices.group.wait()


class _Group:
    """Several processes that JAX connects.

    Each waits for messages in the key-value store of process 0: in a collective operation, which would need no such
    store, CPUs wait for 30 s at most, and process 0 may predict clips between two stages for much longer.
    """

    def __init__(self, index, num_processes, client):
        self.index, self.num_processes, self.client = index, num_processes, client
        self.numbers = itertools.count()
        self.failed = self.lost = False  # whether this process ends the others; whether another one died
        self.ends = threading.Event()
        self.watch = threading.Thread(target=self._end_with_others, daemon=True)
        self.watch.start()
        atexit.register(self._end_watch)

    def broadcast(self, content):
        """The bytes that process 0 gives, an array; the others give None."""
        from jax.experimental import multihost_utils

        key = f"audiotag/{next(self.numbers)}"
        if content is not None:
            self.client.key_value_set(key, str(len(content)))
        length = int(self._value(key))
        return np.asarray(
            multihost_utils.broadcast_one_to_all(np.zeros(length, "uint8") if content is None else content)
        )

    def _value(self, key):
        """The value of a key, as soon as there is one; Ctrl-C ends the wait."""
        import jax

        while True:
            try:
                return self.client.blocking_key_value_get(key, 1000)
            except jax.errors.JaxRuntimeError as error:
                if "DEADLINE_EXCEEDED" not in str(error):
                    raise

    def wait(self):
        """Returns when all processes have called it."""
        self.client.wait_at_barrier(f"audiotag/{next(self.numbers)}", 1000 * FOREVER_SECONDS)

    def stop(self, message):
        """Ends the other processes with a message."""
        self.failed = True
        with contextlib.suppress(Exception):  # another one has failed, too, or the first one is gone
            self.client.key_value_set(STOPPED, f"Process {self.index} stopped: {message}")

    def _end_with_others(self):
        """Ends this process, which may wait for one that failed, as soon as that says so."""
        import jax

        while not self.ends.wait(WATCH_SECONDS):
            try:
                message = self.client.key_value_try_get(STOPPED)
            except jax.errors.JaxRuntimeError:  # there is no message
                continue
            if not self.failed:
                print(f"Error: {message}", file=sys.stderr, flush=True)
                jax.distributed.shutdown()
                os._exit(1)

    def _end_watch(self):
        self.ends.set()
        self.watch.join()
        if self.lost:  # JAX would wait for the one that died
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(1)


@functools.cache
def _connected_group():
    """The processes that the environment names; None if there is only this one."""
    if ADDRESSES not in os.environ and NUM_PROCESSES not in os.environ:
        return None
    import jax
    from jax._src import distributed  # its client has the key-value store, which has no public name

    try:
        values = os.environ[ADDRESSES].split(",")[0], int(os.environ[NUM_PROCESSES]), int(os.environ[PROCESS_ID])
    except (KeyError, ValueError) as error:
        raise ConfigError(
            f"{ADDRESSES}, {NUM_PROCESSES} and {PROCESS_ID}: found {error}. Expected the HOST:PORT of process 0, the "
            "number of processes, and which of them this is, from 0; or none of these variables."
        ) from error
    try:
        jax.distributed.initialize(
            *values, heartbeat_timeout_seconds=HEARTBEAT_SECONDS, shutdown_timeout_seconds=FOREVER_SECONDS
        )
    except (RuntimeError, ValueError) as error:
        raise ConfigError(
            f"{ADDRESSES}={os.environ[ADDRESSES]}: JAX could not connect the processes: {error}"
        ) from error
    return _Group(jax.process_index(), jax.process_count(), distributed.global_state.client)


@contextlib.contextmanager
def joined(devices: Literal["all"] | int | None) -> Iterator[Devices | None]:
    """Joins devices for training.

    With the environment variables KERAS_DISTRIBUTION_JOB_ADDRESSES, KERAS_DISTRIBUTION_NUM_PROCESSES and
    KERAS_DISTRIBUTION_PROCESS_ID it connects this process with the others, which must call it, too.

    Args:
        devices: How many of each process, or "all"; None trains on one, alone.

    Yields:
        The `Devices`, or None.

    Raises:
        ConfigError: Keras runs on PyTorch, there are not so many devices, or the processes cannot be connected.
    """
    if devices is None:
        if os.environ.get(NUM_PROCESSES, "1") != "1":
            raise ConfigError(f"{NUM_PROCESSES} is set, so several processes train. Give each of them --devices all.")
        yield None
        return
    if devices != "all" and (not isinstance(devices, int) or devices < 1):
        raise ConfigError(f'devices: found {devices!r}. Expected "all" or a number from 1.')
    if keras.backend.backend() == "tensorflow":
        yield _mirrored_devices(devices)
        return
    if keras.backend.backend() != "jax":
        raise ConfigError(
            f"--devices: Keras runs on {keras.backend.backend()}. Only JAX and TensorFlow train on several devices. "
            "Set KERAS_BACKEND, or leave out --devices."
        )
    group = _connected_group()
    try:
        yield JaxDevices(Replicas(_chosen_devices(devices)), group)
    except BaseException as error:
        if group is not None and not group.lost:
            group.stop(_reason(error))
        raise


def _reason(error):
    """Why training ends, for the other processes."""
    if isinstance(error, SystemExit):
        return "a signal ended it, and all is saved."
    return str(error) if isinstance(error, (AudiotagError, KeyboardInterrupt)) else repr(error)


def _mirrored_devices(devices):
    """The first devices of this machine; None if that is one, which needs no strategy."""
    if os.environ.get(NUM_PROCESSES, "1") != "1":
        raise ConfigError(
            f"{NUM_PROCESSES} is set, and TensorFlow trains in one process. Set KERAS_BACKEND=jax for several hosts."
        )
    kind = "GPU" if tf.config.list_logical_devices("GPU") else "CPU"
    names = [device.name for device in tf.config.list_logical_devices(kind)]
    number = len(names) if devices == "all" else devices
    if number > len(names):
        raise ConfigError(
            f"--devices: {number} are asked, and TensorFlow finds {len(names)} {kind}. Give at most that."
        )
    return None if number == 1 else MirroredDevices(names[:number])


def _chosen_devices(devices):
    """The names of the first devices of each process, in the order of the processes."""
    import jax

    number = jax.local_device_count() if devices == "all" else devices
    chosen = []
    for process, found in itertools.groupby(jax.devices(), lambda device: device.process_index):
        names = [f"{device.platform}:{device.id}" for device in found]
        if number > len(names):
            raise ConfigError(
                f"--devices: process {process} has {len(names)} {jax.default_backend()} devices, and {number} are "
                "asked of each. Give a number that every process has."
            )
        chosen += names[:number]
    return chosen


def is_first_process() -> bool:
    """Whether this process writes the run: it trains alone, or is process 0."""
    return not _connected_group.cache_info().currsize or (group := _connected_group()) is None or group.index == 0
