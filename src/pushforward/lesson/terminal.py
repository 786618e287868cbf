"""A chapter as text for a terminal: claims with their numbers, and answers with theirs."""

from . import html
from .claims import Number, Outcome
from .formulas import text_to_unicode
from .results import ChapterResult


def chapter_text(chapter: ChapterResult) -> str:
    lines = [f"\n{chapter.heading}. {chapter.title}"]
    for outcome in chapter.outcomes:
        lines += _claim_lines(outcome)
    for answer in chapter.answers:
        checked = sum(bool(line.numbers) for line in answer.lines)
        steps = f" ({len(answer.lines)} steps, {checked} checked)" if answer.lines else ""
        lines.append(f"\n  {text_to_unicode(answer.question)}{steps}")
        lines += [f"    {text_to_unicode(paragraph)}" for paragraph in answer.discussion]
        lines += [_number_line(n) for n in answer.numbers]
    return "\n".join(lines)


def _claim_lines(outcome: Outcome) -> list[str]:
    said, evidence = outcome.claim, outcome.evidence
    record = "" if outcome.in_order else f" (on record: {said.verdict})"
    lines = [
        f"\n  {said.id}: {outcome.verdict}{record}",
        f"    {text_to_unicode(said.statement)}",
    ]
    lines += [_number_line(n) for n in evidence.lesson]
    if said.right:
        lines.append(f"    Right: {text_to_unicode(said.right)}")
    return lines + [_number_line(n) for n in evidence.right]


def _number_line(n: Number) -> str:
    measured, predicted = html.format_measured(n), html.format_predicted(n)
    sign = "=" if n.agrees else "≠"
    return f"      {sign} {text_to_unicode(n.what)}: {measured} (predicted {predicted})"
