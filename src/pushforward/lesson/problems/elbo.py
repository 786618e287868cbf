"""Practice problem 1: two derivations of the evidence lower bound."""

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor
from torch.distributions import Normal

from ...plots import style
from ...theory.exact import evidence
from ..cases import nonlinear_joint, same_values
from ..claims import Number, double
from ..panels import create_panels
from . import DerivationStep, ExperimentResult, Problem, ProblemPart

POINT = 0.8  # the data point of the figure
MEANS = torch.linspace(-1, 2, 41, dtype=torch.float64)
DEVIATIONS = torch.logspace(-1, 0.3, 41, dtype=torch.float64)


@cache
def _elbo_symbols() -> dict[str, Any]:
    """The joint z ~ N(0, 1), x | z ~ N(wz, s^2) and q = N(m, v) with SymPy, and E_q of it.

    A quadratic polynomial of z has the mean a + b m + c (m^2 + v).
    """
    import sympy as sp

    x, z, w, m = sp.symbols("x z w m", real=True)
    s, v = sp.symbols("s v", positive=True)

    def log_normal(y: Any, mean: Any, variance: Any) -> Any:
        return -((y - mean) ** 2) / (2 * variance) - sp.log(2 * sp.pi * variance) / 2

    def mean(f: Any) -> Any:
        a, b, c = (sp.Poly(sp.expand(f), z).coeff_monomial(z**k) for k in (0, 1, 2))
        return a + b * m + c * (m**2 + v)

    precision = 1 + w**2 / s**2
    return {
        "likelihood": log_normal(x, w * z, s**2),
        "prior": log_normal(z, 0, 1),
        "q": log_normal(z, m, v),
        "evidence": log_normal(x, 0, w**2 + s**2),
        "posterior": log_normal(z, w * x / s**2 / precision, 1 / precision),
        "mean": mean,
        "kl_prior": (m**2 + v - 1 - sp.log(v)) / 2,
        "parameters": (m, v, w * x / s**2 / precision, 1 / precision),
    }


def symbolic_identity(difference: Callable[[dict[str, Any]], Any]) -> Callable[[], list[Number]]:
    """An identity of the Gaussian model whose simplified difference SymPy finds to be zero."""

    def identity() -> list[Number]:
        import sympy as sp

        left = sp.simplify(sp.expand(sp.expand_log(difference(_elbo_symbols()), force=True)))
        value = left.subs(dict.fromkeys(left.free_symbols, 1))
        return [
            Number("operations in what SymPy leaves of the difference", float(sp.count_ops(left)),
                   0.0, 0.0),
            Number("its value where every symbol is 1", float(value), 0.0),
        ]  # fmt: skip

    return identity


def _quadrature_identity(
    what: str, pair: Callable[[evidence.QuadratureJoint, Tensor], tuple[Tensor, Tensor]]
) -> Callable[[], list[Number]]:
    """An identity for a decoder that is not linear and a q with two bumps, by quadrature."""
    return lambda: [same_values(what, *pair(*nonlinear_joint()))]


def _check_jensen_inequality() -> list[Number]:
    joint, log_q = nonlinear_joint()
    lost = joint.log_evidence() - joint.elbo_by_jensen(log_q)
    return [Number("smallest loss of Jensen's step, nats", float(lost.min()), 0.0, 0.0, ">=")]


def _check_jensen_equality() -> list[Number]:
    """At the posterior log w does not depend on z; at any other q it does."""
    joint, log_q = nonlinear_joint()
    spread = []
    for q in (joint.log_posterior(), log_q):
        log_w = joint.log_likelihood + joint.log_prior - q
        spread.append(joint.expectation(q, (log_w - joint.expectation(q, log_w)[:, None]).square()))
    return [
        Number("largest variance of $\\log w$ under the posterior", float(spread[0].max()), 0.0),
        Number("smallest variance of $\\log w$ under the other q", float(spread[1].min()), 0.1, 0.0,
               ">="),
    ]  # fmt: skip


