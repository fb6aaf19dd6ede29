"""Benchmarks that reach into a page or into the package: what they reach for is there."""

import pytest

from benchmarks import control_variates, quickstart
from learned_surrogates import text


@pytest.mark.parametrize("part", quickstart.EXAMPLES.values(), ids=list(quickstart.EXAMPLES))
def test_the_examples_of_the_page_are_found_and_print(part):
    example = quickstart.example(part)
    assert "manual_seed(0)" in example and "print(" in example


def test_of_an_edit_distance_by_length_all_is_known_and_the_plain_one_tells_most():
    of_distance, of_all = control_variates.r2(
        "characters", text.normalized_edit_distance, learned=12, tested=4
    )
    assert 0.8 < of_distance < of_all <= 1
