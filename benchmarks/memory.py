"""Peak memory and time per image of training steps and of sampling, over the same network bare.

"bare" is what nobody can do without: for a step, the network on fixed inputs, the squared error,
the gradient, fused AdamW; for sampling, the network once a step without gradients. "ours" is a step
of `Trainer` (with batch, noise, target, clipping, average) and `sample` of the family. On a CPU the
peak counts every allocation of PyTorch's, on a GPU it is the allocator's own; weights, gradients,
moments and, in ours, the average are part of it. Time is the processor's, in turn (`race.py`).

Then the fit of images from a file: how much memory it takes beside the images, and the share of
the training time that waits for data where they stay on the disk.

Usage:
    python benchmarks/memory.py [--quick] [--device cuda] [--batch 16] [--stream] [--json]
"""

import argparse
import copy
import json
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import torch
from race import Plan, race, repeat
from torch.nn.functional import mse_loss

import pushforward as pf
from pushforward.data import memmap
from pushforward.families import build
from pushforward.model import Event
from pushforward.training.trainer import Trainer, random_batches

FAMILIES = ("flow_matching", "ddpm", "edm")
SHAPE, STEPS, BAR = (28, 28), 4, 1.10


def peak(work, device: torch.device) -> int:
    """The bytes that are held at once beyond those held before."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        work()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before
    with torch.profiler.profile(profile_memory=True, acc_events=True) as seen:
        work()
    held = most = 0
    for event in seen.profiler.kineto_results.events():
        if event.name() == "[memory]":
            held += event.nbytes()
            most = max(most, held)
    return most


def contestants(family: str, shape: tuple[int, ...], batch: int, device: torch.device) -> dict:
    """The work of one step and of one call of the sampler, ours and bare, and what each keeps.

    Between steps both keep the gradient of the last one, which they drop as a step begins.
    """
    model = build(family, Event(shape, 0, 0, 1000), network="unet").to(device)
    with torch.no_grad():  # networks begin at zero, which is no number to time
        for p in model.parameters():
            p.add_(0.02 * torch.randn_like(p))
    net = copy.deepcopy(model.denoiser.net)
    trainer = Trainer(model, model.recipe._replace(batch=batch, lr=1e-6), 10**6)
    data = random_batches(torch.randn(1000, *shape, device=device), batch)
    adamw = torch.optim.AdamW(net.parameters(), 1e-6, fused=True)
    x, y = torch.randn(batch, *shape, device=device), torch.randn(batch, *shape, device=device)
    t = torch.rand(batch, device=device)

    def bare_step() -> None:
        adamw.zero_grad()
        mse_loss(net(x, t), y).backward()
        adamw.step()

    @torch.no_grad()
    def bare_sample() -> None:
        for _ in range(STEPS):
            net(x, t)

    @torch.no_grad()
    def our_sample() -> None:
        trainer.average.eval().sample(batch, steps=STEPS, sampler="euler")

    size = 4 * sum(p.numel() for p in net.parameters())
    return {
        "step": ((lambda: trainer.step(data), 5 * size), (bare_step, 4 * size)),
        "sample": ((our_sample, size), (bare_sample, size)),
    }


def rows(quick: bool, device: torch.device, batch: int) -> list[dict]:
    """One line for each family and kind of work."""
    found = []
    plan = Plan(3, 0.1) if quick else Plan(11, 1.0)
    if device.type == "cuda":
        plan = plan._replace(clock=time.perf_counter)
    for family in FAMILIES[: 1 if quick else None]:
        works = contestants(family, SHAPE, batch, device)
        for kind, ((ours, mine), (bare, its)) in works.items():
            for work in (ours, bare):
                work()  # what is allocated once
            ours_peak, bare_peak = peak(ours, device) + mine, peak(bare, device) + its
            timed = race(kind, {"ours": repeat(ours), "bare": repeat(bare)}, plan)
            row = timed.row("ours", "bare", BAR)
            found.append(
                {"family": family, "work": kind, "batch": batch, "MiB": ours_peak / 2**20}
                | {"memory": ours_peak / bare_peak, "ms an image": row.micros / 1000 / batch}
                | {"time": row.ratio, "low": row.low, "high": row.high}
            )
            print(found[-1], file=sys.stderr, flush=True)
    return found


def anonymous() -> int:
    """Bytes of this process that are no file's."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith("RssAnon")).split()[1])


def fitted(x: np.ndarray, steps: int) -> dict:
    """A fit of images in a file: memory beyond the start, and the share of time that waits."""
    with tempfile.TemporaryDirectory() as folder:
        np.save(f"{folder}/x.npy", x)
        shape, size = x.shape, x.nbytes
        del x
        before, most, done = anonymous(), [0], threading.Event()

        def watch() -> None:
            while not done.wait(0.01):
                most[0] = max(most[0], anonymous())

        watcher = threading.Thread(target=watch, daemon=True)
        watcher.start()
        began = time.perf_counter()
        model = pf.fit(f"{folder}/x.npy", "flow_matching", steps=steps, width=8, progress=False)
        seconds = time.perf_counter() - began
        done.set()
        watcher.join()
    first, last = model.history[0], model.history[-1]
    training = last["seconds"] - first["seconds"] - model.config["evaluating"]
    return {
        "data": f"{shape}, {size / 2**20:.0f} MiB",
        "more MiB": (most[0] - before) / 2**20,
        "seconds": seconds,
        "waits": model.config.get("waited", 0.0) / max(training, 1e-9),
    }


def images(n: int, side: int) -> np.ndarray:
    """Random images of bytes."""
    return np.random.default_rng(0).integers(0, 256, (n, side, side), np.uint8)


def table(lines: list[dict]) -> str:
    """Numbers with three digits below their names."""
    cells = [[f"{v:.3g}" if isinstance(v, float) else str(v) for v in r.values()] for r in lines]
    widths = [max(map(len, column)) for column in zip(lines[0], *cells)]
    rows = [list(lines[0]), *cells]
    return "\n".join("  ".join(v.rjust(w) for v, w in zip(r, widths)) for r in rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one family, short, few images")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--batch", type=int, default=64, help="images of a step")
    parser.add_argument("--stream", action="store_true", help="only fits from files")
    parser.add_argument("--json", action="store_true")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    found = [] if chosen.stream else rows(chosen.quick, torch.device(chosen.device), chosen.batch)
    steps, enough = 40, memmap.LARGE // 32**2 + 1000  # rows that stay on the disk
    sizes = [(60_000, 28), (enough, 32)]
    if chosen.quick:
        steps, sizes = 4, [(60, 8)]
    streamed = [fitted(images(*size), steps) for size in sizes]
    if chosen.json:
        print(json.dumps({"torch": torch.__version__, "work": found, "fits": streamed}, indent=1))
        return
    if found:
        print(f"torch {torch.__version__}, {chosen.device}, {SHAPE}; ours over bare")
        print(table(found))
        missed = [r for r in found if max(r["memory"], r["time"]) > BAR]
        print(f"beyond {BAR}: {[(r['family'], r['work']) for r in missed] or 'none'}")
    print(table(streamed))


if __name__ == "__main__":
    main()
