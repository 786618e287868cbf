"""``lesson``: the mathematics of generative models, run and corrected."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .options import Json, Quiet, Seed, app, say, show

if TYPE_CHECKING:
    from ..lesson.claims import Number, Outcome
    from ..lesson.run import Chapter


@app.command()
def lesson(
    sections: Annotated[
        list[str] | None,
        typer.Argument(metavar="[SECTION]", help="1 to 6, problems p1 to p5; all if none."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", metavar="FOLDER", help="Write lesson.html, .json, figures/."),
    ] = None,
    seed: Seed = 0,
    quiet: Quiet = False,
    as_json: Json = False,
) -> int:
    """Check every claim of the lesson by running it; exit code 1 if one comes out different."""
    from .. import progress
    from ..checkpoint import disk
    from ..lesson import html, run
    from ..options import seed as check_seed

    check_seed(seed)
    if out is not None:
        with disk(out):  # before the work, not after it
            out.mkdir(parents=True, exist_ok=True)
    chapters = []
    with progress.bar("lesson", show=not quiet) as update:
        for chapter in run.run(sections or (), seed=seed, draw=out is not None, update=update):
            chapters.append(chapter)
            if not as_json:
                print(text(chapter), flush=True)
    broken = [name for chapter in chapters for name in chapter.broken]
    written = html.write(chapters, out) if out is not None else None
    facts = {"chapters": [c.facts() for c in chapters], "broken": broken}
    total = sum(len(c.outcomes) for c in chapters)
    ending = f"{total} claims, {len(broken)} different from the record"
    show(facts, as_json, ending + (f"\npage: {written}" if written else ""))
    if broken:
        say(f"different from the record: {', '.join(broken)}")
    return int(bool(broken))


def text(chapter: "Chapter") -> str:
    """A chapter as text: claims with their numbers, and answers with theirs."""
    from ..lesson.formulas import terminal

    lines = [f"\n{chapter.heading}. {chapter.title}"]
    for outcome in chapter.outcomes:
        lines += claim(outcome)
    for solved in chapter.solved:
        checked = sum(bool(line.numbers) for line in solved.lines)
        steps = f" ({len(solved.lines)} steps, {checked} checked)" if solved.lines else ""
        lines.append(f"\n  {terminal(solved.question)}{steps}")
        lines += [f"    {terminal(paragraph)}" for paragraph in solved.discussion]
        lines += [number(n) for n in solved.numbers]
    return "\n".join(lines)


def claim(outcome: "Outcome") -> list[str]:
    """A claim: its verdict, what it says, what is right, and both sides' numbers."""
    from ..lesson.formulas import terminal

    said, evidence = outcome.claim, outcome.evidence
    record = "" if outcome.in_order else f" (on record: {said.verdict})"
    lines = [f"\n  {said.id}: {outcome.verdict}{record}", f"    {terminal(said.statement)}"]
    lines += [number(n) for n in evidence.lesson]
    if said.right:
        lines.append(f"    Right: {terminal(said.right)}")
    return lines + [number(n) for n in evidence.right]


def number(n: "Number") -> str:
    """A measured number beside the predicted one."""
    from ..lesson.formulas import terminal
    from ..lesson.html import measured, predicted

    mark = "=" if n.agrees else "\u2260"
    return f"      {mark} {terminal(n.what)}: {measured(n)} (predicted {predicted(n)})"
