"""A small convolutional network that tells the classes of images, for their features.

It sees images of at most 32 pixels a side, in training moved by up to a pixel at random. There
are as many steps for few images as for many: about twenty seconds of one thread at 28 x 28.
"""

import math

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, interpolate, pad

from ..networks.layout import image_layout
from ..rng import fork_rng, seed_rng
from .distances import Array, sample_set

LARGEST = 32  # pixels along a side that the network sees at most
STEPS, BATCH, RATE, DECAY, SMOOTHING = 1200, 64, 3e-3, 0.05, 0.05
CHUNK = 512


def _convolutional_body(channels: int, height: int, width: int, features: int) -> nn.Sequential:
    """Three convolutions, each followed by a halving, and a layer of features."""
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
    """A convolution, and the largest of every four pixels."""
    return [nn.Conv2d(into, out, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2, ceil_mode=True)]


class ConvolutionalClassifier:
    """A fitted network; the layer before the last gives features.

    Arguments:
        event: The shape of one image.
        classes: What the labels are, in the order of the network's outputs.
        width: How many features.
    """

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
        """Rows as the network takes them."""
        rows = torch.as_tensor(sample_set(x), dtype=torch.float32)
        images = self.layout.to_channels_first(rows.reshape(-1, *self.layout.event))
        if list(images.shape[2:]) == self.size:
            return images
        return interpolate(images, self.size, mode="bilinear", antialias=True)

    @torch.no_grad()
    def features(self, x: np.ndarray) -> Array:
        rows = [x[i : i + CHUNK] for i in range(0, len(x), CHUNK)]
        found = [self.body(self.images(some)).double() for some in rows]
        return torch.cat(found).numpy()

    @torch.no_grad()
    def probabilities(self, x: np.ndarray) -> Array:
        features = torch.as_tensor(self.features(x))
        logits = features @ self.head.weight.double().T + self.head.bias.double()
        return logits.softmax(1).numpy()

    def predict(self, x: np.ndarray) -> np.ndarray:
        return self.classes[self.probabilities(x).argmax(1)]


def fit_convolutional(
    x: np.ndarray,
    code: np.ndarray,
    classes: np.ndarray,
    *,
    width: int,
    seed: int,
) -> ConvolutionalClassifier:
    """Fit the network to images ``(n, *event)`` whose classes have the numbers ``code``."""
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
        for group in optimizer.param_groups:
            group["lr"] = (
                RATE * min((step + 1) / 50, 1) * (1 + math.cos(math.pi * step / steps)) / 2
            )
        i = torch.randint(len(x), (BATCH,))
        optimizer.zero_grad()
        cross_entropy(net(_random_shift(x[i])), code[i], label_smoothing=SMOOTHING).backward()
        optimizer.step()


def _random_shift(x: Tensor) -> Tensor:
    """Images moved together by at most a pixel in each direction."""
    top, left = torch.randint(3, (2,)).tolist()
    height, width = x.shape[2:]
    return pad(x, [1] * 4, mode="replicate")[..., top : top + height, left : left + width]
