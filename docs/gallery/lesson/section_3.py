r"""
3. Generative adversarial networks
==================================

A game between a generator and a discriminator: its value, the best answer to a
generator, what is then minimised, and why the game does not settle by itself.
"""

# %%
# All its claims, run
# -------------------
#
# Each claim stands with the numbers that it predicts and those that the library
# measures. A number agrees if it lies within the tolerance, which is five standard
# errors where the measurement is random; the verdict follows from the numbers.

from pushforward.lesson import run

chapter = next(run.run_chapters(["3"]))
chapter

# %%
# One claim by hand
# -----------------
#
# A claim is an object: its statement, the function of the library under it, and a
# run. Change the function, or the claim's numbers, and see the verdict change.

from pushforward import lesson
from pushforward.lesson.claims import check_claim

for claim in lesson.section("3").claims[:3]:
    outcome = check_claim(claim, seed=1)
    print(f"{claim.id}: {outcome.verdict}, by {claim.function}")

# %%
# In a terminal: ``pushforward lesson 3 --out lesson``, which writes this as a page
# of its own with the figures as SVG, PDF and PNG, and all numbers as JSON.
#
# The building blocks: :doc:`adversarial </reference/theory/adversarial>`,
# ``exact.discriminator``; the family: :doc:`gan </families/gan>`.