JENSEN = [
    DerivationStep(
        "The evidence is the marginal of the joint distribution.",
        "\\log p(x) = \\log \\int p(x, z)\\, dz",
        symbolic_identity(lambda s: s["likelihood"] + s["prior"] - s["evidence"] - s["posterior"]),
    ),
    DerivationStep(
        "Multiply and divide by any density $q(z|x)$ that is positive where $p(x, z)$ is; the "
        "integral becomes an expectation.",
        "\\log p(x) = \\log \\mathbb{E}_{q(z|x)} \\left[ \\frac{p(x, z)}{q(z|x)} \\right]",
        _quadrature_identity(
            "$\\log \\mathbb{E}_q w$ and $\\log p(x)$, nats",
            lambda j, q: (j.expectation(q, (j.log_likelihood + j.log_prior - q).exp()).log(),
                          j.log_evidence()),
        ),
    ),
    DerivationStep(
        "The logarithm is concave: by Jensen's inequality, taking it inside the expectation can "
        "only lower the value.",
        "\\log p(x) \\ge \\mathbb{E}_{q} \\left[ \\log \\frac{p(x, z)}{q(z|x)} \\right] "
        "= \\mathcal{L}(x)",
        _check_jensen_inequality,
    ),
    DerivationStep(
        "Factor the joint distribution, $p(x, z) = p(x|z)\\, p(z)$, and split the logarithm.",
        "\\mathcal{L}(x) = \\mathbb{E}_{q} \\left[ \\log p(x|z) + \\log p(z) - \\log q(z|x) "
        "\\right]",
        _quadrature_identity(
            "the bound and the mean of the three logarithms, nats",
            lambda j, q: (j.elbo_by_jensen(q), j.expectation(q, j.log_likelihood)
                          + j.expectation(q, j.log_prior) - j.expectation(q, q)),
        ),
    ),
    DerivationStep(
        "The last two terms are minus the divergence of q from the prior.",
        "\\mathcal{L}(x) = \\mathbb{E}_{q} \\left[ \\log p(x|z) \\right] - D_{KL}(q(z|x) \\| p(z))",
        symbolic_identity(lambda s: s["mean"](s["prior"] - s["q"]) + s["kl_prior"]),
    ),
]  # fmt: skip

DIVERGENCE = [
    DerivationStep(
        "Begin with the divergence of q from the posterior, which is what q should be near to.",
        "D_{KL}(q(z|x) \\| p(z|x)) = \\mathbb{E}_{q} \\left[ \\log q(z|x) - \\log p(z|x) \\right]",
    ),
    DerivationStep(
        "Replace the posterior by Bayes' rule.",
        "\\log p(z|x) = \\log p(x|z) + \\log p(z) - \\log p(x)",
        symbolic_identity(lambda s: s["posterior"] - s["likelihood"] - s["prior"] + s["evidence"]),
    ),
    DerivationStep(
        "The evidence does not depend on z and leaves the expectation.",
        "D_{KL}(q \\| p(z|x)) = \\mathbb{E}_{q} \\left[ \\log q(z|x) - \\log p(x|z) - \\log p(z) "
        "\\right] + \\log p(x)",
        _quadrature_identity(
            "both sides, nats",
            lambda j, q: (j.gap(q), j.expectation(q, q - j.log_likelihood - j.log_prior)
                          + j.log_evidence()),
        ),
    ),
    DerivationStep(
        "The expectation is minus $\\mathcal{L}(x)$. Solve for the evidence: an identity, for any "
        "q.",
        "\\log p(x) = \\mathcal{L}(x) + D_{KL}(q(z|x) \\| p(z|x))",
        symbolic_identity(lambda s: s["mean"](s["likelihood"] + s["prior"] - s["q"])
                 + s["mean"](s["q"] - s["posterior"]) - s["evidence"]),
    ),
    DerivationStep(
        "A divergence is not negative (Gibbs), so that leaving it out gives a lower bound.",
        "\\log p(x) \\ge \\mathcal{L}(x)",
        _check_jensen_inequality,
    ),
]  # fmt: skip

SAME = [
    DerivationStep(
        "Write the weight $w(z) = p(x, z) / q(z|x)$ by Bayes' rule. Both methods take "
        "$\\mathbb{E}_q \\log w$ and differ only in where the evidence is taken out.",
        "w(z) = p(x)\\, \\frac{p(z|x)}{q(z|x)}",
        symbolic_identity(lambda s: s["likelihood"] + s["prior"] - s["evidence"] - s["posterior"]),
    ),
    DerivationStep(
        "What Jensen's inequality throws away is thus what the second method names: with "
        "$\\mathbb{E}_q w = p(x)$,",
        "\\log \\mathbb{E}_q w - \\mathbb{E}_q \\log w = D_{KL}(q(z|x) \\| p(z|x))",
        _quadrature_identity(
            "Jensen's gap and the divergence, nats",
            lambda j, q: (j.log_evidence() - j.elbo_by_jensen(q), j.gap(q)),
        ),
    ),
    DerivationStep(
        "Equality: the logarithm is strictly concave, so that Jensen's step loses nothing if and "
        "only if w is constant where q has mass, that is $q(z|x) = p(z|x)$; the divergence is zero "
        "under the same condition.",
        "\\mathcal{L}(x) = \\log p(x) \\iff q(z|x) = p(z|x)",
        _check_jensen_equality,
    ),
]


