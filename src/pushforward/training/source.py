"""Source data: where a transport starts instead of noise (``fit(source=...)``)."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ..data import reading, transforms
from ..data.reading import Dataset
from ..data.schema import Schema
from ..errors import DataError, UsageError
from ..inference.preprocessor import Preprocessor
from ..model import CouplesSource, GenerativeModel, Transports, missing_capability
from ..rng import seeded_rng
from .preparation import PreparedData, data_fingerprint


@dataclass(frozen=True)
class Source:
    """Source data, and how they are read and transformed.

    Arguments:
        place: Their file or name, where they have one.
    """

    samples: Dataset
    space: Preprocessor
    place: str | None = None

    def attach(self, model: GenerativeModel, device: torch.device) -> None:
        """Let the model start from them, before its first step and again when it is resumed.

        Raises:
            UsageError: If the family starts from noise alone.
            DataError: If their shape is not that of the data.
        """
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
        """Give the data to a model that couples them with those of the source."""
        if isinstance(model, CouplesSource):
            with seeded_rng(0, data.device):  # dequantised alike by a resumed run
                model.gather(*data.rows(data.overview()))

    def to_json(self) -> dict[str, Any]:
        """What a run folder says of them."""
        facts = {"rows": len(self.samples.x), "data": data_fingerprint(self.samples)}
        return self.space.to_json() | facts | {"place": self.place}


def read_source(source: Any, like: Schema) -> Source:
    """The source data; a folder's images get the size of those of a schema."""
    samples = reading.read_dataset(
        source, size=like.size if reading.is_image_folder(source) else None
    )
    chain = transforms.choose_transform(samples.schema, samples.x)
    place = str(source) if isinstance(source, str | Path) else None
    return Source(samples, Preprocessor(samples.schema, chain), place)


def reread_source(known: dict[str, Any] | None, source: Any) -> Source | None:
    """The source data of a resumed run, from where they were unless they are given again."""
    place = known_place("source", known, source)
    if known is None:
        return None
    found = read_source(place, Preprocessor.from_json(known).schema)
    check_unchanged("source", found.to_json(), known)
    return found


def known_place(word: str, known: dict[str, Any] | None, given: Any) -> Any:
    """Where a resumed run finds its teacher or source: as given, or where it was."""
    if given is not None and known is None:
        raise UsageError(f"the run was fitted without a {word}: remove {word}")
    place = given if given is not None or known is None else known["place"]
    if known is not None and place is None:
        raise UsageError(f"the run had a {word} in memory: pass the same {word} again")
    return place


def check_unchanged(word: str, now: dict[str, Any], known: dict[str, Any]) -> None:
    """Refuse another teacher or source than a run began with."""
    if now["data"] != known["data"]:
        raise DataError(f"the {word} is not the one the run began with; start a new run")
