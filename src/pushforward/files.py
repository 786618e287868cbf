"""Writing one file so that it exists whole or not at all."""

import contextlib
import os
import tempfile
from pathlib import Path

from .errors import DiskError, UsageError
from .formatting import join_words

FORMATS = (".png", ".svg", ".pdf")


def check_figure_path(path: str | Path) -> Path:
    path = Path(path)
    if path.suffix.lower() not in FORMATS:
        raise UsageError(f"{path.name} names no figure; end it in {join_words(FORMATS, 'or')}")
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise DiskError(f"cannot write {path}: its folder must exist and be writable")
    return path


def atomic_write(path: Path, data: bytes) -> Path:
    """Write beside the final place, flush, then rename; an old file survives a failure."""
    temporary = None
    try:
        handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except OSError as error:
        if temporary is not None:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
        why = error.strerror or str(error)
        raise DiskError(f"cannot write {path}: {why}; free some space or name another") from error
    return path


def as_folder(place: str | os.PathLike[str]) -> Path:
    if not isinstance(place, str | os.PathLike) or not os.fspath(place):
        raise UsageError(f"a folder is a path, not {str(place)[:40]!r}")
    return Path(place)
