r"""
Problem 3. The optimal discriminator
====================================

The best discriminator, the divergence that the game then minimises, and when it is
zero.
"""

# %%
# The answer
# ----------
#
# Each line of a derivation that is an identity is checked, by algebra, by
# quadrature or by automatic differentiation. The discussion of an experiment quotes
# what was measured.

from pushforward.lesson import run

chapter = next(run.run_chapters(["p3"]))
chapter

# %%
# In a terminal: ``pushforward lesson p3 --out lesson``.
#
# The lesson: :doc:`section 3 </lesson/section_3>`.
