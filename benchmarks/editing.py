"""What editing keeps, by an exact reader: ``python benchmarks/editing.py [EXPERIMENT ...]``.

Experiments: shape (circles to squares), ground (white backgrounds to black ones). Each learns from
two sets of pictures that are not paired, moves held-out pictures of the first, and prints how often
the reader finds the new factor, and every other as it was. Methods: a flow from set to set with
each coupling, and noise added and taken away at several strengths under the condition.
"""

import argparse
import time
from collections.abc import Iterator

import numpy as np

from pushforward.data import shapes
from pushforward.fitting import fit

EXPERIMENTS = {
    "shape": ("circle", "square", {"background": "white"}),
    "background": ("white", "black", {}),
}
HELD_OUT = 500


def pictures(factor: str, word: str, fixed: dict[str, str], n: int, seed: int, side: int):
    """Scenes with one factor fixed to a word, and their pictures."""
    scene = shapes.scenes(n, seed, **{factor: word}, **fixed)
    return scene, shapes.render(scene, side)


def kept(before: shapes.Scene, after: np.ndarray, factor: str, word: str) -> dict[str, float]:
    """How often the factor has become the word, each other is as before, and place and size are.

    ``rms`` is the median difference from the reader's own rendering, in levels: how clean they are.
    """
    found, rms = shapes.read(after)
    same = {k: getattr(found, k) == getattr(before, k) for k in shapes.FACTORS if k != factor}
    shares = {k: float(v.mean()) for k, v in same.items()}
    both = same["row"] & same["column"] & same["size"]
    became = float((found.words(factor) == word).mean())
    return {f"{word}": became, "place and size": float(both.mean())} | shares | {
        "rms": float(np.median(rms))
    }  # fmt: skip


def moved(name: str, options: argparse.Namespace) -> Iterator[tuple[str, dict[str, float]]]:
    """What each method keeps."""
    first, last, fixed = EXPERIMENTS[name]
    n, side = options.rows, options.side
    start, x0 = pictures(name, first, fixed, n, 0, side)
    _, x1 = pictures(name, last, fixed, n, 1, side)
    held, x = pictures(name, first, fixed, HELD_OUT, 2, side)
    common = {"minutes": options.minutes, "network": options.network, "seed": 0}
    common["batch"] = options.batch
    for coupling in filter(None, options.couplings.split(",")):
        model = fit(x1, "flow_matching", source=x0, coupling=coupling, progress=False, **common)
        done = model.translate(x, tolerance=1e-3)
        yield (
            f"flow, coupling={coupling}, {model.config['steps']} steps",
            kept(held, done, name, last),
        )
    strengths = [float(word) for word in options.strengths.split(",") if word]
    if not strengths:
        return
    both, y = np.concatenate([x0, x1]), np.repeat([first, last], n)
    model = fit(both, "flow_matching", y, progress=False, **common)
    for strength in strengths:
        done = model.edit(x, last, strength=strength, seed=0)
        yield (
            f"edit, strength={strength}, {model.config['steps']} steps",
            kept(held, done, name, last),
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("experiments", nargs="*", default=list(EXPERIMENTS))
    parser.add_argument("--minutes", type=float, default=3.0, help="of each fit")
    parser.add_argument("--side", type=int, default=16)
    parser.add_argument("--rows", type=int, default=4000, help="of each set")
    parser.add_argument("--network", default="auto")
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--couplings", default="independent,ot")
    parser.add_argument("--strengths", default="0.3,0.5,0.7")
    options = parser.parse_args()
    for name in options.experiments:
        began = time.monotonic()
        for method, shares in moved(name, options):
            words = ", ".join(f"{k} {v:.3g}" for k, v in shares.items())
            print(f"{name}: {method}: {words} ({time.monotonic() - began:.0f} s)", flush=True)


if __name__ == "__main__":
    main()
