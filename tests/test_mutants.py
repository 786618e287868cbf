"""Every known bug can still be injected: its text stands once in its file, and its test exists.

`make mutants` injects them one at a time and takes minutes; a renamed line would only show there.
"""

import ast
from pathlib import Path

import pytest

import pushforward
from mutants import MUTANTS

TESTS, PACKAGE = Path(__file__).parent, Path(pushforward.__file__).parent


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda m: f"{m.file}: {m.new[:40]}")
def test_a_known_bug_can_be_injected(mutant):
    text = (PACKAGE / mutant.file).read_text()
    assert text.count(mutant.old) == 1 and mutant.new != mutant.old
    ast.parse(text.replace(mutant.old, mutant.new))


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda m: f"{m.test}: {m.k}")
def test_the_test_that_must_notice_it_exists(mutant):
    text = (TESTS / mutant.test).read_text()
    words = mutant.k.split(" or ")
    assert "def test_" in text and any(word in text for word in words)
