"""The key's own format: unguessable, recognisable, and a slip of the keyboard is seen before anything is looked up."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.access import tokens

SCANNER = re.compile(
    r"sy_[a-km-np-z2-9]{10}_[0-9A-Za-z]{36}"
)  # as the module's docstring tells people who scan for keys


def test_a_key_is_what_scanners_look_for_and_carries_its_id() -> None:
    key_id, token = tokens.new()
    assert SCANNER.fullmatch(token)
    assert (tokens.key_id(token), len(token)) == (key_id, tokens.LENGTH)


def test_keys_are_never_the_same_twice() -> None:
    made = [tokens.new() for _ in range(500)]
    assert len({token[14:44] for _, token in made}) == len({key_id for key_id, _ in made}) == 500


def test_a_secret_has_at_least_128_bits() -> None:
    assert len(tokens.LETTERS) ** tokens.SECRET_LENGTH >= 2**128
    assert len(tokens.LETTERS) ** tokens.CHECKSUM_LENGTH >= 2**32


@given(st.integers(0, tokens.LENGTH - 1), st.sampled_from(tokens.LETTERS + "_-é"))
def test_one_wrong_character_is_no_whole_key(position: int, letter: str) -> None:
    _, token = tokens.new()
    wrong = token[:position] + letter + token[position + 1 :]
    assert (tokens.key_id(wrong) is None) == (wrong != token)


@pytest.mark.parametrize("cut", [0, 1, 13, 20, tokens.LENGTH - 1])
def test_a_key_cut_off_or_drawn_out_is_no_whole_key(cut: int) -> None:
    _, token = tokens.new()
    assert tokens.key_id(token[:cut]) is None
    assert tokens.key_id(token + token[:cut] + "x") is None


@given(st.text(max_size=60))
def test_garbage_is_no_whole_key(text: str) -> None:
    assert tokens.key_id(text) is None
