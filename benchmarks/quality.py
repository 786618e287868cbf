"""How good the defaults are, beside floors: ``python benchmarks/quality.py [SECTION ...]``.

Sections: density (gap to the exact entropy in the plane), modes (the ring of eight narrow modes),
bounds (a VAE whose evidence is known), digits (bits per dimension of held-out digits), steps
(few-step samplers against flow matching). Each prints as it goes and writes its rows into
docs/numbers.md, in place of those of the same data and
family; ``--seeds 3`` repeats with other seeds, ``--families a,b`` measures only these, and
``--quick`` trains for a few steps to see that all of it works, and writes nothing.
"""

import argparse
import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from sklearn.model_selection import train_test_split

from pushforward.data.builtin import datasets
from pushforward.families.vae import VAE
from pushforward.metrics.neighbours import known_modes
from pushforward.metrics.wasserstein import sliced_w2
from pushforward.model import Likelihood
from pushforward.networks.autoencoder import AutoencoderNetworks
from pushforward.networks.likelihoods import GaussianLikelihood
from pushforward.networks.mlp import Perceptron
from pushforward.theory.bounds import importance_bound
from pushforward.theory.exact.evidence import LinearVAE
from pushforward.training.fit import fit
from pushforward.training.trainer import Trainer, random_batches

PAGE = Path(__file__).parent.parent / "docs" / "numbers.md"
WRITTEN = "Written by benchmarks/quality.py, images.py, editing.py and memory.py."
DENSITIES = ["autoregressive", "normalizing_flow", "flow_matching", "ddpm", "edm", "cnf", "vae"]
MODES = ["flow_matching", "ddpm", "edm", "normalizing_flow", "gan", "wgan_gp"]
FEW_STEPS = ["flow_matching", "consistency", "mean_flow"]
Row = list[str]


class Effort(NamedTuple):
    """How much is done for a row.

    Arguments:
        seeds: How many fits.
        steps: Of each fit; the family's own if None.
        rows: Samples that are measured.
    """

    seeds: int = 1
    steps: int | None = None
    rows: int = 10_000


QUICK = Effort(steps=2, rows=40)


def spread(values: list[float], digits: int = 4) -> str:
    """The mean, and the spread between seeds where there are several."""
    mean = f"{np.mean(values):.{digits}f}"
    return f"{mean} ± {np.std(values, ddof=1):.{digits}f}" if len(values) > 1 else mean


