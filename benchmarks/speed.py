"""Speed, side by side in one run on one thread: steps, samplers, densities, a Fréchet distance.

Every ratio is the median over blocks in which all contestants run in turn; the lowest and highest
of the blocks stand beside it. Peers take part where they are installed.

Usage:
    python benchmarks/speed.py [--quick] [--only PART] [--group TEXT] [--json]

``--only`` takes steps, draws, densities or frechet; ``--group`` keeps the comparisons whose title
holds the text, e.g. ``--group "ddpm 3x64"``. Times are of the processor; ``--wall`` takes the clock
on the wall instead, on a machine that is idle. Each part can be run as a file of its own as well.
"""

import densities
import draws
import frechet
import steps
from race import main

PARTS = {
    "steps": steps.rows,
    "draws": draws.rows,
    "densities": densities.rows,
    "frechet": frechet.rows,
}

if __name__ == "__main__":
    main(PARTS, __doc__)
