"""What editing keeps, and changes: ``python benchmarks/editing.py SECTION ... --out FOLDER``.

Sections: translation (two sets of captioned shapes, not paired: circles to squares, white
backgrounds to black ones), noising (noise added, and removed under the other condition), both read
back without learning; inpainting (the lower half of digits inpainted by the run of
``benchmarks/images.py mnist`` in the same folder). Rows go into docs/numbers.md, images and runs
into the folder; a run that is there is measured again instead of fitted again. Minutes are the
processor's, on one thread. ``--quick`` trains for two steps to see that all of it works, and leaves
docs/numbers.md as it is.
"""

import argparse
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from images import Judge, grid
from quality import Row, Section, print_rows
from sklearn.model_selection import train_test_split

import pushforward as pf
from pushforward.data.builtin import datasets, shapes
from pushforward.inference import editing
from pushforward.inference.fitted_model import FittedModel

TASKS = {
    "shape": ("circle", "square", {"background": "white"}),
    "background": ("white", "black", {}),
}
COUPLINGS = {"shape": ["independent", "ot"], "background": ["ot", "outlines"]}
SHOWN = 12
TASK = ["task", "pixels", "method", "steps", "minutes", "became %", "place and size %"]
Options = argparse.Namespace


def draw_images(task: str, after: int, n: int, seed: int, side: int) -> tuple[Any, np.ndarray]:
    """Factors of shapes on one side of a task, and their images."""
    *words, fixed = TASKS[task]
    scene = shapes.draw_factors(n, seed, **{task: words[after]}, **fixed)
    return scene, shapes.render_shapes(scene, side)


def kept(before: shapes.ShapeFactors, x: np.ndarray, task: str) -> Row:
    """How often the factor has become the word, and others are as before, in percent.

    Last comes the median difference from the reader's own rendering, in levels: how clean they are.
    """
    found, rms = shapes.recognise_shapes(x)
    same = {k: getattr(found, k) == getattr(before, k) for k in shapes.FACTORS}
    other = {"shape": "background", "background": "shape"}[task]
    hits = [
        found.factor_words(task) == TASKS[task][1],
        same["row"] & same["column"] & same["size"],
        same["colour"],
        same[other],
    ]
    return [*(f"{100 * hit.mean():.1f}" for hit in hits), f"{np.median(rms):.1f}"]


def fitted(name: str, x: np.ndarray, plan: Options, **options: Any) -> tuple[FittedModel, float]:
    """A flow, and the processor's minutes it took: that of a run, if there is one."""
    folder = plan.out / name
    note = folder.with_suffix(".json")
    if note.exists():
        return pf.load(folder), json.loads(note.read_text())["minutes"]
    began = time.process_time()
    options |= {"steps": plan.steps, "precision": plan.precision}
    model = pf.fit(x, "flow_matching", out=folder, progress=False, **options)
    minutes = (time.process_time() - began) / 60
    note.write_text(json.dumps({"minutes": minutes}))
    return model, minutes


def translation(plan: Options) -> Iterator[Row]:
    """Captioned shapes translated from set to set: held-out images, read back."""
    yield [*TASK, "colour %", "the rest %", "off clean images", "ms an image"]
    side = plan.side
    for task in plan.tasks:
        _, x0 = draw_images(task, False, plan.rows, 0, side)
        _, x1 = draw_images(task, True, plan.rows, 1, side)
        held, x = draw_images(task, False, plan.held_out, 2, side)
        for coupling in plan.couplings or COUPLINGS[task]:
            name = f"{task}-{side}-{coupling}"
            model, minutes = fitted(name, x1, plan, source=x0, coupling=coupling)
            began = time.process_time()
            moved = model.translate(x, tolerance=plan.tolerance)
            ms = 1000 * (time.process_time() - began) / len(x)
            grid(np.concatenate([x[:SHOWN], moved[:SHOWN]]), 255, plan.out / f"{name}.png", SHOWN)
            row = kept(held, moved, task)
            yield [
                task,
                str(side),
                coupling,
                str(model.config["steps"]),
                f"{minutes:.1f}",
                *row,
                f"{ms:.0f}",
            ]


def noising(plan: Options) -> Iterator[Row]:
    """Captioned shapes noised, and denoised under the other condition: held-out, read back."""
    yield [*TASK, "colour %", "the rest %", "off clean images"]
    for task in plan.tasks:
        sides = [draw_images(task, after, plan.rows, after, plan.side)[1] for after in (0, 1)]
        first, last, _ = TASKS[task]
        held, x = draw_images(task, False, plan.held_out, 2, plan.side)
        y = np.repeat([first, last], plan.rows)
        model, minutes = fitted(f"{task}-{plan.side}-both", np.concatenate(sides), plan, y=y)
        for strength in plan.strengths:
            for guidance in plan.guidance:
                moved = model.edit(x, last, strength=strength, guidance=guidance, seed=0)
                words = f"strength {strength:g}, guidance {guidance:g}"
                yield [
                    task,
                    str(plan.side),
                    words,
                    str(model.config["steps"]),
                    f"{minutes:.1f}",
                    *kept(held, moved, task),
                ]


