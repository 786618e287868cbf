"""Section 2 of the lesson: the variational autoencoder."""

from . import Section

SECTION = Section(title="The variational autoencoder", claims=[], figures={}, notes={})
