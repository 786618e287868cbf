"""The pages say what the code does."""

import json
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

import pushforward as pf
from pushforward import families
from pushforward.cli import app

ROOT = Path(__file__).parent.parent


def test_every_family_has_a_page_whose_facts_are_those_of_the_code():
    command = [sys.executable, ROOT / "docs" / "generate.py", "--check"]
    checked = subprocess.run(command, capture_output=True, text=True)
    assert checked.returncode == 0, (
        f"{checked.stdout}{checked.stderr}\nrun: python docs/generate.py"
    )


def test_a_page_states_the_objective_the_likelihood_and_when_to_use_it():
    for name in families.names():
        text = (ROOT / "docs" / "families" / f"{name}.md").read_text()
        own = re.sub(r"<!-- facts -->.*<!-- end of facts -->", "", text, flags=re.S).lower()
        assert "$" in own and "likelihood" in own and "when" in own, name
        assert re.search(r"\b(19|20)\d\d\b", own), f"{name}: no source with its year"


def test_every_command_of_the_readme_exists():
    known = {c.name or c.callback.__name__ for c in app.registered_commands}
    said = set(re.findall(r"^pushforward (\w+)", (ROOT / "README.md").read_text(), flags=re.M))
    assert said and said <= known


def test_every_public_name_exists():
    for name in pf.__all__:
        assert getattr(pf, name) is not None


FETCHED = re.compile(
    r"""<(?:script|img|iframe|source|video|audio|embed)\b[^>]*\bsrc=["']?(?:https?:)?//[^>]*"""
    r"""|<link\b[^>]*\bhref=["']?(?:https?:)?//[^>]*"""
    r"""|@import[^;]*//[^;]*|url\(["']?(?:https?:)?//[^)]*""",
    flags=re.I,
)


def test_what_a_browser_would_fetch_is_found():
    for text in (
        '<script async src="https://cdn.example/x.js">',
        "<link rel=stylesheet href=//fonts.example/face.css>",
        "@import 'https://fonts.example/face.css';",
        "@font-face { src: url(https://fonts.example/face.woff2) }",
    ):
        assert FETCHED.search(text), text
    for text in ('<a href="https://example.org">', '<script src="_static/x.js">'):
        assert not FETCHED.search(text), text


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built with warnings as errors, in a copy of its sources."""
    place = tmp_path_factory.mktemp("site")
    listed = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "docs"]
    for name in subprocess.run(listed, cwd=ROOT, capture_output=True, text=True).stdout.split():
        target = place / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes((ROOT / name).read_bytes())
    command = [sys.executable, "-m", "sphinx", "-qW", "--keep-going", "docs", "html"]
    built = subprocess.run(command, cwd=place, capture_output=True, text=True)
    assert built.returncode == 0, built.stderr[-4000:]
    return place / "html"


@pytest.mark.slow
@pytest.mark.skipif(not find_spec("sphinx_gallery"), reason="the extra docs is not installed")
class TestSite:
    """What is true of the pages that `make docs` builds."""

    def test_its_pages_fetch_nothing(self, site: Path):
        pages = [p for p in site.rglob("*") if p.suffix in (".html", ".css")]
        assert len(pages) > 60
        for page in pages:
            found = FETCHED.search(page.read_text())
            assert not found, f"{page.relative_to(site)}: {found.group()[:200]}"

    def test_its_formulas_are_mathml_without_a_script(self, site: Path):
        text = (site / "reference" / "theory" / "paths.html").read_text()
        assert "<math" in text and "mathjax" not in text.lower()

    def test_tutorials_and_sections_can_be_downloaded_as_notebooks_without_outputs(self, site):
        scripts = list((ROOT / "docs" / "gallery").glob("*/*.py"))
        for script in scripts:
            (notebook,) = site.glob(f"_downloads/*/{script.stem}.ipynb")
            cells = json.loads(notebook.read_text())["cells"]
            code = ["".join(c["source"]) for c in cells if c["cell_type"] == "code"]
            assert code and compile("\n".join(code), script.stem, "exec")
            assert not any(c.get("outputs") for c in cells)

    def test_no_page_names_a_place_on_the_machine_that_built_it(self, site: Path):
        for page in site.rglob("*.html"):
            text = page.read_text()
            assert str(ROOT) not in text and str(site.parent) not in text, page.name
