r"""
1. Goals of generative models
=============================

What it means to learn a distribution: maximum likelihood and the divergences behind
it, explicit and implicit densities, and what each way of training minimises. The
running example is a mixture of two Gaussians on a line, whose density, moments and
entropy are known.
"""

# %%
# All its claims, run
# -------------------
#
# Each claim stands with the numbers that it predicts and those that the library
# measures. A number agrees if it lies within the tolerance, which is five standard
# errors where the measurement is random; the verdict follows from the numbers.

from pushforward.lesson import run

chapter = next(run.run_chapters(["1"]))
chapter

# %%
# One claim by hand
# -----------------
#
# A claim is an object: its statement, the function of the library under it, and a
# run. Change the function, or the claim's numbers, and see the verdict change.

from pushforward import lesson
from pushforward.lesson.claims import check_claim

for claim in lesson.section("1").claims[:3]:
    outcome = check_claim(claim, seed=1)
    print(f"{claim.id}: {outcome.verdict}, by {claim.function}")

# %%
# In a terminal: ``pushforward lesson 1 --out lesson``, which writes this as a page
# of its own with the figures as SVG, PDF and PNG, and all numbers as JSON.
#
# The building blocks: :doc:`targets </reference/theory/exact/targets>`,
# :doc:`likelihood </likelihood>`.
