"""Every block of code in the README and on the site runs, with budgets of a few steps."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from PIL import Image

from pushforward import cli
from pushforward.comparison import compare
from pushforward.data.builtin import datasets
from pushforward.lesson import run
from pushforward.training import setup
from pushforward.training.config import Budget

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
FENCE = re.compile(
    r"(?P<mark><!-- not run: [^>]+ -->\n)? *```(?P<kind>[\w{}-]*)\n(?P<body>.*?)^ *```$",
    flags=re.M | re.S,
)
STEPS, ROWS = 3, 400
NEEDS = {"diffusers": ("diffusers", "transformers")}  # optional packages, by page


class Block(NamedTuple):
    """A block of code: its language, its text, and whether it says that it is not run."""

    kind: str
    body: str
    marked: bool


def blocks(page: Path) -> list[Block]:
    found = FENCE.finditer(page.read_text())
    return [Block(m["kind"], m["body"], bool(m["mark"])) for m in found]


def commands(body: str) -> Iterator[list[str]]:
    for line in body.replace("\\\n", " ").splitlines():
        if words := shlex.split(line, comments=True):
            yield words


def run_command(words: list[str]) -> None:
    assert words[0] == "pushforward", f"only our own commands are run: {words}"
    with pytest.raises(SystemExit) as ended:
        cli.main(words[1:])
    assert ended.value.code in (0, None), " ".join(words)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Fits of a few steps on few rows, in a folder with the files that the README speaks of."""
    fresh = setup.new_run

    def short(request, place):
        budget = Budget(min(request.budget.steps or STEPS, STEPS))
        return fresh(
            request._replace(options={"batch": 32} | request.options, budget=budget), place
        )

    monkeypatch.setattr(setup, "new_run", short)
    monkeypatch.setattr(datasets, "SIZE", ROWS)
    monkeypatch.setattr(compare, "baselines_first", lambda: ["gaussian", "kde"])
    monkeypatch.setattr(compare, "SCORED", 20)
    monkeypatch.setattr(compare, "MEASURED", 100)
    whole = run.section
    part = {"figures": {}, "notes": {}}
    first = lambda key: whole(key)._replace(claims=whole(key).claims[:1], **part)  # noqa: E731
    monkeypatch.setattr(run, "section", first)
    monkeypatch.chdir(tmp_path)
    write_files()


def write_files() -> None:
    rng = np.random.default_rng(0)
    for name in ("measurements", "held_out", "new"):
        table = np.c_[rng.normal(50, 10, 100), rng.lognormal(3, 0.3, 100)]
        header = {"delimiter": ",", "comments": "", "header": "age,income"}
        np.savetxt(f"{name}.csv", table, **header)
    for kind in ("cat", "dog"):
        folder = Path("photos") / kind
        folder.mkdir(parents=True)
        for i in range(12):
            pixels = rng.integers(0, 256, (40, 32, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / f"{i}.png")


def programs(page: Path) -> list[Block]:
    return [b for b in blocks(page) if b.kind in ("python", "bash") and not b.marked]


PROGRAMS = [page for page in PAGES if programs(page)]


def test_a_block_is_a_program_a_figure_of_text_or_marked_as_not_run():
    for page in PAGES:
        for block in blocks(page):
            known = block.kind in ("python", "bash", "text") or block.kind.startswith("{")
            assert known or block.marked, f"{page.name}: a block of kind {block.kind!r}"


def test_few_blocks_are_not_run():
    every = [b for p in PAGES for b in blocks(p) if b.kind in ("python", "bash", "console")]
    assert sum(b.marked for b in every) <= len(every) / 5


@pytest.mark.parametrize("page", PROGRAMS, ids=lambda p: str(p.relative_to(ROOT)))
def test_the_blocks_of_a_page_run_in_order(page: Path, small: None):
    for package in NEEDS.get(page.stem, ()):
        pytest.importorskip(package)
    space = {"__name__": page.stem}
    for i, block in enumerate(programs(page)):
        if block.kind == "python":
            exec(compile(block.body, f"{page.name}, program {i + 1}", "exec"), space)
        else:
            for words in commands(block.body):
                run_command(words)
