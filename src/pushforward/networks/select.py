"""Which network suits the data: perceptrons for vectors and small images, convolutions for others.

The sizes of deep networks are such that 28 x 28 pixels can be learned on a laptop's processor.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Annotated, TypedDict, Unpack

from torch import nn

from ..errors import UsageError
from ..model import Event, Recipe
from ..options import LAYERS, Choice, Default, choose_option, with_defaults
from .layout import image_layout, is_large_image
from .mlp import TimeMLP
from .text_encoder import ByteEncoder, CaptionedNetwork
from .transformer import DiT
from .unet import UNet


def _default_patch_size(event: tuple[int, ...]) -> int:
    """The side of a transformer's patches: at most 8 x 8 of them, and none of a single pixel."""
    return max(2, -(-max(image_layout(event).shape[1:]) // 8)) if len(event) in (2, 3) else 1


TIME_NETWORKS = ("auto", "mlp", "unet", "dit")
VECTOR_NETWORKS = Choice(("auto", "mlp", "conv"))


class TimeNetworkOptions(TypedDict, total=False):
    """The network of a family whose samples follow a path: a function of data, time and condition.

    Arguments:
        network: "mlp", "unet", "dit" (a transformer), or "auto": a U-Net for images of more than
            8 x 8 pixels, and otherwise an mlp.
        width: Units of an mlp, first channels of a U-Net, token width of a DiT; 0 to choose.
        depth: Hidden layers of an mlp, scales of a U-Net, blocks of a transformer.
        waves: Random Fourier features of the input of an mlp; by default 64 in up to 4 dimensions.
    """

    network: Annotated[str, Choice(TIME_NETWORKS), Default("auto")]
    width: Annotated[int, Default(0)]
    depth: Annotated[int, LAYERS, Default(3)]
    waves: Annotated[int | None, Default(None)]


def build_time_network(
    event: Event, *, units: int, spans: bool = False, **given: Unpack[TimeNetworkOptions]
) -> nn.Module:
    """``net(x, t, c)``, or with ``spans`` ``net(x, t, c, span)``; ``units`` are an mlp's width."""
    options = with_defaults(TimeNetworkOptions, given)
    width, depth, waves = options["width"], options["depth"], options["waves"]
    patch = _default_patch_size(event.shape)
    makers: dict[str, Callable[..., nn.Module]] = {
        "mlp": partial(TimeMLP, width=width or units, depth=depth, waves=waves),
        "unet": partial(UNet, width=width or 16, scales=depth),
        "dit": partial(DiT, width=width or 128, depth=depth, patch=patch),
    }
    vector = len(event.shape) == 1
    usual = "mlp" if vector or not is_large_image(event.shape) else "unet"
    make = choose_option("network", options["network"], {"auto": makers[usual], **makers})
    attends = make is not makers["mlp"]
    if waves is not None and attends:
        raise UsageError("`waves` are inputs of an mlp, and this network is none: leave it out")
    make = partial(make, event.shape, spans=spans)
    if event.spelled:
        return _build_captioned_network(event, make, attends)
    return make(event.condition, tokens=event.tokens) if attends else make(event.condition)


def _build_captioned_network(
    event: Event, make: Callable[..., nn.Module], attends: bool
) -> CaptionedNetwork:
    reader, vector = ByteEncoder(event.tokens), event.condition - math.prod(event.tokens)
    tokens = (event.tokens[0], 1 + reader.width)
    if not attends:
        return CaptionedNetwork(make(vector + reader.width), reader, attends)
    net = make(vector + reader.width + math.prod(tokens), tokens=tokens)
    return CaptionedNetwork(net, reader, attends)


def takes_tokens(model: nn.Module) -> bool:
    return any(getattr(m, "tokens", (0, 0))[0] for m in model.modules())


def is_deep(net: nn.Module) -> bool:
    return not isinstance(net.net if isinstance(net, CaptionedNetwork) else net, TimeMLP)


def adapt_recipe(net: nn.Module, recipe: Recipe) -> Recipe:
    return recipe._replace(steps=5000, batch=64, lr=1e-3, clip=100.0) if is_deep(net) else recipe


def is_convolutional(event: Event, network: str) -> bool:
    known = {"auto": is_large_image(event.shape), "mlp": False, "conv": True}
    return choose_option("network", network, known)
