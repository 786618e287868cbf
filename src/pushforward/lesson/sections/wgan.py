"""Section 4 of the lesson: wasserstein distance and WGAN."""

from . import Section

SECTION = Section(title="Wasserstein distance and WGAN", claims=[], figures={}, notes={})
