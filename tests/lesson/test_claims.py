"""Every claim comes out as on record, and not if the function under it is wrong."""

import pytest
import torch
from perturbing import perturbed

from pushforward import lesson
from pushforward.errors import UsageError
from pushforward.lesson.claims import (
    Claim,
    Evidence,
    Number,
    Verdict,
    check_claim,
    judge_claim,
    raises_error,
)
from pushforward.lesson.sections.wgan import training

CLAIMS = {c.id: c for key in lesson.SECTIONS for c in lesson.section(key).claims}


@pytest.mark.parametrize("name", CLAIMS)
def test_a_claim_comes_out_as_on_record(name):
    outcome = check_claim(CLAIMS[name])
    assert outcome.in_order, outcome.evidence


@pytest.mark.parametrize("name", CLAIMS)
def test_a_claim_notices_that_the_function_under_it_is_wrong(name):
    with perturbed(CLAIMS[name].function):
        assert check_claim(CLAIMS[name]).verdict is not CLAIMS[name].verdict


@pytest.mark.slow
@pytest.mark.parametrize("name", CLAIMS)
def test_a_claim_measures_the_same_again(name):
    claim = CLAIMS[name]
    assert check_claim(claim, 0).evidence == check_claim(claim, 0).evidence


def test_a_claim_about_trained_networks_measures_the_same_before_and_after_they_are_kept():
    training.train_ring_wgan.cache_clear()
    first = check_claim(CLAIMS["4.3-plane"], 5)
    assert training.train_ring_wgan.cache_info().currsize == 1
    assert check_claim(CLAIMS["4.3-plane"], 5).evidence == first.evidence


@pytest.mark.parametrize("name", ["4.3-finite-samples", "4.p5-baseline", "2.4-overfitting"])
def test_another_seed_gives_a_random_measurement_another_value(name):
    first, second = (check_claim(CLAIMS[name], seed) for seed in (1, 2))
    assert first.evidence != second.evidence
    assert first.in_order and second.in_order


def test_a_call_fails_by_refusal_or_by_torch_and_a_mistake_is_no_failure():
    def refuse():
        raise UsageError("no")

    assert [raises_error(f) for f in (refuse, lambda: torch.ones(2) @ torch.ones(3), list)] == [
        1,
        1,
        0,
    ]
    with pytest.raises(NameError):
        raises_error(lambda: nobody)  # noqa: F821


def test_ids_are_unique_and_start_with_their_section():
    every = [(key, c.id) for key in lesson.SECTIONS for c in lesson.section(key).claims]
    assert len({name for _, name in every}) == len(every)
    assert all(name.startswith(f"{key}.") for key, name in every)


def test_only_claims_that_hold_need_no_correction():
    for claim in CLAIMS.values():
        assert bool(claim.right) == (claim.verdict is not Verdict.HOLDS), claim.id


def claim(verdict: Verdict) -> Claim:
    return Claim("1.1-x", "", verdict, lambda: Evidence([]), "")


GOOD, BAD = Number("", 1.0, 1.0), Number("", 1.0, 2.0)


@pytest.mark.parametrize(
    ("recorded", "evidence", "verdict"),
    [
        (Verdict.HOLDS, Evidence([GOOD]), Verdict.HOLDS),
        (Verdict.WRONG, Evidence([GOOD]), Verdict.HOLDS),
        (Verdict.WRONG, Evidence([BAD], [GOOD]), Verdict.WRONG),
        (Verdict.ONLY_IF, Evidence([GOOD, BAD], [GOOD]), Verdict.ONLY_IF),
        (Verdict.HOLDS, Evidence([BAD], [GOOD]), Verdict.WRONG),
        (Verdict.WRONG, Evidence([BAD], [BAD]), Verdict.UNEXPLAINED),
        (Verdict.WRONG, Evidence([BAD]), Verdict.UNEXPLAINED),
        (Verdict.WRONG, Evidence([], []), Verdict.UNEXPLAINED),
    ],
)
def test_the_verdict_follows_from_the_numbers(recorded, evidence, verdict):
    assert judge_claim(claim(recorded), evidence) is verdict


def test_a_number_that_is_not_one_never_agrees():
    assert not Number("", float("nan"), 0.0, 1.0).agrees
    assert Number("", 2.0, 3.0, 0.0, "<=").agrees and not Number("", 2.0, 3.0, 0.0, ">=").agrees
