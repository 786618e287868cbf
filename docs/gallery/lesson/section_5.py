r"""
5. Diffusion models, scores and Langevin dynamics
=================================================

The forward process and its closed form, the posterior of one step, the loss that
remains of the variational bound, its equivalence to the regression of a score, and
the dynamics that sample from a score.
"""

# %%
# All its claims, run
# -------------------
#
# Each claim stands with the numbers that it predicts and those that the library
# measures. A number agrees if it lies within the tolerance, which is five standard
# errors where the measurement is random; the verdict follows from the numbers.

from pushforward.lesson import run

chapter = next(run.run_chapters(["5"]))
chapter

# %%
# One claim by hand
# -----------------
#
# A claim is an object: its statement, the function of the library under it, and a
# run. Change the function, or the claim's numbers, and see the verdict change.

from pushforward import lesson
from pushforward.lesson.claims import check_claim

for claim in lesson.section("5").claims[:3]:
    outcome = check_claim(claim, seed=1)
    print(f"{claim.id}: {outcome.verdict}, by {claim.function}")

# %%
# In a terminal: ``pushforward lesson 5 --out lesson``, which writes this as a page
# of its own with the figures as SVG, PDF and PNG, and all numbers as JSON.
#
# The building blocks: :doc:`tables of beta </reference/theory/ddpm_schedule>`,
# :doc:`samplers </reference/theory/samplers>`,
# :doc:`score_matching </reference/theory/score_matching>`,
# :doc:`langevin </reference/theory/langevin>`;
# the families: :doc:`ddpm </families/ddpm>`, :doc:`ncsn </families/ncsn>`.
