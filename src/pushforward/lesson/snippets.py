r"""The lesson's functions under their own names, with its calls and corrected behaviour.

Everything here is the library's real thing behind a name and a signature. What differs from the
lesson's code is what was wrong in it: the decoder of real data is Gaussian, discriminators give
logits, losses are sums over the entries of a data point and means over the batch, every data point
has an interpolation of its own, and shapes that would broadcast by accident are refused.

Two conventions stay the lesson's: steps of a chain are t = 1, ..., T, where 0 is the data
themselves, and the time of flow matching runs from noise, 0, to data, 1.
"""

from collections.abc import Mapping
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.distributions import Normal
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim import Optimizer

from ..errors import UsageError
from ..families import vae
from ..model import Event
from ..networks.likelihoods import GaussianLikelihood
from ..networks.mlp import Perceptron, TimeMLP
from ..rng import seeded_rng
from ..shapes import Condition, Data, Scalar, Times, append_dims, sum_event
from ..theory import adversarial, bounds, ddpm_schedule, predictions
from ..theory.exact.targets import lesson_mixture
from ..theory.ode import Field
from ..theory.paths import LinearPath


def generate_data(n_samples: int = 1000, seed: int | None = None) -> np.ndarray:
    """Draws from 0.3 N(-2, 0.5^2) + 0.7 N(2, 0.7^2), ``(n_samples,)`` in float32.

    Without a seed they come from torch's generator, so that ``torch.manual_seed`` settles all.
    """
    if seed is None:
        return lesson_mixture().sample(n_samples)[:, 0].float().numpy()
    with seeded_rng(seed):
        return generate_data(n_samples)


class VAE(nn.Module):
    """A VAE of real data: a Gaussian with one learned scale around the decoder's output.

    The fields of the lesson (`encode`, `reparameterize`, `decode`) in front of the family ``vae``,
    which is ``self.model``: ``self.model.loss(x)`` trains it, ``self.model.log_prob(x)`` bounds the
    likelihood. In ``eval()`` nothing is drawn.
    """

    def __init__(self, input_dim: int = 784, latent_dim: int = 20) -> None:
        super().__init__()
        self.model = vae.build(
            Event((input_dim,)),
            latent=latent_dim,
            width=400,
            depth=1,
            decoder="gaussian_shared",
            waves=0,
            whiten=False,
        )

    @property
    def scale(self) -> Tensor:
        """The deviation of the data around the decoder's output, for `vae_loss`."""
        return cast("GaussianLikelihood", self.model.law).normal(torch.zeros(1, 1)).scale

    def encode(self, x: Data) -> tuple[Tensor, Tensor]:
        """Mean and log-variance of q(z | x)."""
        q = self.model.posterior(x)
        return q.mean, 2 * q.scale.log()

    def reparameterize(self, mu: Tensor, logvar: Tensor) -> Tensor:
        r""":math:`z = \mu + \sigma\varepsilon`; the mean itself in evaluation."""
        return mu + torch.exp(logvar / 2) * torch.randn_like(mu) if self.training else mu

    def decode(self, z: Tensor) -> Data:
        return self.model.decode(z)

    def forward(self, x: Data) -> tuple[Data, Tensor, Tensor]:
        mu, logvar = self.encode(x)
        return self.decode(self.reparameterize(mu, logvar)), mu, logvar

    def sample(self, n: int) -> Data:
        """Draws of the model."""
        return self.model.sample(n)


def vae_loss(
    x: Data, x_recon: Tensor, mu: Tensor, logvar: Tensor, scale: float | Tensor = 1.0
) -> tuple[Scalar, Scalar, Scalar]:
    r"""Minus the ELBO and its two terms, in nats per data point.

    .. math:: -\log\mathcal N(x \mid \hat x, \sigma^2 I) + \mathrm{KL}(q \,\|\, \mathcal N(0, I))

    Arguments:
        x: Data of real numbers.
        x_recon: The decoder's means, of the same shape.
        mu: Means of q.
        logvar: Log-variances of q.
        scale: :math:`\sigma`, such as `VAE.scale`.

    Returns:
        The total, the reconstruction term and the divergence, means over the batch.
    """
    _require_same_shape(x, x_recon, "x", "x_recon")
    reconstruction = -sum_event(Normal(x_recon, scale).log_prob(x)).mean()
    kl = bounds.kl_to_prior(Normal(mu, torch.exp(logvar / 2))).mean()
    return reconstruction + kl, reconstruction, kl


