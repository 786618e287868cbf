"""What the site lists: a page for each module of some packages, and the pages of the families."""

from pathlib import Path
from typing import Any

from sphinx.application import Sphinx

PAGE = """{title}
{rule}

.. automodule:: pushforward.{title}
   :members:
   :show-inheritance:
"""


def write(app: Sphinx) -> None:
    """Write the pages anew where they differ; pages of modules that are gone are removed."""
    import pushforward

    for package in app.config.reference_packages:
        source = Path(pushforward.__file__).parent / package
        names = sorted(p.stem for p in source.glob("*.py") if not p.stem.startswith("_"))
        folder = Path(app.srcdir) / "reference" / package
        folder.mkdir(parents=True, exist_ok=True)
        for old in set(folder.glob("*.rst")) - {folder / f"{n}.rst" for n in names}:
            old.unlink()
        for name in names:
            title = f"{package}.{name}".replace("/", ".")
            text = PAGE.format(title=title, rule="=" * len(title))
            page = folder / f"{name}.rst"
            if not page.exists() or page.read_text() != text:
                page.write_text(text)


LISTED = """
```{toctree}
:hidden:
:glob:

families/*
```
"""


def list_families(app: Sphinx, name: str, source: list[str]) -> None:
    """Put the families' pages below their table, which other readers of the file need not see."""
    if name == "families":
        source[0] += LISTED


def without_fields(app: Sphinx, kind: str, name: str, member: Any, *_: Any) -> bool | None:
    """Leave out what Python itself says of a named tuple's fields; their class describes them."""
    said = getattr(member, "__doc__", None) or ""
    return True if said.startswith("Alias for field number") else None


def setup(app: Sphinx) -> dict[str, bool]:
    """Write pages before they are looked for, and list others when they are read."""
    app.add_config_value("reference_packages", [], "env")
    app.connect("builder-inited", write)
    app.connect("source-read", list_families)
    app.connect("autodoc-skip-member", without_fields)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
