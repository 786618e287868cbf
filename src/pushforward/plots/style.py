"""How every figure looks: one typeface, few colours, readable in black and white.

Figures are `matplotlib.figure.Figure` objects that nobody registers, so they vanish when dropped.
In a report they are SVG with the text left as text, so that it is set in the typeface of the page.
"""

import base64
import contextlib
import io
import math
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from .. import files

INK = "#1b1b1b"  # exact curves and text
QUIET = "#8c8c8c"  # frames, floors, remarks
DATA = "#5c5c5c"  # points of the data
RULE = "#ececec"  # lines of a grid
FILL = "#d4d4d4"  # bars of the data
MODEL = "#0b62a8"  # samples
SECOND = "#c2410c"  # a model's own density, validation losses
# after Okabe and Ito (2008); neighbours differ in lightness and in dashes, for print
LINES = ("#0b62a8", "#e69f00", "#00785a", "#cc79a7", "#56b4e9", "#a23b00", "#1b1b1b", "#8c8c8c")
DASHES = ("-", (0, (5, 1.5)), (0, (1, 1)), (0, (4, 1, 1, 1)), "-", (0, (5, 1.5)), (0, (1, 1)), "-")
FLOOR = (0, (4, 2))  # dashes of a floor
MARKS = ("o", "s", "^", "D", "v", "P", "X", "*")
DENSITY = LinearSegmentedColormap.from_list(  # lightness falls evenly, so it survives printing
    "density", ["#ffffff", "#d6e4f0", "#8fb8d8", "#3f82b8", "#0b4f8a", "#06213f"]
)
FACE = "system-ui, -apple-system, Segoe UI, Roboto, Helvetica Neue, Arial, sans-serif"
TICKS = {"labelsize": 7, "color": QUIET, "labelcolor": INK}
TICKS |= {"major.width": 0.6, "major.size": 2.5, "minor.size": 0}
RC: Any = {f"{axis}tick.{name}": value for axis in "xy" for name, value in TICKS.items()} | {
    "font.family": ["sans-serif"],
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 7.5,
    "axes.titlesize": 8,
    "axes.labelsize": 7.5,
    "legend.fontsize": 7,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": QUIET,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.unicode_minus": True,
    "axes.axisbelow": True,
    "lines.linewidth": 1.1,
    "lines.markersize": 3.5,
    "legend.frameon": False,
    "legend.handlelength": 1.8,
    "legend.columnspacing": 1.2,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
    "svg.fonttype": "none",
    "svg.hashsalt": "pushforward",
    "pdf.fonttype": 42,
    "text.parse_math": False,  # a column may be called "$x"
}


def line_look(i: int) -> dict[str, Any]:
    return {"color": LINES[i % len(LINES)], "linestyle": DASHES[i % len(DASHES)]}


@contextlib.contextmanager
def plot_style() -> Iterator[None]:
    with matplotlib.rc_context(RC), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        yield


def figure_bytes(figure: Figure, kind: str = "svg", dpi: int = 150) -> bytes:
    buffer = io.BytesIO()
    nothing = {"svg": {"Date": None, "Creator": None}, "pdf": {"CreationDate": None}}
    figure.savefig(buffer, format=kind, dpi=dpi, metadata=nothing.get(kind))
    return buffer.getvalue()


@contextlib.contextmanager
def written_figure(path: Path, size: tuple[float, float]) -> Iterator[Figure]:
    with plot_style():
        figure = Figure(figsize=size, layout=ConstrainedLayoutEngine(w_pad=0.06, h_pad=0.06))
        yield figure
        files.atomic_write(path, figure_bytes(figure, path.suffix.lower()[1:], dpi=200))


def axes_svg_uri(draw: Callable[[Axes], None], size: tuple[float, float]) -> str:
    with plot_style():
        figure = Figure(figsize=size, layout=ConstrainedLayoutEngine(w_pad=0.02, h_pad=0.02))
        draw(figure.add_subplot())
        return figure_svg_uri(figure)


def figure_svg_uri(figure: Figure) -> str:
    svg = figure_bytes(figure)
    figure.clear()
    return svg_data_uri(svg)


def svg_data_uri(svg: bytes) -> str:
    """An SVG file as the address of an image whose text is set in the typeface of the page."""
    text = svg.decode()
    text = text.replace("'DejaVu Sans', sans-serif", FACE).replace("'DejaVu Sans'", FACE)
    return "data:image/svg+xml;base64," + base64.b64encode(text.encode()).decode()


def clean_label(text: object, longest: int = 28) -> str:
    plain = "".join(c if c.isprintable() else "\ufffd" for c in str(text))
    return plain if len(plain) <= longest else plain[: longest - 1] + "\u2026"


def format_log_tick(value: Any, position: object = None) -> str:
    if not value:
        return "0"
    if not 1e-4 <= abs(value) < 1e6:
        return f"{value:.0e}".replace("-", "\u2212")
    digits = max(0, -math.floor(math.log10(abs(value)) + 1e-9))
    return f"{value:,.{digits}f}".replace("-", "\u2212")
