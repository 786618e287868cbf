"""Reports say what the numbers support, show every family, and carry nothing hostile."""

import base64
import copy
import gc
import re
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser

import matplotlib
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.figure import Figure

import pushforward as pf
from pushforward import formatting
from pushforward.comparison import findings, report
from pushforward.comparison.compare import Comparison
from pushforward.comparison.leaderboard import PRIMARY, FitResult
from pushforward.errors import DiskError
from pushforward.metrics.estimate import MetricEstimate
from pushforward.plots import style

HOSTILE = ("<script>alert(1)</script>", '"><img src=x onerror=alert(1)>')
rng = np.random.default_rng(0)


def estimate(value, half=0.01, floor=0.0, **more):
    return MetricEstimate(value, value - half, value + half, floor, **more)


def entry(family, model, test, energy, nll=None):
    metrics = {PRIMARY: estimate(energy), "precision": estimate(0.9, better="higher")}
    made = FitResult(family, 0, 1.5, 0.1, 10, 4, 0.02, model.likelihood, nll, metrics, "", model)
    made.generated = model.draw(len(test), seed=0)
    return made


class Page(HTMLParser):
    """The tags, attributes and text of a page."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.attributes, self.text = [], [], ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data):
        self.text += data

    def values(self, name):
        return [value for key, value in self.attributes if key == name]


@pytest.fixture(scope="module")
def compare(fits):
    """A comparison of two families, and of a third that failed, without the wait for metrics."""

    def build(kind, source="the data passed"):
        x, models, known = fits[kind]
        rows = np.asarray(x, dtype=float)
        rows = rows.reshape(len(rows), *models["gaussian"].schema.event)
        train, test = rows[: len(rows) // 2], rows[len(rows) // 2 :]
        entries = [
            entry("gaussian", models["gaussian"], test, 0.2, estimate(3.2, 0.05)),
            entry("flow_matching", models["flow_matching"], test, 0.1, estimate(3.0, 0.05)),
            FitResult("gan", 0, error=f"step 3, critic: {HOSTILE[0]}"),
        ]
        schema = models["gaussian"].schema
        return Comparison(entries, train, test, schema, "12 steps, 1 seed", source, known)

    return build


@pytest.fixture(scope="module")
def pages(compare, tmp_path_factory):
    """The report of each kind of data, written once."""
    folder = tmp_path_factory.mktemp("reports")
    return {
        kind: compare(kind, source=HOSTILE[1]).save_report(folder / kind).read_text("utf-8")
        for kind in ("line", "plane", "table", "images")
    }


def drawings(page):
    """The images of a page, each a well-formed SVG."""
    prefix = "data:image/svg+xml;base64,"
    assert all(s.startswith(prefix) for s in page.values("src"))
    return [ElementTree.fromstring(base64.b64decode(s[len(prefix) :])) for s in page.values("src")]


# --- the page ---


@pytest.mark.parametrize("kind", ["line", "plane", "table", "images"])
def test_a_report_loads_nothing_and_runs_nothing(pages, kind):
    text = pages[kind]
    page = Page(text)
    assert not {"script", "iframe", "link"} & set(page.tags) and not page.values("href")
    assert not [k for k, _ in page.attributes if k.startswith("on")]
    assert "default-src 'none'; style-src 'unsafe-inline'; img-src data:" in page.values("content")
    assert not re.search(r"@import|url\(|https?://", text)
    for element in (e for drawing in drawings(page) for e in drawing.iter()):
        assert not element.tag.endswith(("script", "foreignObject"))
        for key, value in element.attrib.items():
            assert not key.endswith("href") or value.startswith(("#", "data:image/png"))


def test_hostile_names_are_shown_as_text(pages):
    page = Page(pages["table"])
    assert all(name in page.text for name in (*HOSTILE, "$x_1$"))
    written = [e.text for drawing in drawings(page) for e in drawing.iter() if e.text]
    assert style.clean_label(HOSTILE[0], 18) in written
    assert "$x_1$" in written, "a dollar sign in a name is not the start of a formula"


def test_hostile_classes_are_shown_as_text():
    x, y = rng.normal(size=(60, 2)), np.array(HOSTILE * 30)
    model = pf.fit(x, "gaussian", y=y, progress=False)
    made = entry("gaussian", model, x, 0.1)
    text = report.render_report(Comparison([made], x, x, model.schema, "none", "the data passed"))
    page = Page(text)
    assert "script" not in page.tags and all(name in page.text for name in HOSTILE)


def test_every_family_is_in_the_table_or_has_its_reason(pages):
    page = Page(pages["plane"])
    assert page.values("id") == ["flow_matching", "gaussian"]  # best first
    assert f"GAN failed: step 3, critic: {HOSTILE[0]}" in re.sub(r"\s+", " ", page.text)


def test_when_everything_failed_the_report_says_so(compare):
    comparison = compare("plane")
    comparison.entries = comparison.entries[2:]
    page = Page(report.render_report(comparison))
    assert "No family could be fitted" in page.text and "img" not in page.tags


COMMON = ["Leaderboard", "Quality against cost", "Training"]


@pytest.mark.parametrize(
    "kind, own",
    {
        "line": ["Samples beside data"],
        "plane": ["Samples beside data", "Log-density", "From noise to data"],
        "table": ["Marginals", "Main directions"],
        "images": ["Samples beside data"],
    }.items(),
)
def test_each_kind_of_data_has_its_figures(pages, kind, own):
    page = Page(pages[kind])
    found = re.findall(r"Figure \d+\. (.+)", page.text)
    assert sorted(found) == sorted([*COMMON, *own])
    shown = page.values("alt")
    for title in own:
        assert f"{title}: flow matching" in shown
    assert ("Log-density: exact density" in shown) == (kind == "plane")
    assert ("the exact density of the data" in page.text) == (kind == "line")


def test_the_same_comparison_gives_the_same_bytes_and_leaves_nothing_behind(compare, pages):
    def alive():
        gc.collect()
        return sum(type(o) is Figure for o in gc.get_objects())

    state, settings, before = torch.get_rng_state(), dict(matplotlib.rcParams), alive()
    again = report.render_report(compare("plane", source=HOSTILE[1]))
    assert again == pages["plane"]
    assert torch.equal(state, torch.get_rng_state()) and settings == dict(matplotlib.rcParams)
    assert alive() <= before


def test_a_failed_write_leaves_nothing_behind(compare, tmp_path):
    comparison = compare("line")
    comparison.entries = comparison.entries[2:]  # the failed one: a report without figures
    (tmp_path / "report.html").mkdir()  # cannot be replaced by a file
    with pytest.raises(DiskError):
        report.write_report(comparison, tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"]
    (tmp_path / "file").write_text("")
    with pytest.raises(DiskError):
        report.write_report(comparison, tmp_path / "file")


# --- what is said ---

ends = st.tuples(st.floats(0.0, 1.0), st.floats(0.001, 0.3))


def rows(values):
    """Rows of a leaderboard as `Comparison.table` makes them."""
    estimates = [estimate(v, half) for v, half in sorted(values)]
    found = [{PRIMARY: e, "family": f"family{i}"} for i, e in enumerate(estimates)]
    for row in found:
        row["rank"] = 1 + sum(e.high < row[PRIMARY].low for e in estimates)
    return found


@given(st.lists(ends, min_size=2, max_size=6))
def test_a_winner_is_named_only_outside_the_noise(values):
    table = rows(values)
    text = findings.describe_leaders(table)
    lowest = min(r[PRIMARY].high for r in table)
    apart = sum(r[PRIMARY].low <= lowest for r in table) == 1
    assert ("has the smallest energy distance" in text) == apart
    assert ("not separate" in text) != apart


@given(st.lists(ends, min_size=2, max_size=6), st.integers(0, 1))
def test_only_families_below_the_whole_interval_of_the_gaussian_beat_it(values, which):
    table = rows(values)
    table[which]["family"] = findings.REFERENCE
    text = findings.compare_with_reference(table)
    others = [r for r in table if r["family"] != findings.REFERENCE]
    better = [r["family"] for r in others if r[PRIMARY].high < table[which][PRIMARY].low]
    beaten = text.split("single Gaussian")[0].lower()
    if len(better) == len(others) > 1:
        assert text == "All the others beat the single Gaussian."
    elif not better:
        assert text.startswith("No family beats")
    else:
        assert [f["family"] for f in others if f["family"] in beaten] == better


def test_the_floor_is_reached_by_intervals_that_hold_it():
    table = rows([(0.005, 0.01), (0.5, 0.1)])
    assert "Family0 reaches the floor" in findings.describe_floor(table)
    assert "No family reaches the floor" in findings.describe_floor(rows([(0.4, 0.1), (0.5, 0.1)]))


def test_a_bound_is_never_ranked_among_densities():
    table = rows([(0.1, 0.01), (0.2, 0.01)])
    for row, kind, nats in zip(table, ("exact", "lower bound"), (2.0, 1.0)):
        row |= {"likelihood": kind, "nll": estimate(nats)}
    assert findings.compare_likelihoods(table, None).startswith(
        "Family0 gives test rows the highest"
    )
    bounds = report.likelihood_cells(table[1]["nll"], "lower bound", 0.5, 2)
    assert [c.text[0] for c in bounds if c.text != "lower bound"] == ["\u2264"] * 3


def test_bits_and_gap_follow_from_nats(compare):
    comparison = compare("plane")
    board = report.leaderboard_table(comparison)
    cells = dict(zip(board["heads"][2:], board["rows"][0]["cells"]))
    assert float(cells["Bits per dim"].text) == pytest.approx(3.0 / (2 * np.log(2)), abs=0.005)
    gap = float(cells["Gap, nats"].text)
    assert gap == pytest.approx(3.0 - comparison.dataset.entropy, abs=0.005)


@given(st.floats(-100, 100), st.floats(1e-6, 10))
def test_digits_lose_nothing_that_the_interval_supports(value, half):
    """Two digits of the half-width round by at most a twentieth of it."""
    digits = formatting.supported_decimals(value - half, value + half)
    if digits <= 6:
        shown = float(
            formatting.format_number(value, digits).replace("\u2212", "-").replace(",", "")
        )
        assert abs(shown - value) <= half / 20 * (1 + 1e-6)


# --- warnings ---


def alarmed(comparison):
    return {family: text for family, text in findings.comparison_warnings(comparison)}


def test_mode_collapse_is_found_at_known_modes(compare):
    comparison = compare("plane")
    modes, n = comparison.dataset.modes, len(comparison.test)
    comparison.entries = comparison.entries[:1]
    comparison.entries[0].generated = modes[rng.integers(8, size=n)]
    assert not alarmed(comparison)
    comparison.entries[0].generated = modes[rng.integers(3, size=n)]
    assert "keeps 3 of the 8 modes" in alarmed(comparison)["gaussian"]


def test_copies_of_training_rows_are_found(compare):
    comparison = compare("table")
    comparison.entries = comparison.entries[:1]
    mine = comparison.entries[0]
    real = pf.evaluate(comparison.test, comparison.test, train=comparison.train, metrics=["copies"])
    assert not alarmed(comparison)
    copied = np.concatenate([mine.generated[:-5], comparison.train[:5]])
    mine.metrics |= pf.evaluate(
        comparison.test, copied, train=comparison.train, metrics=["copies", "nearest_train"]
    )
    assert "5\u00a0% of the samples equal a training row" in alarmed(comparison)["gaussian"]
    mine.metrics |= real
    assert not alarmed(comparison)


def test_a_likelihood_below_the_entropy_is_called_impossible(compare):
    comparison = compare("plane")
    error, truth = 0.02, comparison.dataset.entropy
    comparison.entries = comparison.entries[:1]
    for gap, wrong in {2.5: False, 3.5: True}.items():
        comparison.entries[0].nll = estimate(truth - gap * error, 1.96 * error)
        assert ("gaussian" in alarmed(comparison)) == wrong


def test_what_a_family_finds_wrong_with_itself_is_an_alarm(compare):
    comparison = compare("table")
    comparison.entries = comparison.entries[1:2]
    model = copy.copy(comparison.entries[0].model)
    comparison.entries[0].model = model
    assert "posterior" not in alarmed(comparison).get("flow_matching", "")
    model.history = [{"step": 9, "active_units": 0.0, "collapsed_units": 2.0}]
    assert "posterior collapse: 2 of 2" in alarmed(comparison)["flow_matching"]


def test_a_family_of_few_steps_is_named_and_not_judged(compare):
    comparison = compare("table")
    mine = comparison.entries[1]
    mine.model, mine.metrics[PRIMARY] = copy.copy(mine.model), estimate(0.5)
    mine.model.config = mine.model.config | {"usual": 4000}
    assert alarmed(comparison)["flow_matching"].startswith(
        "far from trained: 12 of the usual 4,000"
    )
    assert "0.3\u00a0%" in " ".join(findings.summarise_findings(comparison))
    assert "Far from trained" in comparison.text()


def test_a_family_that_gains_nothing_over_one_gaussian_is_named(compare):
    comparison = compare("table")
    assert not alarmed(comparison)
    comparison.entries[1].metrics[PRIMARY] = estimate(0.21)
    assert "not shown to be better" in alarmed(comparison)["flow_matching"]
    comparison.entries[1].metrics[PRIMARY] = estimate(0.5)
    assert "worse than that of a single Gaussian" in alarmed(comparison)["flow_matching"]
