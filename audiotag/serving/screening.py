"""Checks the operations of a SavedModel by name, before any of it runs.

This is a screen, not a sandbox: run models from untrusted sources elsewhere.
"""

import re
from pathlib import Path

from audiotag.errors import DataError

# Stateful operations that audiotag's own models need, for weights and class names.
STATEFUL = {
    "Assert",
    "AssignVariableOp",
    "Case",
    "DestroyResourceOp",
    "DisableCopyOnRead",
    "HashTableV2",
    "If",
    "LookupTableFindV2",
    "PartitionedCall",
    "ReadVariableOp",
    "StatefulPartitionedCall",
    "VarHandleOp",
    "VarIsInitializedOp",
    "While",
}
# Operations that TensorFlow calls stateless although they reach files, Python, other machines or the process.
HARMFUL = re.compile("File|PyFunc|ImmutableConst|Abort|Dataset|Iterator|Remote|Rpc|Collective|Xla|Custom|Tpu|Trt")
# Operations with which Keras' archive saves and restores itself, in functions that prediction does not call.
SAVING = {"MergeV2Checkpoints", "RestoreV2", "SaveV2", "ShardedFilename"}
SAVERS = re.compile("__inference__traced_(save|restore)_[0-9]+")
READS_NAMES = "InitializeTableFromTextFileV2"  # reads the class names from the file beside the model


def foreign_operations(folder: str | Path) -> list[str]:
    """The sorted names of a SavedModel's foreign operations.

    They are those that audiotag's own models never have.

    Raises:
        DataError: saved_model.pb cannot be read, or names a file outside the folder.
    """
    from tensorflow.core.protobuf import saved_model_pb2

    path = Path(folder) / "saved_model.pb"
    try:
        model = saved_model_pb2.SavedModel.FromString(path.read_bytes())
    except Exception as error:  # protobuf's own
        raise DataError(f"{folder}: damaged, or a SavedModel that this audiotag did not export: {error}") from error
    foreign = set()
    for graph in model.meta_graphs:
        if not graph.HasField("object_graph_def"):
            foreign.add("a TensorFlow 1 graph, which runs while it is loaded")
        for asset in graph.asset_file_def:
            if asset.filename != Path(asset.filename).name:
                raise DataError(f"{folder}: the model reads {asset.filename!r}, a file outside its folder.")
        foreign |= {node.op for node in graph.graph_def.node if not _ours(node)}
        for function in graph.graph_def.library.function:
            saver = SAVERS.fullmatch(function.signature.name)
            arguments = {argument.name for argument in function.signature.input_arg}
            for node in function.node_def:
                called = [value.func.name for value in node.attr.values() if value.func.name]
                if any(map(SAVERS.fullmatch, called)):
                    foreign.add("a call of the saving function")
                if not _ours(node, arguments) and not (saver and node.op in SAVING):
                    foreign.add(node.op)
    return sorted(foreign)


def _ours(node, arguments=()):
    """Whether audiotag's own models may have a node; `arguments` are those of its function."""
    from tensorflow.python.framework import op_def_registry

    if node.op == READS_NAMES:
        return node.input[1].split(":")[0] in arguments  # the caller passes the file, which is beside the model
    known = op_def_registry.get(node.op)
    if known is None or node.op in SAVING:
        return False
    return node.op in STATEFUL or not (known.is_stateful or HARMFUL.search(node.op))
