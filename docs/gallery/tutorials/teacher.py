r"""
Teaching with the library
=========================

For teachers and students: every formula is one readable function, every claim of
the lesson is a run, every figure a command. This page goes through one hour of a
class: a distribution that everybody can compute, what noise makes of it, the best
discriminator between two distributions, and a claim that is put to the test.
"""

import math

import matplotlib.pyplot as plt
import torch

from pushforward.plots import style
from pushforward.theory import adversarial, bounds, ddpm_schedule
from pushforward.theory.exact import discriminator, targets

plt.rcParams.update(style.RC)
torch.manual_seed(0)

# %%
# A mixture one can compute by hand
# ---------------------------------
#
# Two bumps on a line. Ask the class for the mean and the variance before running
# the cell: :math:`0.3 \cdot (-2) + 0.7 \cdot 2`, and within plus between.

mixture = targets.lesson_mixture()
print(f"mean {float(mixture.mean):.3f}, variance {float(mixture.covariance):.3f}")
print(f"entropy {mixture.entropy():.4f} nats by quadrature")
x = mixture.sample(100_000).double()
sampled = -mixture.log_prob(x)
error = float(sampled.std()) / len(x) ** 0.5
print(f"entropy {float(sampled.mean()):.4f} ± {error:.4f} nats by sampling")

# %%
# What noise makes of it
# ----------------------
#
# The forward process of diffusion, :math:`x_k = \sqrt{\bar\alpha_k}\,x_0 +
# \sqrt{1-\bar\alpha_k}\,\varepsilon`, with the table of Ho et al. A mixture stays a
# mixture, so that each curve is exact. When do the two bumps become one? When has
# the mean been forgotten?

path = ddpm_schedule.DDPMPath(ddpm_schedule.linear_betas(1000))
grid = torch.linspace(-4.5, 4.5, 400, dtype=torch.float64)[:, None]
figure, axes = plt.subplots(figsize=(6.3, 2.6), layout="constrained")
for i, k in enumerate((0, 100, 200, 400, 1000)):
    alpha, sigma = path(torch.tensor(k / 1000, dtype=torch.float64))
    density = mixture.diffuse(alpha, sigma).log_prob(grid).exp()
    axes.plot(
        grid, density, color=style.LINES[i], ls=style.DASHES[i], label=f"k = {k}"
    )
axes.set(xlabel="x", ylim=(0, None))
axes.set_ylabel("density of $x_k$", parse_math=True)
axes.legend()

# %%
# The best discriminator
# ----------------------
#
# Between data p and samples q it is :math:`D^* = p/(p+q)`, whose logit is
# :math:`\log p - \log q`. Its value of the game gives the Jensen-Shannon
# divergence. Take for q a single Gaussian with the mean and the variance of p, and
# see where a discriminator can tell them apart.

fake = targets.Gaussian(mixture.mean, mixture.covariance)
logit = discriminator.optimal_logit(mixture.log_prob(grid), fake.log_prob(grid))
figure, axes = plt.subplots(figsize=(6.3, 2.6), layout="constrained")
axes.plot(grid, mixture.log_prob(grid).exp(), color=style.INK, label="p")
axes.plot(grid, fake.log_prob(grid).exp(), color=style.MODEL, ls="--", label="q")
axes.plot(
    grid,
    torch.sigmoid(logit),
    color=style.SECOND,
    ls=":",
    label="best discriminator",
)
axes.set(xlabel="x", ylim=(0, 1))
axes.legend()

y = fake.sample(100_000).double()
value = adversarial.game_value(
    discriminator.optimal_logit(mixture.log_prob(x), fake.log_prob(x)),
    discriminator.optimal_logit(mixture.log_prob(y), fake.log_prob(y)),
)
divergence = float(adversarial.js_from_value(value))
print(f"JS(p, q) = {divergence:.4f} of at most {math.log(2):.4f} nats")

# %%
# A claim, put to the test
# ------------------------
#
# *The KL divergence of a diagonal Gaussian to the standard normal has a closed
# form.* The library's function, beside a mean over samples with its standard error:

q = torch.distributions.Normal(
    torch.tensor([[1.0, -0.5]]), torch.tensor([[0.5, 2.0]])
)
prior = torch.distributions.Normal(0.0, 1.0)
z = q.sample((100_000,))
ratio = (q.log_prob(z) - prior.log_prob(z)).sum((1, 2))
print(f"closed form {float(bounds.kl_to_prior(q)):.4f} nats")
error = float(ratio.std()) / len(z) ** 0.5
print(f"by sampling {float(ratio.mean()):.4f} ± {error:.4f} nats")

# %%
# The pages of :doc:`the lesson </lesson/index>` do this for each of its claims:
# what it predicts, what comes out, the tolerance, and the verdict. ``pushforward
# lesson 3`` runs a section in a terminal. To make an exercise of a claim, hide the
# verdict and ask for the prediction first.
