"""Section 1 of the lesson: goals of generative models."""

from . import Section

SECTION = Section(title="Goals of generative models", claims=[], figures={}, notes={})
