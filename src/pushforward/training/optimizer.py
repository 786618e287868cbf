"""The players of a game: parameters in a form quick to train, their optimizer and averages."""

import abc
import contextlib
import copy
import math
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

from ..model import GenerativeModel
from .processes import ALONE, ProcessGroup


def _flatten_parameters(parts: list[nn.Parameter]) -> Tensor:
    """One vector of which the parameters become views."""
    vector = torch.cat([part.detach().flatten() for part in parts])
    for part, view in zip(parts, vector.split([part.numel() for part in parts]), strict=True):
        part.data = view.view_as(part)
    return vector


def _trainable_parameters(module: nn.Module) -> list[nn.Parameter]:
    return [part for part in module.parameters() if part.requires_grad]


class PlayerOptimizer(abc.ABC):
    """The parameters of a module as tensors of one type and on one device, and their optimizer.

    The optimizer is the kernel of PyTorch's fused AdamW (Loshchilov & Hutter, 2019).
    """

    def __init__(self, module: nn.Module, ranks: ProcessGroup) -> None:
        self.parts, self.ranks = _trainable_parameters(module), ranks
        self.gradients: list[Tensor] = []  # the gradient, once it is collected
        self.first = [torch.zeros_like(weight) for weight in self.weights]
        self.second = [torch.zeros_like(weight) for weight in self.weights]
        self.moves = torch.zeros((), device=self.first[0].device)

    @property
    @abc.abstractmethod
    def weights(self) -> list[Tensor]:
        """What this process keeps of the parameters; changed in place, they change."""

    @abc.abstractmethod
    def inputs(self) -> list[nn.Parameter] | None:
        """What alone is to get a gradient, or None if all may get one."""

    def zero_grad(self) -> None:
        self.gradients = []
        for part in self.parts:
            part.grad = None

    @abc.abstractmethod
    def collect_gradient(self, total: Tensor) -> None:
        """After all pieces: the mean over processes, of a loss ``total``, as `gradients`."""

    @abc.abstractmethod
    def norm(self) -> float:
        """The length of the gradient over all processes."""

    @abc.abstractmethod
    def whole(self, kept: list[Tensor]) -> Tensor:
        """One vector of what all processes keep, shaped as `weights`."""

    @abc.abstractmethod
    def split(self, vector: Tensor) -> list[Tensor]:
        """What this process keeps of a vector of all parameters, shaped as `weights`."""

    def clip(self, most: float) -> float:
        """Shorten the gradient to a norm of at most ``most``; the norm that it had."""
        norm = self.norm()
        if most < norm < math.inf:
            for gradient in self.gradients:
                gradient.mul_(most / norm)
        return norm

    @torch.no_grad()
    def step(self, lr: float, betas: tuple[float, float], decay: float) -> None:
        torch._fused_adamw_(
            self.weights,
            self.gradients,
            self.first,
            self.second,
            [],
            [self.moves.add_(1)] * len(self.first),
            lr=lr,
            beta1=betas[0],
            beta2=betas[1],
            weight_decay=decay,
            eps=1e-8,
            amsgrad=False,
            maximize=False,
        )

    def state(self) -> dict[str, Tensor]:
        moments = {"first": self.whole(self.first), "second": self.whole(self.second)}
        return moments | {"moves": self.moves}

    def load(self, state: dict[str, Tensor]) -> None:
        for kept, slot in ((self.first, "first"), (self.second, "second")):
            for mine, part in zip(kept, self.split(state[slot]), strict=True):
                mine.copy_(part)
        self.moves.copy_(state["moves"])


class FlatOptimizer(PlayerOptimizer):
    """A player whose parameters are views of one vector, and whose gradient is another.

    Clipping, the optimizer and the average are then one kernel each, however many layers there
    are; in small networks they would otherwise take as long as the backward pass. Several
    processes exchange that one vector as well. It is made when the activations are gone, and gone
    when they come again.
    """

    def __init__(self, module: nn.Module, ranks: ProcessGroup = ALONE) -> None:
        self.value = _flatten_parameters(_trainable_parameters(module))
        super().__init__(module, ranks)

    @property
    def weights(self) -> list[Tensor]:
        return [self.value]

    def inputs(self) -> list[nn.Parameter]:
        return self.parts

    def collect_gradient(self, total: Tensor) -> None:
        found = [torch.zeros_like(p) if p.grad is None else p.grad for p in self.parts]
        gradient = torch.cat([part.flatten() for part in found])
        self.zero_grad()
        self.gradients = [gradient]
        if self.ranks.count > 1:
            gradient += 0 * total  # a loss that is not finite stops all
            self.ranks.average(gradient)

    def norm(self) -> float:
        return float(torch.linalg.vector_norm(self.gradients[0]))

    def whole(self, kept: list[Tensor]) -> Tensor:
        return kept[0]

    def split(self, vector: Tensor) -> list[Tensor]:
        return [vector]


Players = Mapping[str, PlayerOptimizer]


class Ema(abc.ABC):
    r"""An exponential moving average of a model's weights.

    .. math:: \bar\theta_k = \mu_k \bar\theta_{k-1} + (1 - \mu_k) \theta_k, \qquad
        \mu_k = \min\!\left(\mu, \frac{k}{k + 9}\right)

    Early weights are poor: the window grows with the run. Of the average each process has ``own``,
    as it has the players' `weights`.
    """

    def __init__(self, players: Players, decay: float, own: dict[str, list[Tensor]]) -> None:
        self.players, self.decay, self.own = players, decay, own

    def update(self, count: int) -> None:
        decay = min(self.decay, count / (count + 9))
        for name, kept in self.own.items():
            for mean, weight in zip(kept, self.players[name].weights, strict=True):
                mean.lerp_(weight, 1 - decay)

    @abc.abstractmethod
    def swapped_in(self) -> contextlib.AbstractContextManager[GenerativeModel]:
        """Context manager: a model with averaged weights and the buffers of now."""

    @abc.abstractmethod
    def load(self, state: dict[str, Tensor]) -> None:
        """Continue from the weights of a model, which are whole."""


class EmaModel(Ema):
    def __init__(self, model: GenerativeModel, players: Players, decay: float) -> None:
        self.source, self.kept = model, copy.deepcopy(model).eval()
        super().__init__(players, decay, {k: [v] for k, v in _flatten_players(self.kept).items()})

    @contextlib.contextmanager
    def swapped_in(self) -> Iterator[GenerativeModel]:
        for a, b in zip(self.kept.buffers(), self.source.buffers(), strict=True):
            a.copy_(b)
        yield self.kept.eval()

    def load(self, state: dict[str, Tensor]) -> None:
        self.kept.load_state_dict(state)


def _flatten_players(model: GenerativeModel) -> dict[str, Tensor]:
    with torch.no_grad():
        return {
            name: _flatten_parameters(_trainable_parameters(module))
            for name, module in model.players().items()
        }
