"""Text with LaTeX between dollars, for a page and for a terminal."""

import html
import re
from collections.abc import Callable

from latex2mathml.converter import convert
from markupsafe import Markup
from pylatexenc.latex2text import LatexNodes2Text

MATH = re.compile(r"\$([^$]+)\$")
CODE = re.compile(r"`([^`]+)`")
FENCES = {r"\|": "\u2016", r"\lVert": "\u2016", r"\rVert": "\u2016", r"\{": "{", r"\}": "}"}


def _convert_formulas(text: str, math: Callable[[str], str], plain: Callable[[str], str]) -> str:
    """The text with each formula between dollars, and what is between formulas, converted."""
    pieces = MATH.split(text)
    return "".join(math(p) if i % 2 else plain(p) for i, p in enumerate(pieces))


def formula_to_mathml(latex: str, display: str = "inline") -> str:
    r"""A formula as MathML; the converter leaves some fences after ``\Big`` as they are."""
    mathml = convert(latex, display=display)
    for name, sign in FENCES.items():
        mathml = mathml.replace(f">{name}<", f">{sign}<")
    return mathml


def _escape_plain(text: str) -> str:
    """What is between formulas, as HTML: names in backticks as code."""
    return CODE.sub(r"<code>\1</code>", html.escape(text))


def text_to_html(text: str) -> Markup:
    """For HTML: formulas as MathML, which browsers set themselves."""
    return Markup(_convert_formulas(text, formula_to_mathml, _escape_plain))  # noqa: S704  # both parts are escaped


def display_formula(latex: str) -> Markup:
    """A formula on a line of its own, as MathML."""
    return Markup(formula_to_mathml(latex, "block")) if latex else Markup("")  # noqa: S704


def text_to_unicode(text: str) -> str:
    """For a terminal: formulas in Unicode as far as that goes."""
    unicode = LatexNodes2Text(math_mode="text").latex_to_text
    return " ".join(_convert_formulas(text, unicode, str).split())
