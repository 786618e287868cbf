"""The only code that writes or reads a run folder.

A run folder holds the last two checkpoints, ``checkpoint-000007`` and so on, each complete:
``config.json``, ``schema.json``, the tensors as ``*.safetensors``, ``state.json``,
``history.jsonl`` and ``manifest.json`` with the size and SHA-256 of every other file. A checkpoint
is written beside its final place, flushed to the disk, and renamed: it exists whole or not at all.
A hash proves that a file is undamaged, not who made it. Nothing is ever pickled.
"""

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import re
import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import safetensors.torch
from torch import Tensor

from .errors import DataError, DiskError, FolderInUse, MissingFile, Unsafe, UsageError

FORMAT = 1
KEPT = 2
LARGEST = 4 << 30  # bytes of one file that are read without being asked
NAME = re.compile(r"checkpoint-(\d{6,})")
FILE = re.compile(r"[A-Za-z0-9_-]{1,64}\.(json|jsonl|safetensors)")


class Checkpoint(NamedTuple):
    plain: dict[str, dict[str, Any]]
    tensors: dict[str, dict[str, Tensor]]
    history: list[dict[str, Any]]


@contextlib.contextmanager
def lock_folder(folder: Path) -> Iterator[None]:
    """Hold a run folder, which is made if need be; FolderInUse if another process holds it."""
    file = folder / ".lock"
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        new = not file.exists()
        handle = os.open(file, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        owner = os.read(handle, 64).decode(errors="replace").strip() or "unknown"
        os.close(handle)
        what = f"{folder} is in use by process {owner}; wait or choose another folder"
        raise FolderInUse(what) from error
    try:
        os.ftruncate(handle, 0)
        os.write(handle, str(os.getpid()).encode())
        yield
    except (DataError, UsageError):  # nothing was written
        if new:
            file.unlink(missing_ok=True)
        raise
    except KeyboardInterrupt:
        if new and [p.name for p in folder.iterdir()] == [file.name]:  # before the first checkpoint
            file.unlink()
            folder.rmdir()
        raise
    finally:
        os.close(handle)


@contextlib.contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn an OSError into one that names the path, the reason and the free space."""
    try:
        yield
    except OSError as error:
        why = error.strerror or str(error)
        if error.errno == errno.ENOSPC:
            why += f" ({shutil.disk_usage(nearest_existing_folder(path)).free:,} bytes free)"
        raise DiskError(f"cannot write {path}: {why}; what was there is intact") from error


def nearest_existing_folder(path: Path) -> Path:
    return next(p for p in (path, *path.absolute().parents) if p.is_dir())


def list_checkpoints(folder: Path) -> list[Path]:
    """Newest first."""
    if not folder.is_dir():
        return []
    found = [p for p in folder.iterdir() if NAME.fullmatch(p.name) and not p.is_symlink()]
    return sorted(found, key=lambda p: int(p.name.split("-")[1]), reverse=True)


def _checkpoint_to_files(checkpoint: Checkpoint) -> dict[str, bytes]:
    files = {
        f"{name}.json": json.dumps(value, indent=1, allow_nan=False).encode()
        for name, value in checkpoint.plain.items()
    }
    for name, tensors in checkpoint.tensors.items():
        whole = {k: v.detach().cpu().contiguous().clone() for k, v in tensors.items()}
        files[f"{name}.safetensors"] = safetensors.torch.save(whole)
    rows = "".join(json.dumps(row) + "\n" for row in checkpoint.history)
    return files | {"history.jsonl": rows.encode()}


def _write_and_fsync(path: Path, data: bytes) -> None:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644), "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _fsync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def save_checkpoint(folder: Path, checkpoint: Checkpoint) -> Path:
    """Add a checkpoint to a run folder whose lock is held, and drop all but the last two."""
    files = _checkpoint_to_files(checkpoint)
    manifest = {"format": FORMAT, "files": {k: _file_facts(data) for k, data in files.items()}}
    old = list_checkpoints(folder)
    number = int(old[0].name.split("-")[1]) + 1 if old else 1
    final, temporary = folder / f"checkpoint-{number:06d}", folder / f".checkpoint-{number:06d}.tmp"
    with disk_errors(final):
        for stale in folder.glob(".checkpoint-*.tmp"):  # of a process that was killed
            shutil.rmtree(stale)
        temporary.mkdir()
        try:
            for name, data in files.items():
                _write_and_fsync(temporary / name, data)
            _write_and_fsync(temporary / "manifest.json", json.dumps(manifest, indent=1).encode())
            _fsync_folder(temporary)
            temporary.rename(final)
        except OSError:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
        _fsync_folder(folder)
    verify_checkpoint(final)
    for path in old[KEPT - 1 :]:
        # renamed first, so that a kill in between never leaves half of a checkpoint under its name
        doomed = folder / f".{path.name}.tmp"
        path.rename(doomed)
        shutil.rmtree(doomed)
    return final


def _file_facts(data: bytes) -> dict[str, Any]:
    return {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}


def verify_checkpoint(path: Path) -> dict[str, bytes]:
    """Read every file of a checkpoint and compare it with the manifest."""
    manifest = parse_json_object(_read_plain_file(path / "manifest.json"), path / "manifest.json")
    if set(manifest) != {"format", "files"} or not isinstance(manifest["files"], dict):
        raise DataError(f"{path / 'manifest.json'} is not a manifest")
    if manifest["format"] != FORMAT:
        raise DataError(f"{path} has format {manifest['format']!r}; this version reads {FORMAT}")
    if surplus := {p.name for p in path.iterdir()} - {*manifest["files"], "manifest.json"}:
        raise DataError(f"{path} holds files that its manifest does not: {sorted(surplus)[:3]}")
    files = {}
    for name, entry in manifest["files"].items():
        if not FILE.fullmatch(name):
            raise Unsafe(f"{path}: the manifest names a file {name[:40]!r}")
        data = _read_plain_file(path / name)
        if entry != _file_facts(data):
            raise DataError(f"{path / name} is damaged: it differs from the manifest")
        files[name] = data
    return files


def _read_plain_file(path: Path) -> bytes:
    if path.is_symlink() or (path.exists() and not path.is_file()):
        raise Unsafe(f"{path} is not a plain file")
    if not path.exists():
        raise DataError(f"{path} is missing: the checkpoint is incomplete")
    if path.stat().st_size > LARGEST:
        raise Unsafe(f"{path} is larger than {LARGEST >> 30} GiB")
    return path.read_bytes()


def parse_json_object(data: bytes, path: Path) -> dict[str, Any]:
    def refuse(constant: str) -> None:
        raise ValueError(f"{constant} is not a number")

    try:
        value = json.loads(data, parse_constant=refuse)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is not valid JSON: {str(error)[:80]}") from error
    if not isinstance(value, dict):
        raise DataError(f"{path} is not a JSON object")
    return value


def load_checkpoint(folder: Path) -> Checkpoint:
    """The newest undamaged checkpoint of a run folder."""
    if not folder.exists():
        raise MissingFile(f"{folder} does not exist; a run folder is made by `pushforward fit`")
    problem: Exception = DataError(f"{folder} holds no checkpoint; is it a run folder?")
    for path in list_checkpoints(folder):
        try:
            return _checkpoint_from_files(verify_checkpoint(path), path)
        except DataError as error:
            warnings.warn(f"{error}; trying the checkpoint before it", stacklevel=2)
            problem = error
    raise problem


def _checkpoint_from_files(files: dict[str, bytes], path: Path) -> Checkpoint:
    plain, tensors = {}, {}
    for name, data in files.items():
        stem, _, ending = name.partition(".")
        if ending == "json":
            plain[stem] = parse_json_object(data, path / name)
        elif ending == "safetensors":
            try:
                tensors[stem] = safetensors.torch.load(data)
            except Exception as error:
                raise DataError(f"{path / name} is not a safetensors file") from error
    rows = files.get("history.jsonl", b"").splitlines()
    history = [parse_json_object(row, path / "history.jsonl") for row in rows]
    return Checkpoint(plain, tensors, history)
