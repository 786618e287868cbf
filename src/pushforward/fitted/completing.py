"""Fix some columns or pixels and draw the rest: `FittedModel.sample` with ``given``."""

import warnings
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ..data.schema import Schema
from ..data.sources import listing, raw
from ..data.transforms import Chain, Whiten
from ..errors import DataError, NumericalError, UsageError
from ..families import gaussian_mixture
from ..model import Event, Likelihood
from ..places import accepts, chunks, device_of, rows_at_once, seeded
from ..theory import completion

if TYPE_CHECKING:
    from . import FittedModel

PROPOSALS = 4096  # of importance resampling, and draws that the proposal is fitted to
DRAWS = (20_000, 200_000)  # least and most draws of a model that can be sampled only
ENOUGH = 100  # effective sample size below which a user is told


def complete(
    fitted: "FittedModel", n: int, given: Any, y: Any, seed: int | None, options: dict[str, Any]
) -> np.ndarray:
    """``n`` data whose entries are the given ones where these are known, ``(n, *event)``.

    Raises:
        UsageError: If the model has a condition and ``y`` is not named, or an option is unknown.
        DataError: If the given entries do not fit the schema.
    """
    if fitted.schema.condition_length and y is None:
        raise UsageError("the model was fitted with a condition: name it, with y, beside given")
    x, known = entries(given, fitted.schema, n)
    accepts(fitted.model.complete, options, fitted.family)
    with seeded(seed, device_of(fitted.model)), torch.no_grad():
        vectors = fitted.conditions(y, n)
        c = None if vectors is None else fitted.vectors(vectors)
        out = np.empty((n, *fitted.schema.event))
        for rows in alike(x, known, c):
            first = rows[0]
            some = None if c is None else c[torch.as_tensor(rows)]
            out[rows] = drawn(fitted, len(rows), x[first], known[first], some, options)
    return np.where(known, x, out)


def entries(given: Any, schema: Schema, n: int) -> tuple[np.ndarray, np.ndarray]:
    """The given entries, and which they are, both ``(n, *event)``.

    Arguments:
        given: Columns by name; or data with missing values (NaN) where they are to be drawn: one
            datum, or ``n`` of them.
        schema: What was fitted.
        n: How many data will be drawn.
    """
    x = np.full((n, *schema.event), np.nan)
    if isinstance(given, Mapping):
        columns = {str(name): np.asarray(value, dtype=object) for name, value in given.items()}
    elif len(schema.shape) > 1 or not hasattr(given, "columns"):
        x[:] = whole(given, schema, n)
        columns = {}
    else:
        cells = raw(given).cells
        columns = {str(k.name): np.where(k.missing, np.nan, k.values) for k in cells}
    unknown = [name for name in columns if len(schema.shape) > 1 or name not in schema.names]
    if unknown:
        raise DataError(f"given: no column is called {listing(unknown)}; have {schema.names}"[:250])
    for name, value in columns.items():
        try:
            x[:, schema.names.index(name)] = value.astype(np.float64)
        except (TypeError, ValueError) as error:
            raise DataError(f"given: {name} must be a number, or {n} of them") from error
    check(x, schema)
    return np.nan_to_num(x), ~np.isnan(x)


def whole(given: Any, schema: Schema, n: int) -> np.ndarray:
    """An array of one datum, or of ``n``, with NaN where entries are to be drawn."""
    try:
        x = np.load(given) if isinstance(given, str) else np.asarray(given)
        return np.broadcast_to(x.astype(np.float64), (n, *schema.event))
    except (OSError, TypeError, ValueError) as error:
        raise DataError(
            f"given: expected column=value, or an array of shape {schema.event} or "
            f"({n}, ...) with NaN where entries are to be drawn"
        ) from error


def check(x: np.ndarray, schema: Schema) -> None:
    """Refuse entries that no datum of the schema has."""
    if np.isnan(x).all():
        raise DataError("given: nothing is given; name at least one column or entry")
    for j, column in enumerate(schema.columns):
        values = x if len(schema.shape) > 1 else x[:, j]
        values = values[~np.isnan(values)]
        low, high = (column.low, column.high) if column.integer else column.bounds
        if not np.isfinite(values).all():
            raise DataError(f"given: {column.name} is not finite")
        if column.integer and (values != np.rint(values)).any():
            raise DataError(f"given: {column.name} is a whole number, not {values[0]}")
        outside = (low is not None and (values < low)) | (high is not None and (values > high))
        if np.any(outside):
            worst = values[np.argmax(outside)]
            raise DataError(f"given: {column.name} is {worst:g}, outside [{low}, {high}]")


