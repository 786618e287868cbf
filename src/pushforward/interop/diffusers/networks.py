"""Networks of `diffusers` as our ``net(x, t, c)``, and its autoencoder of images."""

import math
from typing import Any

import torch
from torch import Tensor, nn

from ...errors import DataError
from ...shapes import Condition, Data, Times
from .conditions import ConditionArguments


class DiffusersNetwork(nn.Module):
    """A network as ``net(x, t, c)``, in its own precision, whose times are timesteps.

    Arguments:
        module: The network.
        arguments: How it takes the conditions of so many rows, as arguments by name.
    """

    def __init__(self, module: nn.Module, arguments: ConditionArguments) -> None:
        super().__init__()
        self.module, self.arguments = module, arguments

    def forward(self, x: Data, t: Times, c: Condition = None) -> Data:
        kind = next(self.module.parameters()).dtype
        known = {k: v.to(x.device) for k, v in self.arguments(c, len(x)).items()}
        known = {k: v.to(kind) if v.is_floating_point() else v for k, v in known.items()}
        y = self.module(x.to(kind), t.expand(len(x)), **known, return_dict=False)[0]
        return y[:, : x.shape[1]].to(x)  # a variance may follow


class DiffusersAutoencoder(nn.Module):
    """An `AutoencoderKL` whose latents have about unit variance.

    Arguments:
        module: The autoencoder.
    """

    def __init__(self, module: Any) -> None:
        super().__init__()
        self.module = module
        self.scale = module.config.get("scaling_factor") or 1.0
        self.shift = module.config.get("shift_factor") or 0.0

    @torch.no_grad()
    def encode(self, x: Tensor) -> Tensor:
        """The mean latents of images in [-1, 1], ``(n, channels, height, width)``."""
        kind = self.module.dtype
        return (self.module.encode(x.to(kind)).latent_dist.mode().to(x) - self.shift) * self.scale

    @torch.no_grad()
    def decode(self, z: Tensor) -> Tensor:
        kind = self.module.dtype
        return self.module.decode((z / self.scale + self.shift).to(kind)).sample.to(z)


def denoiser_shape(size: Any, channels: int) -> tuple[int, int, int]:
    """The shape of what a network denoises, by its configuration.

    Raises:
        DataError: If that says no size.
    """
    sides = (size, size) if isinstance(size, int) else tuple(size or ())
    if len(sides) != 2 or math.prod(sides) < 1:
        raise DataError(f"the network's configuration says no sample_size: {size!r}")
    return (channels, *sides)
