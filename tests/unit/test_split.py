"""Apportionment: exact, and fair to less than a unit."""

import itertools
from fractions import Fraction
from random import Random

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from gateway.accounting.split import apportion

totals = st.integers(min_value=0, max_value=10**18)
weights = st.lists(st.integers(min_value=0, max_value=10**21), min_size=1, max_size=30).filter(any)


@given(totals, weights)
def test_parts_add_up_to_the_total(total: int, weights: list[int]) -> None:
    assert sum(apportion(total, weights)) == total


@given(totals, weights)
def test_each_part_is_within_one_unit_of_its_exact_share(total: int, weights: list[int]) -> None:
    for part, weight in zip(apportion(total, weights), weights, strict=True):
        assert abs(part - Fraction(total * weight, sum(weights))) < 1


@given(totals, weights)
def test_a_larger_weight_never_gets_less(total: int, weights: list[int]) -> None:
    by_weight = sorted(zip(weights, apportion(total, weights), strict=True))
    for (lighter, less), (heavier, more) in itertools.pairwise(by_weight):
        assert less <= more or lighter == heavier


@given(totals, weights, st.randoms())
def test_order_does_not_matter_where_remainders_differ(total: int, weights: list[int], random: Random) -> None:
    remainders = [total * weight % sum(weights) for weight in weights]
    assume(len(set(remainders)) == len(remainders))
    order = list(range(len(weights)))
    random.shuffle(order)
    parts = apportion(total, weights)
    assert apportion(total, [weights[index] for index in order]) == tuple(parts[index] for index in order)


def test_units_left_over_go_to_the_largest_remainder() -> None:
    assert apportion(10, [1, 3, 5]) == (1, 3, 6)  # exact shares 1.11, 3.33, 5.56


def test_ties_go_to_the_lowest_index() -> None:
    assert apportion(2, [1, 1, 1]) == (1, 1, 0)


def test_no_weight_gets_nothing() -> None:
    assert apportion(7, [0, 2, 0]) == (0, 7, 0)


@pytest.mark.parametrize(("total", "weights"), [(1, []), (1, [0, 0]), (0, [0])])
def test_an_amount_without_a_claimant_is_refused(total: int, weights: list[int]) -> None:
    with pytest.raises(ValueError, match="nobody to apportion to"):
        apportion(total, weights)


@pytest.mark.parametrize(("total", "weights"), [(-1, [1]), (1, [2, -1])])
def test_negative_amounts_and_weights_are_refused(total: int, weights: list[int]) -> None:
    with pytest.raises(ValueError, match="must not be negative"):
        apportion(total, weights)
