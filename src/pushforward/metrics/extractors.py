"""Features of images in which distances are taken, and what each does to an image before.

A distance of features is a statement about the features: which network, what it was trained on, how
images were scaled for it. Every estimate carries that in words, and metrics of different features
are never compared. The name FID is kept for the network of its authors (Heusel et al., 2017), which
is not shipped; a Fréchet distance in other features is called FD with their name.
"""

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from ..errors import DataError, UsageError
from ..progress import terminal_bar
from .classifier import FeatureClassifier
from .distances import Array

BATCH = 128
BYTES, UNIT, SIGNED = "0..255", "[0, 1]", "[-1, 1]"


def check_same_range(real: Array, generated: Array) -> None:
    """Refuse images of which one set is in 0..255, [0, 1] or [-1, 1], the other in another."""
    ours, theirs = _detect_pixel_range(real), _detect_pixel_range(generated)
    if ours == BYTES and theirs == UNIT and not (generated % 1).any():
        return  # nearly black
    if ours and theirs and ours != theirs:
        raise DataError(
            f"real pixels are in {ours} and generated pixels in {theirs}: bring both to one range"
        )


def _detect_pixel_range(x: Array) -> str:
    low, high = x.min(), x.max()
    if low >= 0 and 1 < high <= 255 and not (x % 1).any():
        return BYTES
    if high <= 1 and low >= -1:
        return UNIT if low >= 0 else SIGNED if low < -0.1 else ""
    return ""


class PixelRange(NamedTuple):
    """How the numbers of images become pixels from 0 to 1."""

    event: tuple[int, ...]
    low: float  # the number that is black
    high: float  # the number that is white

    @property
    def description(self) -> str:
        return f"pixels {self.low:g} to {self.high:g} as 0 to 1"

    def to_unit(self, x: Array) -> Array:
        return ((x.reshape(len(x), -1) - self.low) / (self.high - self.low)).clip(0, 1)

    def to_tensor(self, x: Array) -> Any:
        """Images from 0 to 1, a float32 tensor ``(n, channels, height, width)``."""
        import torch

        from ..networks.layout import image_layout

        rows = torch.as_tensor(self.to_unit(x), dtype=torch.float32)
        images = rows.reshape(-1, *self.event)
        return image_layout(self.event).to_channels_first(images).contiguous()


def fit_pixel_range(
    real: Array, event: tuple[int, ...], generated: Array | None = None
) -> PixelRange:
    """The pixel range of the real images, widened so that no generated one is cut off.

    Whole numbers run to 255, or to the largest of them where none is above 127; other numbers from
    0 or -1 to 1, or else from the smallest to the largest.
    """
    sets = (real,) if generated is None else (real, generated)
    kind, high = _detect_pixel_range(real), max(float(x.max()) for x in sets)
    ends = {BYTES: (0.0, 255.0 if high > 127 else high), UNIT: (0.0, 1.0), SIGNED: (-1.0, 1.0)}
    low, high = ends.get(kind, (min(float(x.min()) for x in sets), high))
    return PixelRange(event, low, high if high > low else low + 1.0)


class _ExtractedFeatures(NamedTuple):
    x: Array
    p: Array | None = None


class FeatureExtractor(NamedTuple):
    name: str  # what metrics are named after
    description: str  # the network, its features, and what is done to an image before
    features: Callable[[Array], _ExtractedFeatures]  # of rows ``(n, entries)``
    d: int | None = None  # how many features, where that is known before
    scored: bool = False  # whether it gives class probabilities


def feature_extractor(features: Any, pixels: PixelRange) -> FeatureExtractor:
    """Features are "raw", "efflite0", a path, "module:attribute", or a ``torch.nn.Module``."""
    from . import feature_networks

    if not isinstance(features, str):
        net = feature_networks.check_network(features, "features")
        return _user_network_extractor(net, type(features).__name__, pixels)
    if features == "raw":
        d = int(np.prod(pixels.event))
        return FeatureExtractor(
            "raw", pixels.description, lambda x: _ExtractedFeatures(pixels.to_unit(x)), d
        )
    if features == "efflite0":
        return _efflite0_extractor(pixels)
    return _user_network_extractor(*feature_networks.load_network(features), pixels)


