r"""Between a user's data and a model's space: x and z, y and c.

A schema says what raw data look like, a chain of transforms takes them to the model's standardised
space with its log-determinant,

.. math:: \log p(x) = \log p_z(z) + \log\lvert\det \partial z / \partial x\rvert,

and conditions become vectors whose first entry is 1. Those seen in training and their frequencies
stand in where a condition is needed and none is given. Every operation of this folder is a function
of a `ModelPipeline`: a model behind the preprocessor of its data.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..data import reading
from ..data.columns import as_condition_array
from ..data.conditions import subsample_weighted
from ..data.schema import Schema
from ..data.transforms import Chain
from ..devices import batch_offsets, batch_rows, cast_like_model, model_device
from ..errors import DataError, NumericalError, UsageError
from ..model import GenerativeModel
from ..options import check_options, option_names, takes_any_option
from ..progress import track_progress
from ..rng import seeded_rng
from ..shapes import Condition
from ..theory.guidance import GUIDANCE, Guidance


@dataclass(frozen=True)
class Preprocessor:
    """How data of a schema are read for a model, and given back."""

    schema: Schema
    transform: Chain  # from the units of the data to the model's space, and back
    conditions: Sequence[Any] = ()  # the distinct ones of training, vectors or captions
    frequencies: Sequence[float] = ()  # how often each of them was seen; they sum to 1

    def to_json(self) -> dict[str, Any]:
        return {"schema": self.schema.to_json(), "transform": self.transform.to_json()}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> "Preprocessor":
        return cls(Schema.from_json(data["schema"]), Chain.from_json(data["transform"]))

    @property
    def captioned(self) -> bool:
        return self.schema.condition is not None and self.schema.condition.captioned

    def read(self, x: Any, y: Any = None) -> reading.Dataset:
        return reading.read_with_schema(x, self.schema, y=y)

    def read_conditions(self, x: Any) -> Any:
        return None if self.schema.condition is None else self.read(x).y

    def to_model(self, x: np.ndarray) -> tuple[Tensor, Tensor]:
        """Rows ``(n, *event)`` in the units of the data: z in the model's space, log-determinants.

        Both in float64; their conditions are `condition_vectors` or `required_vectors`.
        """
        return self.transform.forward(torch.as_tensor(x))

    def to_numbers(self, z: Tensor, who: str = "the model", remedy: str = "train longer") -> Any:
        """What a model gives in the units of the data, ``(n, *event)``, in float64."""
        if not z.isfinite().all():
            raise NumericalError(f"{who} gave values that are not finite; {remedy}")
        return self.transform.inverse(z.cpu().double()).numpy()

    def to_user(self, z: Tensor, c: Tensor | None = None, captions: Any = None) -> Any:
        rows = None if c is None else c.cpu().double().numpy()
        return self.schema.restore(self.to_numbers(z), rows, captions)

    def condition_vectors(self, y: Any, n: int) -> np.ndarray | None:
        """The condition vectors of ``n`` rows; drawn from those of training if not given."""
        if not self.schema.condition_length:
            if y is not None:
                raise UsageError("the model was fitted without a condition: give none")
            return None
        y = self.captions_or_draw(y, n)
        return self._draw(n) if y is None else self.schema.encode(y, n)

    def required_vectors(self, y: Any, n: int) -> np.ndarray | None:
        """The condition vectors of ``n`` rows, which must be given if the model has any."""
        if (condition := self.schema.condition) is not None and y is None:
            raise DataError(
                f"the model was fitted with a condition, {condition.expected_form}: name it "
                "(--condition, in Python y), or give data that come with it"
            )
        return self.condition_vectors(y, n)

    def captions_or_draw(self, y: Any, n: int) -> Any:
        return self._draw(n) if self.captioned and y is None else y

    def caption_rows(self, y: Any, n: int) -> np.ndarray | None:
        if not self.captioned or y is None:
            return None
        return np.broadcast_to(np.atleast_1d(as_condition_array(y)).astype(object), n)

    def condition_support(self, most: int | None = None) -> tuple[np.ndarray, np.ndarray]:
        rows, weights = self._seen()
        rows, weights = subsample_weighted(rows, weights, len(rows) if most is None else most)
        return self.schema.encode(rows) if self.captioned else rows, weights

    def label_columns(self, y: Any, n: int) -> dict[str, np.ndarray]:
        c = None if y is None else self.schema.encode(y, n)
        return self.schema.condition_columns(c, self.caption_rows(y, n))

    def parse_condition(self, word: str | None) -> Any:
        if word is None or self.schema.condition is None:
            return word
        return self.schema.condition.parse(word)

    def _seen(self) -> tuple[np.ndarray, np.ndarray]:
        kind = object if self.captioned else None
        return np.array(self.conditions, kind), np.asarray(self.frequencies)

    def _draw(self, n: int) -> np.ndarray:
        rows, weights = self._seen()
        return rows[torch.multinomial(torch.as_tensor(weights), n, replacement=True).numpy()]


class Batch(NamedTuple):
    size: int
    x: Any
    c: Condition
    options: dict[str, Any]


@dataclass(frozen=True)
class ModelPipeline:
    model: GenerativeModel
    preprocessor: Preprocessor
    family: str  # what messages call the model
    source: Preprocessor | None = None  # of what a transport starts from, if not from noise

    @property
    def schema(self) -> Schema:
        return self.preprocessor.schema

    @property
    def device(self) -> torch.device:
        return model_device(self.model)

    @contextlib.contextmanager
    def seeded(self, seed: int | None) -> Iterator[None]:
        with seeded_rng(seed, self.device), torch.no_grad():
            yield

    def tensor(self, rows: Tensor | np.ndarray | None) -> Any:
        return None if rows is None else cast_like_model(self.model, torch.as_tensor(rows))

    def to_model(self, data: reading.Dataset) -> tuple[Tensor, Condition]:
        """Rows as the model takes them, and their conditions, which must be known."""
        z, c = self.preprocessor.to_model(data.x)[0], self.conditions(data.y, len(data.x))
        return self.tensor(z), c

    def conditions(self, y: Any, n: int) -> Condition:
        return self.tensor(self.preprocessor.required_vectors(y, n))

    def method_options(
        self, method: Callable[..., Any], options: dict[str, Any], n: int
    ) -> dict[str, Any]:
        options = _guidance_from_options(options, method, self, n)
        check_options(method, options, self.family)
        return options

    def batches(
        self, n: int, x: Any = None, c: Condition = None, options: dict[str, Any] | None = None
    ) -> Iterator[Batch]:
        """So many rows in parts that fit into memory; c may be one condition for all of them."""
        c = c if c is None or len(c) == n else c.expand(n, -1)
        size = batch_rows(self.model.event_shape)
        for i, m in track_progress(batch_offsets(n, size), -(-n // size)):
            rows = slice(i, i + m)
            some, known = (None if v is None else v[rows] for v in (x, c))
            yield Batch(m, some, known, slice_options(options or {}, rows))

    def map_batches(
        self, method: Callable[..., Tensor], x: Tensor, c: Condition, options: dict[str, Any]
    ) -> Tensor:
        """A method of the model on every row of x, on the CPU."""
        options = self.method_options(method, options, len(x))
        parts = self.batches(len(x), x, c, options)
        return torch.cat([method(p.x, p.c, **p.options).cpu() for p in parts])


def make_guidance(
    *,
    guidance: float = 1.0,
    guidance_interval: tuple[float, float] | None = None,
    negative: Tensor | None = None,
) -> Guidance:
    return Guidance(guidance, guidance_interval, negative)


def _guidance_from_options(
    options: dict[str, Any], method: Callable[..., Any], pipeline: ModelPipeline, n: int
) -> dict[str, Any]:
    """Options of a method; those of guidance become one value, ``guidance``, if it takes them."""
    loose = {name: options[name] for name in GUIDANCE if name in options}
    if (y := loose.get("negative")) is not None:
        if pipeline.schema.condition is None:
            raise UsageError("the model was fitted without a condition: leave negative out")
        rows = pipeline.tensor(pipeline.schema.encode(y))
        if len(rows) not in (1, n):
            message = f"{len(rows)} negative conditions for {n} data; give one, or one for each"
            raise DataError(message)
        loose["negative"] = rows.expand(n, -1)
    if not loose or not (takes_any_option(method) or loose.keys() <= {*option_names(method)}):
        return options
    check_options(make_guidance, loose, pipeline.family)
    rest = {name: value for name, value in options.items() if name not in loose}
    known = pipeline.schema.condition is not None
    return rest | {"guidance": make_guidance(**loose).check(known)}


def slice_options(options: dict[str, Any], rows: Any) -> dict[str, Any]:
    return {k: v.rows(rows) if isinstance(v, Guidance) else v for k, v in options.items()}
