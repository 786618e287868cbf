"""Claims that can be checked by running them, and what comes out.

A claim of the lesson predicts numbers. They are measured with the library's own functions, beside
the numbers that the right statement predicts where the lesson's is wrong or needs a condition.
Whether the lesson's numbers come out, and whether the right ones do, follows from the numbers.
Whether the right statement corrects the lesson's or adds a condition to it is a matter of the text:
that is read from the record. A claim is in order if its verdict is the one on record.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Literal, NamedTuple

import numpy as np
import torch

from ..errors import PushforwardError
from ..rng import seeded_rng


class Verdict(StrEnum):
    """What the numbers say of a statement."""

    HOLDS = "holds"
    ONLY_IF = "holds only if"
    WRONG = "wrong"
    UNEXPLAINED = "unexplained"  # neither the lesson's numbers come out, nor the right ones


class Number(NamedTuple):
    """A measured number beside the one that a statement predicts.

    Arguments:
        what: What was measured, with its unit; LaTeX between dollars.
        measured: From the library's functions.
        predicted: By the statement.
        tolerance: The largest difference that counts as agreement; five standard errors where
            the measurement is random.
        sense: Whether the statement predicts a value, or a bound on it.
    """

    what: str
    measured: float
    predicted: float
    tolerance: float = 1e-9
    sense: Literal["=", "<=", ">="] = "="

    @property
    def agrees(self) -> bool:
        """Whether the measurement is what the statement predicts. NaN never is."""
        over = self.measured - self.predicted
        distance = {"=": abs(over), "<=": over, ">=": -over}[self.sense]
        return distance <= self.tolerance

    def to_dict(self) -> dict[str, Any]:
        return self._asdict() | {"agrees": self.agrees}


class Evidence(NamedTuple):
    """The numbers of one claim.

    Arguments:
        lesson: What the statement predicts as it stands.
        right: What the right statement predicts: the correction, or the lesson's statement where
            its condition is met. Empty where the lesson is right.
    """

    lesson: list[Number]
    right: list[Number] = []  # noqa: RUF012  # never changed


@dataclass(frozen=True)
class Claim:
    """One statement of the lesson.

    Arguments:
        id: Its section and a name, ``3.3-equivalence``.
        statement: What the lesson says, in our words; LaTeX between dollars.
        verdict: On record.
        measure: Runs it, with torch's generator seeded.
        function: The library's function under it, a dotted name inside the package.
        right: The right statement, or the condition; empty where the lesson's holds.
        formula: LaTeX that is worth a line of its own.
        covers: Findings of the audit and requirements that it settles, ``A24 R23``.
    """

    id: str
    statement: str
    verdict: Verdict
    measure: Callable[[], Evidence]
    function: str
    right: str = ""
    formula: str = ""
    covers: str = ""


class Outcome(NamedTuple):
    """A claim that was run."""

    claim: Claim
    evidence: Evidence
    verdict: Verdict
    seconds: float

    @property
    def in_order(self) -> bool:
        return self.verdict is self.claim.verdict

    def to_dict(self) -> dict[str, Any]:
        claim = {k: v for k, v in vars(self.claim).items() if k != "measure"}
        sides = self.evidence._asdict().items()
        return claim | {
            "numbers": {side: [n.to_dict() for n in numbers] for side, numbers in sides},
            "recorded": self.claim.verdict,
            "verdict": self.verdict,
            "in_order": self.in_order,
        }


def judge_claim(claim: Claim, evidence: Evidence) -> Verdict:
    """The verdict that the numbers give.

    It holds if all of the lesson's numbers come out. It is wrong, or needs its condition (which of
    both is read from the record), if at least one does not and all of the right ones do.
    """
    if evidence.lesson and all(n.agrees for n in evidence.lesson):
        fine = all(n.agrees for n in evidence.right)
        return Verdict.HOLDS if fine else Verdict.UNEXPLAINED
    if evidence.right and all(n.agrees for n in evidence.right):
        return claim.verdict if claim.verdict is not Verdict.HOLDS else Verdict.WRONG
    return Verdict.UNEXPLAINED


def check_claim(claim: Claim, seed: int = 0) -> Outcome:
    """Run one claim. The caller's random numbers are as they were afterwards."""
    start = time.monotonic()
    with seeded_rng(seed):
        evidence = claim.measure()
    return Outcome(claim, evidence, judge_claim(claim, evidence), time.monotonic() - start)


def raises_error(call: Callable[[], object]) -> int:
    """1 if a call raises, by what the library refuses or by what torch cannot do, else 0."""
    try:
        call()
    except (PushforwardError, RuntimeError, TypeError, IndexError):
        return 1
    return 0


def numpy_generator() -> np.random.Generator:
    """NumPy's generator with a seed drawn from torch's, so that one seed settles both."""
    return np.random.default_rng(int(torch.randint(2**31, ())))


def double(*values: float) -> torch.Tensor:
    """A vector of float64, in which identities are checked."""
    return torch.tensor(values, dtype=torch.float64)