def inpainting(plan: Options) -> Iterator[Row]:
    """The lower half of held-out MNIST digits inpainted, 8 times each, by the flow of classes."""
    yield ["given", "way", "seconds a sample", "known pixels off", "true class seen %", "diversity",
           "of free draws"]  # fmt: skip
    data = datasets.load("mnist")
    train, test, asked, true = train_test_split(
        data.x, data.y, test_size=0.2, stratify=data.y, random_state=0
    )
    model, judge = pf.load(plan.out / "mnist-flow_matching"), Judge(train, asked, test, 500)
    rows = [i for k in np.unique(true) for i in np.flatnonzero(true == k)[: plan.digits]]
    mask = np.zeros(test.shape[1:], bool)
    mask[mask.shape[0] // 2 :] = True
    yield ["-", "originals", "-", "0", f"{100 * judge.accuracy(test[rows], true[rows]):.1f}", *"--"]
    for given, guidance in (("half and class", 1.0), ("half alone", 0.0)):
        for words, options in WAYS.items():
            began, made = time.process_time(), []
            for i in rows:
                made.append(
                    editing.inpaint_image(
                        model, test[i], mask, 8, true[i], i, options | {"guidance": guidance}
                    )
                )
            seconds = (time.process_time() - began) / (8 * len(rows))
            x = np.stack([np.asarray(m.pictures, np.float64) for m in made])
            off = abs(x - test[rows][:, None])[:, :, ~mask].max()
            seen = judge.accuracy(x.reshape(-1, *x.shape[2:]), true[rows].repeat(8))
            spread = [
                np.mean([getattr(m, k) for m in made]) for k in ("diversity", "unconditional")
            ]
            save_inpainted(
                test[rows], mask, x, plan.out / f"inpainting-{given.split()[-1]}-{words}.png"
            )
            yield [given, words, f"{seconds:.2f}", f"{off:g}", f"{100 * seen:.1f}",
                   *(f"{s:.0f}" for s in spread)]  # fmt: skip


WAYS: dict[str, dict[str, Any]] = {
    "moments, 50 steps": {},
    "moments, 20 steps": {"steps": 20},
    "moments, 20 steps, 1 round": {"steps": 20, "rounds": 1},
}


def save_inpainted(x: np.ndarray, mask: np.ndarray, samples: np.ndarray, path: Path) -> None:
    """Rows of an original, what was kept of it, and six inpainted samples."""
    hidden = np.where(mask, 128, x)
    rows = [np.stack([a, b, *f[:6]]) for a, b, f in zip(x, hidden, samples)]
    grid(np.concatenate(rows), 255, path, 8)


SECTIONS: dict[str, tuple[Callable[[Options], Iterator[Row]], int]] = {
    "translation": (translation, 3),
    "noising": (noising, 3),
    "inpainting": (inpainting, 2),
}


def words(kind: Callable[[str], Any]) -> Callable[[str], list[Any]]:
    """Values between commas."""
    return lambda text: [kind(word) for word in text.split(",") if word]


def main() -> None:
    """Measure the sections that are named."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sections", nargs="+", choices=list(SECTIONS))
    parser.add_argument("--out", type=Path, default=Path("runs/editing"))
    parser.add_argument("--tasks", type=words(str), default=list(TASKS))
    parser.add_argument("--couplings", type=words(str))
    parser.add_argument("--steps", type=int, default=1500, help="of each fit")
    parser.add_argument("--precision")
    parser.add_argument("--side", type=int, default=32)
    parser.add_argument("--rows", type=int, default=8000, help="of each set")
    parser.add_argument("--tolerance", type=float, default=1e-2)
    parser.add_argument("--strengths", type=words(float), default=[0.3, 0.5, 0.7])
    parser.add_argument("--guidance", type=words(float), default=[1.0, 3.0])
    parser.add_argument("--digits", type=int, default=2, help="of each class")
    parser.add_argument("--held-out", type=int, default=500, help="images to edit")
    parser.add_argument("--quick", action="store_true", help="two steps; numbers.md stays as it is")
    plan = parser.parse_args()
    if plan.quick:
        plan.steps, plan.rows, plan.side, plan.held_out, plan.digits = 2, 40, 16, 12, 1
    torch.set_num_threads(1)
    plan.out.mkdir(parents=True, exist_ok=True)
    for name in plan.sections:
        measure, key = SECTIONS[name]
        print_rows(name, Section(measure, [], key), measure(plan), keep=not plan.quick)


if __name__ == "__main__":
    main()
