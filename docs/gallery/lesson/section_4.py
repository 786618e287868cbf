r"""
4. Wasserstein distance and WGAN
================================

Optimal transport and its dual, a distance that stays useful where supports do not
overlap, and what a critic with clipped weights or a penalised gradient really
computes.
"""

# %%
# All its claims, run
# -------------------
#
# Each claim stands with the numbers that it predicts and those that the library
# measures. A number agrees if it lies within the tolerance, which is five standard
# errors where the measurement is random; the verdict follows from the numbers.

from pushforward.lesson import run

chapter = next(run.run_chapters(["4"]))
chapter

# %%
# One claim by hand
# -----------------
#
# A claim is an object: its statement, the function of the library under it, and a
# run. Change the function, or the claim's numbers, and see the verdict change.

from pushforward import lesson
from pushforward.lesson.claims import check_claim

for claim in lesson.section("4").claims[:3]:
    outcome = check_claim(claim, seed=1)
    print(f"{claim.id}: {outcome.verdict}, by {claim.function}")

# %%
# In a terminal: ``pushforward lesson 4 --out lesson``, which writes this as a page
# of its own with the figures as SVG, PDF and PNG, and all numbers as JSON.
#
# The building blocks: :doc:`transport </reference/theory/transport>`,
# :doc:`adversarial </reference/theory/adversarial>`; the families: :doc:`wgan
# </families/wgan>`, :doc:`wgan_gp </families/wgan_gp>`.
