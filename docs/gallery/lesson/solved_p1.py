r"""
Problem 1. Two derivations of the evidence lower bound
======================================================

By Jensen's inequality, and as a difference of divergences: the same bound, with and
without its gap.
"""

# %%
# The answer
# ----------
#
# Each line of a derivation that is an identity is checked, by algebra, by
# quadrature or by automatic differentiation. The discussion of an experiment quotes
# what was measured.

from pushforward.lesson import run

chapter = next(run.run_chapters(["p1"]))
chapter

# %%
# In a terminal: ``pushforward lesson p1 --out lesson``.
#
# The lesson: :doc:`section 2 </lesson/section_2>`.
