r"""Gaussian with full covariance: the simplest density, fitted in closed form.

.. math:: p(x) = \mathcal N(x \mid \mu, \Sigma), \qquad
    \Sigma = (1 - \rho)\,S + \rho\,\tfrac{\operatorname{tr} S}{d}\,I

with the shrinkage :math:`\rho` of Ledoit & Wolf (2004), which keeps :math:`\Sigma` invertible with
fewer data than dimensions. Every combination of classes has a Gaussian of its own; numeric
conditions enter linearly. The file also holds what all closed-form families share.
"""

import warnings
from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor, nn

from ..errors import DataError
from ..model import Event, GenerativeModel, Likelihood
from ..shapes import Condition, Data, PerDatum

FEWEST = 5  # a combination of classes with fewer data is treated as unknown
Components = tuple[np.ndarray, np.ndarray, np.ndarray]
Fit = Callable[[np.ndarray], Components]


class FittedTensors(nn.Module):
    """Tensors found by a closed-form fit; loading a state adopts the sizes that were saved."""

    def __init__(self, *names: str) -> None:
        super().__init__()
        for name in names:
            self.register_buffer(name, torch.zeros(0))

    def __getitem__(self, name: str) -> Tensor:
        return self.get_buffer(name)

    def store(self, **tensors: Tensor) -> None:
        for name, value in tensors.items():
            setattr(self, name, value.to(self[name]).contiguous())

    def _load_from_state_dict(self, state: dict[str, Tensor], prefix: str, *rest: object) -> None:
        for name, old in list(self._buffers.items()):
            if old is not None and prefix + name in state:
                setattr(self, name, old.new_empty(state[prefix + name].shape))
        super()._load_from_state_dict(state, prefix, *rest)  # type: ignore[arg-type]


class ClassGroups(nn.Module):
    """Combinations of classes (entries that are always 0 or 1) in conditions, numbered from 1.

    Group 0 is for the zero vector, which says that nothing is known, and for rare combinations.
    """

    def __init__(self, condition: int) -> None:
        super().__init__()
        self.condition = condition
        self.table = FittedTensors("numeric", "patterns")

    def fit(self, c: Condition, n: int) -> list[tuple[Tensor, Tensor]]:
        # without conditions, one group: the column of zeros is a class that never occurs
        c = torch.zeros(n, 1) if c is None or not self.condition else c
        numeric = ~((c == 0) | (c == 1)).all(0)
        patterns, count = torch.unique(c[:, ~numeric], dim=0, return_counts=True)
        patterns, count = patterns[patterns.any(1)], count[patterns.any(1)]
        known = patterns[count >= FEWEST]
        if few := len(patterns) - len(known):
            warnings.warn(
                f"{few} of {len(patterns)} classes have fewer than {FEWEST} data each and are "
                "treated as unknown: their draws and scores are those of all data",
                stacklevel=3,
            )
        self.table.store(numeric=numeric.float(), patterns=known)
        rows = [torch.arange(n, device=c.device)]
        rows += [(c[:, ~numeric] == pattern).all(1).nonzero()[:, 0] for pattern in known]
        return [(i, c[i][:, numeric]) for i in rows]

    def split(self, c: Condition, n: int) -> Iterator[tuple[int, Tensor, Tensor | None]]:
        patterns, numeric = self.table["patterns"], self.table["numeric"].bool()
        group = torch.zeros(n, dtype=torch.long, device=patterns.device)
        if c is not None and len(patterns):
            same = (c[:, None, ~numeric] == patterns).all(2)
            group = torch.where(same.any(1), same.long().argmax(1) + 1, 0)
        for g in group.unique().tolist():
            i = (group == g).nonzero()[:, 0]
            yield g, i, c[i][:, numeric] if c is not None and g else None


class ClosedFormModel(GenerativeModel):
    likelihood = Likelihood.EXACT

    def players(self) -> dict[str, nn.Module]:
        return {}


