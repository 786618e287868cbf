"""Practice problem 4: the forward process."""

from .. import DerivationStep, Problem, ProblemPart
from . import experiments, identities

DERIVATION = [
    DerivationStep(
        "One step of the chain, with $\\alpha_t = 1 - \\beta_t$ and $z_t \\sim \\mathcal N(0, I)$ "
        "independent of everything before. For $t = 1$ it is the claim, since "
        "$\\bar\\alpha_1 = \\alpha_1$.",
        "x_t = \\sqrt{\\alpha_t}\\,x_{t-1} + \\sqrt{1-\\alpha_t}\\,z_t",
        identities.check_first_step,
    ),
    DerivationStep(
        "Suppose that the claim holds for $t - 1$: for some $\\bar\\varepsilon \\sim \\mathcal "
        "N(0, I)$, independent of $x_0$ and a function of $z_1, \\dots, z_{t-1}$ alone,",
        "x_{t-1} = \\sqrt{\\bar\\alpha_{t-1}}\\,x_0 + "
        "\\sqrt{1-\\bar\\alpha_{t-1}}\\,\\bar\\varepsilon",
    ),
    DerivationStep(
        "Insert it into the step.",
        "x_t = \\sqrt{\\alpha_t\\bar\\alpha_{t-1}}\\,x_0 + "
        "\\sqrt{\\alpha_t(1-\\bar\\alpha_{t-1})}\\,\\bar\\varepsilon + \\sqrt{1-\\alpha_t}\\,z_t",
    ),
    DerivationStep(
        "The coefficient of $x_0$ is $\\sqrt{\\bar\\alpha_t}$, by the definition of "
        "$\\bar\\alpha_t = \\alpha_t\\bar\\alpha_{t-1}$.",
        "\\mathbb E[x_t | x_0] = \\sqrt{\\bar\\alpha_t}\\,x_0",
        identities.check_mean_product,
    ),
    DerivationStep(
        "$\\bar\\varepsilon$ and $z_t$ are independent, because $\\bar\\varepsilon$ depends on "
        "earlier noise only. A sum of independent Gaussians is Gaussian: characteristic functions "
        "multiply.",
        "e^{i u a m - a^2 s^2 u^2/2}\\;e^{-b^2 u^2/2} = e^{i u a m - (a^2 s^2 + b^2) u^2/2}",
        identities.check_characteristic_function,
    ),
    DerivationStep(
        "So variances add.",
        "\\alpha_t(1-\\bar\\alpha_{t-1}) + (1-\\alpha_t) = 1 - \\alpha_t\\bar\\alpha_{t-1} "
        "= 1 - \\bar\\alpha_t",
        identities.check_variance_sum,
    ),
    DerivationStep(
        "That is the claim for $t$, which closes the induction. In each entry the noise is "
        "independent, so the covariance is a multiple of $I$.",
        "q(x_t | x_0) = \\mathcal N(\\sqrt{\\bar\\alpha_t}\\,x_0, (1-\\bar\\alpha_t) I)",
        identities.check_whole_table,
    ),
    DerivationStep(
        "The same without induction: unrolled, each noise is shrunk by the steps after it, and the "
        "variances telescope.",
        "\\sum_{s=1}^t (1-\\alpha_s)\\prod_{r=s+1}^t \\alpha_r = 1 - \\prod_{s=1}^t \\alpha_s",
        identities.check_telescoping_sum,
    ),
]
LIMIT = [
    DerivationStep(
        "How far the end is from noise, for one data point in one dimension: the divergence "
        "between two Gaussians with the moments of P4.1.",
        "\\mathrm{KL}(q(x_T | x_0) \\| \\mathcal N(0, 1)) = \\tfrac12\\big(\\bar\\alpha_T x_0^2 - "
        "\\bar\\alpha_T - \\log(1-\\bar\\alpha_T)\\big)",
        identities.check_gaussian_kl,
    ),
    DerivationStep(
        "For little signal it is half the signal's energy. It is 0 only at $\\bar\\alpha_T = 0$, "
        "so it tends to 0 exactly if $\\bar\\alpha_T$ does.",
        "= \\tfrac12\\bar\\alpha_T x_0^2 + \\tfrac14\\bar\\alpha_T^2 + O(\\bar\\alpha_T^3)",
        identities.check_small_signal,
    ),
    DerivationStep(
        "The divergence is convex, so that the distribution of all data is at least as close.",
        "\\mathrm{KL}(q(x_T) \\| \\mathcal N) \\le "
        "\\mathbb E_{x_0}\\mathrm{KL}(q(x_T | x_0) \\| \\mathcal N)",
        identities.check_kl_convexity,
    ),
    DerivationStep(
        "When does $\\bar\\alpha_T = \\prod_t(1-\\beta_t)$ tend to 0? Because $-\\beta/(1-\\beta) "
        "\\le \\log(1-\\beta) \\le -\\beta$, exactly if the sum of all $\\beta_t$ is infinite (if "
        "$\\beta_t \\to 1$ for some of them, all the more).",
        "-\\frac{1}{1-\\max\\beta}\\sum_t\\beta_t \\le \\log\\bar\\alpha_T \\le -\\sum_t\\beta_t",
        identities.check_product_bounds,
    ),
    DerivationStep(
        "So $T \\to \\infty$ alone is not enough. With smaller steps of one continuous schedule "
        "the sum tends to an integral, and $\\bar\\alpha_T$ to a positive number.",
        "\\beta_t = \\frac1T\\,\\beta\\Big(\\frac tT\\Big): \\qquad "
        "\\bar\\alpha_T \\to e^{-\\int_0^1\\beta(s)\\,ds} = e^{-10.05}",
        identities.check_riemann_sum,
    ),
    DerivationStep(
        "A schedule with a finite sum keeps most of the signal for ever.",
        "\\beta_t = \\frac1{4t^2}: \\qquad \\prod_{t=1}^\\infty\\Big(1-\\frac1{4t^2}\\Big) = "
        "\\frac2\\pi",
        identities.check_wallis_product,
    ),
    DerivationStep(
        "Betas may tend to 0, as long as their sum is infinite.",
        "\\beta_t = \\frac1{t+1}: \\qquad \\bar\\alpha_T = \\prod_{t=1}^T\\frac t{t+1} = "
        "\\frac1{T+1} \\to 0",
        identities.check_harmonic_limit,
    ),
    DerivationStep(
        "The right statement, then: $x_T$ tends to $\\mathcal N(0, I)$ for every data point if and "
        "only if",
        "\\sum_{t=1}^\\infty \\beta_t = \\infty",
    ),
]
PROBLEM = Problem(
    title="The forward process",
    parts=[
        ProblemPart("Derive $q(x_t | x_0)$ from the recursion.", DERIVATION),
        ProblemPart(
            "Show the distribution of $x_t$ for data on the line at several $t$.",
            [],
            experiments.run_forward_process,
        ),
        ProblemPart(
            "Show that $x_T$ tends to $\\mathcal N(0, I)$, and when.",
            LIMIT,
            experiments.run_long_chains,
        ),
    ],
)
