"""What deep networks share: an order of memory, and blocks that can be treated one by one.

By these a network is trained faster or in less memory; neither changes the result.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from ..errors import UsageError


class Backbone(nn.Module):
    memory_format = torch.preserve_format  # of the images inside, where there are any
    penalised = False  # whether losses hold its slope, so that they are differentiated twice


def outermost_backbones(model: nn.Module) -> list[Backbone]:
    if isinstance(model, Backbone):
        return [model]
    return [network for module in model.children() for network in outermost_backbones(module)]


def _use_channels_last(network: nn.Module) -> None:
    for module in network.modules():
        if isinstance(module, Backbone):
            module.memory_format = torch.channels_last


def outermost_blocks(network: nn.Module) -> list[nn.Module]:
    """The modules in a network's outermost lists; each is one call of its `forward`."""
    found: list[nn.Module] = []
    for module in network.children():
        found += module if isinstance(module, nn.ModuleList) else outermost_blocks(module)
    return found


def accelerate_networks(
    model: nn.Module, *, compile: bool = False, channels_last: bool = False, recompute: bool = False
) -> None:
    """In training alone: the copy with averaged weights, which is sampled, runs as it did."""
    for network in outermost_backbones(model):
        if channels_last:
            _use_channels_last(network)
        if recompute:
            _checkpoint_blocks(network)
        if compile:
            network.compile()


def check_acceleration(
    model: nn.Module, *, compile: bool, channels_last: bool, recompute: bool
) -> None:
    networks = outermost_backbones(model)
    convolutions = any(isinstance(m, nn.Conv2d) for m in model.modules())
    blocks = any(outermost_blocks(network) for network in networks)
    for name, wanted, what, there in (
        ("channels_last", channels_last, "convolutions", convolutions),
        ("recompute", recompute, "blocks", blocks),
        ("compile", compile, "networks", bool(networks)),
    ):
        if wanted and not there:
            raise UsageError(f"{name} is for {what}, and this model has none: leave {name} out")


def _checkpoint_blocks(network: nn.Module) -> None:
    """Keep what goes into blocks, and compute each twice (Chen et al., 2016)."""
    for block in outermost_blocks(network):
        block.forward = partial(_recompute_forward, block.forward)  # type: ignore[method-assign]


def _recompute_forward(forward: Callable[..., Any], *given: Any, **named: Any) -> Any:
    if not torch.is_grad_enabled():
        return forward(*given, **named)
    return checkpoint(forward, *given, use_reentrant=False, **named)