class GaussianMixtureModel(ClosedFormModel):
    r"""A Gaussian mixture of data and numeric conditions :math:`u` for each combination of classes.

    .. math:: p(x \mid u) = \sum_k w_k(u)\,\mathcal N\bigl(x \mid \mu_k + A_k (u - m_k),\,
        \Sigma_k - A_k S_k A_k^\top\bigr), \qquad w_k(u) \propto w_k\,\mathcal N(u \mid m_k, S_k)

    is the conditional of the joint mixture, with :math:`A_k = \operatorname{Cov}(x, u)\,S_k^{-1}`;
    ``fit`` finds weights ``(k,)``, means ``(k, m)`` and covariances ``(k, m, m)`` of ``(n, m)``.
    """

    def __init__(self, event_shape: tuple[int, ...], condition: int, fit: Fit) -> None:
        super().__init__()
        self.event_shape, self.fit = event_shape, fit
        self.table = FittedTensors("group", "weight", "mean", "covariance")
        self.groups = ClassGroups(condition)

    def prepare(self, x: Data, c: Condition = None) -> None:
        parts = []
        for g, (i, u) in enumerate(self.groups.fit(c, len(x))):
            rows = torch.cat([x[i].flatten(1), u.to(x)], dim=1)
            weight, mean, covariance = map(torch.as_tensor, self.fit(rows.double().cpu().numpy()))
            parts.append((torch.full_like(weight, g), weight, mean, covariance))
        group, weight, mean, covariance = (torch.cat(p) for p in zip(*parts, strict=True))
        self.table.store(group=group, weight=weight, mean=mean, covariance=covariance)

    def conditional(self, g: int, u: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """Log-weights ``(n or 1, k)``, means ``(n or 1, k, d)`` and Cholesky factors of group g."""
        own, d = self.table["group"] == g, int(np.prod(self.event_shape))
        weight, mean, s = (self.table[name][own] for name in ("weight", "mean", "covariance"))
        log_w = weight.log()[None]
        if u is None or u.shape[1] == 0:
            return log_w, mean[None, :, :d], torch.linalg.cholesky(s[:, :d, :d])
        fixed = torch.arange(mean.shape[1], device=s.device) >= d
        return condition_mixture(log_w, mean[None], s, fixed, u)

    def log_prob(self, x: Data, c: Condition = None) -> PerDatum:
        flat, out = x.flatten(1), x.new_empty(len(x))
        for g, i, u in self.groups.split(c, len(x)):
            for block in range(0, len(i), 4096):
                j = slice(block, block + 4096)
                log_w, mean, root = self.conditional(g, None if u is None else u[j])
                each = _component_log_densities(flat[i[j], None] - mean, root)
                out[i[j]] = (log_w + each).logsumexp(1)
        return out

    def sample(self, n: int, c: Condition = None) -> Tensor:
        x = self.noise(n, int(np.prod(self.event_shape)))
        for g, i, u in self.groups.split(c, n):
            x[i] = sample_mixture(*self.conditional(g, u), x[i])
        return x.unflatten(1, self.event_shape)

    def complete(self, n: int, x: Tensor, known: Tensor, c: Condition = None) -> Tensor:
        fixed, out = known.flatten(), x.flatten().repeat(n, 1)
        for g, i, u in self.groups.split(c, n):
            log_w, mean, root = self.conditional(g, u)
            parts = condition_mixture(log_w, mean, root @ root.mT, fixed, out[i][:, fixed])
            out[i[:, None], (~fixed).nonzero()[:, 0]] = sample_mixture(
                *parts, self.noise(len(i), int((~fixed).sum()))
            )
        return out.unflatten(1, self.event_shape)


def condition_mixture(
    log_w: Tensor, mean: Tensor, s: Tensor, fixed: Tensor, value: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Log-weights, means and Cholesky factors of the other coordinates given the fixed ones.

    Covariances s are ``(k, m, m)``, ``fixed`` is a mask ``(m,)``, and values are ``(n, fixed)``.
    """
    root = torch.linalg.cholesky(s[:, fixed][:, :, fixed])
    across = s[:, fixed][:, :, ~fixed]
    gain = torch.cholesky_solve(across, root).mT
    away = value[:, None] - mean[..., fixed]
    log_w = (log_w + _component_log_densities(away, root)).log_softmax(1)
    rest = s[:, ~fixed][:, :, ~fixed] - gain @ across
    shifted = mean[..., ~fixed] + (gain @ away[..., None])[..., 0]
    return log_w, shifted, torch.linalg.cholesky((rest + rest.mT) / 2)


def sample_mixture(log_w: Tensor, mean: Tensor, root: Tensor, z: Tensor) -> Tensor:
    k = torch.multinomial(log_w.exp().expand(len(z), -1), 1)[:, 0]
    own = torch.arange(len(z), device=z.device) if len(mean) > 1 else torch.zeros_like(k)
    return mean[own, k] + (root[k] @ z[..., None])[..., 0]


def _component_log_densities(away: Tensor, root: Tensor) -> Tensor:
    r""":math:`\log \mathcal N` of distances ``(n, k, m)`` from the means, with Cholesky factors."""
    whitened = torch.linalg.solve_triangular(root, away.movedim(0, 2), upper=False)
    log_det = root.diagonal(dim1=1, dim2=2).log().sum(1)
    d = root.shape[1]
    return (-whitened.square().sum(1) / 2).T - log_det - d / 2 * float(np.log(2 * np.pi))


def fit_shrunk_gaussian(x: np.ndarray) -> Components:
    from sklearn.covariance import ledoit_wolf

    if len(x) < 2:
        raise DataError("a Gaussian needs at least 2 rows; give more data")
    covariance = np.atleast_2d(ledoit_wolf(x)[0])
    # a constant column has variance 0, and few distinct rows have many directions without any:
    # keep the density finite, and the covariance positive in single precision
    largest = float(np.linalg.eigvalsh(covariance)[-1])
    covariance[np.diag_indices(x.shape[1])] += 1e-6 * max(1.0, largest / 4)
    return np.ones(1), x.mean(0)[None], covariance[None]


def build(event: Event) -> GaussianMixtureModel:
    """One Gaussian for each combination of classes."""
    return GaussianMixtureModel(event.shape, event.condition, fit_shrunk_gaussian)
