r"""
Problem 4. The forward process
==============================

The closed form of the noising chain, derived and measured.
"""

# %%
# The answer
# ----------
#
# Each line of a derivation that is an identity is checked, by algebra, by
# quadrature or by automatic differentiation. The discussion of an experiment quotes
# what was measured.

from pushforward.lesson import run

chapter = next(run.run_chapters(["p4"]))
chapter

# %%
# In a terminal: ``pushforward lesson p4 --out lesson``.
#
# The lesson: :doc:`section 5 </lesson/section_5>`.
