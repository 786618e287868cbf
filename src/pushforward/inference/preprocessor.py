"""Between a user's data and a model's space: x and z, y and c.

A schema says what raw data look like, a chain of transforms takes them to the model's standardised
space with its log-determinant, and conditions become vectors whose first entry is 1. Those seen in
training and their frequencies stand in where a condition is needed and none is given.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..data import reading
from ..data.columns import as_condition_array
from ..data.conditions import subsample_weighted
from ..data.schema import Schema
from ..data.transforms import Chain
from ..errors import NumericalError, UsageError
from ..model import Event


@dataclass(frozen=True)
class Preprocessor:
    """How data of a schema are read for a model, and given back.

    Arguments:
        schema: The likeness of the data that were fitted.
        transform: Numbers in the units of the data to the model's space, and back.
        conditions: The distinct conditions of training, vectors or captions; empty without any.
        frequencies: How often each of them was seen; they sum to 1.
    """

    schema: Schema
    transform: Chain
    conditions: Sequence[Any] = ()
    frequencies: Sequence[float] = ()

    @property
    def captioned(self) -> bool:
        """Whether the conditions are captions."""
        return self.schema.condition is not None and self.schema.condition.captioned

    def event(self, size: int) -> Event:
        """What a family must know of so many data of the schema."""
        schema = self.schema
        event = Event(schema.event, schema.condition_length, schema.levels, size)
        if schema.condition is None:
            return event
        return event._replace(tokens=schema.condition.tokens, spelled=schema.condition.spelled)

    def read(self, x: Any, y: Any = None) -> reading.Dataset:
        """Data of the schema, and their conditions from ``y`` or from their own column.

        Raises:
            DataError: If they are not of the kind that was fitted.
        """
        return reading.read_with_schema(x, self.schema, y=y)

    def to_model(self, x: np.ndarray, y: Any = None) -> tuple[Tensor, Tensor | None, Tensor]:
        r"""Rows of data in the model's space.

        .. math:: \log p(x) = \log p_z(z) + \log\lvert\det \partial z / \partial x\rvert

        Arguments:
            x: Numbers in the units of the data, ``(n, *event)``.
            y: Their conditions, one for each or one for all; None where they are not known.

        Returns:
            z, ``(n, *event)``; the condition vectors c, ``(n, condition)``, zeros where they are
            not known, or None for a schema without; the log-determinants, ``(n,)``; in float64.
        """
        z, log_det = self.transform.forward(torch.as_tensor(x))
        if self.schema.condition is None and y is None:
            return z, None, log_det
        return z, torch.as_tensor(self.schema.encode(y, len(x))), log_det

    def to_user(self, z: Tensor, c: Tensor | None = None, captions: Any = None) -> Any:
        """What a model gives, as the kind of data that was fitted.

        Raises:
            NumericalError: If it is not finite.
        """
        if not z.isfinite().all():
            raise NumericalError("the model gave values that are not finite; train longer")
        rows = None if c is None else c.cpu().double().numpy()
        return self.schema.restore(self.transform.inverse(z.cpu().double()).numpy(), rows, captions)

    def condition_vectors(self, y: Any, n: int) -> np.ndarray | None:
        """The condition vectors of ``n`` data; drawn from those of training if not given.

        Raises:
            UsageError: If one is given and the model was fitted without.
        """
        if not self.schema.condition_length:
            if y is not None:
                raise UsageError("the model was fitted without a condition: give none")
            return None
        y = self.captions_or_draw(y, n)
        return self._draw(n) if y is None else self.schema.encode(y, n)

    def captions_or_draw(self, y: Any, n: int) -> Any:
        """Conditions as they are given; captions that are not given are drawn from training's."""
        return self._draw(n) if self.captioned and y is None else y

    def caption_rows(self, y: Any, n: int) -> np.ndarray | None:
        """The caption of each of ``n`` data, where conditions are captions and given."""
        if not self.captioned or y is None:
            return None
        return np.broadcast_to(np.atleast_1d(as_condition_array(y)).astype(object), n)

    def condition_support(self, most: int | None = None) -> tuple[np.ndarray, np.ndarray]:
        """The condition vectors of training and their frequencies, at most so many."""
        rows, weights = self._seen()
        rows, weights = subsample_weighted(rows, weights, len(rows) if most is None else most)
        return self.schema.encode(rows) if self.captioned else rows, weights

    def label_columns(self, y: Any, n: int) -> dict[str, np.ndarray]:
        """The conditions of ``n`` data by the name that files keep them by."""
        c = None if y is None else self.schema.encode(y, n)
        return self.schema.condition_columns(c, self.caption_rows(y, n))

    def parse_condition(self, word: str | None) -> Any:
        """A condition as a person types it, in the kind that the schema has."""
        if word is None or self.schema.condition is None:
            return word
        return self.schema.condition.parse(word)

    def _seen(self) -> tuple[np.ndarray, np.ndarray]:
        kind = object if self.captioned else None
        return np.array(self.conditions, kind), np.asarray(self.frequencies)

    def _draw(self, n: int) -> np.ndarray:
        rows, weights = self._seen()
        return rows[torch.multinomial(torch.as_tensor(weights), n, replacement=True).numpy()]
