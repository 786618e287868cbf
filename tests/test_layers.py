"""The import graph is a rule (docs/architecture.md), so it is a test."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import pushforward

ROOT = Path(pushforward.__file__).parent
LAYERS = [
    {"errors", "__version__"},
    {"shapes", "generators", "progress", "options", "memory", "packages", "ranks", "weights"},
    {"theory"},
    {"model"},
    {"networks", "diffusion"},
    {"families", "data"},
    {"training", "players", "averaging", "sharding", "checkpoint"},
    {"places"},
    {"metrics"},
    {"fitted"},
    {"fitting"},
    {"comparison"},
    {"report"},
    {"lesson", "interop"},
    {"cli"},
    {"__main__"},
]
RANK = {name: i for i, layer in enumerate(LAYERS) for name in layer}
FILES = [f for f in ROOT.rglob("*.py") if f.relative_to(ROOT).parts != ("__init__.py",)]


def imports(file: Path, inside_functions: bool):
    """Modules of the package that a file imports, as paths from the package's root."""
    tree = ast.parse(file.read_text())
    nodes = ast.walk(tree) if inside_functions else tree.body
    here = file.relative_to(ROOT).parts[:-1]
    for node in nodes:
        if isinstance(node, ast.ImportFrom) and node.level:
            base = here[: len(here) - node.level + 1]
            names = [node.module] if node.module else [a.name for a in node.names]
            for name in names:
                yield (*base, *name.split("."))
        elif isinstance(node, ast.ImportFrom | ast.Import):
            names = (
                [node.module] if isinstance(node, ast.ImportFrom) else [a.name for a in node.names]
            )
            assert not any(n.split(".")[0] == "pushforward" for n in names), "import relatively"


@pytest.mark.parametrize("file", FILES, ids=lambda f: str(f.relative_to(ROOT)))
def test_imports_point_up_the_list_of_layers(file):
    here = file.relative_to(ROOT).parts[0].removesuffix(".py")
    for target in imports(file, inside_functions=False):
        assert RANK[target[0]] <= RANK[here], f"{file.name} imports {'.'.join(target)}"


def test_theory_and_families_know_nothing_of_training():
    for folder, banned in {
        "theory": {"model", "training", "fitted", "families", "data"},
        "families": {"training", "checkpoint", "fitted", "data"},
        "metrics": {"model", "training", "fitted", "families"},
    }.items():
        for file in (ROOT / folder).glob("*.py"):
            assert not {t[0] for t in imports(file, inside_functions=True)} & banned, file


def test_nothing_imports_the_command_line():
    for file in FILES:
        if file.name == "__main__.py" or file.parent.name == "cli":
            continue
        assert "cli" not in {t[0] for t in imports(file, inside_functions=True)}, file


def test_training_names_no_family():
    from pushforward import families

    files = [ROOT / "training.py", *(ROOT / "fitting").glob("*.py")]
    text = "".join(file.read_text().lower() for file in files)
    code = "\n".join(line for line in text.splitlines() if not line.startswith("default ="))
    named = [n for n in families.names() if f'"{n}"' in code or "isinstance(model" in code]
    assert not named, named


@pytest.mark.parametrize(
    "statement",
    ["import pushforward", "import pushforward.cli", "import pushforward.data.builtin.datasets"],
)
def test_importing_does_not_import_torch(statement):
    check = f"{statement}; import sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", check]).returncode == 0