class Generator(Perceptron):
    """Noise to data through one hidden layer."""

    def __init__(self, latent_dim: int = 10, output_dim: int = 1) -> None:
        super().__init__(latent_dim, 0, output_dim, [50])


class Discriminator(Perceptron):
    """The *logit* that data are real, ``(n, 1)``; unbounded, so that it is a critic too."""

    def __init__(self, input_dim: int = 1) -> None:
        super().__init__(input_dim, 0, 1, [50])


def train_gan_step(
    real_data: Data,
    G: nn.Module,
    D: nn.Module,
    optimizer_G: Optimizer,
    optimizer_D: Optimizer,
    latent_dim: int,
) -> tuple[float, float]:
    """One step of the discriminator, which gives logits, and one of the generator.

    The generator's loss is the non-saturating one. Its step leaves no gradient in D.

    Returns:
        Both losses; the first is minus the value of the game, so that (log 4 - loss) / 2 estimates
        JS from below.

    Raises:
        UsageError: If the data are not rows.
    """
    if real_data.ndim < 2:
        raise UsageError(f"real_data has shape {tuple(real_data.shape)}; rows are (n, d)")

    def fake() -> Data:
        return G(real_data.new_empty(len(real_data), latent_dim).normal_())

    optimizer_D.zero_grad()
    halves = adversarial.discriminator_loss(D(real_data).flatten(), D(fake().detach()).flatten())
    loss_D = halves["real"] + halves["fake"]
    loss_D.backward()
    optimizer_D.step()

    optimizer_G.zero_grad()
    loss_G = adversarial.non_saturating_loss(D(fake()).flatten())
    loss_G.backward(inputs=list(G.parameters()))
    optimizer_G.step()
    return loss_D.item(), loss_G.item()


def gradient_penalty(
    D: nn.Module,
    real_data: Data,
    fake_data: Tensor,
    device: str | None = None,
    one_sided: bool = False,
) -> Scalar:
    """The penalty of WGAN-GP between pairs of data and samples, without the factor lambda.

    Arguments:
        D: A critic that treats data one by one.
        real_data: Any event shape.
        fake_data: As many, of the same shape; the penalty does not reach the generator.
        device: Where to compute; by default where the data are.
        one_sided: Penalise slopes above one only, which has no spurious optimum on the line.

    Raises:
        UsageError: If the shapes differ, or the critic normalises over the batch.
    """
    _require_same_shape(real_data, fake_data, "real_data", "fake_data")
    if any(isinstance(m, _BatchNorm) for m in D.modules()):
        raise UsageError("batch normalisation mixes the data of a batch: use another normalisation")
    real, fake = (z.to(device or real_data.device) for z in (real_data, fake_data))
    return adversarial.wgan_gp_penalty(
        D, adversarial.sample_interpolates(real, fake), one_sided=one_sided
    )


def linear_beta_schedule(
    timesteps: int, beta_start: float = 1e-4, beta_end: float = 0.02
) -> Tensor:
    r""":math:`\beta_1, \dots, \beta_T` in float64, times 1000/T so that every chain ends in noise.

    The ends are those of a chain of 1000 steps.
    """
    return ddpm_schedule.linear_betas(timesteps, beta_start, beta_end)


