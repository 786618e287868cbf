"""Section 2 of the lesson: the variational autoencoder."""

from .. import Section
from . import bounds, draws, figures, heads, weights

SECTION = Section(
    title="The variational autoencoder",
    claims=[*bounds.CLAIMS, *weights.CLAIMS, *draws.CLAIMS, *heads.CLAIMS],
    figures={
        "training_curves": figures.draw_training_curves,
        "latent_space": figures.draw_latent_space,
        "beta_sweep": figures.draw_beta_sweep,
        "overfitting": figures.draw_vae_overfitting,
    },
    notes={
        "A18": "q = N(mu, sigma^2) with a vector sigma^2 stands for N(mu, diag(sigma^2)); section "
        "2.6 writes it so, and so do we.",
        "A20": "Claims 2.5-batch and 2.5-entries. Every loss of the library sums over the entries "
        "of a data point and averages over the batch.",
        "A21": "Claim 2.5-overflow. The library's VAE returns its terms by name, encodes and "
        "reconstructs without drawing anything, samples from the prior, scores by the importance-"
        "weighted bound and takes beta as an option. The lesson's docstring names one result "
        "where the function returns three, and its eval() still draws latents.",
        "A78": "Claim 2.5-collapse; problem 2 uses a Gaussian head.",
        "R15": "Figure training_curves.",
        "R16": "Figure latent_space.",
        "R17": "Figure beta_sweep, and claim 2.4-water.",
    },
)
