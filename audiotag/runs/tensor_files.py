"""Reads files of weights that other programs wrote.

The formats are HDF5, TensorFlow Lite and PyTorch. Nothing of a file is run, and nothing outside it is read.
"""

import contextlib
import io
import math
import pickle
import struct
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np

from audiotag.errors import DataError, shortened
from audiotag.runs.weights import check_weights

# The types of tensors by their number in TensorFlow Lite's schema, tensorflow/lite/schema/schema.fbs. Other types, such
# as int32, hold shapes and indices.
TFLITE_TYPES = {0: "<f4", 1: "<f2", 3: "u1", 9: "i1"}

TORCH_TYPES = {"FloatStorage": "<f4", "HalfStorage": "<f2", "DoubleStorage": "<f8", "LongStorage": "<i8"}
MAX_PICKLE_BYTES = 10_000_000  # of names and shapes; the numbers are beside it


def file_format(path: str | Path) -> str:
    """The format of a file by its first bytes.

    Returns:
        "hdf5", "tflite", "zip", "pickle" or "unknown".

    Raises:
        DataError: The file cannot be read.
    """
    try:
        with open(path, "rb") as file:
            start = file.read(8)
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}.") from error
    if start == b"\x89HDF\r\n\x1a\n":
        return "hdf5"
    if start[4:] == b"TFL3":
        return "tflite"
    if start[:4] == b"PK\x03\x04":
        return "zip"
    return "pickle" if start[:1] == b"\x80" else "unknown"


def read_hdf5(path: str | Path) -> dict[str, np.ndarray]:
    """The arrays of an HDF5 file.

    Returns:
        {name: array}. The name is the array's place in the file; in a .weights.h5 of Keras 3 it is the name of the
        layer and the number of the weight, such as "logits/0".

    Raises:
        DataError: The file is damaged or holds more than plain numbers.
    """
    check_weights(path)
    arrays = {}

    def visit(place, node):
        if isinstance(node, h5py.Dataset):
            group, _, key = place.rpartition("/")
            arrays[f"{node.parent.attrs['name']}/{key}" if group.endswith("vars") else place] = node[()]

    with _damaged(path), h5py.File(path, "r") as file:
        file.visititems(visit)
    return arrays


def read_tflite(path: str | Path) -> list[list[np.ndarray]]:
    """The weights of each operation of a TensorFlow Lite file.

    Returns:
        The constant inputs of each operation that has any, in the order of the graph, float32: 8-bit integers are
        multiplied by their scale.

    Raises:
        DataError: The file is damaged.
    """
    with _damaged(path):
        data = Path(path).read_bytes()
        model = _Table(data, _number(data, 0, "I"))
        buffers, graph = model.tables(4), model.tables(2)[0]
        tensors = graph.tables(0)
        operations = []
        for operator in graph.tables(3):
            inputs = [_constant(tensors[index], buffers) for index in operator.numbers(1, "<i4") if index >= 0]
            constants = [array for array in inputs if array is not None]
            if constants:
                operations.append(constants)
    return operations


def _constant(tensor, buffers):
    """A constant of a TensorFlow Lite graph as float32; None if it is computed, or no number of a network."""
    kind, shape = TFLITE_TYPES.get(tensor.number(1, "b")), tensor.numbers(0, "<i4").tolist()
    data = buffers[tensor.number(2, "I")].numbers(0, "u1")
    if kind is None or not data.size:
        return None
    array = np.frombuffer(data, kind)
    if array.size != math.prod(shape):
        raise ValueError(f"a tensor of shape {shape} has {array.size} numbers")
    array = array.reshape(shape).astype("float32")
    quantization = tensor.table(4)
    scale = np.ones(1, "<f4") if quantization is None else quantization.numbers(2, "<f4")
    if quantization is None or not scale.size:
        return array
    axis, zero = quantization.number(6, "i"), quantization.numbers(3, "<i8").astype("float32")
    along = [-1 if index == axis else 1 for index in range(len(shape))] if scale.size > 1 else [-1]
    return (array - (zero.reshape(along) if zero.size else 0)) * scale.reshape(along)


