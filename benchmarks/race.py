"""Timing that survives a noisy machine: contestants run in turn, and only ratios of one turn count.

Every block runs each contestant once for about the same time, the order turned round from block to
block; a ratio is taken within a block, so that whatever slows the machine slows both sides. The
clock counts the processor time of this process, which does not run while the system serves
somebody else; on one idle core it is the time on the wall.
"""

import argparse
import json
import platform
import time
import warnings
from collections.abc import Callable
from importlib import import_module
from itertools import pairwise
from statistics import median
from typing import NamedTuple

import torch

Run = Callable[[int], object]  # does the work that many times
Clock = Callable[[], float]


class Row(NamedTuple):
    """One line of the table: how many times longer ``what`` takes than ``against``."""

    group: str
    what: str
    against: str
    ratio: float = 0.0
    low: float = 0.0
    high: float = 0.0
    bar: float | None = None
    micros: float = 0.0  # one call of ``what``, in the median block
    note: str = ""

    @property
    def missed(self) -> bool:
        return self.bar is not None and self.ratio > self.bar


class Timings:
    """Seconds a call, by contestant and block."""

    def __init__(self, group: str, seconds: dict[str, list[float]]) -> None:
        self.group, self.seconds = group, seconds

    def row(self, what: str, against: str, bar: float | None = None, note: str = "") -> Row:
        """The median of the paired ratios, and the smallest and largest of them."""
        ratios = [a / b for a, b in zip(self.seconds[what], self.seconds[against])]
        micros = 1e6 * median(self.seconds[what])
        return Row(
            self.group, what, against, median(ratios), min(ratios), max(ratios), bar, micros, note
        )


class Plan(NamedTuple):
    """How long to race.

    Arguments:
        blocks: Turns that count, after one to warm up.
        seconds: About how long each contestant runs in one turn.
        clock: What tells the time.
        group: Races without this in their title are left out.
    """

    blocks: int = 15
    seconds: float = 0.1
    clock: Clock = time.process_time
    group: str = ""


def race(group: str, runs: dict[str, Run], plan: Plan) -> Timings:
    """Run all contestants in turn."""
    counts = {name: calls(run, plan) for name, run in runs.items()}
    order, seconds = list(runs), {name: [] for name in runs}
    for _ in range(plan.blocks):
        for name in order:
            seconds[name].append(clocked(runs[name], counts[name], plan.clock))
        order.reverse()
    return Timings(group, seconds)


def calls(run: Run, plan: Plan) -> int:
    """Warm up, and find how many calls fill a contestant's turn."""
    run(3)
    count, spent = 1, clocked(run, 1, plan.clock)
    while spent * count < plan.seconds / 4:
        count *= 4
        spent = clocked(run, count, plan.clock)
    return max(1, round(plan.seconds / spent))


def clocked(run: Run, count: int, clock: Clock) -> float:
    """Seconds a call."""
    start = clock()
    run(count)
    return (clock() - start) / count


def repeat(work: Callable[[], object]) -> Run:
    """A contestant that does one thing again and again."""

    def run(count: int) -> None:
        for _ in range(count):
            work()

    return run


PARTS = {"flow_matching": "flow_matching.solver"}  # the part that needs torchdiffeq


def absent(*packages: str) -> list[str]:
    """Which packages cannot be imported here, for whatever reason."""
    missing = []
    for name in packages:
        try:
            import_module(PARTS.get(name, name))
        except Exception:  # noqa: BLE001  (a broken torchvision raises RuntimeError)
            missing.append(name)
    return missing


Part = Callable[[Plan, bool], list[Row]]  # of a table: its plan, and whether it must be quick


def main(parts: dict[str, Part], about: str) -> None:
    """The command line of a benchmark: its parts in turn, as a table or as JSON."""
    parser = argparse.ArgumentParser(description=about.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="small networks, short blocks")
    parser.add_argument("--only", choices=parts, help="one part of the table")
    parser.add_argument("--group", default="", help="comparisons with this in their title")
    parser.add_argument("--blocks", type=int, help="turns that count; 25, or 11 if quick")
    parser.add_argument("--seconds", type=float, help="of a turn; 0.2, or 0.1 if quick")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    parser.add_argument("--wall", action="store_true", help="time on the wall, for an idle machine")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    blocks, seconds = (11, 0.1) if chosen.quick else (25, 0.2)
    clock = time.perf_counter if chosen.wall else time.process_time
    plan = Plan(chosen.blocks or blocks, chosen.seconds or seconds, clock, chosen.group)
    rows: list[Row] = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of peers
        for name, part in parts.items():
            if chosen.only in (None, name):
                rows += part(plan, chosen.quick)
    where = f"torch {torch.__version__}, one thread, {platform.processor() or platform.machine()}"
    if chosen.json:
        lines = [row._asdict() | {"missed": row.missed} for row in rows]
        print(json.dumps({"machine": where, "rows": lines}, indent=1))
    else:
        print(f"{where}; ratios are medians of {plan.blocks} blocks\n{table(rows)}")


def table(rows: list[Row]) -> str:
    """The rows as text, in columns."""
    head = ["what", "against", "ratio", "lowest", "highest", "bar", "", "us a call", "note"]
    lines = [head]
    for before, row in pairwise([None, *rows]):
        if before is None or row.group != before.group:
            lines += [[], [row.group]]
        if not row.ratio:
            lines.append([f"  {row.what}", row.note])
            continue
        bar = "" if row.bar is None else f"{row.bar:.2f}"
        verdict = "" if row.bar is None else "MISSED" if row.missed else "met"
        numbers = [f"{z:.3f}" for z in (row.ratio, row.low, row.high)]
        lines.append(
            [f"  {row.what}", row.against, *numbers, bar, verdict, f"{row.micros:,.0f}", row.note]
        )
    whole = [line for line in lines if len(line) == len(head)]
    widths = [max(len(line[j]) for line in whole) for j in range(len(head))]
    return "\n".join(
        "  ".join(
            cell.rjust(w) if j in (2, 3, 4, 5, 7) else cell.ljust(w)
            for j, (cell, w) in enumerate(zip(line, widths))
        ).rstrip()
        if len(line) == len(head)
        else "  ".join(line)
        for line in lines
    )
