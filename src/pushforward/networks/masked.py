r"""Masked perceptrons: parameters of every entry given the entries before it, in one pass.

.. math:: p(x \mid c) = \prod_{t=1}^d p(x_{\pi_t} \mid x_{\pi_1}, \dots, x_{\pi_{t-1}}, c)

Entry i stands at position :math:`t - 1` when :math:`\pi_t = i`. A hidden unit of degree m sees the
entries at positions below m, and the output at position p sees the units of degree at most p
(Germain et al., 2015). Hidden degrees are sorted, so that one entry after another can be computed
from what is stored of those before it: drawing a whole sample costs one pass, not d.
"""

import abc
import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, one_hot, silu

from ..errors import UsageError
from ..shapes import Condition, Data
from .backbone import Backbone
from .layout import image_layout, is_image

Steps = Iterator[tuple[int, Tensor]]


def initialise_output(h: Tensor, out: nn.Linear, bias: Tensor) -> None:
    """Let a layer that all entries share begin at parameters ``(d, size)``, kept in a bias."""
    nn.init.normal_(out.weight, std=0.01)
    out.bias.zero_()
    bias.copy_(h)


class AutoregressiveNetwork(Backbone, abc.ABC):
    orders: Tensor  # the entries in the order drawn, (m, d), one row for each order learned

    @abc.abstractmethod
    def initialise(self, h: Tensor, rows: Tensor, c: Condition = None) -> None:
        """Begin at parameters ``(d, size)`` that suit all of the ``(n, d)`` rows of data."""

    @abc.abstractmethod
    def forward(self, x: Data, o: int = 0, c: Condition = None) -> Tensor:
        """Parameters ``(n, d, size)`` of all entries in order o."""

    @abc.abstractmethod
    def decode_steps(self, x: Tensor, o: int = 0, c: Condition = None) -> Steps:
        """The number i of the next entry, and its parameters ``(n, size)``, d times.

        Whoever draws writes entry i into the rows ``x`` before asking for the next.
        """

    def __call__(self, x: Data, o: int = 0, c: Condition = None) -> Tensor:
        return super().__call__(x, o, c)


class EntryFeatures(nn.Module, abc.ABC):
    """How an entry is shown to those after it: ``(...)`` becomes ``(..., width)``."""

    width: int


class FourierEntryFeatures(EntryFeatures):
    r""":math:`x, \sin\omega x, \cos\omega x` of (entry - ``low``) / ``scale``."""

    omega: Tensor

    def __init__(
        self, count: int, sharpest: float = 16.0, low: float = 0.0, scale: float = 1.0
    ) -> None:
        super().__init__()
        self.register_buffer("omega", torch.logspace(-1, 0, count) * sharpest)
        self.width, self.low, self.scale = 1 + 2 * count, low, scale

    def forward(self, x: Tensor) -> Tensor:
        x = (x[..., None] - self.low) / self.scale
        phase = x * self.omega
        return torch.cat([x, phase.sin(), phase.cos()], dim=-1)


