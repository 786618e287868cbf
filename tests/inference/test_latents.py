"""Traversals and lattices against encoding, decoding and reconstructing, and their figure."""

import numpy as np
import pytest

from pushforward.cli import main
from pushforward.errors import DataError, UsageError
from pushforward.inference.latents import decode_quantile_lattice
from pushforward.plots.figures import encode_for_plot, plot_latents
from pushforward.training.fit import fit

TINY = {"steps": 3, "width": 8, "batch": 16, "progress": False}
SOURCES = {"line": (60, 1), "plane": (60, 2), "table": (60, 5), "image": (60, 4, 4)}


def data(kind):
    return np.random.default_rng(0).standard_normal(SOURCES[kind])


@pytest.fixture(scope="module", params=SOURCES)
def model(request):
    return fit(data(request.param), "vae", latent=3, **TINY)


def test_a_traversal_passes_through_the_reconstruction(model):
    """At the value that the encoder gives a latent, moving it changes nothing."""
    x = np.random.default_rng(1).standard_normal((2, *model.schema.shape))
    z = model.encode(x)
    for unit in (0, 2):
        moved = model.traverse(x, units=[unit], values=np.array([-1, z[0, unit]]))
        assert moved.shape == (1, 2, *model.schema.event)
        np.testing.assert_allclose(moved[0, 1], model.reconstruct(x)[0], rtol=1e-5, atol=1e-6)
        z[0, unit], first = -1.0, z[0, unit]
        np.testing.assert_allclose(moved[0, 0], model.decode(z)[0], rtol=1e-5, atol=1e-6)
        z[0, unit] = first


def test_traversals_and_lattices_start_at_the_middle_of_the_prior(model):
    middle = model.decode(np.zeros((1, 3)))[0]
    every = model.traverse(values=[-2.0, 0.0])
    np.testing.assert_allclose(every[:, 1], np.stack([middle] * 3), rtol=1e-5, atol=1e-6)
    grid = decode_quantile_lattice(model.pipeline, units=(0, 2), side=5)
    np.testing.assert_allclose(grid[2, 2], middle, rtol=1e-5, atol=1e-6)


def test_a_lattice_lies_at_quantiles_of_the_prior_rightwards_and_upwards(model):
    """Of 2 points a side these are -0.6745 and 0.6745, the quartiles of a standard normal."""
    z = np.zeros((4, 3))
    z[:, 2], z[:, 0] = [-1, 1, -1, 1], [1, 1, -1, -1]
    expected = model.decode(0.6744897501960817 * z).reshape(2, 2, *model.schema.event)
    found = decode_quantile_lattice(model.pipeline, units=(2, 0), side=2)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_a_condition_must_be_known_and_counts():
    x, y = data("plane"), np.arange(60) % 2
    model = fit(x, "vae", y, latent=2, **TINY)
    with pytest.raises(DataError, match="condition"):
        model.traverse(x)
    first, second = (model.traverse(x, y, values=[0.0]) for y in (0, 1))
    assert not np.allclose(first, second)
    np.testing.assert_allclose(model.traverse(x, y, values=[0.0]), first)  # that of the first


def test_latents_that_are_not_there_are_refused():
    for family, why in (("vae", "no latent 2"), ("gaussian", "has no latents")):
        options = TINY | {"latent": 2} if family == "vae" else {"progress": False}
        with pytest.raises(UsageError, match=why):
            fit(data("plane"), family, **options).traverse(units=[2])


def test_active_latents_come_first_and_are_counted(model):
    """The encoder of the figure's data, by hand: ordered by the variance of their means."""
    x = np.random.default_rng(2).standard_normal((200, *model.schema.shape))
    found, z = encode_for_plot(model, x, None), model.encode(x)
    assert (np.diff(z.var(0)[found.order]) <= 0).all()
    assert found.active == (z.var(0) > 0.01).sum()


@pytest.mark.parametrize(
    ("kind", "latent"), [("line", 1), ("plane", 1), ("plane", 2), ("table", 3), ("image", 3)]
)
def test_the_figure_is_drawn_for_every_kind_of_data(kind, latent, tmp_path):
    y = np.array(["a", "b", "$c"])[np.arange(60) % 3]
    model = fit(data(kind), "vae", y, latent=latent, **TINY)
    text = plot_latents(model, tmp_path / "x.svg", data(kind), y).read_text()
    assert f"of {latent} latent" in text and ("$c" in text) == (latent > 1)


def test_the_command_line_draws_the_latents_of_a_run(tmp_path, capsys):
    run, figure = tmp_path / "run", tmp_path / "latents.png"
    fit("wine", "vae", out=run, latent=2, **TINY)
    with pytest.raises(SystemExit) as done:
        main(["latent", str(run), "-o", str(figure)])
    assert done.value.code == 0 and figure.read_bytes()[:4] == b"\x89PNG"
    with pytest.raises(SystemExit) as done:
        main(["latent", str(run), "-o", str(tmp_path / "latents.csv")])
    assert done.value.code == 2 and "names no figure" in capsys.readouterr().err


def test_data_in_memory_must_be_named(tmp_path):
    model = fit(data("plane"), "vae", latent=2, **TINY)
    with pytest.raises(UsageError, match="name data"):
        plot_latents(model, tmp_path / "x.png")
