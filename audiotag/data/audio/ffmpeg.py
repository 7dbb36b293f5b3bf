"""Decodes what libsndfile does not read, such as M4A, with the program ffmpeg."""

import contextlib
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from audiotag.errors import DataError

SECONDS = 100  # that ffmpeg may take, less than a worker process may spend on a file
MOST_BYTES = 1 << 30  # of decoded samples


def is_installed() -> bool:
    """Whether ffmpeg is on the PATH."""
    return shutil.which("ffmpeg") is not None


@contextlib.contextmanager
def decoded(path: Path, kind: str) -> Iterator[BinaryIO]:
    """A temporary WAV file, in 32-bit floats, with the sound of another file.

    It has all channels. ffmpeg runs within the limits of this process, and opens only this file.

    Args:
        path: The file.
        kind: What it is, for messages.

    Raises:
        DataError: ffmpeg is not installed, or reports an error, or the file has several audio streams or is too long.
    """
    if not is_installed():
        raise DataError(
            f"{path}: {kind}, which audiotag reads if ffmpeg is installed. Install it, or convert the file."
        )
    command = ["ffmpeg", "-nostdin", "-v", "error", "-protocol_whitelist", "file,pipe", "-i", f"file:{path}"]
    command += ["-map", "0:a", "-c:a", "pcm_f32le", "-fs", str(MOST_BYTES), "-f", "wav", "pipe:1"]
    with tempfile.TemporaryFile() as file:
        try:
            done = subprocess.run(
                command, stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.PIPE, timeout=SECONDS, check=False
            )
        except subprocess.TimeoutExpired:
            raise DataError(f"{path}: ffmpeg has not decoded it after {SECONDS} s. Leave this file out.") from None
        errors = done.stderr.decode(errors="replace").strip()
        if done.returncode or errors:
            reason = errors.splitlines()[0] if errors else f"exit code {done.returncode}"
            raise DataError(
                f"{path}: ffmpeg cannot decode this {kind} file and says {reason!r}. Replace it by an intact copy with "
                "one audio stream, convert it or leave this file out."
            )
        if file.seek(0, 2) >= MOST_BYTES:
            raise DataError(
                f"{path}: too long: more than {MOST_BYTES} bytes once decoded. Cut it, or convert it to FLAC."
            )
        file.seek(0)
        yield file
