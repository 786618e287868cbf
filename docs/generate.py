"""Write into the pages of the families what the code knows of them: ``python docs/generate.py``.

``--check`` writes nothing and fails if a page is missing or out of date; ``--figures [NAME ...]``
fits families (all by default) to eight Gaussians, on at most 2.6 million draws, and draws them.
"""

import re
import sys
from pathlib import Path

from pushforward import families
from pushforward.diffusion import Diffusion
from pushforward.model import Encodes, Event, GenerativeModel, Imputes, Likelihood
from pushforward.theory import samplers

PAGES = Path(__file__).parent / "families"
DRAWS = 2_600_000  # that a family is fitted to: enough to see what it does
START, END = "<!-- facts -->", "<!-- end of facts -->"
KINDS = {
    Likelihood.EXACT: "exact",
    Likelihood.ODE: "of the probability flow, up to its solver's tolerance",
    Likelihood.LOWER_BOUND: "a lower bound",
    Likelihood.NONE: "none: it can be sampled, not scored",
}


def model_of(name: str) -> GenerativeModel:
    """A model of points in the plane with three classes."""
    return families.build(name, Event((2,), 4))


def abilities(model: GenerativeModel) -> list[str]:
    """What a model can do beside sampling."""
    own = isinstance(model, Imputes)
    listed = [f"likelihood: {KINDS[model.likelihood]}", "conditions: classes, numbers, vectors"]
    if isinstance(model, Encodes):
        listed.append("latents: `encode`, `decode`, `reconstruct`")
    if isinstance(getattr(model, "second", model), Diffusion):
        listed.append(f"samplers: {', '.join(f'`{s}`' for s in samplers.NAMES)}")
        listed.append("guidance: `guidance=` (0 unconditional, 1 conditional)")
    given = "a method of its own" if own else "importance resampling"
    if model.likelihood is Likelihood.NONE and not own:
        given = "the nearest of many draws"
    listed.append(f"partly known data (`given=`): {given}")
    players = [p for p in model.players() if p != "model"]
    if players:
        listed.append(f"players: {', '.join(players)}")
    return listed


def options(name: str) -> list[str]:
    """A table of a family's options, from the docstrings of its ``build`` and shared groups."""
    taken = families.family_options(name)
    if not taken:
        return []
    meaning = families.option_descriptions(name)
    rows = [f"| `{k}` | `{v!r}` | {meaning[k].replace('|', '/')} |" for k, v in taken.items()]
    return ["", "| option | default | meaning |", "|---|---|---|", *rows]


def facts(name: str) -> str:
    """The generated part of a page."""
    model = model_of(name)
    fields = {k: v for k, v in model.recipe._asdict().items() if k not in ("betas", "accumulate")}
    recipe = ", ".join(f"{k} {v:g}" for k, v in fields.items())
    lines = [f"- {fact}" for fact in abilities(model)]
    if model.players():
        lines.append(f"- training of points in the plane: {recipe}; each can be set")
    figure = PAGES / "figures" / f"{name}.png"
    if figure.exists():
        lines += ["", f"![{name} fitted to eight Gaussians](figures/{name}.png)", ""]
        lines += [f"*Fitted to eight Gaussians, on at most {DRAWS / 1e6:.1f} million draws.*"]
    return "\n".join(
        [
            START,
            f"`pushforward fit DATA --family {name.replace('_', '-')}`",
            "",
            *lines,
            *options(name),
            "",
            END,
        ]
    )


def page(name: str) -> tuple[Path, str, str]:
    """A family's page, its text, and what it should be."""
    path = PAGES / f"{name}.md"
    text = path.read_text() if path.exists() else f"# {name}\n\n{START}\n"
    pattern = f"{START}(?:.*?{END})?"
    if not re.search(pattern, text, flags=re.S):
        raise SystemExit(f"{path.name} has no line {START}")
    return path, text, re.sub(pattern, lambda _: facts(name), text, count=1, flags=re.S)


def overview() -> str:
    """A list of all pages."""
    rows = [
        f"| [{name}](families/{name}.md) | {families.family_summary(name)} "
        f"| {model_of(name).likelihood.value} |"
        for name in families.names()
    ]
    return "\n".join(
        ["# The families", "", "| family | what it is | likelihood |", "|---|---|---|", *rows, ""]
    )


def draw(names: list[str]) -> None:
    """Fit families and draw them."""
    from PIL import Image

    from pushforward.plots.figures import plot_run
    from pushforward.training.fit import fit

    (PAGES / "figures").mkdir(exist_ok=True)
    for name in names:
        recipe = model_of(name).recipe
        fitted = fit("8gaussians", name, steps=min(recipe.steps, DRAWS // recipe.batch))
        path = plot_run(fitted, PAGES / "figures" / f"{name}.png")
        with Image.open(path) as drawn:  # without the line that says how long it took here
            below = drawn.convert("RGB").crop((0, 52, *drawn.size))
        small = below.resize((below.width * 11 // 20, below.height * 11 // 20))
        small.quantize(256).save(path, optimize=True)
        print(f"{path.name}: {path.stat().st_size / 1000:.0f} kB", flush=True)


def main() -> int:
    """Write, or check."""
    if "--figures" in sys.argv:
        draw(sys.argv[sys.argv.index("--figures") + 1 :] or families.names())
    listing = PAGES.parent / "families.md"
    wanted = [page(name) for name in families.names()]
    wanted.append((listing, listing.read_text() if listing.exists() else "", overview()))
    stale = [(path, new) for path, old, new in wanted if old != new or not path.exists()]
    for path, new in stale:
        print(f"{'out of date' if '--check' in sys.argv else 'written'}: {path.name}")
        if "--check" not in sys.argv:
            path.write_text(new)
    return int(bool(stale) and "--check" in sys.argv)


if __name__ == "__main__":
    sys.exit(main())
