"""Section 6 of the lesson: continuous flows, flow matching and consistency."""

from . import Section

SECTION = Section(
    title="Continuous flows, flow matching and consistency", claims=[], figures={}, notes={}
)
