"""One page of the reference for each module of the packages listed in the configuration."""

from pathlib import Path

from sphinx.application import Sphinx

PAGE = """{title}
{rule}

.. automodule:: pushforward.{package}.{module}
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
            title = f"{package}.{name}"
            text = PAGE.format(title=title, rule="=" * len(title), package=package, module=name)
            page = folder / f"{name}.rst"
            if not page.exists() or page.read_text() != text:
                page.write_text(text)


def setup(app: Sphinx) -> dict[str, bool]:
    """Write before pages are looked for."""
    app.add_config_value("reference_packages", [], "env")
    app.connect("builder-inited", write)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
