"""A numbered figure of a report: panels that share one caption."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes

from .. import formatting
from ..inference.fitted_model import FittedModel
from ..plots import style
from .leaderboard import Comparison

SQUARE = (2.3, 2.3)


class PlottedRun(NamedTuple):
    """The run of a family that is drawn.

    Arguments:
        name: The family as one writes it.
        model: The fitted model.
        x: Its samples, as many as there are test rows.
    """

    name: str
    model: FittedModel
    x: np.ndarray


class FigurePanel(NamedTuple):
    """One image with a line of text.

    Arguments:
        label: What it shows, e.g. a family.
        image: The address of an inline SVG.
        note: A remark in smaller type.
    """

    label: str
    image: str
    note: str = ""


class ReportFigure(NamedTuple):
    """A numbered figure: panels that share one caption.

    Arguments:
        title: What the figure is.
        caption: What is seen, and how it was made.
        panels: The images.
        layout: "small", "wide" or "full": how much of the page a panel takes.
    """

    title: str
    caption: str
    panels: list[FigurePanel]
    layout: str = "small"


def render_panel(
    label: str, draw: Callable[[Axes], None], size: tuple[float, float] = SQUARE, note: str = ""
) -> FigurePanel:
    """Draw one panel."""
    return FigurePanel(label, style.axes_svg_uri(draw, size), note)


def seed_note(comparison: Comparison) -> str:
    """Which run is drawn when there are several."""
    several = len({e.seed for e in comparison.entries}) > 1
    return f" Drawn for seed {comparison.entries[0].seed}." if several else ""


def runs_to_plot(comparison: Comparison) -> list[PlottedRun]:
    """The first run of each family that succeeded, in the order of the leaderboard."""
    first: dict[str, PlottedRun] = {}
    for e in comparison.entries:
        if e.model is not None and e.generated is not None and not e.error:
            first.setdefault(
                e.family, PlottedRun(formatting.display_name(e.family), e.model, e.generated)
            )
    return [first[r["family"]] for r in comparison.table if r["family"] in first]
