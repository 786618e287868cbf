"""The import graph is a rule (docs/architecture.md), so it is a test.

Every import counts: inside functions, under TYPE_CHECKING, and by a name in a string.
"""

import ast
import importlib
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import pushforward

ROOT = Path(pushforward.__file__).parent
sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

house = importlib.import_module("house")
PACKAGE = house.House(ROOT)
GRAPH = house.imports(PACKAGE)

LAYERS = [  # a file imports from its own layer and from those above it in this list
    "errors shapes formatting optional options memory rng files progress",
    "theory",
    "theory.exact",
    "model diffusion flows two_stage devices checkpoint",
    "networks",
    "families",
    "data",
    "inference",
    "metrics",
    "training",
    "plots",
    "comparison",
    "interop lesson",
    "cli",
    "__main__",
]
RANK = {name: i for i, layer in enumerate(LAYERS) for name in layer.split()}
UNKNOWN = {  # beside the order of the layers: what a folder does not know of
    "families": {"data", "inference", "training", "checkpoint"},
    "metrics": {"families", "inference", "training"},
    "inference": {"training", "metrics"},
    "plots": {"comparison"},
    "interop": {"lesson"},
    "lesson": {"interop"},
}


def rank(file: Path) -> int:
    """The number of a file's layer; that of its longest listed prefix."""
    parts = file.with_suffix("").parts
    return next(
        RANK[name] for k in range(len(parts), 0, -1) if (name := ".".join(parts[:k])) in RANK
    )


FILES = [f for f in GRAPH if f != Path("__init__.py")]


@pytest.mark.parametrize("file", FILES, ids=str)
def test_imports_point_up_the_list_of_layers(file):
    for target in GRAPH[file] - {Path("__init__.py")}:
        assert rank(target) <= rank(file), f"{file} imports {target}"


def test_no_circles():
    assert house.circles(PACKAGE) == []


@pytest.mark.parametrize("folder", UNKNOWN)
def test_what_a_folder_does_not_know_of(folder):
    for file in FILES:
        if file.parts[0] == folder:
            known = {t.with_suffix("").parts[0] for t in GRAPH[file]}
            assert not known & UNKNOWN[folder], file


@pytest.mark.parametrize("file", PACKAGE.files, ids=lambda f: str(f.path))
def test_imports_are_relative(file):
    for node in ast.walk(file.tree):
        if isinstance(node, ast.ImportFrom):
            assert node.level or node.module.split(".")[0] != "pushforward"
        if isinstance(node, ast.Import):
            assert all(name.name.split(".")[0] != "pushforward" for name in node.names)


@pytest.mark.parametrize(
    "statement",
    ["import pushforward", "import pushforward.cli", "import pushforward.data.builtin.datasets"],
)
def test_importing_does_not_import_torch(statement):
    check = f"{statement}; import sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", check]).returncode == 0


def test_every_file_of_the_package_is_shipped():
    """Files that are no Python must be named in pyproject.toml, or only a checkout has them."""
    project = tomllib.loads((ROOT.parents[1] / "pyproject.toml").read_text())
    patterns = project["tool"]["setuptools"]["package-data"]["pushforward"]
    ignored = {".py", ".pyc"}
    files = [f.relative_to(ROOT) for f in ROOT.rglob("*") if f.is_file()]
    for file in (f for f in files if f.suffix not in ignored):
        assert any(file.match(pattern) for pattern in patterns), file
