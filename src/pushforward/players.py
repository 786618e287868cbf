"""The players of a game: parameters as one vector, and their optimizer."""

import math

import torch
from torch import Tensor, nn

from .ranks import ALONE, Ranks


def join(parts: list[nn.Parameter]) -> Tensor:
    """One vector of which the parameters become views."""
    vector = torch.cat([part.detach().flatten() for part in parts])
    for part, view in zip(parts, vector.split([part.numel() for part in parts]), strict=True):
        part.data = view.view_as(part)
    return vector


def learning(module: nn.Module) -> list[nn.Parameter]:
    """The parameters that are trained."""
    return [part for part in module.parameters() if part.requires_grad]


class Player:
    """The parameters of a module as one vector, of which they become views, and its optimizer.

    Clipping, the optimizer and the average are then one kernel each, however many layers there
    are; in small networks they would otherwise take as long as the backward pass. The optimizer is
    the kernel of PyTorch's fused AdamW (Loshchilov & Hutter, 2019), for the same reason. Several
    processes exchange that one vector as well.

    Arguments:
        module: Its learning parameters are of one type and on one device.
        ranks: The processes that train it; sharded, each keeps the moments of its own entries.
    """

    def __init__(self, module: nn.Module, ranks: Ranks = ALONE) -> None:
        self.parts, self.ranks = learning(module), ranks
        self.value = join(self.parts)
        self.gradient = torch.zeros_like(self.value)
        self.own, self.slope = ranks.own(self.value), ranks.own(self.gradient)
        self.first, self.second = torch.zeros_like(self.own), torch.zeros_like(self.own)
        self.moves = torch.zeros((), device=self.value.device)
        sizes = [part.numel() for part in self.parts]
        for part, gradient in zip(self.parts, self.gradient.split(sizes), strict=True):
            part.grad = gradient.view_as(part)

    def clip(self, most: float) -> float:
        """Shorten the gradient to a norm of at most ``most``; the norm that it had."""
        norm = self.ranks.norm(self.slope)
        if most < norm < math.inf:
            self.slope.mul_(most / norm)
        return norm

    @torch.no_grad()
    def move(self, lr: float, betas: tuple[float, float], decay: float) -> None:
        """One step of AdamW down the gradient."""
        torch._fused_adamw_(
            [self.own],
            [self.slope],
            [self.first],
            [self.second],
            [],
            [self.moves.add_(1)],
            lr=lr,
            beta1=betas[0],
            beta2=betas[1],
            weight_decay=decay,
            eps=1e-8,
            amsgrad=False,
            maximize=False,
        )
        self.ranks.spread(self.value)

    def state(self) -> dict[str, Tensor]:
        """What the next move depends on besides the weights and the gradient, of all entries."""
        moments = {"first": self.first, "second": self.second}
        whole = {k: self.ranks.whole(v, len(self.value)) for k, v in moments.items()}
        return whole | {"moves": self.moves}

    def load(self, state: dict[str, Tensor]) -> None:
        """Continue from ``state``."""
        self.first.copy_(self.ranks.own(state["first"]))
        self.second.copy_(self.ranks.own(state["second"]))
        self.moves.copy_(state["moves"])
