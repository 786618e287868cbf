r"""Fix some columns or pixels and draw the rest: `FittedModel.sample` with ``given``.

A family of densities has learned integers as :math:`z = k + u`. A given integer k tells nothing of
u, so that the draws are shared out among several :math:`u \sim U[0, 1)`, as in training:

.. math:: p(x^U \mid k) \approx \tfrac1m \sum_{i=1}^m p(x^U \mid k + u_i)
"""

import warnings
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ..data.bijections import Whiten
from ..data.reading import open_source
from ..data.schema import Schema
from ..data.transforms import Chain
from ..devices import (
    batch_offsets,
    batch_rows,
    cast_like_model,
    check_method_options,
    model_device,
    seeded_rng,
)
from ..errors import DataError, NumericalError, UsageError
from ..families import gaussian_mixture
from ..formatting import join_names
from ..model import Event, Likelihood, Preprocessing
from ..progress import track_progress
from ..theory import completion
from . import guiding

if TYPE_CHECKING:
    from .fitted_model import FittedModel

PROPOSALS = 4096  # of importance resampling, and draws that the proposal is fitted to
DRAWS = (20_000, 200_000)  # least and most draws of a model that can be sampled only
REACH = 100  # ranges of a column beyond which no model can say what goes with a value
ENOUGH = 100  # effective sample size below which a user is told
SHARES = 16  # of at least ten draws, each with its own u, where integers are given


def impute_given(
    fitted: "FittedModel", n: int, given: Any, y: Any, seed: int | None, options: dict[str, Any]
) -> np.ndarray:
    """``n`` data whose entries are the given ones where these are known, ``(n, *event)``.

    Raises:
        UsageError: If the model has a condition and ``y`` is not named, or an option is unknown.
        DataError: If the given entries do not fit the schema.
    """
    if fitted.schema.condition is not None and y is None:
        raise UsageError(
            f"the model was fitted with a condition, {fitted.schema.condition.expected_form}: name it "
            "(--condition, in Python y) beside given"
        )
    x, known = parse_given_entries(given, fitted.schema, n)
    options = guiding.encode_negative(fitted, options, n)
    check_method_options(fitted.model.complete, options, fitted.family)
    with seeded_rng(seed, model_device(fitted.model)), torch.no_grad():
        vectors = fitted.preprocessor.condition_vectors(y, n)
        c = None if vectors is None else cast_like_model(fitted.model, torch.as_tensor(vectors))
        out = np.empty((n, *fitted.schema.event))
        for rows in group_identical(x, known, c, options.get("negative")):
            first, which = rows[0], torch.as_tensor(rows)
            some, own = None if c is None else c[which], guiding.slice_options(options, which)
            out[rows] = impute_group(fitted, len(rows), x[first], known[first], some, own)
    return np.where(known, x, out)


def parse_given_entries(given: Any, schema: Schema, n: int) -> tuple[np.ndarray, np.ndarray]:
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
        x[:] = broadcast_given(given, schema, n)
        columns = {}
    else:
        cells = open_source(given).cells
        columns = {str(k.name): np.where(k.missing, np.nan, k.values) for k in cells}
    unknown = [name for name in columns if len(schema.shape) > 1 or name not in schema.names]
    if unknown:
        raise DataError(
            f"given: no column is called {join_names(unknown)}; have {schema.names}"[:250]
        )
    for name, value in columns.items():
        try:
            x[:, schema.names.index(name)] = value.astype(np.float64)
        except (TypeError, ValueError) as error:
            raise DataError(f"given: {name} must be a number, or {n} of them") from error
    check_given(x, schema)
    known = ~np.isnan(x)
    return np.where(known, x, column_midpoints(schema)), known


def column_midpoints(schema: Schema) -> np.ndarray:
    """The middle of what was observed in each column: a value that every transform takes."""
    ends = [c.low / 2 + c.high / 2 for c in schema.columns]
    return np.array([np.rint(m) if c.integer else m for m, c in zip(ends, schema.columns)])


