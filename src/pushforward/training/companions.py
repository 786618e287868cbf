"""What a model may learn from beside its data: a teacher to distil, or data to start from."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..data import reading, transforms
from ..data.reading import Dataset
from ..data.schema import Schema
from ..devices import seeded_rng
from ..errors import DataError, UsageError
from ..inference.fitted_model import FittedModel
from ..inference.loading import load
from ..inference.preprocessor import Preprocessor
from ..model import AdoptsTeacher, Distils, GenerativeModel, Transports, missing_capability
from .preparation import data_fingerprint, preparation_rows, rows_on_device, tensor_digest


@dataclass(frozen=True)
class TeacherAndSource:
    """A teacher, source data, or neither.

    Arguments:
        teacher: A fitted model; its student sees data as it did.
        folder: The teacher's run folder, where it has one.
        source: Where a transport starts, in place of noise.
        place: The file or the name of the source data, where they have one.
        origin: How the source data are read and transformed.
    """

    teacher: FittedModel | None = None
    folder: str | None = None
    source: Dataset | None = None
    place: str | None = None
    origin: Preprocessor | None = None

    def samples(
        self, x: Any, y: Any, condition: str | None, bounds: Any, size: Any = None, text: Any = None
    ) -> Dataset:
        """The data, read in the schema of the teacher if there is one."""
        if self.teacher is None:
            if isinstance(x, Dataset):
                return x
            return reading.read_dataset(
                x, y=y, condition=condition, bounds=bounds, size=size, text=text, lean=True
            )
        schema = self.teacher.schema
        if schema.condition is None and not (y is None and condition is None):
            sides = schema.size if reading.is_image_folder(x) else None
            told = reading.read_dataset(
                x, y=y, condition=condition, size=sides, text=text
            ).schema.condition
            schema, text = replace(schema, condition=told), None
        column = schema.condition and schema.condition.column
        if bounds or size or text or condition not in (None, column):
            raise UsageError(
                "a student keeps the teacher's bounds, size, condition and text: leave them out"
            )
        found = reading.read_with_schema(x, schema, y=y)
        if schema.condition is not None and found.y is None:
            raise DataError("the teacher was fitted with a condition that these data lack")
        return found

    def starting_from(self, source: Any, like: Schema) -> "TeacherAndSource":
        """With a source, whose pictures get the size of those of a schema, if they are a folder's.

        Raises:
            DataError: If the source cannot be used.
        """
        if source is None:
            return self
        samples = reading.read_dataset(
            source, size=like.size if reading.is_image_folder(source) else None
        )
        chain = transforms.choose_transform(samples.schema, samples.x)
        place = str(source) if isinstance(source, str | Path) else None
        return replace(
            self, source=samples, place=place, origin=Preprocessor(samples.schema, chain)
        )

    def transform(
        self, model: GenerativeModel, samples: Dataset, rows: np.ndarray
    ) -> transforms.Chain:
        """The teacher's transform, or one that suits the family, from the rows to train on.

        Raises:
            UsageError: If a student is told of conditions that its teacher does not know.
        """
        if self.teacher is not None:
            alike = samples.schema.condition == self.teacher.schema.condition
            if not (alike or isinstance(model, AdoptsTeacher)):
                raise UsageError("the teacher was fitted without a condition: leave it out")
            return self.teacher.transform
        return transforms.choose_transform(samples.schema, samples.x, model.preprocessing, rows)

    def meet(self, model: GenerativeModel, where: torch.device) -> None:
        """Let the model see them, before its first step and again when it goes on.

        Raises:
            UsageError: If the family can do nothing with them.
            DataError: If a datum of the source has another shape than one of the data.
        """
        if self.teacher is not None:
            teacher = self.teacher.model.to(where).eval().requires_grad_(False)
            if isinstance(model, AdoptsTeacher):
                model.adopt(teacher)
            elif isinstance(model, Distils):
                model.distil(teacher)
            else:
                raise missing_capability(model, "cannot be distilled from a teacher")
        if self.source is not None and self.origin is not None:
            if not isinstance(model, Transports):
                raise missing_capability(model, "cannot start from data (source)")
            if self.origin.schema.event != model.event_shape:
                raise DataError(
                    f"a datum of the source has shape {self.origin.schema.event}, one of the data "
                    f"{model.event_shape}; give both the same number of columns"
                )
            with seeded_rng(0, where):  # dequantised alike by a resumed run
                z, _ = self.origin.transform.forward(torch.as_tensor(self.source.x))
            model.start_from(z.to(where, torch.get_default_dtype()))

    def gather(
        self,
        model: GenerativeModel,
        samples: Dataset,
        transform: transforms.Chain,
        train: np.ndarray,
        where: torch.device,
    ) -> None:
        """Give the data themselves to a model that couples them with those of a source."""
        if self.source is not None and isinstance(model, Transports):
            with seeded_rng(0, where):  # dequantised alike by a resumed run
                model.gather(
                    *rows_on_device(samples, transform, preparation_rows(samples, train), where)
                )

    def to_json(self) -> dict[str, Any]:
        """What a run folder remembers of them."""
        plain: dict[str, Any] = {"teacher": None, "origin": None}
        if self.teacher is not None:
            state = self.teacher.model.state_dict().values()
            names = ("family", "event", "options", "teacher")
            like = {name: self.teacher.config.get(name) for name in names}
            plain["teacher"] = {"place": self.folder, "data": tensor_digest(*state), "model": like}
        if self.source is not None and self.origin is not None:
            facts = {"rows": len(self.source.x), "data": data_fingerprint(self.source)}
            plain["origin"] = self.origin.to_json() | facts | {"place": self.place}
        return plain


def load_teacher(teacher: Any = None) -> TeacherAndSource:
    """Load a teacher, if any, from its run folder.

    Raises:
        UsageError: If the teacher is nothing that was fitted.
    """
    folder = str(Path(teacher).absolute()) if isinstance(teacher, str | Path) else None
    if folder is not None:
        teacher = load(folder, device="cpu")
    if teacher is not None and not isinstance(teacher, FittedModel):
        raise UsageError("teacher must be a run folder or a fitted model")
    return TeacherAndSource(teacher, folder)


def reload_teacher_and_source(
    config: dict[str, Any], teacher: Any = None, source: Any = None
) -> TeacherAndSource:
    """Those of a run that goes on, where they were before unless they are given again.

    Raises:
        UsageError: If the run had none, or had them in memory and they are not given.
        DataError: If they are not those that the run began with.
    """
    given = {"teacher": teacher, "origin": source}
    for name, value in given.items():
        known, word = config.get(name), {"origin": "source"}.get(name, name)
        if value is not None and not known:
            raise UsageError(f"the run was fitted without a {word}: leave it out")
        if known and value is None:
            given[name] = known["place"]
        if known and given[name] is None:
            raise UsageError(f"the run had a {word} in memory: pass the same {word} again")
    found = load_teacher(given["teacher"])
    if origin := config.get("origin"):
        found = found.starting_from(given["origin"], Preprocessor.from_json(origin).schema)
    for name, now in found.to_json().items():
        if now and now["data"] != config[name]["data"]:
            raise DataError(f"the {name} is not the one the run began with; start a new run")
    return found
