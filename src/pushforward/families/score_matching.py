r"""Score matching (Hyvärinen, 2005): an energy, sampled by Langevin dynamics.

The model is :math:`p_\theta(x) \propto e^{-E_\theta(x)}`, whose score :math:`s_\theta = -\nabla
E_\theta` does not depend on the unknown constant. It is fitted without the score of the data, by

.. math:: \mathbb E_p\,[\operatorname{tr}\nabla s_\theta + \tfrac12\|s_\theta\|^2]
    = \tfrac12\,\mathbb E_p\|s_\theta - \nabla\log p\|^2 - \text{const}

with the trace exact, or along random directions (sliced, Song et al., 2019), or replaced by noise
(denoising, Vincent, 2011). Where there are no data nothing is learnt, and the weights of separate
modes are not seen: that is what the levels of noise of `ncsn` are for.

The data are whitened first (`networks.whitening`). The energy is that of the Gaussian fitted to
them and a correction that is learned, and chains start at draws from that Gaussian: in many
dimensions a chain from elsewhere would never meet the shell where the data are.
"""

import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import Annotated

import torch
from torch import Tensor, nn

from ..model import Event, GenerativeModel, Likelihood, Recipe, count_evaluations
from ..networks.mlp import Perceptron
from ..networks.whitening import Whitening
from ..options import LAYERS, Choice, choose_option
from ..shapes import Condition, Data, PerDatum, Scalar, sum_event
from ..theory import densities, score_matching
from ..theory.guidance import Guidance
from ..theory.langevin import mala, stable_step, ula
from ..theory.ode import final_state

Energy = Callable[..., PerDatum]  # of x and c
OfData = Callable[[Data], PerDatum]
STAGES = 4  # of a chain: the curvature, and so the step, is measured where each begins
MEASURED = 256  # chains at which it is measured


def _sliced_objective(score: score_matching.Score, x: Data, noise: float) -> PerDatum:
    return score_matching.reduced_sliced_matching(score, x, densities.rademacher_probes(x, 1))


def _implicit_objective(score: score_matching.Score, x: Data, noise: float) -> PerDatum:
    return score_matching.implicit_score_matching(score, x)


def _denoising_objective(score: score_matching.Score, x: Data, noise: float) -> PerDatum:
    r"""On :math:`(x + \sigma\varepsilon) / \sqrt{1 + \sigma^2}`, white if x is, times the noise."""
    alpha, eps = (1 + noise**2) ** -0.5, torch.randn_like(x)
    sigma = alpha * noise
    return sigma**2 * score_matching.denoising_score_matching(score, alpha * x, eps, sigma)


OBJECTIVES = {
    "sliced": _sliced_objective,
    "implicit": _implicit_objective,
    "denoising": _denoising_objective,
}


