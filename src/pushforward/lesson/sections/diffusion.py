"""Section 5 of the lesson: diffusion models, scores and Langevin dynamics."""

from . import Section

SECTION = Section(
    title="Diffusion models, scores and Langevin dynamics", claims=[], figures={}, notes={}
)
