"""How good images are: ``python benchmarks/images.py SECTION ... --out FOLDER``.

Sections: digits, mnist, fashion (classes), shapes (captions, read back without learning), emoji
(captions). Each fits its families to four fifths of the images with their own recipes, and prints
and writes into docs/numbers.md what samples of given conditions are like: whether a classifier of
the training images recognises the condition, and the Fréchet distance of its features to those of
the other fifth beside that of as many training images; bits per dimension of held-out images where
there is a density, beside a lossless codec. ``--out`` keeps the runs, which are measured again
instead of fitted again, and a grid of samples of each. Minutes are the processor's, on one thread.
``--quick`` trains for two steps to see that all of it works, and writes nothing but ``--out``.
"""

import argparse
import json
import math
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from quality import Row, Section, print_rows
from sklearn.model_selection import train_test_split

import pushforward as pf
from pushforward.data.builtin import datasets, shapes
from pushforward.data.text_encoders import load_minilm
from pushforward.inference.fitted_model import FittedModel
from pushforward.metrics.classifier import fit_classifier
from pushforward.metrics.codecs import codec_bits
from pushforward.metrics.extractors import feature_extractor, fit_pixel_range
from pushforward.metrics.wasserstein import gaussian_fit_distance
from pushforward.model import Likelihood

PATHS = ["flow_matching", "ddpm", "edm"]
GUIDED = [*PATHS, "latent_diffusion"]
CLASSED = [*GUIDED, "consistency", "mean_flow", "vae", "wgan_gp"]
FEW: dict[str, list[dict[str, Any]]] = {
    "consistency": [{"steps": 1}, {"steps": 2}],
    "mean_flow": [{"steps": 1}, {"steps": 50}],
}
SHOWN = ("shape", "colour", "row", "column")  # what an image of a caption must show
PLACES = 11  # of the 108 shapes, colours and places, left out of training


class Plan(NamedTuple):
    """What the command line says of every section.

    Arguments:
        out: Where runs and grids go.
        minutes: On the wall for each fit; the family's own steps if None.
        precision: Of the fit; bfloat16 doubles the pace of processors that have it.
        guidance: The scales to draw with.
        steps: Of the samplers; the families' own if None.
        draws: Images to sample for each row of a table.
        scored: Held-out images to score.
        fit_steps: Of each fit instead of minutes.
    """

    out: Path
    minutes: float | None
    precision: str | None
    guidance: list[float]
    steps: int | None
    draws: int
    scored: int
    fit_steps: int | None = None


class Judge:
    """A classifier of the training images, and the held-out ones in its features.

    Arguments:
        train: Images to learn from.
        labels: What they show.
        test: The held-out images.
        n: Of how many training images the floors are.
        beside: Other features to measure in, by the name that ``evaluate --features`` takes.
    """

    def __init__(
        self,
        train: np.ndarray,
        labels: np.ndarray,
        test: np.ndarray,
        n: int,
        beside: Sequence[str] = (),
    ) -> None:
        self.mean, self.scale = train.mean(0), train.std()
        self.net = fit_classifier(self.seen(train), labels)
        seen = fit_pixel_range(train.astype(np.float64), train.shape[1:])
        others = [feature_extractor(name, seen) for name in beside]
        self.names = [f"FD-{other.name}" for other in others]
        self.views = [lambda x: self.net.features(self.seen(x))]
        self.views += [lambda x, e=e: e.features(x.reshape(len(x), -1)).x for e in others]
        self.test = [view(test) for view in self.views]
        some = train[np.random.default_rng(1).permutation(len(train))[:n]]
        self.floors = self.measured(some)

    def seen(self, x: np.ndarray) -> np.ndarray:
        """Images as the classifier takes them, their deviation about 1."""
        return (np.asarray(x, np.float64) - self.mean) / self.scale

    def accuracy(self, x: np.ndarray, labels: np.ndarray) -> float:
        """How often it sees the labels."""
        return float((self.net.predict(self.seen(x)) == labels).mean())

    def measured(self, x: np.ndarray) -> np.ndarray:
        """The Fréchet distances to the held-out images, in the features of each network."""
        pairs = zip(self.views, self.test, strict=True)
        return np.array([gaussian_fit_distance(test, view(x)) for view, test in pairs])

    def distances(self, x: np.ndarray) -> list[str]:
        """The same in units of their floors, in words."""
        return [f"{d:.2f}" for d in self.measured(x) / self.floors]


