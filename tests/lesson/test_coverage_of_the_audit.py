"""Every finding about the lesson and every requirement is named where it is settled."""

import ast
from functools import cache
from pathlib import Path

import pytest

from pushforward import lesson

TESTS = Path(__file__).parents[1]
CODE, FLOWS = "lesson/test_lesson_snippets.py", "lesson/test_flows.py"
SETTLED = {  # by a test of code, where a claim would only repeat it
    "A01": (CODE, "test_the_six_blocks_run_in_order"),
    "A02": (CODE, "test_the_six_blocks_run_in_order"),
    "A03": (CODE, "test_one_seed_settles_the_data_whether_given_or_set_for_torch"),
    "A10": (CODE, "test_the_loss_takes_real_data_and_is_the_negative_log_density_per_row"),
    "A11": (CODE, "test_data_go_into_a_network_as_they_are"),
    "A20": (CODE, "test_the_loss_does_not_grow_with_the_batch"),
    "A21": (CODE, "test_log_variances_stay_where_their_exponential_is_finite"),
    "A30": (CODE, "test_confident_logits_keep_their_gradient"),
    "A31": (CODE, "test_numbers_that_are_not_rows_are_refused_by_name"),
    "A33": (CODE, "test_the_generators_step_leaves_no_gradient_in_the_discriminator"),
    "A35": (CODE, "test_every_row_is_interpolated_by_a_number_of_its_own"),
    "A36": (CODE, "test_the_penalty_needs_no_graph_and_does_not_reach_the_generator"),
    "A37": (CODE, "test_a_critic_without_slope_has_a_finite_penalty_and_gradient"),
    "A42": (CODE, "test_unequal_batches_and_batch_normalisation_are_refused"),
    "A43": (CODE, "test_the_penalty_needs_no_graph_and_does_not_reach_the_generator"),
    "A45": (CODE, "test_a_step_for_each_row_is_the_chain_run_step_by_step"),
    "A46": (CODE, "test_a_step_keeps_the_type_of_the_data"),
    "A47": (CODE, "test_steps_that_are_none_of_the_chain_are_refused"),
    "A49": (CODE, "test_every_chain_ends_in_noise"),
    "R61": ("families/test_normalizing_flow.py", "test_density_integrates_to_one"),
    "R62": ("families/test_autoregressive.py", "test_the_masses_of_all_data_sum_to_one"),
    "R63": (FLOWS, "test_the_experiments_find_what_theory_predicts"),
    "R65": (FLOWS, "test_the_experiments_find_what_theory_predicts"),
    "R67": (CODE, "test_the_six_blocks_run_in_order"),
    "R68": ("lesson/test_coverage_of_the_audit.py", "test_it_is_settled_somewhere"),
    "R69": ("lesson/test_flows.py", "test_the_figures_of_section_6_draw_without_a_screen"),
}  # fmt: skip
ITEMS = [f"A{i:02}" for i in range(1, 81)] + [f"R{i}" for i in range(1, 70)]


@cache
def named() -> set[str]:
    """All items that claims and notes name; A10a to A10e are parts of A10."""
    sections = [lesson.section(key) for key in lesson.SECTIONS]
    words = [w for s in sections for c in s.claims for w in c.covers.split()]
    return {w.rstrip("abcde") for w in [*words, *(k for s in sections for k in s.notes)]}


@pytest.mark.parametrize("item", ITEMS)
def test_it_is_settled_somewhere(item):
    assert item in SETTLED or item in named(), "no claim, no note and no test names it"


@pytest.mark.parametrize("item", SETTLED)
def test_the_test_that_settles_it_exists(item):
    file, name = SETTLED[item]
    tree = ast.parse((TESTS / file).read_text())
    assert name in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


def test_claims_and_notes_name_only_what_there_is():
    assert named() <= set(ITEMS)
