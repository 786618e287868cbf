"""Every benchmark says how it is used and runs in its quick form, which writes no numbers."""

import importlib
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

FOLDER = Path(__file__).parents[1] / "benchmarks"
SHORT = ["--quick", "--blocks", "1", "--seconds", "0.001"]
QUICK = {
    "steps": [*SHORT, "--group", "3x64"],
    "draws": [*SHORT, "--group", "256 samples, ddpm 3x64"],
    "densities": [*SHORT, "--group", "d = 2,"],
    "frechet": SHORT,
    "speed": [*SHORT, "--only", "steps", "--group", "ddpm 3x64"],
    "memory": ["--quick", "--batch", "2"],
    "quality": ["--quick", "modes", "bounds", "--families", "gan,vae"],
    "images": ["digits", "--quick", "--families", "flow_matching"],
    "editing": ["translation", "noising", "--quick", "--tasks", "shape", "--couplings", "ot"],
}
PAGE = FOLDER.parent / "docs" / "numbers.md"


def call(monkeypatch, capsys, name, options):
    """What a benchmark prints."""
    monkeypatch.syspath_prepend(str(FOLDER))
    monkeypatch.setattr(sys, "argv", [f"{name}.py", *options])
    module = importlib.import_module(name)
    parts = {name: module.rows} if name in ("steps", "draws", "densities", "frechet") else None
    parts = module.PARTS if name == "speed" else parts
    module.main() if parts is None else module.main(parts, module.__doc__)
    return capsys.readouterr().out


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.slow) if n == "densities" else n for n in QUICK]
)
def test_a_quick_form_prints_a_table(name, monkeypatch, capsys, tmp_path):
    out = ["--out", str(tmp_path)] if name in ("images", "editing") else []
    before, threads = PAGE.read_text("utf-8"), torch.get_num_threads()
    printed = call(monkeypatch, capsys, name, [*QUICK[name], *out])
    torch.set_num_threads(threads)
    assert len(printed.splitlines()) > 2 and "nan" not in printed.split()
    assert PAGE.read_text("utf-8") == before


@pytest.mark.parametrize("name", sorted({p.stem for p in FOLDER.glob("*.py")} - {"race"}))
def test_help_says_what_it_is(name):
    done = subprocess.run(
        [sys.executable, str(FOLDER / f"{name}.py"), "--help"],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
    )
    assert done.returncode == 0 and f"usage: {name}.py" in done.stdout, done.stderr