class OneHotLevels(EntryFeatures):
    like: Tensor

    def __init__(self, levels: int) -> None:
        super().__init__()
        self.width = levels
        self.register_buffer("like", torch.zeros(()), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return one_hot(x.long(), self.width).to(self.like)


class MaskedPerceptron(AutoregressiveNetwork):
    r"""MADE: :math:`h_i(x_{\text{before } i}, c)` by a residual MLP; orders share weights."""

    degree: Tensor

    def __init__(
        self,
        features: EntryFeatures,
        orders: Tensor,
        condition: int,
        size: int,
        *,
        width: int,
        depth: int,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        (m, d), self.size, self.features = orders.shape, size, features
        lowest = 0 if condition or d == 1 else 1  # degree 0 sees the condition alone
        self.register_buffer("orders", orders)
        self.register_buffer("degree", lowest + torch.arange(width) * (d - lowest) // width)
        self.entries = nn.Linear(d * features.width, width)
        self.shift = nn.Parameter(torch.zeros(m, width))
        self.condition = nn.Linear(condition, width, bias=False) if condition else None
        bound = width**-0.5  # as in nn.Linear
        self.hidden = nn.Parameter(torch.empty(depth - 1, width, width).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(depth - 1, width).uniform_(-bound, bound))
        self.out = nn.Linear(width, d * size)
        self.dropout = nn.Dropout(dropout)

    def initialise(self, h: Tensor, rows: Tensor, c: Condition = None) -> None:
        nn.init.normal_(self.out.weight, std=0.01)
        self.out.bias.copy_(h.flatten())

    def masked_weights(self, o: int) -> tuple[Tensor, Tensor, Tensor]:
        position, degree = self.orders[o].argsort(), self.degree
        sees = (degree[:, None] > position).repeat_interleave(self.features.width, 1)
        passes = degree[:, None] >= degree
        gives = (position[:, None] >= degree).repeat_interleave(self.size, 0)
        return self.entries.weight * sees, self.hidden * passes, self.out.weight * gives

    def condition_shift(self, o: int, c: Condition) -> Tensor:
        shift = (self.entries.bias + self.shift[o])[None]
        return shift if self.condition is None or c is None else shift + self.condition(c.to(shift))

    def forward(self, x: Data, o: int = 0, c: Condition = None) -> Tensor:
        first, hidden, last = self.masked_weights(o)
        h = linear(self.features(x.flatten(1)).flatten(1), first) + self.condition_shift(o, c)
        for weight, bias in zip(hidden, self.bias, strict=True):
            h = h + linear(self.dropout(silu(h)), weight, bias)
        h = linear(self.dropout(silu(h)), last, self.out.bias)
        return h.unflatten(1, (-1, self.size))

    def decode_steps(self, x: Tensor, o: int = 0, c: Condition = None) -> Steps:
        first, hidden, last = self.masked_weights(o)
        seen = self.condition_shift(o, c).expand(len(x), -1)
        active = [torch.zeros_like(seen) for _ in range(len(hidden) + 1)]
        last, bias = last.unflatten(0, (-1, self.size)), self.out.bias.view(-1, self.size)
        first, stops = first.unflatten(1, (-1, self.features.width)), self.unit_ranges()
        for (a, b), i in zip(stops, self.orders[o].tolist(), strict=True):
            h = seen[:, a:b]
            for weight, shift, known in zip(hidden, self.bias, active, strict=False):
                known[:, a:b] = silu(h)
                h = h + linear(known[:, :b], weight[a:b, :b], shift[a:b])
            active[-1][:, a:b] = silu(h)
            yield i, linear(active[-1][:, :b], last[i, :, :b], bias[i])
            seen = seen + linear(self.features(x[:, i]), first[:, i])

    def unit_ranges(self) -> list[tuple[int, int]]:
        edges = torch.arange(self.orders.shape[1] + 1, device=self.degree.device)
        ends = torch.searchsorted(self.degree, edges).tolist()
        return list(zip(ends[:-1], ends[1:], strict=True))


class LinearAutoregression(AutoregressiveNetwork):
    r"""A network around which each entry is first predicted linearly, in closed form.

    .. math:: \hat x_i = \mu_i + (cB)_i + \sum_{j \text{ before } i} A_{ij}\,(x_j - \mu_j - (cB)_j)

    with :math:`(I - A)^{-1}` the unit triangular factor of the covariance (with a small
    ridge), and B a ridge regression. It puts :math:`\hat x_i` and the logarithm of the
    residual's standard deviation before the parameters of the network: if the rest is a
    standard normal, the model is exactly the multivariate normal, in every order.
    """

    mean: Tensor
    effect: Tensor
    before: Tensor
    log_scale: Tensor

    def __init__(self, net: AutoregressiveNetwork, condition: int) -> None:
        super().__init__()
        (m, d), self.net = net.orders.shape, net
        self.register_buffer("orders", net.orders)
        self.register_buffer("mean", torch.zeros(d))
        self.register_buffer("effect", torch.zeros(condition, d))
        self.register_buffer("before", torch.zeros(m, d, d))
        self.register_buffer("log_scale", torch.zeros(m, d))

    def initialise(self, h: Tensor, rows: Tensor, c: Condition = None) -> None:
        self.net.initialise(h, rows, c)
        self.mean.copy_(rows.mean(0))
        if c is not None and len(self.effect):
            gram = c.T @ c + torch.eye(c.shape[1]).to(c)
            self.effect.copy_(torch.linalg.solve(gram, c.T @ (rows - self.mean)))
        covariance = ridge_covariance(rows - self.prior_mean(c, len(rows)))
        for o, order in enumerate(self.orders):
            root = torch.linalg.cholesky(covariance[order][:, order])
            scale = root.diagonal()
            linear_part = torch.eye(len(scale)).to(root) - torch.linalg.inv(root / scale)
            self.before[o, order[:, None], order] = linear_part.to(self.before)
            self.log_scale[o, order] = scale.log().to(self.log_scale)

    def prior_mean(self, c: Condition, n: int) -> Tensor:
        if c is None or not len(self.effect):
            return self.mean.expand(n, -1)
        return self.mean + c.to(self.mean) @ self.effect

    def forward(self, x: Data, o: int = 0, c: Condition = None) -> Tensor:
        centre, rows = self.prior_mean(c, len(x)), x.flatten(1)
        mean = centre + (rows - centre) @ self.before[o].T
        moments = torch.stack([mean, self.log_scale[o].expand_as(mean)], dim=-1)
        return torch.cat([moments, self.net(x, o, c)], dim=-1)

    def decode_steps(self, x: Tensor, o: int = 0, c: Condition = None) -> Steps:
        centre, before = self.prior_mean(c, len(x)), self.before[o]
        away = torch.zeros_like(x)
        for i, h in self.net.decode_steps(x, o, c):
            mean = centre[:, i] + away @ before[i]
            moments = torch.stack([mean, self.log_scale[o, i].expand_as(mean)], dim=-1)
            yield i, torch.cat([moments, h], dim=-1)
            away[:, i] = x[:, i] - centre[:, i]


def ridge_covariance(rows: Tensor) -> Tensor:
    """The covariance of centred, standardised rows in float64, with a ridge for few of them."""
    n, d = rows.shape
    ridge = (1e-3 + 0.1 * d / n) * torch.eye(d).to(rows.device).double()
    return rows.double().T @ rows.double() / n + ridge


ALONG_ROWS = 4  # scans of an image that go along its rows, one from each corner


def entry_orderings(shape: tuple[int, ...], order: str, m: int) -> Tensor:
    """The first m orders: that given, its reverse, and others.

    An image is read along its rows or columns from any corner, all channels of a pixel together;
    after these eight, and for vectors after two, orders are random.
    """
    d = math.prod(shape)
    first = torch.arange(d) if order == "given" else _parse_ordering(order, d)
    orders = [first, first.flip(0)]
    if is_image(shape) and order == "given":
        image = image_layout(shape).to_channels_first(first.view(1, *shape).double())[0]
        places = image.permute(1, 2, 0).long()
        both = [places, places.flip(0, 1), places.flip(1), places.flip(0)]
        orders = [p.flatten() for p in both] + [p.transpose(0, 1).flatten() for p in both]
    while len(orders) < m:
        orders.append(torch.randperm(d))
    return torch.stack(orders[:m])


def _parse_ordering(order: str, d: int) -> Tensor:
    if order == "reversed":
        return torch.arange(d).flip(0)
    numbers = [int(i) if i.strip().isdigit() else -1 for i in order.split(",")]
    if sorted(numbers) != list(range(d)):
        raise UsageError(
            f"order is {order[:40]!r}; write given, reversed, or the numbers 0 to {d - 1} in the "
            "order wanted, with commas between"
        )
    return torch.tensor(numbers)
