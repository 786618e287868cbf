"""Ways to train the same network faster or in less memory: none of them changes the result."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from ..errors import UsageError
from ..networks.backbone import outermost_backbones, outermost_blocks, use_channels_last


def accelerate_networks(
    model: nn.Module,
    *,
    compile: bool = False,
    channels_last: bool = False,
    recompute: bool = False,
) -> None:
    """Compile the networks of a model in training, change their memory order, or save activations.

    The copy of the model with averaged weights, which is kept and sampled, runs as it did.
    """
    for network in outermost_backbones(model):
        if channels_last:
            use_channels_last(network)
        if recompute:
            _checkpoint_blocks(network)
        if compile:
            network.compile()


def check_acceleration(
    model: nn.Module, *, compile: bool, channels_last: bool, recompute: bool
) -> None:
    """Refuse ways to train faster or in less memory that no network of the model has."""
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
    """Keep what goes into a network's blocks, not what is inside them (Chen et al., 2016).

    Each block is computed a second time when its gradient is due. Blocks are the modules in the
    network's lists.
    """
    for block in outermost_blocks(network):
        block.forward = partial(_recompute_forward, block.forward)  # type: ignore[method-assign]


def _recompute_forward(forward: Callable[..., Any], *given: Any, **named: Any) -> Any:
    """A block's value, computed again in the backward pass if there is one."""
    if not torch.is_grad_enabled():
        return forward(*given, **named)
    return checkpoint(forward, *given, use_reentrant=False, **named)
