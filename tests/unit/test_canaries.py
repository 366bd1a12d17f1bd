"""Where a key falls is for ever: another process, container or release must send the same caller the same way."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.contract.registry import WHOLE_BP, Canary, Promotion
from gateway.repository.serving import Serving
from tests.support.models import TINY_SIGNATURE
from tests.support.residents import resident_of

SHA = "0" * 64
MEMBER: Any = {number: resident_of(TINY_SIGNATURE) for number in range(1, 6)}


def serving(
    *weights_bp: int, name: str = "tiny", alias: str = "champion", loaded: set[int] | None = None
) -> Serving[Any]:
    """Champion 1, canaries 2, 3, ... with these weights."""
    canaries = tuple(Canary(version, SHA, weight) for version, weight in enumerate(weights_bp, start=2))
    promotion = Promotion(name, alias, 1, SHA, 1, "", "", 0, canaries=canaries)
    made = Serving(name, alias, MEMBER[1], promotion, "")
    made.arrange(
        {canary.version: MEMBER[canary.version] for canary in canaries if loaded is None or canary.version in loaded}
    )
    return made


def chosen(made: Serving[Any], key: str) -> int:
    resident = made.choose(key)
    return next(number for number, member in MEMBER.items() if member is resident)


def test_places_do_not_move_between_releases_of_this_program() -> None:
    made = serving(2500, 2500)
    answers = "".join(str(chosen(made, f"caller-{number}")) for number in range(24))
    assert answers == "211211111113111211132311"


@given(st.text(max_size=50), st.integers(1, 5000), st.integers(0, 5000))
def test_more_weight_keeps_the_callers_a_canary_had(key: str, weight_bp: int, more_bp: int) -> None:
    before, after = serving(weight_bp), serving(weight_bp + more_bp)
    if key and chosen(before, key) == 2:
        assert chosen(after, key) == 2


@given(st.text(min_size=1, max_size=50))
def test_a_canary_that_is_not_loaded_leaves_its_callers_to_the_champion_and_no_other_callers_move(key: str) -> None:
    complete, partial = serving(3000, 3000), serving(3000, 3000, loaded={3})
    expected = chosen(complete, key)
    assert chosen(partial, key) == (1 if expected == 2 else expected)


def test_models_and_aliases_have_circles_of_their_own() -> None:
    keys = [f"caller-{number}" for number in range(1000)]
    places = [
        [chosen(serving(5000, name=name, alias=alias), key) for key in keys]
        for name, alias in (("tiny", "champion"), ("other", "champion"), ("tiny", "beta"))
    ]
    for a, b in ((0, 1), (0, 2), (1, 2)):
        same = sum(x == y for x, y in zip(places[a], places[b], strict=True))
        assert 400 < same < 600


@pytest.mark.parametrize("weight_bp", [1, 9999, WHOLE_BP])
def test_the_ends_of_the_circle_belong_to_somebody(weight_bp: int) -> None:
    made = serving(weight_bp)
    answers = {chosen(made, str(number)) for number in range(50_000)}
    assert answers == ({2} if weight_bp == WHOLE_BP else {1, 2})


def test_a_header_that_is_not_unicode_is_a_key_like_any_other() -> None:
    made = serving(5000)
    key = "\udcff\ud800"
    assert chosen(made, key) == chosen(made, key)
