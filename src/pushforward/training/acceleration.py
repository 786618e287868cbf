"""Ways to train the same network faster or in less memory: none of them changes the result."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from ..networks.backbone import outermost_backbones, outermost_blocks, use_channels_last


def accelerate_networks(model: nn.Module, config: dict[str, Any]) -> None:
    """Compile the networks of a model in training, change their memory order, or save activations.

    The copy of the model with averaged weights, which is kept and sampled, runs as it did.

    Arguments:
        model: The model whose losses are differentiated.
        config: That of the run, with "compile", "channels_last" and "recompute".
    """
    for network in outermost_backbones(model):
        if config.get("channels_last"):
            use_channels_last(network)
        if config.get("recompute"):
            checkpoint_blocks(network)
        if config.get("compile"):
            network.compile()


def checkpoint_blocks(network: nn.Module) -> None:
    """Keep what goes into a network's blocks, not what is inside them (Chen et al., 2016).

    Each block is computed a second time when its gradient is due. Blocks are the modules in the
    network's lists.
    """
    for block in outermost_blocks(network):
        block.forward = partial(recompute_forward, block.forward)  # type: ignore[method-assign]


def recompute_forward(forward: Callable[..., Any], *given: Any, **named: Any) -> Any:
    """A block's value, computed again on the way back if there is one."""
    if not torch.is_grad_enabled():
        return forward(*given, **named)
    return checkpoint(forward, *given, use_reentrant=False, **named)
