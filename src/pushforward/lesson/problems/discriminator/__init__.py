"""Practice problem 3: the optimal discriminator."""

from .. import DerivationStep, Problem, ProblemPart
from .experiments import run_discriminator_training
from .identities import (
    check_bernoulli_kl,
    check_concavity,
    check_disjoint_supports,
    check_integrated_value,
    check_regret,
    check_stationary_point,
    check_value_integrand,
)

PROOF = [
    DerivationStep(
        "Write both expectations as one integral. The samples have density $q = p_g$; for a "
        "generator whose distribution has none, densities are taken with respect to "
        "$\\mu = P_{\\mathrm{data}} + P_g$, which always exist.",
        r"V(D) = \int \bigl[p(x) \log D(x) + q(x) \log(1 - D(x))\bigr]\,dx",
    ),
    DerivationStep(
        "$D$ may be any measurable function into $(0, 1)$: its values at different points have "
        "nothing to do with each other. So the integral is largest where the integrand is largest "
        "at almost every point. (For a network with few parameters this step fails.)",
        r"\max_D V(D) = \int \max_{y \in (0, 1)} \bigl[p(x) \log y + q(x) \log(1 - y)\bigr]\,dx",
    ),
    DerivationStep(
        "At a point with $p, q > 0$ the derivative has one zero.",
        r"\frac{p}{D} - \frac{q}{1 - D} = 0 \iff p(1 - D) = q D \iff D = \frac{p}{p + q}",
        check_stationary_point,
    ),
    DerivationStep(
        "It is a maximum, and the only one, because the integrand is strictly concave: the first "
        "condition alone would not show it.",
        r"\frac{\partial^2}{\partial D^2} = -\frac{p}{D^2} - \frac{q}{(1 - D)^2} < 0, \qquad "
        r"\text{at the zero } -\frac{(p + q)^3}{p q}",
        check_concavity,
    ),
    DerivationStep(
        "The same without calculus: what another $D$ loses is a KL divergence of Bernoulli "
        "distributions, which is zero for equal distributions alone (Gibbs).",
        r"p \log\frac{D^*}{D} + q \log\frac{1 - D^*}{1 - D} = (p + q)\,\mathrm{KL}\bigl("
        r"\operatorname{Bern} D^* \,\|\, \operatorname{Bern} D\bigr) \ge 0",
        check_bernoulli_kl,
    ),
    DerivationStep(
        "Integrated, with $m = (p + q)/2$, it says by how much a discriminator falls short.",
        r"V(D^*) - V(D) = 2\,\mathbb{E}_m\,\mathrm{KL}\bigl(\operatorname{Bern} D^* \,\|\, "
        r"\operatorname{Bern} D\bigr)",
        check_regret,
    ),
]
EDGES = [
    DerivationStep(
        "Where $p > 0 = q$ the integrand is $p \\log D$, which increases up to $D = 1$; where "
        "$q > 0 = p$ it increases down to $D = 0$. The supremum is approached and not reached "
        "within $(0, 1)$; with $0 \\log 0 = 0$ and $D \\in [0, 1]$ the formula holds.",
        r"q = 0 < p:\; D^* = 1, \qquad p = 0 < q:\; D^* = 0",
    ),
    DerivationStep(
        "Where $p = q = 0$ the integrand is 0 whatever $D$ is: $D^*$ is undefined there, and any "
        "value is optimal. $D^*$ is unique only almost everywhere under $p + q$.",
        r"p = q = 0:\; 0 \log D + 0 \log(1 - D) = 0",
        check_disjoint_supports,
    ),
]
VALUE = [
    DerivationStep(
        "Put $D^*$ in, and divide both densities by their mean $m = (p + q)/2$, not by their sum: "
        "each logarithm gives up $\\log 2$.",
        r"p \log\frac{p}{p + q} + q \log\frac{q}{p + q} = p \log\frac{p}{m} + q \log\frac{q}{m} "
        r"- (p + q)\log 2",
        check_value_integrand,
    ),
    DerivationStep(
        "Integrate. Both densities have mass 1, and the first two terms are the divergences from "
        "the mixture.",
        r"C(G) = \mathrm{KL}(p \,\|\, m) + \mathrm{KL}(q \,\|\, m) - 2 \log 2 "
        r"= -\log 4 + 2\,\mathrm{JS}(p, q)",
        check_integrated_value,
    ),
    DerivationStep(
        "As $\\mathrm{JS} \\ge 0$ with equality for equal distributions alone, the generator's "
        "least value is $-\\log 4$, and it is reached where $q = p$. That says what is optimal, "
        "not that alternating gradient steps arrive there.",
        r"\min_G C(G) = -\log 4 \iff p_g = p_{\mathrm{data}}",
    ),
]
PROBLEM = Problem(
    title="The optimal discriminator",
    parts=[
        ProblemPart(
            "Prove that for a fixed generator $D^* = p/(p + p_g)$ maximises the objective.", PROOF
        ),
        ProblemPart("What if one of the densities, or both, are zero?", EDGES),
        ProblemPart("Which value does the generator's objective have at $D^*$?", VALUE),
        ProblemPart("Does a trained discriminator approach $D^*$?", [], run_discriminator_training),
    ],
)
