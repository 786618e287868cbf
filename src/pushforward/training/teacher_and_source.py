"""What a fit may take besides its data: a teacher to distil, or a source to start from.

A run folder notes both, and a resumed run refuses others.
"""

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from ..data import reading, transforms
from ..data.reading import Dataset
from ..data.schema import Schema
from ..data.transforms import Chain
from ..errors import DataError, UsageError
from ..inference import loading
from ..inference.fitted_model import FittedModel
from ..inference.preprocessor import Preprocessor
from ..model import (
    AdoptsTeacher,
    CouplesSource,
    Distils,
    GenerativeModel,
    Transports,
    missing_capability,
)
from ..rng import seeded_rng
from .config import DataSpec
from .preparation import PreparedData, data_fingerprint


@dataclass(frozen=True)
class Teacher:
    """A fitted model; its student sees data as it does."""

    fitted: FittedModel
    folder: str | None = None  # its run folder, where it has one

    @classmethod
    def load(cls, teacher: Any) -> "Teacher":
        folder = str(Path(teacher).absolute()) if isinstance(teacher, str | Path) else None
        if folder is not None:
            teacher = loading.load(folder, device="cpu")
        if not isinstance(teacher, FittedModel):
            raise UsageError("teacher must be a run folder or a fitted model")
        return cls(teacher, folder)

    @classmethod
    def reload(cls, known: dict[str, Any] | None, teacher: Any) -> "Teacher | None":
        place = _known_place("teacher", known, teacher)
        if known is None:
            return None
        found = cls.load(place)
        _check_unchanged("teacher", found.to_json(), known)
        return found

    def read_dataset(self, data: DataSpec) -> Dataset:
        """The data in the schema of the teacher; a condition it lacks is that of the data."""
        schema, text = self.fitted.schema, data.text
        if schema.condition is None and not (data.y is None and data.condition is None):
            size = schema.size if reading.is_image_folder(data.x) else None
            own = reading.read_dataset(
                data.x, y=data.y, condition=data.condition, size=size, text=text
            )
            schema, text = replace(schema, condition=own.schema.condition), None
        column = schema.condition and schema.condition.column
        if data.bounds or data.size or text or data.condition not in (None, column):
            raise UsageError(
                "a student keeps the teacher's bounds, size, condition and text: leave them out"
            )
        found = reading.read_with_schema(data.x, schema, y=data.y)
        if schema.condition is not None and found.y is None:
            raise DataError("the teacher was fitted with a condition that these data lack")
        return found

    def transform_for(self, model: GenerativeModel, samples: Dataset) -> Chain:
        alike = samples.schema.condition == self.fitted.schema.condition
        if not (alike or isinstance(model, AdoptsTeacher)):
            raise UsageError("the teacher was fitted without a condition: remove the condition")
        return self.fitted.transform

    def attach(self, model: GenerativeModel, device: torch.device) -> None:
        """Let the model learn from it, before its first step and again when it is resumed."""
        teacher = self.fitted.model.to(device).eval().requires_grad_(False)
        if isinstance(model, AdoptsTeacher):
            model.adopt(teacher)
        elif isinstance(model, Distils):
            model.distil(teacher)
        else:
            raise missing_capability(model, "cannot be distilled from a teacher")

    def to_json(self) -> dict[str, Any]:
        config = self.fitted.config
        like = {name: config.get(name) for name in ("family", "event", "options", "teacher")}
        return {"place": self.folder, "data": _weights_digest(self.fitted.model), "model": like}


def _weights_digest(model: GenerativeModel) -> str:
    found = hashlib.sha256()
    for tensor in model.state_dict().values():
        found.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return found.hexdigest()


@dataclass(frozen=True)
class Source:
    samples: Dataset
    space: Preprocessor
    place: str | None = None  # their file or name, where they have one

    @classmethod
    def read(cls, source: Any, like: Schema) -> "Source":
        """The source data; a folder's images get the size of those of a schema."""
        size = like.size if reading.is_image_folder(source) else None
        samples = reading.read_dataset(source, size=size)
        chain = transforms.choose_transform(samples.schema, samples.x)
        place = str(source) if isinstance(source, str | Path) else None
        return cls(samples, Preprocessor(samples.schema, chain), place)

    @classmethod
    def reread(cls, known: dict[str, Any] | None, source: Any) -> "Source | None":
        place = _known_place("source", known, source)
        if known is None:
            return None
        found = cls.read(place, Preprocessor.from_json(known).schema)
        _check_unchanged("source", found.to_json(), known)
        return found

    def attach(self, model: GenerativeModel, device: torch.device) -> None:
        """Let the model start from them, before its first step and again when it is resumed."""
        if not isinstance(model, Transports):
            raise missing_capability(model, "cannot start from data (source)")
        if self.space.schema.event != model.event_shape:
            raise DataError(
                f"a sample of the source has shape {self.space.schema.event}, one of the data "
                f"{model.event_shape}; give both the same number of columns"
            )
        with seeded_rng(0, device):  # dequantised alike by a resumed run
            z, _ = self.space.transform.forward(torch.as_tensor(self.samples.x))
        model.start_from(z.to(device, torch.get_default_dtype()))

    def couple(self, model: GenerativeModel, data: PreparedData) -> None:
        if isinstance(model, CouplesSource):
            with seeded_rng(0, data.device):  # dequantised alike by a resumed run
                model.gather(*data.rows(data.overview()))

    def to_json(self) -> dict[str, Any]:
        facts = {"rows": len(self.samples.x), "data": data_fingerprint(self.samples)}
        return self.space.to_json() | facts | {"place": self.place}


def _known_place(word: str, known: dict[str, Any] | None, given: Any) -> Any:
    if given is not None and known is None:
        raise UsageError(f"the run was fitted without a {word}: remove {word}")
    place = given if given is not None or known is None else known["place"]
    if known is not None and place is None:
        raise UsageError(f"the run had a {word} in memory: pass the same {word} again")
    return place


def _check_unchanged(word: str, now: dict[str, Any], known: dict[str, Any]) -> None:
    if now["data"] != known["data"]:
        raise DataError(f"the {word} is not the one the run began with; start a new run")