def _bound_surface() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gaussian q by their means and deviations: both bounds, their gap, log p(x)."""
    z, log_weight = evidence.latent_quadrature(24.0, 3001)
    likelihood = Normal(z[:, 0].sin() + z[:, 0].square() / 4, 0.5).log_prob(double(POINT)[:, None])
    joint = evidence.QuadratureJoint(likelihood, Normal(0.0, 1.0).log_prob(z[:, 0]), log_weight)
    mean, deviation = torch.cartesian_prod(MEANS, DEVIATIONS)[:, :, None].unbind(1)
    log_q = Normal(mean, deviation).log_prob(z[:, 0])
    first, second = joint.elbo_by_jensen(log_q), joint.elbo_by_divergence(log_q)
    return first, second, joint.gap(log_q), joint.log_evidence()


def _draw_bound_gap(gap: Tensor) -> Figure:
    """The divergence of a Gaussian q from the posterior, over its mean and deviation."""
    figure, (axes,) = create_panels(1, 2.6, width=4.2)
    shape = (len(MEANS), len(DEVIATIONS))
    levels = [0.1, 0.2, 0.5, 1, 2, 5, 10]
    values = gap.view(shape).mT
    contours = axes.contour(MEANS, DEVIATIONS, values, levels=levels, colors=style.INK,
                         linewidths=0.7)  # fmt: skip
    axes.clabel(contours, fmt="%g", fontsize=6)
    best = divmod(int(gap.argmin()), shape[1])
    axes.plot(MEANS[best[0]], DEVIATIONS[best[1]], "o", color=style.SECOND)
    axes.annotate(f"{float(gap.min()):.3f}", (MEANS[best[0]], DEVIATIONS[best[1]]), (14, 14),
                  textcoords="offset points", color=style.SECOND)  # fmt: skip
    axes.set(yscale="log", xlabel="mean of q", ylabel="deviation of q")
    axes.set_yticks([0.1, 0.2, 0.5, 1, 2])
    axes.yaxis.set_major_formatter(style.format_log_tick)
    axes.yaxis.set_minor_formatter("")
    axes.set_title("nats that the bound lies below log p(x)")
    return figure


def _run_bound_comparison() -> ExperimentResult:
    first, second, gap, log_p = _bound_surface()
    difference, least = float((first - second).abs().max()), float(gap.min())
    numbers = [
        Number("largest difference of the derivations over all q, nats", difference, 0.0, 1e-9),
        Number("largest difference of $\\log p(x) - \\mathcal{L}$ and the divergence, nats",
               float((log_p - first - gap).abs().max()), 0.0, 1e-9),
        Number("smallest divergence, nats", least, 0.0, 0.0, ">="),
    ]  # fmt: skip
    best, worst = float(first.max()), float(first.min())
    text = [
        f"For the data point $x = {POINT:g}$ of the decoder $N(\\sin z + z^2/4, 0.5^2)$, "
        f"{len(first):,} Gaussian q were tried. The two derivations differ by at most "
        f"{difference:.0e} nats over all of them, while the bound itself runs from {worst:.1f} to "
        f"{best:.4f}.",
        f"The evidence is $\\log p(x) = {float(log_p):.4f}$, so that the best Gaussian still loses "
        f"{least:.4f} nats: the posterior is no Gaussian, and no amount of training of an encoder "
        "closes that gap. It is the minimum of the figure, not zero.",
    ]
    return ExperimentResult(text, numbers, {"bound": _draw_bound_gap(gap)})


PROBLEM = Problem(
    title="Two derivations of the evidence lower bound",
    parts=[
        ProblemPart("Derive the bound step by step by Jensen's inequality.", JENSEN),
        ProblemPart("Derive it step by step by decomposing the divergence.", DIVERGENCE),
        ProblemPart("Explain why both methods give the same result.", SAME, _run_bound_comparison),
    ],
)