def classifier_extractor(network: FeatureClassifier) -> FeatureExtractor:
    def features(x: Array) -> _ExtractedFeatures:
        return _ExtractedFeatures(network.features(x), network.probabilities(x))

    return FeatureExtractor("classifier", network.description, features, network.width, scored=True)


def _efflite0_extractor(pixels: PixelRange) -> FeatureExtractor:
    from . import feature_networks

    net = feature_networks.load_efflite0()
    colours, changed = _match_channels(3, pixels)
    height, width = pixels.to_tensor(np.zeros((1, int(np.prod(pixels.event))))).shape[2:]
    n = feature_networks.input_side(height, width)
    words = (
        f"EfficientNet-Lite0 trained on ImageNet, {feature_networks.FEATURES} features; "
        f"{pixels.description}, {changed}scaled to {n} x {n} (bilinear, antialiased)"
    )

    def call(rows: Array) -> Any:
        return net(colours(pixels.to_tensor(rows)))

    features = partial(_extract_batches, call, "EffLite0")
    return FeatureExtractor("EffLite0", words, features, feature_networks.FEATURES, scored=True)


def _user_network_extractor(net: Any, name: str, pixels: PixelRange) -> FeatureExtractor:
    """Of images ``(n, channels, height, width)`` from 0 to 1, to features, or these and logits.

    Inception networks that were made for these scores have an argument ``return_features`` and take
    0 to 255.
    """
    colours, changed = _match_channels(_input_channels(net), pixels)
    inception = _accepts_argument(net, "return_features")
    scale = "as 8-bit numbers, " if inception else ""
    where = next((p.device for p in net.parameters()), "cpu")

    def call(rows: Array) -> Any:
        x = colours(pixels.to_tensor(rows)).to(where)
        return net((255 * x).round().byte(), return_features=True) if inception else net(x)

    features = partial(_extract_batches, call, name)
    size = "of their own size, whatever the network does to it"
    return FeatureExtractor(name, f"{name}; {pixels.description}, {changed}{scale}{size}", features)


def _match_channels(wanted: int | None, pixels: PixelRange) -> tuple[Callable[[Any], Any], str]:
    have = pixels.to_tensor(np.zeros((1, int(np.prod(pixels.event))))).shape[1]
    if wanted in (None, have):
        return lambda x: x, ""
    if (have, wanted) == (1, 3):
        return lambda x: x.expand(-1, 3, -1, -1), "grey repeated in 3 channels, "
    raise UsageError(f"the network takes {wanted} channels and the images have {have}")


def _input_channels(net: Any) -> int | None:
    kernels = [p for p in net.parameters() if p.ndim == 4]
    return kernels[0].shape[1] if kernels else None


def _accepts_argument(net: Any, argument: str) -> bool:
    schema = getattr(net.forward, "schema", None)
    if schema is not None:
        return argument in [a.name for a in schema.arguments]
    return argument in inspect.signature(net.forward).parameters


def _extract_batches(call: Callable[[Array], Any], name: str, x: Array) -> _ExtractedFeatures:
    import torch
    from scipy.special import softmax

    parts = []
    with torch.no_grad(), terminal_bar(f"features: {name}") as update:
        for i in range(0, len(x), BATCH):
            rows = x[i : i + BATCH]
            try:
                given = call(rows)
                given = given if isinstance(given, tuple | list) else (given,)
                parts.append([t.double().reshape(len(rows), -1).cpu().numpy() for t in given[:2]])
            except Exception as error:
                lines = str(error).strip().splitlines() or ["no reason"]
                raise DataError(f"{name} cannot take the images: {lines[-1][:160]}") from error
            update((i + len(rows)) / len(x), "")
    found = [np.concatenate(part) for part in zip(*parts, strict=True)]
    if not all(np.isfinite(part).all() for part in found):
        raise DataError(f"{name} gives features that are not finite numbers")
    return _ExtractedFeatures(found[0], softmax(found[1], axis=1) if len(found) > 1 else None)
