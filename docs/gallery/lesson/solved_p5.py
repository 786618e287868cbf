r"""
Problem 5. Flow matching and diffusion
======================================

Two paths from noise to data, their velocities, and how many steps each needs.
"""

# %%
# The answer
# ----------
#
# Each line of a derivation that is an identity is checked, by algebra, by
# quadrature or by automatic differentiation. The discussion of an experiment quotes
# what was measured.

from pushforward.lesson import run

chapter = next(run.run_chapters(["p5"]))
chapter

# %%
# In a terminal: ``pushforward lesson p5 --out lesson``.
#
# The lesson: :doc:`section 6 </lesson/section_6>`.
