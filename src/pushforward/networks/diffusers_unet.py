"""A U-Net of `diffusers` as our network: what it learns is read by `diffusers` without us."""

from typing import Any

import torch
from torch import Tensor, nn

from ..errors import UsageError
from ..optional import import_optional
from ..shapes import Condition, Data, Times
from .backbone import Backbone
from .blocks import zero_module
from .layout import ImageLayout, image_layout

GROUPS = 8


class DiffusersUNet(Backbone):
    """A `UNet2DModel`, whose timesteps are those of a chain, with any condition.

    The condition is a vector added to the embedded time, 0 where it is hidden. Its last layer
    begins at zero, as those of our own.

    Arguments:
        event_shape: The shape of one sample, ``(h, w)``, ``(c, h, w)`` or ``(h, w, c)``.
        width: Channels of the first scale, a multiple of 8; each scale has twice those before it,
            up to four times.
        steps: The length T of the chain; time t is the timestep T t - 1.
        attention: Pixels attend to each other where no side has more of them than this.

    Raises:
        UsageError: If it cannot be built for such data.
        Unavailable: If `diffusers` is not installed.
    """

    def __init__(
        self,
        event_shape: tuple[int, ...],
        condition: int = 0,
        *,
        width: int = 32,
        scales: int = 3,
        steps: int = 1000,
        attention: int = 8,
    ) -> None:
        super().__init__()
        self.layout: ImageLayout = image_layout(event_shape)
        channels, *sides = self.layout.shape
        if width % GROUPS or any(side % 2 ** (scales - 1) for side in sides):
            raise UsageError(
                f"the width of a U-Net of diffusers is a multiple of {GROUPS}, and sides are "
                f"halved depth - 1 times, but width={width}, depth={scales} and sides {sides}"
            )
        attends = [max(sides) // 2**i <= attention for i in range(scales)]
        down = ["AttnDownBlock2D" if yes else "DownBlock2D" for yes in attends]
        up = ["AttnUpBlock2D" if yes else "UpBlock2D" for yes in reversed(attends)]
        self.unet = import_optional("diffusers", "diffusers").UNet2DModel(
            sample_size=tuple(sides),
            in_channels=channels,
            out_channels=channels,
            layers_per_block=1,
            block_out_channels=tuple(width * min(2**i, 4) for i in range(scales)),
            down_block_types=tuple(down),
            up_block_types=tuple(up),
            norm_num_groups=GROUPS,
            class_embed_type="identity" if condition else None,
        )
        zero_module(self.unet.conv_out)
        self.steps = steps
        self.condition = nn.Linear(condition, 4 * width, bias=False) if condition else None

    def forward(self, x: Data, t: Times, c: Condition = None) -> Data:
        image = self.layout.to_channels_first(x).contiguous().to(memory_format=self.memory_format)
        timestep = ((self.steps * t - 1) * 1000).round() / 1000  # a whole one is whole
        known = {} if self.condition is None else {"class_labels": self.embed_condition(c, x)}
        y = self.unet(image, timestep.expand(len(x)), **known, return_dict=False)[0]
        return self.layout.from_channels_first(y)

    def embed_condition(self, c: Condition, x: Data) -> Tensor:
        if c is None or self.condition is None:
            return x.new_zeros(len(x), self.unet.time_embedding.linear_2.out_features)
        return self.condition(c)

    @torch.no_grad()
    def unconditioned(self, c: Condition = None) -> Any:
        """The network of `diffusers` for one condition ``(1, condition)``, given once for all.

        The condition's vector joins the bias that the embedded time has anyway.
        """
        unet = type(self.unet).from_config(self.unet.config, class_embed_type=None)
        unet.load_state_dict(self.unet.state_dict())
        if c is not None and self.condition is not None:
            unet.time_embedding.linear_2.bias += self.condition(c)[0].to(unet.device)
        return unet.eval()