def read_torch(path: str | Path) -> dict[str, np.ndarray]:
    """The arrays of a file that `torch.save` wrote of a state dict.

    Such a file holds a pickle, which can call any function of any package. Here it can name only what a dict of
    tensors consists of.

    Returns:
        {name: array}.

    Raises:
        DataError: The file is damaged, or its pickle holds anything but tensors.
    """
    with _damaged(path), zipfile.ZipFile(path) as archive:
        members = {info.filename.partition("/")[2]: info for info in archive.infolist()}
        if any(info.compress_type != zipfile.ZIP_STORED for info in members.values()):
            raise ValueError("it is compressed")
        if members["data.pkl"].file_size > MAX_PICKLE_BYTES:
            raise ValueError(f"its pickle has {members['data.pkl'].file_size} bytes")
        storages = {name[5:]: info for name, info in members.items() if name.startswith("data/")}
        content = _TensorUnpickler(archive.read(members["data.pkl"]), archive, storages).load()
        if not isinstance(content, dict) or not all(isinstance(value, _Tensor) for value in content.values()):
            raise ValueError("it is no dict of tensors")
        return {str(name): tensor.array for name, tensor in content.items()}


class _Tensor(NamedTuple):
    """An array of a PyTorch file; what a pickle may hold of it."""

    array: np.ndarray


class _TensorUnpickler(pickle.Unpickler):
    """Reads a pickle of a dict of tensors and refuses all other names."""

    def __init__(self, content: bytes, archive: zipfile.ZipFile, storages: dict[str, zipfile.ZipInfo]):
        super().__init__(io.BytesIO(content))
        self.archive, self.storages = archive, storages

    def find_class(self, module: str, name: str) -> Any:
        """What a name of the pickle stands for: never what Python would import."""
        if (module, name) == ("collections", "OrderedDict"):
            return type("StateDict", (dict,), {})  # of its own, as the pickle may set attributes of it
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return lambda *arguments: _Tensor(_strided(*arguments[:4]))
        if module == "torch" and name in TORCH_TYPES:
            return TORCH_TYPES[name]
        raise ValueError(f"its pickle names {module}.{name}, which is no tensor")

    def persistent_load(self, pid: Any) -> np.ndarray:
        """The numbers of a storage: ("storage", type, key, device, count)."""
        _, kind, key, *_ = pid
        if kind not in TORCH_TYPES.values():
            raise ValueError(f"a storage of type {kind!r}")
        return np.frombuffer(self.archive.read(self.storages[key]), kind)


def _strided(storage, offset, shape, strides):
    """A tensor that lies in a storage, as an array of its own."""
    last = offset + sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True))
    if offset < 0 or min((*shape, *strides), default=1) < 0 or 0 not in shape and last >= len(storage):
        raise ValueError(f"a tensor of shape {shape} exceeds its storage")
    if math.prod(shape) > len(storage):
        raise ValueError(f"a tensor of shape {shape} repeats its storage")
    strides = [stride * storage.itemsize for stride in strides]
    return np.lib.stride_tricks.as_strided(storage[offset:], shape, strides).copy()


class _Table:
    """A table of a FlatBuffers file: fields by their number in the schema."""

    def __init__(self, data: bytes, position: int):
        self.data, self.position = data, position

    def place(self, field: int) -> int | None:
        """Where a field is; None if the table has none."""
        fields = self.position - _number(self.data, self.position, "i")
        size = _number(self.data, fields, "H")
        offset = _number(self.data, fields + 4 + 2 * field, "H") if 4 + 2 * field < size else 0
        return self.position + offset if offset else None

    def number(self, field: int, kind: str) -> int:
        """An integer field, 0 by default."""
        place = self.place(field)
        return 0 if place is None else _number(self.data, place, kind)

    def numbers(self, field: int, kind: str) -> np.ndarray:
        """A field that is a vector of numbers, empty by default."""
        place = self.place(field)
        if place is None:
            return np.zeros(0, kind)
        place += _number(self.data, place, "I")
        return np.frombuffer(self.data, kind, count=_number(self.data, place, "I"), offset=place + 4)

    def table(self, field: int) -> "_Table | None":
        """A field that is a table."""
        place = self.place(field)
        return None if place is None else _Table(self.data, place + _number(self.data, place, "I"))

    def tables(self, field: int) -> "list[_Table]":
        """A field that is a vector of tables."""
        place = self.place(field)
        if place is None:
            return []
        offsets = self.numbers(field, "<u4").tolist()
        place += _number(self.data, place, "I") + 4
        return [_Table(self.data, place + 4 * index + offset) for index, offset in enumerate(offsets)]


def _number(data: bytes, position: int, kind: str) -> Any:
    """A little-endian number of the `struct` kind."""
    if position < 0:
        raise ValueError("an offset before its start")
    return struct.unpack_from(f"<{kind}", data, position)[0]


@contextlib.contextmanager
def _damaged(path: str | Path) -> Iterator[None]:
    """Turns the errors of a damaged file into a `DataError`."""
    try:
        yield
    except DataError:
        raise
    except Exception as error:  # zipfile, pickle, struct, h5py and NumPy raise many kinds
        raise DataError(f"{path}: is damaged, or no file of weights: {shortened(str(error))}.") from error