def broadcast_given(given: Any, schema: Schema, n: int) -> np.ndarray:
    """An array of one datum, or of ``n``, with NaN where entries are to be drawn."""
    try:
        x = np.load(given) if isinstance(given, str) else np.asarray(given)
        return np.broadcast_to(x.astype(np.float64), (n, *schema.event))
    except (OSError, TypeError, ValueError) as error:
        raise DataError(
            f"given: expected column=value, or an array of shape {schema.event} or "
            f"({n}, ...) with NaN where entries are to be drawn"
        ) from error


def check_given(x: np.ndarray, schema: Schema) -> None:
    """Refuse entries that no datum of the schema has."""
    if np.isnan(x).all():
        raise DataError("given: nothing is given; name at least one column or entry")
    for j, column in enumerate(schema.columns):
        values = x if len(schema.shape) > 1 else x[:, j]
        values = values[~np.isnan(values)]
        low, high = (column.low, column.high) if column.integer else column.bounds
        wide = REACH * (column.high - column.low)
        if not np.isfinite(values).all():
            raise DataError(f"given: {column.name} is not finite")
        if column.integer and (values != np.rint(values)).any():
            raise DataError(f"given: {column.name} is a whole number, not {values[0]}")
        beyond = np.less if column.integer else np.less_equal  # bounds of numbers are open
        outside = (low is not None and beyond(values, low)) | (
            high is not None and beyond(-values, -high)
        )
        if np.any(outside):
            worst, shown = values[np.argmax(outside)], "[{}, {}]" if column.integer else "({}, {})"
            raise DataError(f"given: {column.name} is {worst:g}, outside {shown.format(low, high)}")
        far = (values < column.low - wide) | (values > column.high + wide)
        if np.any(far):
            raise DataError(
                f"given: {column.name} is {values[np.argmax(far)]:g}, too far from the data, which "
                f"lie in [{column.low:g}, {column.high:g}]; give a value nearer to them"
            )


def group_identical(
    x: np.ndarray, known: np.ndarray, *conditions: Tensor | None
) -> Iterator[np.ndarray]:
    """Rows that share what is given, so that they can be drawn together."""
    parts = [np.where(known, x, 0).reshape(len(x), -1), known.reshape(len(x), -1)]
    keys = np.concatenate([*parts, *(c.cpu().numpy() for c in conditions if c is not None)], axis=1)
    _, group = np.unique(keys, axis=0, return_inverse=True)
    for k in range(group.max() + 1 if len(group) else 0):
        yield np.flatnonzero(group == k)


