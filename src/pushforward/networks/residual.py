r"""The residual block of convolutions that U-Nets, autoencoders and critics share."""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.functional import silu


def conv3x3(into: int, out: int) -> nn.Conv2d:
    """A 3 x 3 convolution that keeps the size."""
    return nn.Conv2d(into, out, 3, padding=1)


def downsample_conv(channels: int) -> nn.Conv2d:
    """A convolution to half the size, rounded up."""
    return nn.Conv2d(channels, channels, 3, stride=2, padding=1)


def group_norm(channels: int) -> nn.Module:
    """Normalise each datum over its pixels and groups of at least four channels."""
    return nn.GroupNorm(math.gcd(channels, max(1, channels // 4)), channels)


def identity_norm(channels: int) -> nn.Module:
    """No normalisation: a critic whose slope is penalised would divide it away."""
    return nn.Identity()


class ResidualBlock(nn.Module):
    r"""Two convolutions, shifted and scaled by what the network is told, added to a way past them.

    .. math:: r = (1 + s)\,\mathrm{norm}(\mathrm{conv}(\mathrm{silu}(\mathrm{norm}(h)))) + b,
        \qquad h \leftarrow \mathrm{skip}(h) + \mathrm{conv}(\mathrm{silu}(r)), \qquad (s, b) = W e

    (Dhariwal & Nichol, 2021, section 3: adaptive group normalisation). Nothing passes from one
    datum of a batch to another.

    Arguments:
        into: Channels that come in.
        out: Channels that go out.
        embedded: The length of ``e``, 0 for none; the zero vector and None change nothing.
        norm: Makes the normalisation of so many channels.
        dropout: The share of the update that is hidden in training.
    """

    def __init__(
        self,
        into: int,
        out: int,
        embedded: int = 0,
        *,
        norm: Callable[[int], nn.Module] = group_norm,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.before, self.first = norm(into), conv3x3(into, out)
        self.between, self.second = norm(out), conv3x3(out, out)
        self.told = nn.Linear(embedded, 2 * out, bias=False) if embedded else None
        self.dropout = nn.Dropout(dropout)
        self.skip = nn.Conv2d(into, out, 1) if into != out else nn.Identity()

    def forward(self, h: Tensor, e: Tensor | None = None) -> Tensor:
        r = self.between(self.first(silu(self.before(h))))
        if self.told is not None and e is not None:
            scale, shift = self.told(e)[..., None, None].chunk(2, dim=1)
            r = torch.addcmul(r + shift, r, scale)
        return self.skip(h) + self.second(self.dropout(silu(r)))
