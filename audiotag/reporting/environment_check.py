"""What this machine has, and which package to install for which feature."""

import importlib.metadata
import os
import shutil
import sys
from pathlib import Path

from audiotag.data.audio import ffmpeg
from audiotag.runs.directory import environment

# {extra: (a package of it, what it is for)}
EXTRAS = {
    "cuda": ("nvidia-cudnn-cu12", "training on an NVIDIA GPU on Linux"),
    "io": ("tensorflow-io", "decoding compressed records in the graph, with TensorFlow 2.17 only"),
    "parquet": ("pyarrow", "scores and embeddings as Parquet"),
    "onnx": ("onnxruntime", "ONNX files"),
    "litert": ("ai-edge-litert", "predicting with LiteRT files"),
    "cleanlab": ("cleanlab", "label-issues --by cleanlab"),
    "beam": ("apache-beam", "make-records and predict on Apache Beam"),
    "remote": ("s3fs", "records and runs at s3:// and gs://"),
}
BACKENDS = ("jax", "torch")  # of Keras, beside TensorFlow
LITTLE_MEMORY = 4 << 30  # bytes


def check_environment() -> tuple[list[str], list[tuple[str, str]]]:
    """What is installed, and what is missing.

    TensorFlow is imported.

    Returns:
        (a line for each thing that is there, (severity, sentence) for each finding).
    """
    import keras
    import soundfile
    import tensorflow as tf

    known = environment()
    findings: list[tuple[str, str]] = []
    packages = ", ".join(f"{name} {version}" for name, version in known["packages"].items())
    others = [f"{name} {found}" for name in BACKENDS if (found := version_of(name))]
    lines = [
        f"Python {known['python']} on {known['system']} {known['machine']}, {known['cores']} cores{_memory(findings)}",
        f"Packages: {packages}",
        f"Keras backend: {keras.backend.backend()}; other backends installed: {', '.join(others) or 'none'}",
        f"soundfile {soundfile.__version__} with libsndfile {soundfile.__libsndfile_version__}",
    ]
    gpus = [device.name for device in tf.config.list_physical_devices("GPU")]
    lines.append(f"GPU: {', '.join(gpus) or 'none that TensorFlow sees'}")
    if not gpus and has_nvidia_gpu():
        remedy = (
            "Install it with: pip install 'audiotag-trainer[cuda]'"
            if not tf.test.is_built_with_cuda() or not version_of(EXTRAS["cuda"][0])
            else "Its driver may be too old for it: compare nvidia-smi with the versions that TensorFlow names"
        )
        findings.append(("warning", f"This machine has an NVIDIA GPU, and TensorFlow does not see it. {remedy}."))
    if ffmpeg.is_installed():
        lines.append(f"ffmpeg: {shutil.which('ffmpeg')}, for M4A, AAC, WMA and WebM")
    else:
        findings.append(("note", "ffmpeg is not installed. Install it to read M4A, AAC, WMA and WebM."))
    missing = [name for name, (package, _) in EXTRAS.items() if not version_of(package)]
    lines.append(f"Extras: {', '.join(name for name in EXTRAS if name not in missing) or 'none'}")
    for name in missing:
        if name != "cuda" or sys.platform == "linux":
            findings.append(("note", f"For {EXTRAS[name][1]}: pip install 'audiotag-trainer[{name}]'"))
    return lines, findings


def version_of(package: str) -> str | None:
    """The version of an installed package; None if it is not there."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def has_nvidia_gpu() -> bool:
    """Whether the system has an NVIDIA GPU, whatever TensorFlow sees."""
    return Path("/proc/driver/nvidia/version").exists() or shutil.which("nvidia-smi") is not None


def _memory(findings):
    """The memory as text; adds a finding if there is little."""
    try:
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # Windows
        return ""
    if total < LITTLE_MEMORY:
        findings.append(
            ("warning", f"{total / 2**30:.1f} GiB of memory is little. Lower batch_size if training fails.")
        )
    return f", {total / 2**30:.1f} GiB of memory"
