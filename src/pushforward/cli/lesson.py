"""``lesson``: the mathematics of generative models, run and corrected."""

from pathlib import Path
from typing import Annotated

from . import options
from .options import app, argument, option, print_err, print_result


@app.command()
def lesson(
    sections: Annotated[
        list[str] | None,
        argument("Sections 1 to 6 and problems p1 to p5.", "[SECTION]", show_default="all"),
    ] = None,
    out: Annotated[
        Path | None, option("Folder for lesson.html, .json, figures/.", "FOLDER", "--out", "-o")
    ] = None,
    seed: options.Seed = 0,
    quiet: options.Quiet = False,
    as_json: options.Json = False,
) -> int:
    """Check every claim of the lesson by running it; exit code 1 if any verdict changes."""
    from .. import progress
    from ..checkpoint import disk_errors
    from ..lesson import html, run, terminal
    from ..options import check_seed

    check_seed(seed)
    if out is not None:
        with disk_errors(out):  # before the work, not after it
            out.mkdir(parents=True, exist_ok=True)
    chapters = []
    with progress.terminal_bar("lesson", show=not quiet) as update:
        for chapter in run.run_chapters(
            sections or (), seed=seed, draw=out is not None, update=update
        ):
            chapters.append(chapter)
            if not as_json:
                print(terminal.chapter_text(chapter), flush=True)
    broken = [name for chapter in chapters for name in chapter.broken]
    written = html.write_lesson(chapters, out) if out is not None else None
    facts = {"chapters": [c.to_dict() for c in chapters], "broken": broken}
    total = sum(len(c.outcomes) for c in chapters)
    ending = f"{total} claims, {len(broken)} different from the record"
    print_result(facts, as_json, ending + (f"\npage: {written}" if written else ""))
    if broken:
        print_err(f"different from the record: {', '.join(broken)}")
    return int(bool(broken))
