"""Section 3 of the lesson: generative adversarial networks."""

from . import Section

SECTION = Section(title="Generative adversarial networks", claims=[], figures={}, notes={})
