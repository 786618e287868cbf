"""Networks of `diffusers` as our ``net(x, t, c)``, and its autoencoder of pictures."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from ...errors import DataError, UsageError
from ...shapes import Condition, Data, Times

Told = Callable[[Condition, int], dict[str, Tensor]]


class DiffusersNetwork(nn.Module):
    """A network as ``net(x, t, c)``, in its own precision, whose times are timesteps.

    Arguments:
        module: The network.
        told: What it is told of the conditions of so many data, as arguments by name.
    """

    def __init__(self, module: nn.Module, told: Told) -> None:
        super().__init__()
        self.module, self.told = module, told

    def forward(self, x: Data, t: Times, c: Condition = None) -> Data:
        kind = next(self.module.parameters()).dtype
        told = {k: v.to(x.device) for k, v in self.told(c, len(x)).items()}
        told = {k: v.to(kind) if v.is_floating_point() else v for k, v in told.items()}
        y = self.module(x.to(kind), t.expand(len(x)), **told, return_dict=False)[0]
        return y[:, : x.shape[1]].to(x)  # a variance may follow


def no_condition(c: Condition, n: int) -> dict[str, Tensor]:
    """No condition."""
    if c is not None:
        raise UsageError("the network knows no condition: give none")
    return {}


def class_arguments(count: int, hidden: int | None) -> Told:
    """A class each; that of an unknown one is ``hidden``, if the network has such a class."""

    def told(c: Condition, n: int) -> dict[str, Tensor]:
        c = torch.zeros(n, 1 + count) if c is None else c
        known, labels = c[:, 0] > 0, c[:, 1:].argmax(1)
        if hidden is None and not known.all():
            raise UsageError(
                "the network knows no class that stands for an unknown one: give a class from 0 to "
                f"{count - 1}, and no guidance"
            )
        return {"class_labels": labels.where(known, torch.tensor(hidden or 0).to(labels))}

    return told


def token_arguments(width: int, free: Tensor | None) -> Told:
    """Tokens of some width each; those of an unknown condition are ``free``, ``(count, width)``."""
    hidden = torch.zeros(1, width) if free is None else free

    def told(c: Condition, n: int) -> dict[str, Tensor]:
        if free is None and (c is None or not (c[:, 0] > 0).all()):
            raise UsageError(
                "the folder has no text encoder: give embeddings as conditions, and no guidance"
            )
        if c is None:
            return {"encoder_hidden_states": hidden.expand(n, -1, -1)}
        known = c[:, 1:].unflatten(1, (-1, width))
        return {"encoder_hidden_states": known.where(c[:, :1, None] > 0, hidden.to(known))}

    return told


def condition_arguments(module: Any, free: Tensor | None = None) -> Told:
    """How a network is told its condition.

    Raises:
        DataError: If it is of a kind that is not known here, or needs what cannot be given.
    """
    config, name = module.config, type(module).__name__
    into, out = config.get("in_channels"), config.get("out_channels") or config.get("in_channels")
    if out not in (into, 2 * (into or 0)):
        raise DataError(f"a network from {into} to {out} channels is none of noise and data alone")
    odd = [k for k in ("addition_embed_type", "class_embed_type") if config.get(k)]
    if name == "UNet2DModel" and not odd:
        count = config.get("num_class_embeds")
        return class_arguments(count, None) if count else no_condition
    if name == "UNet2DConditionModel" and not odd and not config.get("num_class_embeds"):
        return token_arguments(config["cross_attention_dim"], free)
    if name == "DiTTransformer2DModel":
        count = config["num_embeds_ada_norm"]
        return class_arguments(count, count)
    why = f" with {odd[0]} {config[odd[0]]!r}" if odd else ""
    raise DataError(
        f"{name}{why} is not known here: take UNet2DModel, UNet2DConditionModel with tokens alone, "
        "or DiTTransformer2DModel"
    )


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

    @property
    def reduction(self) -> int:
        """Pixels of a picture on each side of a latent."""
        return 2 ** (len(self.module.config["block_out_channels"]) - 1)

    @torch.no_grad()
    def encode(self, x: Tensor) -> Tensor:
        """The mean latents of pictures in [-1, 1], ``(n, channels, height, width)``."""
        kind = self.module.dtype
        return (self.module.encode(x.to(kind)).latent_dist.mode().to(x) - self.shift) * self.scale

    @torch.no_grad()
    def decode(self, z: Tensor) -> Tensor:
        """The pictures of latents."""
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
