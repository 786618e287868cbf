r"""Generative adversarial network: non-saturating loss with R1 and R2 penalties.

A generator carries noise to data; a discriminator, whose logit is the critic :math:`f`, tells data
from samples. Each step of one leaves the other untouched.

.. math:: \min_f\; \mathbb E_p\,\zeta(-f(x)) + \mathbb E_q\,\zeta(f(\tilde x)) + \tfrac\gamma2
    \left(\mathbb E_p \|\nabla f\|^2 + \mathbb E_q \|\nabla f\|^2\right), \qquad
    \min_G\; \mathbb E\,\zeta(-f(G(z)))

with :math:`\zeta` the softplus (Goodfellow et al., 2014; Mescheder et al., 2018).
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Annotated, NamedTuple, Unpack

import torch
from torch import Tensor, nn

from ..model import Event, GenerativeModel, Likelihood, Loss, Recipe
from ..networks import adversarial
from ..networks.adversarial import GanNetworks, GanOptions, GaussianResidualGenerator
from ..networks.mlp import fourier_count
from ..options import Choice
from ..shapes import Condition, Data, PerDatum, Scalar
from ..theory import adversarial as theory
from ..theory.adversarial import Critic
from ..theory.sample_statistics import coverage_cells, kmeans_coverage

CriticLoss = Callable[[Critic, Tensor, Tensor], dict[str, Tensor]]
GeneratorLoss = Callable[[Tensor], Tensor]
CriticMetrics = Callable[[Tensor, Tensor], dict[str, Tensor]]
CHANNELS = 8  # of the largest scale: as few as show digits after a hundred seconds of one core
ROWS = 1000  # held-out data whose modes are looked for


def _no_constraint(critic: nn.Module) -> None:
    """The weights are free."""


class Game(NamedTuple):
    critic_loss: CriticLoss  # given the critic, data and samples
    generator_loss: GeneratorLoss  # given the critic's values on samples
    critic_metrics: CriticMetrics  # what the critic's values on data and on samples say, by name
    critic_steps: int = 1  # for each of the generator
    constrain: Callable[[nn.Module], None] = _no_constraint  # in place, after each of these


class GAN(GenerativeModel):
    likelihood = Likelihood.NONE

    def __init__(
        self, networks: GanNetworks, event_shape: tuple[int, ...], game: Game, recipe: Recipe
    ) -> None:
        super().__init__()
        self.generator, self.critic, self.latent, _ = networks
        self.event_shape, self.game, self.recipe = event_shape, game, recipe

    def prepare(self, x: Data, c: Condition = None) -> None:
        if isinstance(self.generator, GaussianResidualGenerator):
            self.generator.whitening.fit(x.flatten(1))

    def players(self) -> dict[str, nn.Module]:
        return {"critic": self.critic, "generator": self.generator}

    def objectives(self) -> Iterator[tuple[str, Loss]]:
        for _ in range(self.game.critic_steps):
            yield "critic", self.critic_objective
            self.game.constrain(self.critic)
        yield "generator", self.generator_objective

    def critic_objective(self, x: Data, c: Condition = None) -> dict[str, Scalar]:
        c = self.drop_condition(c)
        with torch.no_grad():
            fake = self.sample(len(x), c)
        return self.game.critic_loss(lambda x: self.score(x, c), x, fake)

    def generator_objective(self, x: Data, c: Condition = None) -> dict[str, Scalar]:
        c = self.drop_condition(c)
        return {"generator": self.game.generator_loss(self.score(self.sample(len(x), c), c))}

    def score(self, x: Data, c: Condition = None) -> PerDatum:
        """The critic's value: a logit for a GAN, a potential for a Wasserstein GAN."""
        return self.critic(x, c).squeeze(1)

    def sample(self, n: int, c: Condition = None) -> Tensor:
        return self.generator(self.noise(n, self.latent), c).unflatten(1, self.event_shape)

    def validation(self, x: Data, c: Condition = None) -> Scalar | None:
        """None: no held-out value of the game falls as the samples improve."""
        return None

    @torch.no_grad()
    def diagnosis(self, x: Data, c: Condition = None) -> dict[str, float]:
        """The critic's metrics, and which modes samples reach, where the data are enough to tell.

        A ``mode_coverage`` of 0.8 or less is mode collapse (`is_collapsed`).
        """
        fake = self.sample(len(x), c)
        metrics = self.game.critic_metrics(self.score(x, c), self.score(fake, c))
        found = {name: float(value) for name, value in metrics.items()}
        distinct = len(x.flatten(1).unique(dim=0))  # few data come several times over
        if coverage_cells(distinct) > 1:
            real, drawn = (v.flatten(1).double().cpu().numpy() for v in (x[:distinct][:ROWS], fake))
            found["mode_coverage"] = kmeans_coverage(real, drawn)
        return found


def penalised_critic_loss(
    critic: Critic, real: Data, fake: Data, penalty: float, r2: bool = True
) -> dict[str, Scalar]:
    terms = theory.discriminator_loss(critic(real), critic(fake))
    for name, x in [("r1", real), *[("r2", fake)] * r2] if penalty else []:
        terms[name] = penalty * theory.zero_centred_penalty(critic, x)
    return terms


def jensen_shannon_bound(real: PerDatum, fake: PerDatum) -> dict[str, Scalar]:
    """The divergence that the discriminator has found: on fresh data a lower bound, in nats."""
    return {"js_bound": theory.js_from_value(theory.game_value(real, fake))}


LOSSES: dict[str, GeneratorLoss] = {
    "non_saturating": theory.non_saturating_loss,
    "saturating": theory.saturating_loss,
}
RECIPE = Recipe(steps=3000, batch=128, lr=4e-3, betas=(0.0, 0.99), ema=0.99, clip=100.0)


def build(
    event: Event,
    *,
    loss: Annotated[str, Choice(LOSSES)] = "non_saturating",
    penalty: float | None = None,
    r2: bool | None = None,
    spectral: bool = False,
    critic_steps: int = 1,
    **networks: Unpack[GanOptions],
) -> GAN:
    """A GAN of two perceptrons, or of two convolutional networks.

    Arguments:
        loss: What the generator minimises: "non_saturating", or "saturating" as in the theory.
        penalty: The weight of R1 and R2, 0 for none; by default 1, or 0.1 in up to 4 dimensions.
        r2: Whether slopes at samples are penalised as well as slopes at data; by default not with
            convolutions, where a penalty costs as much as all else.
        spectral: Whether each layer of the critic is divided by its largest singular value.
        critic_steps: Steps of the critic for each of the generator.
    """
    made = adversarial.build_gan_networks(event, channels=CHANNELS, **networks)
    if spectral:
        adversarial.apply_spectral_norm(made.critic)
    if penalty is None:
        penalty = 0.1 if fourier_count(event.shape, None) else 1.0
    r2 = not made.deep if r2 is None else r2
    critic_loss = partial(penalised_critic_loss, penalty=penalty, r2=r2)
    game = Game(critic_loss, LOSSES[loss], jensen_shannon_bound, critic_steps)
    recipe = RECIPE._replace(batch=32, lr=2e-3) if made.deep else RECIPE
    return GAN(made, event.shape, game, recipe)