def alike(x: np.ndarray, known: np.ndarray, c: Tensor | None) -> Iterator[np.ndarray]:
    """Rows that share what is given, so that they can be drawn together."""
    parts = [np.where(known, x, 0).reshape(len(x), -1), known.reshape(len(x), -1)]
    keys = np.concatenate([*parts, *([] if c is None else [c.cpu().numpy()])], axis=1)
    _, group = np.unique(keys, axis=0, return_inverse=True)
    for k in range(group.max() + 1 if len(group) else 0):
        yield np.flatnonzero(group == k)


def drawn(
    fitted: "FittedModel",
    n: int,
    x: np.ndarray,
    known: np.ndarray,
    c: Tensor | None,
    options: dict[str, Any],
) -> np.ndarray:
    """``n`` draws given the entries of one datum, in the units of the data."""
    model, view = fitted.model, Entrywise(fitted, c)
    z, mask = view.inward(x), torch.as_tensor(known).to(device_of(model))
    made = model.complete(n, z.to(view.dtype), mask, c, **options) if not view.mixing else None
    if made is None:
        made = view.importance(n, z, mask) if view.scored else view.nearest(n, z, mask)
    if not made.isfinite().all():
        raise NumericalError(f"{fitted.family} drew values that are not finite; train longer")
    return view.outward(made)


class Entrywise:
    """A fitted model in a space whose entries are those of the data, each transformed alone.

    A whitening mixes entries, so that what is given is no entry of the model's own space.

    Arguments:
        fitted: The model.
        c: Conditions, all alike, or None.
    """

    def __init__(self, fitted: "FittedModel", c: Tensor | None) -> None:
        self.model, self.family = fitted.model, fitted.family
        parts = fitted.transform.parts
        self.mixing = tuple(p for p in parts if isinstance(p, Whiten))
        self.own = Chain(tuple(p for p in parts if not isinstance(p, Whiten)))
        self.mix = Chain(self.mixing)
        self.scored = fitted.model.likelihood is not Likelihood.NONE and not fitted.model.discrete
        self.c, self.device = c, device_of(fitted.model)
        self.dtype = torch.get_default_dtype()

    def inward(self, x: np.ndarray) -> Tensor:
        """One datum in this space."""
        return self.own.forward(torch.as_tensor(x)[None])[0][0].to(self.device)

    def outward(self, z: Tensor) -> np.ndarray:
        """Data in the units of the user."""
        return self.own.inverse(z.cpu().double()).numpy()

    def conditions(self, n: int) -> Tensor | None:
        """The shared condition, ``n`` times."""
        return None if self.c is None else self.c[:1].expand(n, -1)

    def sample(self, n: int) -> Tensor:
        """Draws of the model."""
        parts = [
            self.model.sample(m, self.conditions(m))
            for _, m in chunks(n, rows_at_once(self.model.event_shape))
        ]
        return self.mix.inverse(torch.cat(parts).double())

    def log_prob(self, z: Tensor) -> Tensor:
        """Their log-density, up to a constant."""
        return torch.cat(
            [
                self.model.log_prob(part.to(self.dtype), self.conditions(len(part)))
                for part in self.mix.forward(z)[0].split(rows_at_once(self.model.event_shape))
            ]
        )

    def importance(self, n: int, x: Tensor, known: Tensor) -> Tensor:
        """Importance resampling from the conditional of a Gaussian mixture fitted to draws."""
        draws, many = self.sample(PROPOSALS), max(PROPOSALS, 4 * n)
        mean, scale = draws.mean(0), draws.std(0).clamp(min=1e-12)
        proposal = gaussian_mixture.build(Event(tuple(x.shape)), components=8).to(self.device)
        proposal.prepare(((draws - mean) / scale).to(self.dtype))
        unit = proposal.complete(many, ((x - mean) / scale).to(self.dtype), known)
        made, size = completion.importance(
            unit, lambda u: self.log_prob(u * scale + mean), proposal.log_prob, n
        )
        if size < ENOUGH:
            warnings.warn(
                f"{self.family} draws the rest by importance resampling, and of {many} proposals "
                f"only {size:.0f} count: take the draws as rough",
                stacklevel=2,
            )
        return made * scale + mean

    def nearest(self, n: int, x: Tensor, known: Tensor) -> Tensor:
        """The draws that lie nearest in the known entries, for a model without a density."""
        many = min(max(DRAWS[0], 50 * n), DRAWS[1])
        made, width, size = completion.nearest(
            self.sample(many), x, known, n, min(float(n), many / 20)
        )
        warnings.warn(
            f"{self.family} has no density: these are draws whose given entries lie within about "
            f"{width:.2g} standard deviations ({size:.0f} of {many} count)",
            stacklevel=2,
        )
        return made
