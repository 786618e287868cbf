"""The lesson from the command line: its exit code, its files, its errors."""

import json
import re

import pytest
from matplotlib.figure import Figure

from pushforward import lesson
from pushforward.cli import main
from pushforward.lesson import formulas, run
from pushforward.lesson import html as page
from pushforward.lesson.claims import Claim, Evidence, Number, Verdict, check_claim
from pushforward.lesson.problems import DerivationStep, ExperimentResult, Problem, ProblemPart
from pushforward.lesson.sections import Section

TRUE = Number(r"$x^2$ <at> & 2", 4.0, 4.0, 0.0)
FALSE = Number("a number", 4.0, 5.0, 0.1)


def drawing() -> Figure:
    """A line of slope $a < b$."""
    figure = Figure(figsize=(3, 2), layout="constrained")
    figure.add_subplot().plot([0, 1])
    return figure


@pytest.fixture
def tiny(monkeypatch):
    """A lesson of one section and one problem; returns what decides whether they come out."""
    state = {"claim": TRUE, "step": TRUE}
    claim = Claim("1.1-square", "Two $\\cdot$ two is four.", Verdict.HOLDS,
                  lambda: Evidence([state["claim"]]),
                  "theory.exact.discriminator.mode_drop_cost")  # fmt: skip
    step = DerivationStep("by counting", r"\frac{4}{2} = 2", lambda: [state["step"]])
    part = ProblemPart(
        "1.1 Why?", [step], lambda: ExperimentResult(["It is 4."], [TRUE], {"bar": drawing()})
    )
    sections = {"1": Section("One", [claim], {"line": drawing}, {"A05": "mended"})}
    problems = {"p1": Problem("Two", [part])}
    monkeypatch.setattr(lesson, "SECTIONS", dict.fromkeys(sections, "x"))
    for module in (lesson, run):
        monkeypatch.setattr(module, "SECTIONS", dict.fromkeys(sections, "x"))
        monkeypatch.setattr(module, "PROBLEMS", dict.fromkeys(problems, "x"))
        monkeypatch.setattr(module, "section", sections.get)
        monkeypatch.setattr(module, "problem", problems.get)
    return state


def command(*words: str) -> int:
    with pytest.raises(SystemExit) as stopped:
        main(["lesson", *words])
    return stopped.value.code


def test_a_lesson_in_order_ends_with_0_and_shows_its_numbers(tiny, capsys):
    assert command() == 0
    out = capsys.readouterr().out
    assert "1.1-square: holds" in out and "4 (predicted 4)" in out and "1 claims, 0 diff" in out


@pytest.mark.parametrize("what", ["claim", "step"])
def test_a_number_that_comes_out_different_ends_with_1_and_is_named(tiny, what, capsys):
    tiny[what] = FALSE
    assert command("--json") == 1
    captured = capsys.readouterr()
    assert len(json.loads(captured.out)["broken"]) == 1
    assert "different from the record" in captured.err


def test_the_folder_holds_the_page_the_numbers_and_every_figure_in_three_formats(tiny, tmp_path):
    assert command("--out", str(tmp_path / "new"), "-q") == 0
    figures = {p.name for p in (tmp_path / "new" / "figures").iterdir()}
    assert figures == {f"{n}.{k}" for n in ("line", "bar") for k in ("svg", "png", "pdf")}
    assert json.loads((tmp_path / "new" / "lesson.json").read_text())[0]["key"] == "1"
    html = (tmp_path / "new" / "lesson.html").read_text()
    assert html.count("<math") >= 5 and "&lt;at&gt; &amp; 2" in html and "<at>" not in html
    assert not re.search(r"(src|href)=\"(https?:)?//", html) and "<script" not in html


def test_two_runs_write_the_same_bytes(tiny, tmp_path):
    for name in "ab":
        command("--out", str(tmp_path / name), "-q")
    files = [sorted((tmp_path / n).rglob("*.*")) for n in "ab"]
    same = [a.read_bytes() == b.read_bytes() for a, b in zip(*files) if a.suffix != ".html"]
    assert len(same) == 7 and all(same)


def test_a_section_that_does_not_exist_is_a_usage_error(capsys):
    assert command("7") == 2
    assert "there is no section 7" in capsys.readouterr().err


def test_the_order_is_the_lessons_and_nothing_runs_twice():
    assert run.select_chapters(["p1", "2", "2"]) == ["2", "p1"]
    assert run.select_chapters([])[0] == "1"


@pytest.mark.parametrize(
    ("value", "tolerance", "text"),
    [
        (0.12345678, 1e-3, "0.1235"),
        (1e-7, 1e-9, "1e\u221207"),
        (8.0, 0.0, "8"),
        (-2.5, 0.1, "\u22122.50"),
        (float("nan"), 0.1, "\u2013"),
        (float("inf"), 0.1, "\u221e"),
    ],
)
def test_numbers_have_the_digits_that_their_tolerance_tells_apart(value, tolerance, text):
    assert page.format_to_tolerance(value, tolerance) == text


def test_text_keeps_what_is_between_formulas():
    assert formulas.text_to_unicode(r"if $\beta \ge 1$ & so") == "if \u03b2\u22651 & so"
    assert str(formulas.text_to_html("a < $b$")).startswith("a &lt; <math")


def test_names_are_set_as_code_and_tall_fences_as_signs():
    assert str(formulas.text_to_html("a `<b>` c")) == "a <code>&lt;b&gt;</code> c"
    assert "\\" not in formulas.formula_to_mathml(r"\Big\{\Big\| x \Big\|\Big\}")


def test_a_notebook_shows_a_chapter_as_the_page_does(tiny):
    (chapter,) = run.run_chapters(["1"])
    shown = chapter._repr_html_()
    assert "4" in shown and "<html" not in shown and shown in page.render_lesson([chapter])


def test_no_figure_is_encoded_where_none_is_wanted(tiny, monkeypatch):
    monkeypatch.setattr(run, "encode_formats", lambda figure: pytest.fail("encoded"))
    assert [c.figures for c in run.run_chapters(draw=False)] == [{}, {}]


def test_json_keeps_the_right_statement_beside_the_numbers_of_both_sides():
    evidence = Evidence([FALSE], [TRUE])
    claim = Claim("1.1-x", "", Verdict.WRONG, lambda: evidence, "", right="It is four.")
    facts = check_claim(claim).to_dict()
    assert facts["right"] == "It is four." and facts["verdict"] == Verdict.WRONG
    assert facts["numbers"]["lesson"] == [{**FALSE._asdict(), "agrees": False}]
    assert facts["numbers"]["right"] == [{**TRUE._asdict(), "agrees": True}]
