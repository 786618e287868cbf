"""Networks of the user's own that give features: from a file, or by the name of a Python object.

TorchScript and ``torch.export`` are read; both hold programs of PyTorch's own language, so they are
for files that one trusts. A pickle could run anything and is refused, the usual state dicts among
them: those say nothing of the network either.
"""

import contextlib
import os
import sys
import zipfile
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..errors import DataError, MissingFile, Unsafe, UsageError

REMEDY = "save the network by torch.jit.save or torch.export.save, or name it as module:attribute"
UNSAFE = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"  # PyTorch's own way to forbid pickles


def load_network(name: str) -> tuple[Any, str]:
    """A network and its name.

    Raises:
        MissingFile: If it names neither a file nor an attribute of a module.
        Unsafe: If the file may hold a pickle.
        DataError: If the file is broken.
        UsageError: If the attribute is no network.
    """
    if ":" in name and not os.path.exists(name):
        return import_network(name), name.partition(":")[2]
    path = Path(name)
    if not path.is_file():
        raise MissingFile(
            f"{name}: no such file; features are classifier, efflite0, raw, a file of a network or "
            "module:attribute"
        )
    return load_network_file(path), path.stem


def import_network(name: str) -> Any:
    """The network ``module:attribute``; a class or a function is called for it.

    Raises:
        UsageError: If it cannot be imported, or is no network.
    """
    place, _, attribute = name.partition(":")
    try:
        with working_folder_on_path():
            found: Any = import_module(place)
        for part in attribute.split("."):
            found = getattr(found, part)
        found = found if isinstance(found, nn.Module) else found()
    except Exception as error:
        why = str(error).splitlines()[0][:120] if str(error) else type(error).__name__
        raise UsageError(f"{name}: cannot be had: {why}") from error
    return check_network(found, name)


def check_network(found: Any, name: str) -> nn.Module:
    """The network, ready to use.

    Raises:
        UsageError: If it is none.
    """
    if not isinstance(found, nn.Module):
        raise UsageError(f"{name} is of type {type(found).__name__}; give a torch.nn.Module")
    return found.eval()


@contextlib.contextmanager
def working_folder_on_path() -> Iterator[None]:
    """Modules of the working folder can be imported, as ``python -m`` does it."""
    sys.path.insert(0, os.getcwd())
    try:
        yield
    finally:
        sys.path.remove(os.getcwd())


def load_network_file(path: Path) -> Any:
    """The network in a file.

    Raises:
        Unsafe: If the file may hold a pickle.
        DataError: If it is broken.
    """
    names = archive_members(path)
    try:
        if any("/code/" in f"/{name}" for name in names):
            return torch.jit.load(str(path), map_location="cpu").eval()
        if any(name.endswith("archive_format") for name in names):
            return load_exported_program(path, names)
    except RuntimeError as error:
        raise DataError(f"{path.name}: is broken: {str(error).splitlines()[0][:120]}") from error
    raise Unsafe(f"{path.name}: is refused: it may be a pickle; {REMEDY}")


def archive_members(path: Path) -> list[str]:
    """What an archive holds; nothing if it is none."""
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.namelist()
    except zipfile.BadZipFile:
        return []


def load_exported_program(path: Path, names: list[str]) -> Any:
    """The network in an archive of ``torch.export``, which may hold Python objects as pickles."""
    if any("_obj_" in name for name in names):
        raise Unsafe(f"{path.name}: is refused: it holds Python objects; {REMEDY}")
    before = os.environ.get(UNSAFE)
    os.environ[UNSAFE] = "1"
    try:
        return torch.export.load(path).module()
    except Exception as error:
        raise DataError(f"{path.name}: is broken: {str(error).splitlines()[0][:120]}") from error
    finally:
        os.environ.pop(UNSAFE)
        if before is not None:
            os.environ[UNSAFE] = before