def get_diffusion_parameters(timesteps: int = 1000) -> dict[str, Tensor]:
    r"""The tables of the chain by the lesson's names, in float64; entry ``[t - 1]`` is step t.

    Raises:
        UsageError: If the chain does not end in noise.
    """
    table = ddpm_schedule.DDPMPath(linear_beta_schedule(timesteps))
    alpha_bar = table.alpha_bar(torch.arange(1, timesteps + 1))
    times = table.chain().flip(0)[1:]
    return {
        "betas": table.betas,
        "alphas": 1 - table.betas,
        "alphas_cumprod": alpha_bar,
        "alphas_cumprod_prev": torch.cat([alpha_bar.new_ones(1), alpha_bar[:-1]]),
        "sqrt_alphas_cumprod": table.alpha(times),
        "sqrt_one_minus_alphas_cumprod": table.sigma(times),
    }


def q_sample(
    x_0: Data, t: int | Tensor, params: Mapping[str, Tensor], noise: Tensor | None = None
) -> Data:
    r""":math:`x_t = \sqrt{\bar\alpha_t}\,x_0 + \sqrt{1 - \bar\alpha_t}\,\varepsilon`, like ``x_0``.

    Arguments:
        x_0: Data of any event shape.
        t: One step for all, or one for each row ``(n,)``: 1, ..., T; 0 is the data themselves.
        params: Of `get_diffusion_parameters`.
        noise: Drawn if None.

    Raises:
        UsageError: If a step is not one of the chain, or the noise has another shape.
    """
    steps, k = len(params["betas"]), torch.as_tensor(t, device=x_0.device)
    if k.is_floating_point() or bool((k < 0).any() or (k > steps).any()):
        raise UsageError(f"t must be integers from 0 (data) to {steps}, not {t}")
    noise = torch.randn_like(x_0) if noise is None else noise
    _require_same_shape(x_0, noise, "x_0", "noise")
    names = {"sqrt_alphas_cumprod": 1.0, "sqrt_one_minus_alphas_cumprod": 0.0}
    signal, spread = (
        append_dims(
            torch.cat([params[n].new_tensor([at_0]), params[n]]).to(k.device)[k].to(x_0), x_0
        )
        for n, at_0 in names.items()
    )
    return signal * x_0 + spread * noise


class FlowMatchingModel(TimeMLP):
    """The field of flow matching: 64-64 as the lesson's, smooth, with Fourier features of time.

    Arguments:
        dim: Entries of a data point, which may be an image of as many pixels; for up to four of
            them Fourier features are inputs too.
    """

    def __init__(self, dim: int = 2) -> None:
        super().__init__((dim,), width=64, depth=2, waves=None)

    def forward(self, x: Data, t: Tensor, c: Condition = None, span: Times | None = None) -> Data:
        """The velocity at ``x``; t is one time for all, ``(n,)`` or ``(n, 1)``: 0 noise, 1 data."""
        return super().forward(x, t.reshape(-1) if t.ndim else t)


def flow_matching_loss(model: Field, x0: Data, x1: Tensor) -> Scalar:
    r""":math:`\mathbb E\,\|v(x_t, t) - (x_1 - x_0)\|^2`, summed over entries.

    Its floor is not zero: :math:`s\pi/2` an entry for data of deviation s (`exact.dynamics`).

    Arguments:
        model: ``model(x, t)`` with t in the lesson's time.
        x0: Noise, of any event shape.
        x1: As many data.

    Raises:
        UsageError: If the shapes differ; (1, d) would broadcast silently.
    """
    _require_same_shape(x0, x1, "x0", "x1")
    path, t = LinearPath(), torch.rand_like(x0.flatten(1)[:, 0])
    x_t = path.interpolate(x1, x0, 1 - t)
    rate = -predictions.prediction_target(
        path, predictions.velocity_prediction, x1, x0, 1 - t
    )  # time runs the other way
    return sum_event((model(x_t, t) - rate).square()).mean()


def _require_same_shape(a: Tensor, b: Tensor, first: str, second: str) -> None:
    """Raise UsageError where two tensors would broadcast instead of going row by row."""
    if a.shape != b.shape:
        raise UsageError(
            f"{first} has shape {tuple(a.shape)} and {second} {tuple(b.shape)}; they must be equal"
        )
