r"""The forward pass of BERT (Devlin et al., 2019), from its published weights by name."""

from torch import Tensor
from torch.nn.functional import embedding, gelu, layer_norm, linear

from .attention import dot_product_attention


class Bert:
    """A frozen BERT: token numbers to states.

    Arguments:
        weights: By their published names, with or without ``bert.`` before them.
        heads: Of the attention.
        eps: Of the normalisations.
    """

    def __init__(self, weights: dict[str, Tensor], heads: int, eps: float) -> None:
        self.weights = {name.removeprefix("bert."): value for name, value in weights.items()}
        self.heads, self.eps = heads, eps
        numbers = {name.split(".")[2] for name in self.weights if name.startswith("encoder.layer.")}
        self.depth = len(numbers)

    def __call__(self, ids: Tensor, mask: Tensor) -> Tensor:
        """States of tokens, ``(batch, tokens, d)``; those outside the mask are not attended to."""
        word, place, kind = (
            self.weights[f"embeddings.{name}_embeddings.weight"]
            for name in ("word", "position", "token_type")
        )
        h = embedding(ids, word) + place[: ids.shape[1]] + kind[0]
        h = self.normalised(h, "embeddings.LayerNorm")
        for i in range(self.depth):
            h = self.layer(h, mask[:, None, None], f"encoder.layer.{i}.")
        return h

    def layer(self, h: Tensor, mask: Tensor, at: str) -> Tensor:
        """Attention, then a perceptron, each added and normalised."""
        q, k, v = (
            self.linear(h, f"{at}attention.self.{name}").unflatten(-1, (self.heads, -1))
            for name in ("query", "key", "value")
        )
        read = dot_product_attention(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), mask)
        read = self.linear(read.transpose(1, 2).flatten(2), f"{at}attention.output.dense")
        h = self.normalised(h + read, f"{at}attention.output.LayerNorm")
        more = gelu(self.linear(h, f"{at}intermediate.dense"))
        return self.normalised(h + self.linear(more, f"{at}output.dense"), f"{at}output.LayerNorm")

    def linear(self, h: Tensor, name: str) -> Tensor:
        """A linear layer by its name."""
        return linear(h, self.weights[f"{name}.weight"], self.weights[f"{name}.bias"])

    def normalised(self, h: Tensor, name: str) -> Tensor:
        """A normalisation of layers by its name."""
        weight, bias = self.weights[f"{name}.weight"], self.weights[f"{name}.bias"]
        return layer_norm(h, h.shape[-1:], weight, bias, self.eps)
