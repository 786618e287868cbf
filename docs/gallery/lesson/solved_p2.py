r"""
Problem 2. A VAE on two modes
=============================

A VAE is fitted, and what the weight of the rate does to it is measured.
"""

# %%
# The answer
# ----------
#
# Each line of a derivation that is an identity is checked, by algebra, by
# quadrature or by automatic differentiation. The discussion of an experiment quotes
# what was measured.

from pushforward.lesson import run

chapter = next(run.run_chapters(["p2"]))
chapter

# %%
# In a terminal: ``pushforward lesson p2 --out lesson``.
#
# The lesson: :doc:`section 2 </lesson/section_2>`.
