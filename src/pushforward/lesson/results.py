"""What a run of the lesson leaves: answers, chapters and their figures, as plain records."""

from typing import Any, NamedTuple

from .claims import Number, Outcome, Verdict


class FigureFiles(NamedTuple):
    caption: str
    files: dict[str, bytes]


class DerivationLine(NamedTuple):
    why: str
    formula: str
    numbers: list[Number]


class Answer(NamedTuple):
    """A question of a practice problem, answered."""

    question: str
    lines: list[DerivationLine]
    discussion: list[str]
    numbers: list[Number]

    @property
    def all_numbers(self) -> list[Number]:
        return [n for line in self.lines for n in line.numbers] + self.numbers

    def to_dict(self) -> dict[str, Any]:
        lines = [line._asdict() | {"numbers": _as_dicts(line.numbers)} for line in self.lines]
        return self._asdict() | {"lines": lines, "numbers": _as_dicts(self.numbers)}


class ChapterResult(NamedTuple):
    """A section or a practice problem that was run."""

    key: str
    title: str
    outcomes: list[Outcome]
    answers: list[Answer]
    figures: dict[str, FigureFiles]
    notes: dict[str, str]
    seconds: float

    @property
    def heading(self) -> str:
        """What it is called: a section or a problem, with its number."""
        return f"{'Problem' if self.key.startswith('p') else 'Section'} {self.key.lstrip('p')}"

    @property
    def broken(self) -> list[str]:
        """What came out different from the record: claims, and numbers of problems."""
        numbers = [n for answer in self.answers for n in answer.all_numbers]
        claims = [outcome.claim.id for outcome in self.outcomes if not outcome.in_order]
        return claims + [n.what for n in numbers if not n.agrees]

    def count_verdicts(self, verdict: Verdict) -> int:
        return sum(outcome.verdict is verdict for outcome in self.outcomes)

    def to_dict(self) -> dict[str, Any]:
        """Everything measured, for machines; times are left out, so that two runs are equal."""
        return {
            "key": self.key,
            "title": self.title,
            "claims": [outcome.to_dict() for outcome in self.outcomes],
            "parts": [answer.to_dict() for answer in self.answers],
            "figures": {name: figure.caption for name, figure in self.figures.items()},
            "notes": self.notes,
            "broken": self.broken,
        }


def _as_dicts(numbers: list[Number]) -> list[dict[str, Any]]:
    return [number.to_dict() for number in numbers]
