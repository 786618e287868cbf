"""Section 5 of the lesson: diffusion models, scores and Langevin dynamics."""

from .. import Section
from . import figures, forward, langevin, reverse, sampling, scores

NOTES = {
    "R45": "The figure forward_process: 20,000 draws at t = 0, 250, 500, 750, 1000, each with its "
    "exact density."
}
SECTION = Section(
    title="Diffusion models, scores and Langevin dynamics",
    claims=[*forward.CLAIMS, *reverse.CLAIMS, *sampling.CLAIMS, *scores.CLAIMS, *langevin.CLAIMS],
    figures=figures.FIGURES,
    notes=NOTES,
)