def fitted(
    name: str, family: str, x: np.ndarray, y: np.ndarray, plan: Plan, **options: Any
) -> tuple[Any, float]:
    """A model of images, and the processor's minutes it took: that of a run, if there is one."""
    options |= {"minutes": plan.minutes, "steps": plan.fit_steps, "precision": plan.precision}
    folder = plan.out / f"{name}-{family}"
    note = folder.with_suffix(".json")
    if note.exists():
        return pf.load(folder), json.loads(note.read_text())["minutes"]
    began = time.process_time()
    model = pf.fit(x, family, y=y, out=folder, progress=False, **options)
    minutes = (time.process_time() - began) / 60
    note.write_text(json.dumps({"minutes": minutes}))
    return model, minutes


def drawn(model: FittedModel, y: np.ndarray, top: int, **options: Any) -> np.ndarray:
    """Images of conditions, in whole levels."""
    return np.clip(np.rint(model.draw(len(y), y=y, seed=0, **options)), 0, top)


def grid(x: np.ndarray, top: int, path: Path, columns: int = 10) -> None:
    """Images in rows, a pixel apart, enlarged to some 600 pixels."""
    x = (np.asarray(x)[: len(x) // columns * columns] * (255 / top)).astype(np.uint8)
    around = [(0, 0), (1, 0), (1, 0), (0, 0)][: x.ndim]
    x = np.pad(x, around, constant_values=128)
    rows = [np.concatenate(list(x[i : i + columns]), 1) for i in range(0, len(x), columns)]
    sheet = np.concatenate(rows)
    times = max(1, 600 // sheet.shape[1])
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(sheet.repeat(times, 0).repeat(times, 1)).save(path)


def bits(model: FittedModel, x: np.ndarray, y: np.ndarray) -> str:
    """Bits per dimension of images, by the model's density."""
    if model.likelihood is Likelihood.NONE:
        return "-"
    nats = -float(model.log_prob(x, y=y, seed=0).mean())
    return f"{nats / (x[0].size * math.log(2)):.3f}"


def ways(model: FittedModel, family: str, plan: Plan) -> Iterator[tuple[str, dict[str, Any]]]:
    """The ways to draw from a family, in words and as options."""
    if family in ("vae", "wgan_gp"):
        yield "1", {}
        if family == "vae":
            yield "1, means", {"grain": False}
        return
    second = getattr(model.model, "second", model.model)  # of a latent diffusion, what draws codes
    for options in FEW.get(family, [{"steps": plan.steps or second.steps}]):
        for guidance in plan.guidance if family in GUIDED else plan.guidance[:1]:
            steps = options["steps"]
            yield f"{steps}, guidance {guidance:g}", options | {"guidance": guidance}


def classes(name: str, *beside: str) -> Callable[[list[str], Plan], Iterator[Row]]:
    """What measures a data set with classes, in its classifier's features and in others."""

    def measure(families: list[str], plan: Plan) -> Iterator[Row]:
        data = datasets.load(name)
        top = int(data.x.max())
        train, test, asked, true = train_test_split(
            data.x, data.y, test_size=0.2, stratify=data.y, random_state=0
        )
        n = min(plan.draws, len(train))
        judge = Judge(train, asked, test, n, beside)
        said = np.random.default_rng(3).permutation(asked)[:n]
        codecs = codec_bits(test)
        distances = [f"{d} / floor" for d in ("FD", *judge.names)]
        yield ["family", "steps", "minutes", "as asked %", *distances, "bits/dim"]
        yield [
            "held-out images",
            "-",
            "-",
            f"{100 * judge.accuracy(test, true):.1f}",
            *(f"1 (FD {floor:.3g}, {n} images)" for floor in judge.floors),
            ", ".join(
                f"{codecs[f'{name.lower()}_tiled']:.3f} ({name})" for name in ("PNG", "WebP")
            ),
        ]
        labels = np.unique(asked)
        for family in families:
            model, minutes = fitted(name, family, train, asked, plan)
            cost = bits(model, test[: plan.scored], true[: plan.scored])
            for words, options in ways(model, family, plan):
                x = drawn(model, said, top, **options)
                order = np.argsort(said, kind="stable")
                by = [x[order[said[order] == k]][:8] for k in labels]
                few = min(map(len, by))
                file = f"{name}-{family}-{words.replace(', guidance ', '-')}.png"
                if few:  # of every class
                    sheet = np.stack([rows[:few] for rows in by], 1).reshape(-1, *x.shape[1:])
                    grid(sheet, top, plan.out / file, len(labels))
                yield [
                    family,
                    words,
                    f"{minutes:.1f}",
                    f"{100 * judge.accuracy(x, said):.1f}",
                    *judge.distances(x),
                    cost,
                ]

    return measure


def code(scene: shapes.ShapeFactors) -> np.ndarray:
    """A number for each shape, colour and place."""
    return scene.shape + 3 * (scene.colour + 4 * (scene.row + 3 * scene.column))


def captioned(families: list[str], plan: Plan) -> Iterator[Row]:
    """Captioned shapes: how often images of captions show what they say."""
    yield ["family", "captions", "minutes", "as asked %", *(f"{word} %" for word in SHOWN)]
    scene, asked = shapes.draw_factors(20_000, 0), shapes.draw_factors(20_000, 99)
    held = np.random.default_rng(7).permutation(108)[:PLACES]
    known = ~np.isin(code(scene), held)
    for family in families:
        x, y = shapes.render_shapes(scene)[known], scene.captions()[known]
        model, minutes = fitted("shapes", family, x, y, plan, network="dit", depth=4)
        for words, out in (("combinations seen", False), ("combinations unseen", True)):
            rows = np.flatnonzero(np.isin(code(asked), held) == out)[: plan.draws]
            wanted = shapes.ShapeFactors(*(f[rows] for f in asked))
            for guidance in plan.guidance:
                steps = plan.steps or model.model.steps
                x = drawn(model, wanted.captions(), 255, guidance=guidance, steps=steps)
                grid(x[:60], 255, plan.out / f"shapes-{family}-{words[13:]}-{guidance:g}.png")
                found, _ = shapes.recognise_shapes(x)
                hits = {word: getattr(found, word) == getattr(wanted, word) for word in SHOWN}
                every = np.all(list(hits.values()), axis=0)
                yield [
                    f"{family}, guidance {guidance:g}",
                    words,
                    f"{minutes:.1f}",
                    f"{100 * every.mean():.1f} ± {100 * every.std() / len(every) ** 0.5:.1f}",
                    *(f"{100 * hit.mean():.1f}" for hit in hits.values()),
                ]


def nearest(x: np.ndarray, images: np.ndarray, own: np.ndarray) -> str:
    """How often ``images[own]`` is the nearest of ten, nine of which are drawn at random.

    Arguments:
        x: Features of what was drawn, ``(n, d)``.
        images: Features of the candidates.
        own: Which candidate each is to find.
    """
    rng = np.random.default_rng(5)
    others = np.stack([rng.choice(np.delete(np.arange(len(images)), k), 9, False) for k in own])
    rows = np.concatenate([own[:, None], others], axis=1)
    away = np.square(x[:, None] - images[rows]).sum(-1)
    hits = away.argmin(1) == 0
    return f"{100 * hits.mean():.1f} ± {100 * hits.std() / len(hits) ** 0.5:.1f}"


def emoji(families: list[str], plan: Plan) -> Iterator[Row]:
    """Emoji from held-out captions: is what they ask for nearest among ten?"""
    yield [
        "family",
        "captions",
        "minutes",
        "own image, pixels %",
        "own image, EffLite0 %",
        "nearest caption's, EffLite0 %",
    ]
    data = datasets.load("emoji")
    train, test, said, asked = train_test_split(data.x, data.y, test_size=0.1, random_state=0)
    seen = feature_extractor("efflite0", fit_pixel_range(train.astype(np.float64), train.shape[1:]))
    views = [
        lambda x: x.reshape(len(x), -1) / 255,
        lambda x: seen.features(x.reshape(len(x), -1)).x,
    ]
    words, others = (np.array(load_minilm().read([*map(str, y)])[0]) for y in (asked, said))
    like = (words @ others.T / np.linalg.norm(others, axis=1)).argmax(1)  # of the known captions

    def row(name: str, captions: str, minutes: str, x: np.ndarray) -> Row:
        own = np.arange(len(x))
        pixels_own, features_own = (nearest(view(x), view(test), own) for view in views)
        features = nearest(views[1](x), views[1](train), like[: len(x)])
        return [name, captions, minutes, pixels_own, features_own, features]

    yield row("held-out images", "their own", "-", test[: plan.draws])
    for family in families:
        model, minutes = fitted("emoji", family, train, said, plan, text="minilm")
        n = min(plan.draws, len(test))
        for guidance in plan.guidance:
            steps = plan.steps or model.model.steps
            x = drawn(model, asked[:n], 255, guidance=guidance, steps=steps)
            beside = np.stack([test[:60], x[:60].astype(np.uint8)], 1).reshape(-1, *x.shape[1:])
            grid(beside, 255, plan.out / f"emoji-{family}-{guidance:g}.png")
            yield row(f"{family}, guidance {guidance:g}", "held out", f"{minutes:.1f}", x)


def section(measure: Callable[..., Iterator[Row]], families: list[str], about: str) -> Section:
    """A section of docs/numbers.md, whose rows have two leading cells as a name."""
    measure.__doc__ = about
    return Section(measure, families, 2)


SECTIONS = {
    "digits": section(classes("digits"), CLASSED, "Digits of 8 x 8 pixels."),
    "mnist": section(classes("mnist"), CLASSED, "MNIST, 5,000 digits of 28 x 28 pixels."),
    "fashion": section(
        classes("fashion_mnist", "efflite0"),
        CLASSED,
        "Fashion-MNIST, 60,000 images of 28 x 28 pixels.",
    ),
    "shapes": section(
        captioned,
        ["flow_matching"],
        "Captioned shapes of 32 x 32 pixels, by a transformer; 11 of the 108 combinations of "
        "shape, colour and place are left out of training.",
    ),
    "emoji": section(
        emoji,
        ["flow_matching"],
        "Emoji of 32 x 32 pixels, by held-out captions, which a frozen sentence encoder reads: "
        "is the image of the caption, or that of the nearest known caption, nearest among ten?",
    ),
}


def main() -> None:
    """Measure the sections that are named."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sections", nargs="+", choices=list(SECTIONS))
    parser.add_argument("--out", type=Path, default=Path("runs/images"))
    parser.add_argument("--families", type=lambda text: text.split(","))
    parser.add_argument("--minutes", type=float)
    parser.add_argument("--precision")
    parser.add_argument(
        "--guidance", type=lambda t: [*map(float, t.split(","))], default=[1.0, 2.0]
    )
    parser.add_argument("--steps", type=int)
    parser.add_argument("--draws", type=int, default=1000)
    parser.add_argument("--scored", type=int, default=100)
    parser.add_argument("--quick", action="store_true", help="two steps; numbers.md stays as it is")
    chosen = vars(parser.parse_args())
    sections, families, quick = (chosen.pop(k) for k in ("sections", "families", "quick"))
    plan = Plan(**chosen)
    if quick:
        plan = plan._replace(guidance=[1.0], steps=2, draws=20, scored=2, fit_steps=2)
    torch.set_num_threads(1)
    for name in sections:
        part = SECTIONS[name]
        found = part.measure(families or part.families, plan)
        print_rows(f"{name}_images", part, found, keep=not quick)


if __name__ == "__main__":
    main()
