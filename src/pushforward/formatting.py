"""Numbers, times and lists as people read them."""

import math
from collections.abc import Sequence
from typing import Any

ACRONYMS = {"VAE", "GAN", "WGAN", "GP", "DDPM", "NCSN", "EDM", "CNF", "KDE"}  # of models
ACRONYMS |= {"MMD", "KID", "C2ST", "AUROC"}  # of metrics
WRITTEN = {word.lower(): word for word in (*ACRONYMS, "Gaussian")} | {
    "w1": "W\u2081",
    "w2": "W\u2082",
    "frechet": "Fr\u00e9chet",
}


def display_name(key: str) -> str:
    words = [WRITTEN.get(word, word) for word in key.split("_")]
    return ("-" if all(word in ACRONYMS for word in words) else " ").join(words)


def capitalise_first(text: str) -> str:
    return text[:1].upper() + text[1:]


def join_words(items: Sequence[str], word: str = "and") -> str:
    if len(items) < 2:
        return "".join(items)
    return f"{', '.join(items[:-1])} {word} {items[-1]}"


def count_noun(n: int, one: str, many: str = "") -> str:
    return f"{n:,} {one if n == 1 else many or one + 's'}"


def supported_decimals(low: float, high: float) -> int | None:
    half = (high - low) / 2
    if not math.isfinite(half) or half <= 0:
        return None
    return min(max(0, 1 - math.floor(math.log10(half))), 8)


def format_number(value: float | None, digits: int | None = None) -> str:
    """A number with a true minus sign, or a dash where there is none."""
    if value is None or math.isnan(value):
        return "\u2013"
    if math.isinf(value):
        return "\u221e" if value > 0 else "\u2212\u221e"
    if digits is None:
        text = f"{value:.3g}"
    elif value and (abs(value) >= 1e6 or digits > 6):
        text = f"{value:.2e}"
    else:
        text = f"{value:,.{digits}f}"
    zero = text.strip("-0.") == ""
    return (text.lstrip("-") if zero else text).replace("-", "\u2212")


def duration_text(seconds: float | None) -> str:
    if seconds is None or not math.isfinite(seconds):
        return "\u2013"
    if seconds < 1:
        return f"{1000 * seconds:.3g} ms"
    if seconds < 120:
        return f"{seconds:.3g} s"
    return f"{seconds / 60:.3g} min"


def format_percent(fraction: float) -> str:
    share = 100 * float(fraction)
    return f"{share:.0f}\u00a0%" if share >= 10 else f"{share:.2g}\u00a0%"


def printable_text(text: Any, limit: int = 60) -> str:
    """A name from outside as a message may print it: one line, printable, not too long."""
    line = "".join(c if c.isprintable() else "?" for c in str(text)[: limit + 1])
    return line if len(line) <= limit else line[: limit - 3] + "..."


def join_names(names: Any, limit: int = 100) -> str:
    return printable_text(", ".join(printable_text(n, 30) for n in names), limit)