def density(families: list[str], effort: Effort) -> Iterator[Row]:
    """KL(p || model) in nats, mean and deviation of the seeds: an absolute zero."""
    yield ["data", "family", "entropy", "gap", "standard error", "seconds"]
    for name in ("lesson", "8gaussians", "moons", "checkerboard"):
        data = datasets.load(name)
        x = data.sample(effort.rows, 123)
        for family in families:
            gaps, errors, began = [], [], time.monotonic()
            for seed in range(effort.seeds):
                model = fit(name, family, steps=effort.steps, seed=seed, progress=False)
                costly = model.likelihood is not Likelihood.EXACT
                rows = x[: effort.rows // 5] if costly else x
                lost = data.log_prob(rows) - model.log_prob(rows)
                gaps.append(float(lost.mean()))
                errors.append(float(lost.std() / len(rows) ** 0.5))
            seconds = (time.monotonic() - began) / effort.seeds
            yield [
                name,
                f"{family} ({model.likelihood})",
                f"{data.entropy:.4f}",
                spread(gaps),
                f"{np.mean(errors):.4f}",
                f"{seconds:.0f}",
            ]


def modes(families: list[str], effort: Effort) -> Iterator[Row]:
    """VEEGAN's protocol: eight modes of deviation 0.01 on the unit circle, 2,500 samples."""
    yield ["family", "modes", "high quality %", "reverse KL"]
    angle = 2 * math.pi * np.arange(8) / 8
    centres = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    rng = np.random.default_rng(0)
    x = centres[rng.integers(0, 8, 50_000)] + 0.01 * rng.standard_normal((50_000, 2))
    for family in families:
        found = []
        for seed in range(effort.seeds):
            model = fit(x, family, steps=effort.steps, seed=seed, progress=False)
            found.append(known_modes(model.draw(effort.rows // 4, seed=seed), centres, 0.01))
        yield [
            family,
            spread([float(f.covered) for f in found], 1),
            spread([100 * f.high_quality for f in found], 1),
            spread([f.reverse_kl for f in found], 3),
        ]


def bounds(families: list[str], effort: Effort) -> Iterator[Row]:
    """PPCA, d = 16, k = 4, sigma = 0.3: nats below log p, trained by 5,000 steps of 256."""
    weight = torch.as_tensor(np.random.default_rng(0).standard_normal((16, 4)))
    true = LinearVAE(weight, torch.zeros(16).double(), 0.3)
    yield ["bound", "nats below log p", "standard error"]
    names = ["ELBO, linear VAE, trained", "ELBO, factorised q", "IWAE-5", "IWAE-50", "IWAE-5000"]
    gaps: dict[str, list[np.ndarray]] = {name: [] for name in names}
    for seed in range(effort.seeds) if "vae" in families else ():
        torch.manual_seed(seed)
        evidence = true.evidence()
        linear = Perceptron(16, 0, 8, []), Perceptron(4, 0, 16, [])
        networks = AutoencoderNetworks(*linear, GaussianLikelihood(shared=True))
        model = VAE(networks, (16,), latent=4)
        recipe = model.recipe._replace(lr=2e-2, batch=256, clip=100.0)
        trainer = Trainer(model, recipe, effort.steps or 5000)
        for _ in trainer.run(random_batches(evidence.sample((65_536,)).float(), 256)):
            pass
        x = evidence.sample((effort.rows // 5,))
        q, exact, trained = true.factorised(x[:200]), evidence.log_prob(x), trainer.average.eval()
        found = {
            names[0]: exact - torch.stack([trained_bound(trained, x) for _ in range(50)]).mean(0)
        }
        found[names[1]] = exact[:200] - true.elbo(x[:200], q)
        for name, k in zip(names[2:], (5, 50, 5000)):
            found[name] = exact[:200] - importance_bound(true.log_weights(x[:200], q, k))
        for name, gap in found.items():
            gaps[name].append(gap.detach().numpy())
    for name, per_seed in gaps.items():
        pooled = np.concatenate(per_seed)
        error = pooled.std() / len(pooled) ** 0.5
        yield [name, spread([float(g.mean()) for g in per_seed]), f"{error:.4f}"]


def trained_bound(model: VAE, x: torch.Tensor) -> torch.Tensor:
    """One draw of the ELBO of each row."""
    with torch.no_grad():
        return model.log_prob(x.float(), particles=1).double()


def digits(families: list[str], effort: Effort) -> Iterator[Row]:
    """Bits per dimension on a stratified fifth: of the mass of a level, or a dequantised bound."""
    yield ["family", "kind", "bits/dim", "seconds"]
    data = datasets.load("digits")
    train, test = train_test_split(data.x, test_size=0.2, stratify=data.y, random_state=0)
    for family in families:
        bits, began = [], time.monotonic()
        for seed in range(effort.seeds):
            model = fit(train, family, steps=effort.steps, seed=seed, progress=False)
            nats = -model.log_prob(test, seed=seed).mean()
            discrete = model.model.preprocessing == "levels"
            bits.append(float(nats) / (64 * math.log(2)))
        kind = "levels" if discrete else "dequantised, a bound of levels"
        yield [family, kind, spread(bits, 3), f"{(time.monotonic() - began) / effort.seeds:.0f}"]


def steps(families: list[str], effort: Effort) -> Iterator[Row]:
    """Sliced W2 over that of two samples of the data's distribution, by network evaluations."""
    counts = [1, 2, 4, 16, 100]
    yield ["data", "family", *[f"NFE {k}" for k in counts]]
    for name in ("8gaussians", "checkerboard"):
        sample, n = datasets.load(name).sample, effort.rows
        floor = np.mean([sliced_w2(sample(n, 2 * k), sample(n, 2 * k + 1)) for k in range(1, 9)])
        for family in families:
            ratios: dict[int, list[float]] = {k: [] for k in counts}
            for seed in range(effort.seeds):
                model = fit(name, family, steps=effort.steps, seed=seed, progress=False)
                extra = {"sampler": "euler"} if family == "flow_matching" else {}
                for k in counts:
                    pairs = [
                        sliced_w2(sample(n, 90 + j), model.draw(n, seed=j, steps=k, **extra))
                        for j in range(4)
                    ]
                    ratios[k].append(float(np.mean(pairs) / floor))
            yield [name, family, *[spread(ratios[k], 2) for k in counts]]


class Section(NamedTuple):
    """What measures a table, the families in it, and how many leading cells name a row."""

    measure: Callable[..., Iterator[Row]]
    families: list[str]
    key: int


SECTIONS = {
    "density": Section(density, DENSITIES, 2),
    "modes": Section(modes, MODES, 1),
    "bounds": Section(bounds, ["vae"], 1),
    "digits": Section(digits, ["gaussian", "gaussian_mixture", "kde", *DENSITIES], 1),
    "steps": Section(steps, FEW_STEPS, 2),
}


def line(row: Row) -> str:
    """A row of a table."""
    return f"| {' | '.join(row)} |"


def record(name: str, section: Section, head: Row, row: Row) -> None:
    """Put a row into the section's table, in place of the one with the same key."""
    page = PAGE.read_text() if PAGE.exists() else f"# Numbers\n\n{WRITTEN}\n"
    about = f"{section.measure.__doc__} One thread, torch {torch.__version__.split('+')[0]}."
    begin, end = f"<!-- {name} -->\n", f"\n<!-- end of {name} -->"
    if begin not in page:
        page += f"\n## {name}\n\n{begin}{end}\n"
    before, rest = page.split(begin)
    old, after = rest.split(end)
    rows = [r for r in old.splitlines() if r.startswith("| ")][1:]
    same = line(row[: section.key])
    rows = [line(row) if r.startswith(same) else r for r in rows]
    if line(row) not in rows:
        rows.append(line(row))
    table = "\n".join([about, "", line(head), "|" + "---|" * len(head), *rows])
    PAGE.write_text(f"{before}{begin}{table}{end}{after}")


def print_rows(name: str, section: Section, found: Iterator[Row], *, keep: bool) -> None:
    """Print the head and the rows of a table as they come, and record them if asked."""
    head = next(found)
    print(" | ".join(head), flush=True)
    for row in found:
        print(" | ".join(row), flush=True)
        if keep:
            record(name, section, head, row)


def main() -> None:
    """Run the sections that are named, or all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sections", nargs="*", help=", ".join(SECTIONS))
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--families", type=lambda text: text.split(","))
    parser.add_argument("--quick", action="store_true", help="a few steps; nothing is written")
    chosen = parser.parse_args()
    effort = QUICK if chosen.quick else Effort(chosen.seeds)
    torch.set_num_threads(1)
    for name in chosen.sections or SECTIONS:
        section = SECTIONS[name]
        wanted = [f for f in section.families if f in (chosen.families or section.families)]
        print_rows(name, section, section.measure(wanted, effort), keep=not chosen.quick)


if __name__ == "__main__":
    main()
