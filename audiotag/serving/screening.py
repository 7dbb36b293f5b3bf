"""What a SavedModel would do, by the names of its operations, read before any of it runs. A screen, not a sandbox."""

import re
from pathlib import Path

from audiotag.errors import DataError

# A graph computes; these of its operations also keep something, and audiotag's own models need them to hold weights.
KEEPING = {
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
# Operations that TensorFlow takes for harmless and that touch files, Python, other machines or the process itself.
HARMFUL = re.compile("File|PyFunc|ImmutableConst|Abort|Dataset|Iterator|Remote|Rpc|Collective|Xla|Custom|Tpu|Trt")
# What Keras' archive brings to save and restore itself, in functions that loading and predicting do not call.
SAVING = {"MergeV2Checkpoints", "RestoreV2", "SaveV2", "ShardedFilename"}
SAVERS = re.compile("__inference__traced_(save|restore)_[0-9]+")
READS_NAMES = "InitializeTableFromTextFileV2"  # of the classes, from the file beside the model


def foreign_operations(folder):
    """The names of the operations in a SavedModel that audiotag's own models never have; sorted.

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
            foreign.add("the graph of TensorFlow 1, which runs while it is loaded")
        for asset in graph.asset_file_def:
            if asset.filename != Path(asset.filename).name:
                raise DataError(f"{folder}: the model reads {asset.filename!r}, a file outside its folder.")
        foreign |= {node.op for node in graph.graph_def.node if not _ours(node)}
        for function in getattr(graph.graph_def, "library").function:
            saver = SAVERS.fullmatch(function.signature.name)
            arguments = {argument.name for argument in function.signature.input_arg}
            for node in function.node_def:
                called = [value.func.name for value in node.attr.values() if value.func.name]
                if any(map(SAVERS.fullmatch, called)):
                    foreign.add("a call of the function that saves")
                if not _ours(node, arguments) and not (saver and node.op in SAVING):
                    foreign.add(node.op)
    return sorted(foreign)


def _ours(node, arguments=()):
    """Whether audiotag's own models may have a node; `arguments` are those of the function it stands in."""
    from tensorflow.python.framework import op_def_registry

    if node.op == READS_NAMES:
        return node.input[1].split(":")[0] in arguments  # the file is given by who calls, and lies beside the model
    known = op_def_registry.get(node.op)
    if known is None or node.op in SAVING:
        return False
    return node.op in KEEPING or not (known.is_stateful or HARMFUL.search(node.op))
