"""Section 6 of the lesson: continuous flows, flow matching and consistency."""

from .. import Section
from .block import CLAIMS as OF_THE_CODE
from .consistency import CLAIMS as OF_CONSISTENCY
from .figures import FIGURES
from .flows import CLAIMS as OF_FLOWS
from .matching import CLAIMS as OF_MATCHING
from .paradigms import CLAIMS as OF_PARADIGMS
from .quality import CLAIMS as OF_QUALITY

EVERY = [
    *OF_FLOWS, *OF_MATCHING, *OF_THE_CODE, *OF_CONSISTENCY, *OF_QUALITY, *OF_PARADIGMS
]  # fmt: skip
SECTION = Section(
    title="Continuous flows, flow matching and consistency",
    claims=sorted(EVERY, key=lambda claim: claim.id.partition("-")[0]),
    figures=FIGURES,
    notes={"R69": "the figures of this section draw without a screen, on one core, seeded"},
)
