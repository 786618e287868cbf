"""Ways to train the same network faster or in less memory: none of them changes the result."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from ..networks.backbone import blocks_of, channels_last, outermost


def hasten(model: nn.Module, config: dict[str, Any]) -> None:
    """Compile the networks of a model in training, change their memory order, or save activations.

    The copy of the model with averaged weights, which is kept and sampled, runs as it did.

    Arguments:
        model: The model whose losses are differentiated.
        config: That of the run, with "compile", "channels_last" and "recompute".
    """
    for network in outermost(model):
        if config.get("channels_last"):
            channels_last(network)
        if config.get("recompute"):
            recompute(network)
        if config.get("compile"):
            network.compile()


def recompute(network: nn.Module) -> None:
    """Keep what goes into a network's blocks, not what is inside them (Chen et al., 2016).

    Each block is computed a second time when its gradient is due. Blocks are the modules in the
    network's lists.
    """
    for block in blocks_of(network):
        block.forward = partial(twice, block.forward)  # type: ignore[method-assign]


def twice(forward: Callable[..., Any], *given: Any, **named: Any) -> Any:
    """A block's value, computed again on the way back if there is one."""
    if not torch.is_grad_enabled():
        return forward(*given, **named)
    return checkpoint(forward, *given, use_reentrant=False, **named)
