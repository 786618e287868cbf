"""Figures of the lesson's page: panels side by side."""

from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure


def create_panels(
    columns: int, height: float = 2.2, *, width: float = 6.3, **options: Any
) -> tuple[Figure, list[Axes]]:
    """A figure with axes in a row, by default of the page's width in inches."""
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, list(figure.subplots(1, columns, squeeze=False, **options)[0])
