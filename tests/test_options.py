"""Options are checked against annotations and defaults before a function sees them."""

from typing import Annotated, TypedDict, Unpack

import pytest
import torch
from torch import nn

from pushforward import families
from pushforward.devices import AllocationGuard
from pushforward.errors import UsageError
from pushforward.memory import physical_memory
from pushforward.model import Event
from pushforward.options import (
    FRACTION,
    Choice,
    Default,
    check_options,
    option_defaults,
    with_defaults,
)


def function(
    x,
    *,
    count: int = 3,
    none: int | None = None,
    zero: int = 0,
    scale: float = 1.0,
    signed: float = -1.0,
    flag: bool = False,
    word: str = "a",
    either: str | object | None = None,
):
    """Every kind of option."""


@pytest.mark.parametrize(
    "given",
    [
        {"count": 1},
        {"none": None},
        {"none": 1},
        {"zero": 0},
        {"scale": 0},
        {"scale": 2.5},
        {"signed": -7.0},
        {"flag": True},
        {"word": "b"},
        {"either": len},
        {"either": "heun"},
    ],
    ids=str,
)
def test_what_has_sense_passes(given):
    check_options(function, given, "f")


@pytest.mark.parametrize(
    "given",
    [
        {"count": 0},
        {"count": 1.5},
        {"count": True},
        {"count": None},
        {"count": "three"},
        {"count": 10**9},
        {"none": 0},
        {"zero": -1},
        {"scale": -1.0},
        {"scale": float("nan")},
        {"scale": float("inf")},
        {"scale": "wide"},
        {"flag": 1},
        {"word": 3},
        {"other": 1},
        {"x": 1},
        {"condition": "a"},
    ],
    ids=str,
)
def test_what_has_none_is_refused_by_name(given):
    with pytest.raises(UsageError, match=next(iter(given))):
        check_options(function, given, "f")


def test_only_arguments_with_defaults_are_options():
    assert list(option_defaults(function))[:2] == ["count", "none"] and "x" not in option_defaults(
        function
    )


@pytest.mark.parametrize("family", families.names())
def test_every_default_of_every_family_is_annotated_and_passes(family):
    event = Event((2,), 0, 0, 100)
    assert families.build(family, event, **families.family_options(family)) is not None


@pytest.mark.parametrize("family", families.names())
def test_every_choice_of_every_family_is_described_and_others_are_refused(family):
    meanings = families.option_descriptions(family)
    for option, words in families.family_choices(family).items():
        assert all(f'"{word}"' in meanings[option] for word in words), option
        if words:
            with pytest.raises(UsageError, match=f"{option} is 'other'; choose from {words[0]}"):
                families.build(family, Event((2,)), **{option: "other"})


class Shared(TypedDict, total=False):
    """Options of several functions."""

    loss: Annotated[str, Choice(("l1", "l2")), Default("l2")]
    part: Annotated[float, FRACTION, Default(0.5)]


def test_options_of_a_group_are_those_of_the_functions_that_unpack_it():
    def build(x, *, width: int = 3, **shared: Unpack[Shared]):
        return with_defaults(Shared, shared)

    assert option_defaults(build) == {"loss": "l2", "part": 0.5, "width": 3}
    assert build(0, loss="l1") == {"loss": "l1", "part": 0.5}
    for wrong in ({"loss": "l3"}, {"part": 1.5}, {"width": 0}, {"other": 1}):
        with pytest.raises(UsageError, match=next(iter(wrong))):
            check_options(build, wrong, "f")


def test_a_model_that_cannot_fit_is_never_allocated():
    """The weights alone would take all of the memory."""
    side = int((physical_memory() / 4) ** 0.5) + 1
    with pytest.raises(UsageError, match="GiB"), AllocationGuard("it", "lower width"):
        nn.Linear(side, side)
    with AllocationGuard("it", "lower width"):
        assert nn.Linear(3, 2)(torch.ones(1, 3)).shape == (1, 2)


@pytest.mark.parametrize("words", [{"depth": 10**6}, {"last": 10**6}])
def test_a_depth_that_no_memory_holds_is_refused_before_it_is_built(words):
    with pytest.raises(UsageError, match="must be from"):
        families.build("consistency", Event((2,)), **words)
