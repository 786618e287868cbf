"""The first figure of a chapter of the lesson as the thumbnail of its page in the gallery."""

from pathlib import Path
from typing import Any


def scrape(block: Any, variables: dict[str, Any], configuration: dict[str, Any]) -> str:
    """Save it once; the chapter shows all its figures itself."""
    chapter, paths = variables["example_globals"].get("chapter"), variables["image_path_iterator"]
    if chapter is not None and chapter.figures and not len(paths):
        first = next(iter(chapter.figures.values()))
        Path(next(paths)).write_bytes(first.files["png"])
    return ""


def _get_sg_image_scraper() -> Any:
    return scrape
