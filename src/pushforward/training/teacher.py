"""A teacher: a fitted model that another one is distilled from (``fit(teacher=...)``)."""

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from ..data import reading
from ..data.reading import Dataset
from ..data.transforms import Chain
from ..errors import DataError, UsageError
from ..inference.fitted_model import FittedModel
from ..inference.loading import load
from ..model import AdoptsTeacher, Distils, GenerativeModel, missing_capability
from .config import DataSpec
from .source import check_unchanged, known_place


@dataclass(frozen=True)
class Teacher:
    """A fitted model; its student sees data as it does.

    Arguments:
        folder: Its run folder, where it has one.
    """

    fitted: FittedModel
    folder: str | None = None

    def read_dataset(self, data: DataSpec) -> Dataset:
        """The data in the schema of the teacher; a condition it lacks is that of the data.

        Raises:
            UsageError: If they are to be read in another way.
            DataError: If the teacher was fitted with a condition that they lack.
        """
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
        """The teacher's own transform."""
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
        """What a run folder says of it."""
        config = self.fitted.config
        like = {name: config.get(name) for name in ("family", "event", "options", "teacher")}
        return {"place": self.folder, "data": _weights_digest(self.fitted.model), "model": like}


def _weights_digest(model: GenerativeModel) -> str:
    found = hashlib.sha256()
    for tensor in model.state_dict().values():
        found.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return found.hexdigest()


def load_teacher(teacher: Any) -> Teacher:
    """A teacher from its run folder or as it is."""
    folder = str(Path(teacher).absolute()) if isinstance(teacher, str | Path) else None
    if folder is not None:
        teacher = load(folder, device="cpu")
    if not isinstance(teacher, FittedModel):
        raise UsageError("teacher must be a run folder or a fitted model")
    return Teacher(teacher, folder)


def reload_teacher(known: dict[str, Any] | None, teacher: Any) -> Teacher | None:
    """The teacher of a resumed run, from where it was unless it is given again."""
    place = known_place("teacher", known, teacher)
    if known is None:
        return None
    found = load_teacher(place)
    check_unchanged("teacher", found.to_json(), known)
    return found
