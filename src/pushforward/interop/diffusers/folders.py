"""Reading folders of `diffusers`: weights as safetensors alone, and no code that they name."""

import json
from pathlib import Path
from typing import Any

from ...checkpoint import parse_json_object
from ...errors import DataError, MissingFile, Unsafe
from ...files import as_folder
from ...optional import import_optional

PICKLED = {".bin", ".ckpt", ".pt", ".pth", ".pkl", ".pickle"}
PARTS = ("unet", "transformer", "vae", "scheduler", "text_encoder", "tokenizer")
UNWEIGHED = ("scheduler", "tokenizer")
KINDS = {  # the classes that parts are read as; ModelMixin, the others
    "scheduler": "SchedulerMixin",
    "tokenizer": "PreTrainedTokenizerBase",
    "text_encoder": "PreTrainedModel",
}
INDEX, SCHEDULER = "model_index.json", "scheduler_config.json"
LIBRARIES = {"diffusers": "diffusers", "transformers": "diffusers"}  # by the extra that has them


def load_parts(folder: str | Path, scheduler: str | Path | None = None) -> dict[str, Any]:
    """The parts that samples are made with, by name; the arguments and errors are `load`'s."""
    folder = as_folder(folder)
    for place in (folder, as_folder(scheduler or folder)):
        if not place.is_dir():
            raise MissingFile(f"{place} does not exist; a folder made by save_pretrained is needed")
    index = read_index(folder)
    found = {name: index[name] for name in PARTS if index.get(name) not in (None, [None, None])}
    if scheduler is not None:
        found.pop("scheduler", None)
    made = {name: _load_part(folder, name, entry) for name, entry in found.items()}
    beside = scheduler or folder
    if "scheduler" not in made and (Path(beside) / SCHEDULER).is_file():
        kind = _read_config(Path(beside), SCHEDULER).get("_class_name")
        made["scheduler"] = _load_part(Path(beside), "scheduler", ["diffusers", kind])
    if "scheduler" not in made and {"unet", "transformer"} & {*made}:
        raise DataError(f"{folder} names no scheduler: give the folder of one as scheduler")
    return made


def read_index(folder: Path) -> dict[str, Any]:
    """What a folder holds: the index of a pipeline, or one for a single model."""
    if (folder / INDEX).is_file() or not (folder / "config.json").is_file():
        return _read_config(folder, INDEX)
    kind = _read_config(folder, "config.json").get("_class_name")
    return {"vae" if kind == "AutoencoderKL" else "unet": ["diffusers", kind]}


def _read_config(folder: Path, name: str) -> dict[str, Any]:
    file = folder / name
    if not file.is_file():
        raise DataError(f"{folder} has no {name}: it is no folder of a pipeline of diffusers")
    return parse_json_object(file.read_bytes(), file)


def _load_part(folder: Path, name: str, entry: Any) -> Any:
    if not (isinstance(entry, list) and len(entry) == 2 and all(type(e) is str for e in entry)):
        raise DataError(f"{folder / 'model_index.json'}: {name} is {json.dumps(entry)[:60]}")
    library, kind = entry
    if library not in LIBRARIES:
        raise Unsafe(f"{folder}: {name} asks for code of {library!r}, which is not run")
    place = folder / name if (folder / name).is_dir() else folder
    return _load_pretrained(
        place, _resolve_class(library, kind, place, name), name not in UNWEIGHED
    )


def _resolve_class(library: str, kind: str, place: Path, name: str) -> Any:
    """A class of another kind than the part has to be is refused: its reading is not guarded."""
    module = import_optional(library, LIBRARIES[library])
    found = getattr(module, kind, None)
    if not isinstance(found, type) or not hasattr(found, "from_pretrained"):
        raise DataError(f"{place}: the installed {library} has no class {kind!r}")
    base = KINDS.get(name, "ModelMixin")
    if not issubclass(found, getattr(module, base, ())):
        raise Unsafe(f"{place}: {kind} is no {base}, which {name} has to be; it is not read")
    return found


def _load_pretrained(place: Path, kind: Any, weights: bool) -> Any:
    options: dict[str, Any] = {"local_files_only": True}
    if kind.__module__.startswith("transformers"):
        options["trust_remote_code"] = False  # else it asks whether to run what the folder names
    if weights:
        variant = "fp16" if all(".fp16." in name for name in _safetensors_files(place)) else None
        options |= {"use_safetensors": True, "variant": variant, "output_loading_info": True}
        if kind.__module__.startswith("diffusers"):
            options["low_cpu_mem_usage"] = False  # else it asks for accelerate
    try:
        made = kind.from_pretrained(str(place), **options)
    except Exception as error:  # of any kind, where a file is not what it should be
        why = str(error).splitlines()[0][:150] if str(error) else type(error).__name__
        raise DataError(f"{place} does not hold a {kind.__name__}: {why}") from error
    if not weights:
        return made
    model, info = made
    if lacking := [*info["missing_keys"], *info["mismatched_keys"]]:
        raise DataError(f"{place}: its weights lack {len(lacking)} of those of {kind.__name__}, "
                        f"such as {lacking[0]}")  # fmt: skip
    return model.eval().requires_grad_(False)


def _safetensors_files(place: Path) -> list[str]:
    """The names of a folder's files of weights, which must not be pickled."""
    names = [p.name for p in place.iterdir()]
    if safe := [name for name in names if name.endswith(".safetensors")]:
        return safe
    if pickled := [name for name in names if Path(name).suffix in PICKLED]:
        raise Unsafe(
            f"{place / pickled[0]} is pickled, and reading it could run code; save the weights as "
            "safetensors: save_pretrained(..., safe_serialization=True)"
        )
    raise DataError(f"{place} holds no weights (*.safetensors)")
