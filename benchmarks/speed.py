"""Speed, side by side in one run on one thread: steps, samplers, densities, a Fréchet distance.

Every ratio is the median over blocks in which all contestants run in turn; the lowest and highest
of the blocks stand beside it. Peers take part where they are installed.

Usage:
    python benchmarks/speed.py [--quick] [--only PART] [--group TEXT] [--json]

``--only`` takes steps, draws, densities or frechet; ``--group`` keeps the comparisons whose title
holds the text, e.g. ``--group "ddpm 3x64"``. Times are of the processor; ``--wall`` takes the clock
on the wall instead, on a machine that is idle.
"""

import argparse
import json
import platform
import time
import warnings

import densities
import draws
import frechet
import steps
import torch
from race import Plan, Row, table

PARTS = {
    "steps": steps.rows,
    "draws": draws.rows,
    "densities": densities.rows,
    "frechet": frechet.rows,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="small networks, short blocks")
    parser.add_argument("--only", choices=PARTS, help="one part of the table")
    parser.add_argument("--group", default="", help="comparisons with this in their title")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    parser.add_argument("--wall", action="store_true", help="time on the wall, for an idle machine")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    warnings.simplefilter("ignore")  # of peers
    clock = time.perf_counter if chosen.wall else time.process_time
    blocks, seconds = (11, 0.1) if chosen.quick else (25, 0.2)
    plan = Plan(blocks, seconds, clock, chosen.group)
    rows: list[Row] = []
    for name, part in PARTS.items():
        if chosen.only in (None, name):
            rows += part(plan, chosen.quick)
    where = f"torch {torch.__version__}, one thread, {platform.processor() or platform.machine()}"
    if chosen.json:
        lines = [row._asdict() | {"missed": row.missed} for row in rows]
        print(json.dumps({"machine": where, "rows": lines}, indent=1))
    else:
        print(f"{where}; ratios are medians of {plan.blocks} blocks\n{table(rows)}")


if __name__ == "__main__":
    main()
