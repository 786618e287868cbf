"""Texts as the tokens that a network of `diffusers` attends to."""

from typing import Any

import torch
from torch import Tensor, nn


class DiffusersTextEncoder(nn.Module):
    """A text encoder with its tokenizer: the last hidden state of each token.

    Arguments:
        tokenizer: Cuts texts into tokens, as many for each.
        encoder: Encodes them.
    """

    def __init__(self, tokenizer: Any, encoder: Any) -> None:
        super().__init__()
        self.tokenizer, self.encoder = tokenizer, encoder

    @torch.no_grad()
    def forward(self, texts: list[str]) -> Tensor:
        """The tokens of each text, ``(n, tokens, width)``."""
        config = self.encoder.config
        longest = min(self.tokenizer.model_max_length, config.max_position_embeddings)
        cut = self.tokenizer(texts, padding="max_length", max_length=longest, truncation=True,
                             return_tensors="pt").to(self.encoder.device)  # fmt: skip
        masked = getattr(config, "use_attention_mask", False)
        return self.encoder(cut.input_ids, cut.attention_mask if masked else None)[0]
