r"""
6. Continuous flows, flow matching and consistency
==================================================

Flows that are solutions of a differential equation, the likelihood along them, the
regression of a velocity, and maps that jump to the end of the flow. The lesson's
time runs from noise to data here, the library's from data to noise everywhere
(:doc:`/conventions`).
"""

# %%
# All its claims, run
# -------------------
#
# Each claim stands with the numbers that it predicts and those that the library
# measures. A number agrees if it lies within the tolerance, which is five standard
# errors where the measurement is random; the verdict follows from the numbers.

from pushforward.lesson import run

chapter = next(run.run_chapters(["6"]))
chapter

# %%
# One claim by hand
# -----------------
#
# A claim is an object: its statement, the function of the library under it, and a
# run. Change the function, or the claim's numbers, and see the verdict change.

from pushforward import lesson
from pushforward.lesson.claims import check_claim

for claim in lesson.section("6").claims[:3]:
    outcome = check_claim(claim, seed=1)
    print(f"{claim.id}: {outcome.verdict}, by {claim.function}")

# %%
# In a terminal: ``pushforward lesson 6 --out lesson``, which writes this as a page
# of its own with the figures as SVG, PDF and PNG, and all numbers as JSON.
#
# The building blocks: :doc:`paths </reference/theory/paths>`, :doc:`densities
# </reference/theory/densities>`, :doc:`consistency
# </reference/theory/consistency>`; the families: :doc:`cnf </families/cnf>`,
# :doc:`flow_matching </families/flow_matching>`, :doc:`consistency
# </families/consistency>`.
