r"""
Building blocks for research
============================

For those who want a path, a sampler, a loss or an exact target, and nothing around
them. Each is a function or a small class in :mod:`pushforward.theory
<pushforward.theory.paths>`; none of them knows of data sets, trainers or files. A
target whose score is known stands where a network stands, so that every part can be
measured against the truth.
"""

import math

import matplotlib.pyplot as plt
import torch

from pushforward.plots import style
from pushforward.theory import ode, paths, predictions, samplers
from pushforward.theory.exact import targets

plt.rcParams.update(style.RC)
torch.manual_seed(0)

# %%
# An exact target
# ---------------
#
# Eight Gaussians on a circle. A mixture knows its density, score, entropy and
# conditionals, and what it becomes when it is blurred: :math:`\alpha x +
# \sigma\varepsilon` is a mixture again.

mixture = targets.gaussian_ring8()
print(f"entropy {mixture.entropy():.4f} nats")

# %%
# A path
# ------
#
# A path is two functions of time, :math:`x_t = \alpha_t x + \sigma_t\varepsilon`,
# with data at :math:`t = 0` and noise at :math:`t = 1`. Its denoiser is known in
# closed form, and the probability flow carries noise to data. The shades are the
# exact density of :math:`x_t`, the points one set of particles on their way.

path = paths.LinearPath()
denoiser = targets.ExactDenoiser(mixture, path)
times = path.grid(200)
start = path.scale(times[0]) * torch.randn(400, 2)
states = [start, *samplers.heun(denoiser, start.to(times), times)]


def panel(axes, k):
    """The density of x_t over the plane, and the particles at that time."""
    t, reach = times[k], 5.5
    alpha, sigma = path(t)
    side = torch.linspace(-reach, reach, 121, dtype=torch.float64)
    grid = torch.cartesian_prod(side, side)
    log_p = mixture.diffuse(alpha, sigma).log_prob(grid).reshape(121, 121).T
    extent = (-reach, reach, -reach, reach)
    axes.imshow(log_p.exp(), origin="lower", extent=extent, cmap=style.DENSITY)
    axes.plot(*states[k].T, ".", ms=2.6, color=style.SECOND, mew=0)
    axes.set(
        xticks=[],
        yticks=[],
        xlim=extent[:2],
        ylim=extent[2:],
        title=f"t = {float(t):.2f}",
    )


figure, row = plt.subplots(1, 5, figsize=(9, 2.1), layout="constrained")
for axes, k in zip(row, (0, 60, 110, 150, 200)):
    panel(axes, k)

# %%
# A sampler
# ---------
#
# A sampler is a generator: it yields the state after each step. Any grid of
# decreasing times will do; ``path.grid(steps)`` makes the usual one. Here is how
# far each solver is from the flow's true end after a number of network evaluations,
# on EDM's path.

edm = paths.EDMPath()
exact = targets.ExactDenoiser(mixture, edm)
noise = edm.sigma_max * torch.randn(500, 2, dtype=torch.float64)
truth = ode.final_state(samplers.heun(exact, noise, edm.grid(1000)))


def error(sampler, steps):
    """Root mean square distance to the end of the flow."""
    end = ode.final_state(sampler(exact, noise, edm.grid(steps)))
    return float((end - truth).square().sum(1).mean().sqrt())


figure, axes = plt.subplots(figsize=(4.6, 2.8), layout="constrained")
solvers = {
    samplers.euler: 1,
    samplers.heun: 2,
    samplers.dpmpp_2m: 1,
    samplers.ipndm: 1,
}
for i, (sampler, evaluations) in enumerate(solvers.items()):
    nfe = [10, 20, 40, 80]
    errors = [error(sampler, n // evaluations) for n in nfe]
    print(
        f"{sampler.__name__:10}",
        "  ".join(f"{n}: {e:.4f}" for n, e in zip(nfe, errors)),
    )
    axes.loglog(
        nfe, errors, marker=style.MARKS[i], ls=style.DASHES[i], color=style.LINES[i]
    )
    axes.annotate(
        sampler.__name__, (nfe[-1], errors[-1]), (5, 0), textcoords="offset points"
    )
axes.set(
    xlabel="network evaluations", ylabel="distance to the true end", xlim=(9, 150)
)
axes.set_xticks(nfe, [str(n) for n in nfe])
axes.yaxis.set_major_formatter(style.format_log_tick)
axes.minorticks_off()

# %%
# A prediction and a loss
# -----------------------
#
# What a network predicts is a pair :math:`(a_t, b_t)`: its target is :math:`a_t x +
# b_t\varepsilon`. Data, noise, v, velocity and score are five such pairs, and one
# 2x2 system converts between them. Here the noise is turned into the velocity, and
# compared with the velocity itself:

t = torch.rand(64, dtype=torch.float64)
x, eps = mixture.sample(64).double(), torch.randn(64, 2, dtype=torch.float64)
x_t = path.interpolate(x, eps, t)
converted = predictions.convert_prediction(
    path, predictions.noise_prediction, predictions.velocity_prediction, x_t, eps, t
)
velocity = predictions.prediction_target(
    path, predictions.velocity_prediction, x, eps, t
)
print(f"largest difference {float((converted - velocity).abs().max()):.1e}")

# %%
# :class:`~pushforward.diffusion.Diffusion` regresses any network on any prediction
# along any path. Its loss is a plain function of a batch, so the training loop is
# yours. The best possible loss is not zero but the variance of the target given
# :math:`x_t`; what counts is the distance to the exact denoiser.

from pushforward.diffusion import Diffusion
from pushforward.networks.mlp import TimeMLP

model = Diffusion(
    TimeMLP((2,), width=64, depth=2, waves=32),
    (2,),
    path=path,
    prediction=predictions.velocity_prediction,
)
optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
for _ in range(1000):
    optimizer.zero_grad()
    sum(model.loss(mixture.sample(512)).values()).backward()
    optimizer.step()
model.eval()

x, t = mixture.sample(4096), torch.rand(4096)
x_t = path.interpolate(x, torch.randn_like(x), t)
with torch.no_grad():
    gap = (
        (model.denoiser.velocity(x_t, t) - denoiser.velocity(x_t, t))
        .square()
        .sum(1)
        .mean()
    )
print(f"mean squared distance to the exact velocity: {float(gap):.3f}")

# %%
# A likelihood, with its kind
# ---------------------------
#
# The density of the probability flow is solved to a tolerance. Its mean over fresh
# data is minus the cross entropy; less the entropy, that is
# :math:`\mathrm{KL}(p\,\|\,\text{model})`, the distance to the truth in nats, here
# with its standard error.

x = mixture.sample(1000)
with torch.no_grad():
    difference = mixture.log_prob(x) - model.log_prob(x)
kl, error = float(difference.mean()), float(difference.std()) / math.sqrt(len(x))
print(f"{model.likelihood} likelihood; KL to the model {kl:.3f} ± {error:.3f} nats")

# %%
# Where to go on: :doc:`/reference/theory` lists every part with its formula, shapes
# and source, and :doc:`/add-a-family` makes a family of a loss that works.