class ScoreMatching(GenerativeModel):
    r"""An energy-based model :math:`E_\theta(x) = \tfrac12\|z\|^2 - f_\theta(z)`, z the whitened x.

    ``net`` is f, of shape ``(batch, 1)``; ``objective`` is the loss of a score on data, with the
    level of noise that only denoising uses.
    """

    likelihood = Likelihood.NONE
    recipe = Recipe(steps=2500, batch=512, lr=2e-3)

    def __init__(
        self,
        net: nn.Module,
        event_shape: tuple[int, ...],
        *,
        objective: Callable[[score_matching.Score, Data, float], PerDatum] = _sliced_objective,
        noise: float = 0.1,
        steps: int = 200,
    ) -> None:
        super().__init__()
        self.net, self.event_shape, self.objective = net, event_shape, objective
        self.noise_level, self.steps = noise, steps
        self.whitening = Whitening(event_shape)

    def prepare(self, x: Data, c: Condition = None) -> None:
        self.whitening.fit(x)

    def energy(self, x: Data, c: Condition = None) -> PerDatum:
        r""":math:`E = -\log p` up to an unknown constant, in nats."""
        return self.whitened_energy(self.whitening(x), c)

    def whitened_energy(self, z: Data, c: Condition = None) -> PerDatum:
        return sum_event(z.square()) / 2 - self.net(z, c).squeeze(1)

    def score(self, x: Data, c: Condition = None) -> Data:
        return _score_from_energy(partial(self.energy, c=c), x)

    def loss(self, x: Data, c: Condition = None) -> dict[str, Scalar]:
        c = self.drop_condition(c)
        score = partial(_score_from_energy, partial(self.whitened_energy, c=c))
        return {"score": self.objective(score, self.whitening(x), self.noise_level).mean()}

    def guided_energy(self, guidance: float) -> Energy:
        """The energy of whitened data under guidance: 0 is unconditional, 1 conditional."""
        if guidance == 1:
            return self.whitened_energy

        def energy(z: Data, c: Condition) -> PerDatum:
            free = self.whitened_energy(z)
            return torch.lerp(free, self.whitened_energy(z, c), guidance)

        return energy

    def sample(
        self,
        n: int,
        c: Condition = None,
        *,
        sampler: str = "mala",
        steps: int | None = None,
        h: float | None = None,
        guidance: Guidance | float = 1.0,
    ) -> Tensor:
        """Run a chain from the Gaussian fitted to the data for each sample.

        The distribution of "mala" is the model's, "ula" is faster and biased. The step h, of
        whitened data, is by default half of the limit of stability where the chains are; one beyond
        the limit is refused. A guidance of 0 is unconditional, 1 conditional.
        """
        w = Guidance.of(guidance).check_scale_only(c is not None, type(self).__name__)
        run = choose_option("sampler", sampler, CHAINS)
        with torch.inference_mode(False), torch.no_grad():  # inside, the score is a derivative
            energy, z = self.guided_energy(w), self.noise(n, *self.event_shape)
            c = None if c is None else c.clone()
            few = partial(energy, c=None if c is None else c[:MEASURED])
            for part in _chain_stages(self.steps if steps is None else steps):
                step = stable_step(partial(_score_from_energy, few), z[:MEASURED], h)
                z = final_state(run(partial(energy, c=c), z, step, part))
            return self.whitening.inverse(z)

    @property
    def nfe(self) -> int:
        """Counted by drawing one sample: of a step, its value and slope, and what bounds steps."""
        return count_evaluations(self.net, lambda: self.sample(1))


def _score_from_energy(energy: OfData, x: Data) -> Data:
    r""":math:`-\nabla E`, with a graph if gradients are on."""
    graph = torch.is_grad_enabled()
    with torch.enable_grad():
        x = x if x.requires_grad else x.detach().requires_grad_()
        return torch.autograd.grad(-energy(x).sum(), x, create_graph=graph)[0]


def _chain_stages(steps: int) -> list[int]:
    return torch.linspace(0, steps, min(steps, STAGES) + 1).long().diff().tolist()


def _mala_states(energy: OfData, x: Data, h: float, steps: int) -> Iterator[Data]:
    states = mala(lambda x: -energy(x), partial(_score_from_energy, energy), x, h, steps)
    return (x for x, _ in states)


def _ula_states(energy: OfData, x: Data, h: float, steps: int) -> Iterator[Data]:
    return ula(partial(_score_from_energy, energy), x, h, steps)


CHAINS = {"mala": _mala_states, "ula": _ula_states}


def build(
    event: Event,
    *,
    width: int = 64,
    depth: Annotated[int, LAYERS] = 3,
    waves: int = 0,
    objective: Annotated[str, Choice(OBJECTIVES)] = "denoising",
    noise: float | None = None,
    sampler_steps: int = 200,
) -> ScoreMatching:
    """Build the model.

    Arguments:
        width: Units in each hidden layer.
        depth: Hidden layers.
        waves: Random Fourier features of the input, for modes much narrower than the data.
        objective: "denoising", which learns the data blurred by ``noise``, or without noise
            "sliced" or "implicit" (the exact trace: slow in many dimensions). On few data losses
            without noise are lowest at spikes on the data.
        noise: Standard deviation of that blur; by default n^(-1/(d + 4)) for n rows of length d.
        sampler_steps: Steps of the sampler's chains.
    """
    d = math.prod(event.shape)
    if noise is None:  # (Scott, 1992); blurred by less, few data in many dimensions are islands
        noise = event.size ** (-1 / (d + 4)) if event.size else 0.3
    net = Perceptron(d, event.condition, 1, [width] * depth, waves=waves)
    loss = OBJECTIVES[objective]
    return ScoreMatching(net, event.shape, objective=loss, noise=noise, steps=sampler_steps)
