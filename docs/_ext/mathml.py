"""Formulas as MathML, made while the site is built: its pages need no script and no network."""

from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util import logging

from pushforward.lesson import formulas

logger = logging.getLogger(__name__)


def rendered(node: nodes.Element, display: str) -> str:
    """MathML of a formula; what the converter does not know is a warning, and so an error."""
    latex = node.astext()
    try:
        mathml = formulas.formula_to_mathml(latex, display)
    except Exception as error:  # it has no common exception
        logger.warning("cannot render %r: %s", latex, error, location=node)
        return ""
    if "\\" in mathml:
        logger.warning("a command in %r is not known to MathML's converter", latex, location=node)
    return mathml


def inline(translator: Any, node: nodes.Element) -> None:
    """A formula in a line of text."""
    translator.body.append(rendered(node, "inline"))
    raise nodes.SkipNode


def block(translator: Any, node: nodes.Element) -> None:
    """A formula on a line of its own, which scrolls where a screen is too narrow."""
    number = f'<span class="eqno">({node["number"]})</span>' if node.get("number") else ""
    translator.body.append(f'<div class="math">{rendered(node, "block")}{number}</div>')
    raise nodes.SkipNode


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the renderer."""
    app.add_html_math_renderer("mathml", (inline, None), (block, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
