"""Affine maps to zero mean and unit variance, and what every transform shares."""

from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import Any, ClassVar, final

import torch
from torch import Tensor

from ..shapes import Data, PerDatum

Numbers = tuple[float, ...]
FLOOR = 1e-6  # smallest eigenvalue of a correlation matrix; its inverse root still fits float32


class JsonSerialisable:
    """Parameters that travel through JSON; ``kind`` says which transform it is."""

    kind: ClassVar[str]
    stochastic: ClassVar[bool] = False

    def to_json(self) -> dict[str, Any]:
        """The parameters, exactly: JSON writes floats so that they read back the same."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}  # type: ignore[arg-type]
        return {"kind": self.kind} | {k: tuples_to_lists(v) for k, v in values.items()}


def tuples_to_lists(value: Any) -> Any:
    return [tuples_to_lists(v) for v in value] if isinstance(value, tuple) else value


def float64_tensor(values: Numbers, like: Tensor) -> Tensor:
    """Parameters as a float64 tensor on the device of the data."""
    return torch.tensor(values, dtype=torch.float64, device=like.device)


@final
@dataclass(frozen=True)
class Standardise(JsonSerialisable):
    r"""Zero mean and unit variance: :math:`z = (x - \mu) / \sigma`.

    Arguments:
        mean: One for each column, or one for all entries.
        scale: The same, positive.
    """

    kind: ClassVar[str] = "standardise"
    mean: Numbers
    scale: Numbers

    def forward(self, x: Data) -> tuple[Data, PerDatum]:
        scale = float64_tensor(self.scale, x)
        log_det = -scale.log().expand(x.shape[1:]).sum()
        return (x.double() - float64_tensor(self.mean, x)) / scale, log_det.expand(len(x))

    def inverse(self, z: Data) -> Data:
        return z.double() * float64_tensor(self.scale, z) + float64_tensor(self.mean, z)


@final
@dataclass(frozen=True)
class Whiten(JsonSerialisable):
    r"""Zero mean and unit covariance: :math:`z = V \Lambda^{-1/2} V^\top D^{-1} (x - \mu)`.

    :math:`D` holds the standard deviations and :math:`V \Lambda V^\top` is the correlation matrix,
    whose eigenvalues are raised to at least 1e-6: the map stays a bijection for columns that depend
    on each other. Of all whitenings this one moves standardised data least (Kessy et al., 2018):
    it leaves uncorrelated columns alone.

    Arguments:
        mean: The mean of each column.
        scale: The standard deviation of each column.
        vectors: The rows of :math:`V`.
        roots: The square roots of the eigenvalues.
    """

    kind: ClassVar[str] = "whiten"
    mean: Numbers
    scale: Numbers
    vectors: tuple[Numbers, ...]
    roots: Numbers

    def forward(self, x: Data) -> tuple[Data, PerDatum]:
        scale, roots = float64_tensor(self.scale, x), float64_tensor(self.roots, x)
        y = (x.double() - float64_tensor(self.mean, x)) / scale
        return self._scale(y, 1 / roots), -(scale.log().sum() + roots.log().sum()).expand(len(x))

    def inverse(self, z: Data) -> Data:
        y = self._scale(z.double(), float64_tensor(self.roots, z))
        return y * float64_tensor(self.scale, z) + float64_tensor(self.mean, z)

    def _scale(self, y: Data, factors: Tensor) -> Data:
        """Scale along the principal axes."""
        rotation = torch.tensor(self.vectors, dtype=torch.float64, device=y.device)
        return y @ rotation * factors @ rotation.T


def fit_standardisation(x: Data) -> Standardise:
    """Fit `Standardise`: per column for vectors, shared by all entries of larger arrays."""
    columns = x.double() if x.ndim == 2 else x.double().reshape(-1, 1)
    mean, scale = column_moments(columns)
    return Standardise(tuple(mean.tolist()), tuple(scale.tolist()))


def column_moments(columns: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each column, without overflow for any finite data."""
    unit = columns.abs().amax(0)
    unit = torch.where(unit > 0, unit, 1.0)
    mean = (columns / unit).mean(0) * unit
    spread = columns - mean
    largest = spread.abs().amax(0)
    largest = torch.where(largest > 0, largest, 1.0)
    scale = (spread / largest).square().mean(0).sqrt() * largest
    return mean, torch.where(scale > 0, scale, 1.0)


def fit_affine_streaming(parts: Iterable[Data], whiten: bool) -> Standardise | Whiten:
    """`fit_standardisation`, or `fit_whitening`, of data that come in parts (Chan et al., 1983)."""
    n, mean, scatter = 0, torch.zeros(()), torch.zeros(())
    for part in parts:
        columns = part.double() if part.ndim == 2 else part.double().reshape(-1, 1)
        m, centre = len(columns), columns.mean(0)
        spread, gap = columns - centre, centre - mean
        own = spread.T @ spread if whiten else spread.square().sum(0)
        between = gap[:, None] * gap if whiten else gap.square()
        scatter = scatter + own + between * (n * m / (n + m))
        n, mean = n + m, mean + gap * (m / (n + m))
    variance = (scatter.diagonal() if whiten else scatter) / n
    scale = torch.where(variance > 0, variance.sqrt(), 1.0)
    if not whiten:
        return Standardise(tuple(mean.tolist()), tuple(scale.tolist()))
    return whiten_from_correlations(mean, scale, scatter / n / (scale[:, None] * scale))


def fit_whitening(x: Data) -> Whiten:
    """Fit `Whiten` to vectors."""
    mean, scale = column_moments(x.double())
    y = (x.double() - mean) / scale
    return whiten_from_correlations(mean, scale, y.T @ y / len(y))


def whiten_from_correlations(mean: Tensor, scale: Tensor, correlations: Tensor) -> Whiten:
    """`Whiten` from means, standard deviations and correlations."""
    values, vectors = torch.linalg.eigh(correlations)
    roots = values.clamp(min=FLOOR).sqrt()
    return Whiten(
        tuple(mean.tolist()),
        tuple(scale.tolist()),
        tuple(tuple(row) for row in vectors.tolist()),
        tuple(roots.tolist()),
    )