def impute_group(
    fitted: "FittedModel",
    n: int,
    x: np.ndarray,
    known: np.ndarray,
    c: Tensor | None,
    options: dict[str, Any],
) -> np.ndarray:
    """``n`` draws given the entries of one datum, in the units of the data."""
    view, mask = UnwhitenedModel(fitted, c), torch.as_tensor(known).to(model_device(fitted.model))
    integer = np.array([column.integer for column in fitted.schema.columns])
    several = fitted.transform.stochastic and (known & integer).any()
    many = min(SHARES, max(1, n // 10)) if several else 1
    shares = list(zip(split_evenly(n, many), view.inward(x, mask, many)))
    parts = [] if view.mixing else [view.own_way(m, z, mask, options) for m, z in shares]
    made = [part for part in parts if part is not None]
    if len(made) < len(shares):
        made = (view.importance if view.scored else view.nearest)(n, shares, mask)
    out = torch.cat(made)
    if not out.isfinite().all():
        raise NumericalError(f"{fitted.family} drew values that are not finite; train longer")
    return view.outward(out)


def split_evenly(n: int, many: int) -> list[int]:
    """N in so many parts that are as equal as can be."""
    return [n // many + (i < n % many) for i in range(many)]


Shares = list[tuple[int, Tensor]]  # how many to draw, and the datum whose known entries count


class UnwhitenedModel:
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
        levels = fitted.model.preprocessing is Preprocessing.LEVELS
        self.scored = fitted.model.likelihood is not Likelihood.NONE and not levels
        self.c, self.device = c, model_device(fitted.model)
        self.dtype = cast_like_model(self.model, torch.empty(0)).dtype

    def inward(self, x: np.ndarray, known: Tensor, many: int) -> Tensor:
        """One datum in this space, so many times, each with its own dequantisation."""
        rows = torch.as_tensor(x).expand(many, *x.shape)
        return torch.where(known, self.own.forward(rows)[0].to(self.device), 0.0)

    def outward(self, z: Tensor) -> np.ndarray:
        """Data in the units of the user."""
        return self.own.inverse(z.cpu().double()).numpy()

    def conditions(self, n: int) -> Tensor | None:
        """The shared condition, ``n`` times."""
        return None if self.c is None else self.c[:1].expand(n, -1)

    def own_way(self, n: int, x: Tensor, known: Tensor, options: dict[str, Any]) -> Tensor | None:
        """What the model's own ``complete`` draws, if it has one."""
        size = batch_rows(self.model.event_shape)
        z = x.to(self.dtype)
        made = [
            self.model.complete(m, z, known, self.conditions(m), **guiding.repeat_first(options, m))
            for _, m in track_progress(batch_offsets(n, size), -(-n // size))
        ]
        parts = [part for part in made if part is not None]
        return torch.cat(parts) if len(parts) == len(made) > 0 else None

    def sample(self, n: int) -> Tensor:
        """Draws of the model."""
        parts = [
            self.model.sample(m, self.conditions(m))
            for _, m in batch_offsets(n, batch_rows(self.model.event_shape))
        ]
        return self.mix.inverse(torch.cat(parts).double())

    def log_prob(self, z: Tensor) -> Tensor:
        """Their log-density, up to a constant."""
        return torch.cat(
            [
                self.model.log_prob(part.to(self.dtype), self.conditions(len(part)))
                for part in self.mix.forward(z)[0].split(batch_rows(self.model.event_shape))
            ]
        )

    def importance(self, n: int, shares: Shares, known: Tensor) -> list[Tensor]:
        """Importance resampling from the conditional of a Gaussian mixture fitted to draws."""
        draws, shape = self.sample(PROPOSALS), self.model.event_shape
        mean, scale = draws.mean(0), draws.std(0).clamp(min=1e-12)
        proposal = gaussian_mixture.build(Event(shape), components=8)
        proposal = proposal.to(self.device, self.dtype)
        proposal.prepare(((draws - mean) / scale).to(self.dtype))
        parts: list[Tensor] = []
        size, many = 0.0, max(PROPOSALS // len(shares), 4 * -(-n // len(shares)))
        for m, x in shares:
            unit = proposal.complete(many, ((x - mean) / scale).to(self.dtype), known)
            made, counted = completion.importance_resample(
                unit, lambda u: self.log_prob(u * scale + mean), proposal.log_prob, m
            )
            parts, size = [*parts, made * scale + mean], size + counted
        if size < ENOUGH:
            warnings.warn(
                f"{self.family} draws the rest by importance resampling, and of "
                f"{many * len(shares)} proposals only {size:.0f} count: take the draws as rough",
                stacklevel=2,
            )
        return parts

    def nearest(self, n: int, shares: Shares, known: Tensor) -> list[Tensor]:
        """The draws that lie nearest in the known entries, for a model without a density."""
        many = min(max(DRAWS[0], 50 * n), DRAWS[1])
        draws, least = self.sample(many), min(float(n), many / 20)
        found = [completion.kernel_resample(draws, x, known, m, least) for m, x in shares]
        width, size = max(f[1] for f in found), min(f[2] for f in found)
        warnings.warn(
            f"{self.family} has no density: these are draws whose given entries lie within about "
            f"{width:.2g} standard deviations ({size:.0f} of {many} count)",
            stacklevel=2,
        )
        return [f[0] for f in found]
