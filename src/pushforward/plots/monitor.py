"""What a fit drew on its way, and how far that was from pictures held out."""

import base64
import io
from typing import Any

import numpy as np
from matplotlib.figure import Figure, SubFigure
from matplotlib.ticker import MaxNLocator

from . import style

SHOWN = 4  # moments whose pictures are shown


def monitored_steps(history: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The lines of a history at which pictures were drawn."""
    return [line for line in history if "pictures" in line]


def decode_sheet(picture: str) -> np.ndarray:
    """The sheet of pictures that a line of the history holds."""
    from PIL import Image

    return np.asarray(Image.open(io.BytesIO(base64.b64decode(picture))))


def plot_monitor(
    part: Figure | SubFigure, history: list[dict[str, Any]], facts: dict[str, Any]
) -> None:
    """The distance over the steps with its floor, and the pictures of some moments below.

    Arguments:
        part: Where to draw.
        history: Of a fit that was watched.
        facts: What the distance is, as the fit's configuration says it.
    """
    lines = monitored_steps(history)
    chosen = np.unique(np.linspace(0, len(lines) - 1, SHOWN).round().astype(int))
    grid = part.add_gridspec(2, len(chosen), height_ratios=(1.3, 1))
    axes = part.add_subplot(grid[0, :])
    steps = [line["step"] for line in lines]
    axes.plot(steps, [line["distance"] for line in lines], "o-", color=style.MODEL, markersize=3)
    axes.axhline(facts["floor"], color=style.INK, linewidth=0.8, linestyle=(0, (4, 2)))
    axes.set(xlabel="step", ylim=(min(0.0, facts["floor"]), None))
    axes.set_title(f"{facts['metric']} to {facts['rows']:,} held out, floor dashed")
    axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
    for j, i in enumerate(chosen):
        below = part.add_subplot(grid[1, j])
        sheet = decode_sheet(lines[i]["pictures"])
        below.imshow(sheet, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
        below.set_title(f"step {steps[i]:,}")
        below.set_axis_off()
