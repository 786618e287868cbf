"""The regression on a path, apart from any family."""

import torch

from pushforward.families import build
from pushforward.model import Event


def test_whole_conditions_are_hidden_and_as_often_as_asked():
    """The zero vector says that nothing is known; half a condition would say something wrong."""
    model = build("flow_matching", Event((2,), 4), width=8).train()
    model.unconditional, c = 0.3, torch.randn(10_000, 4)
    kept = model.drop_condition(c) == c
    assert (kept.all(1) | ~kept.any(1)).all()
    assert abs(kept[:, 0].float().mean() - 0.7) < 5 * (0.3 * 0.7 / 10_000) ** 0.5
    assert torch.equal(model.eval().drop_condition(c), c)
