"""The pages say what the code does."""

import re
import subprocess
import sys
from pathlib import Path

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
