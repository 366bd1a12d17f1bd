"""From a header to a caller: which headers, which keys, and that no refusal repeats what it was sent."""

import logging
import traceback
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.access import tokens
from gateway.access.keyring import KeyRing
from gateway.contract.access import KeyRecord
from gateway.errors import Unauthenticated
from tests.support.accesskeys import NOON_NS, SECOND_NS, Now, bearer, new


def ring_with(**fields: Any) -> tuple[KeyRing, str, KeyRecord, Now]:
    now = Now()
    ring = KeyRing(now)
    token, record = new(**fields)
    ring.put(record)
    return ring, token, record, now


def test_either_header_names_the_caller() -> None:
    ring, token, record, _ = ring_with()
    for authorization, key_header in (
        (b"Bearer " + token.encode(), None),
        (b"bearer   " + token.encode() + b" ", None),
        (b"BEARER " + token.encode(), None),
        (None, token.encode()),
        (None, b" " + token.encode() + b"\t"),
        (b"Basic dXNlcjpwYXNz", token.encode()),  # a proxy's own
        (b"Bearer something-else", token.encode()),
    ):
        caller = ring.caller(authorization, key_header)
        assert (caller.key_id, caller.tenant) == (record.id, "search")


def test_all_requests_of_a_key_share_one_caller() -> None:
    ring, token, _, _ = ring_with()
    assert ring.caller(bearer(token), None) is ring.caller(None, token.encode())


@pytest.mark.parametrize(
    ("authorization", "key_header", "sentence"),
    [
        (None, None, "a key is needed: send 'Authorization: Bearer <key>' or 'Steelyard-Key: <key>'"),
        (b"Basic dXNlcjpwYXNz", None, "the Authorization header holds no Bearer key; send"),
        (b"Bearer", None, "the Authorization header holds no Bearer key; send"),
        (b"Bearer ", None, "what the Authorization header holds is no whole key"),
        (b"Bearer hunter2", None, "what the Authorization header holds is no whole key"),
        (None, b"", "what the Steelyard-Key header holds is no whole key"),
        (None, b"\xff\x00\xe9" * 20, "what the Steelyard-Key header holds is no whole key"),
        (None, b"x" * 100_000, "what the Steelyard-Key header holds is no whole key"),
    ],
)
def test_a_refusal_says_which_header_and_what_to_send(
    authorization: bytes | None, key_header: bytes | None, sentence: str
) -> None:
    ring, _, _, _ = ring_with()
    with pytest.raises(Unauthenticated) as refusal:
        ring.caller(authorization, key_header)
    assert str(refusal.value).startswith(sentence)


def test_a_mistyped_key_is_told_from_an_unknown_one() -> None:
    ring, token, _, _ = ring_with()
    stranger, _ = new()
    with pytest.raises(Unauthenticated, match="the key in the Authorization header is not known here"):
        ring.caller(bearer(stranger), None)
    with pytest.raises(Unauthenticated, match="mistyped, or cut off"):
        ring.caller(bearer(token[:-1]), None)


def test_the_id_alone_opens_nothing() -> None:
    ring, token, _, _ = ring_with()
    other, _ = new()
    forged = token[:14] + other[14:]  # our id with another's secret; then with a checksum that fits
    with pytest.raises(Unauthenticated):
        ring.caller(bearer(forged), None)
    unchecked = forged[: -tokens.CHECKSUM_LENGTH]
    with pytest.raises(Unauthenticated, match="not known here"):
        ring.caller(bearer(unchecked + tokens._checksum(unchecked)), None)


def test_a_revoked_key_is_told_so_and_a_forger_is_not() -> None:
    ring, token, record, _ = ring_with()
    caller = ring.caller(bearer(token), None)
    caller.enter()
    ring.put(_revoked(record))
    with pytest.raises(Unauthenticated, match=f"key '{record.id}' was revoked at 2026-11-25T12:00:01Z"):
        ring.caller(bearer(token), None)
    with pytest.raises(Unauthenticated, match="mistyped"):
        ring.caller(bearer(token[:-1] + "?"), None)
    caller.leave(1)  # what was let in ends as usual
    assert ring.usable() == 0


def test_a_deleted_key_is_unknown() -> None:
    ring, token, record, _ = ring_with()
    ring.drop(record.id)
    with pytest.raises(Unauthenticated, match="not known here"):
        ring.caller(bearer(token), None)


def test_a_key_expires_at_its_very_nanosecond() -> None:
    ring, token, record, now = ring_with(expires_ns=NOON_NS + SECOND_NS)
    now.ns = NOON_NS + SECOND_NS - 1
    assert (ring.caller(bearer(token), None).key_id, ring.usable()) == (record.id, 1)
    now.ns += 1
    with pytest.raises(Unauthenticated, match=f"key '{record.id}' expired at 2026-11-25T12:00:01Z"):
        ring.caller(bearer(token), None)
    assert ring.usable() == 0


def test_a_record_that_comes_again_keeps_its_caller() -> None:
    ring, token, record, _ = ring_with(rps=1)
    caller = ring.caller(bearer(token), None)
    caller.enter()
    ring.put(record)
    assert ring.caller(bearer(token), None) is caller
    assert caller.in_flight == 1


@given(st.binary(max_size=80), st.booleans(), st.integers(0, 49))
def test_no_refusal_repeats_what_it_was_sent(noise: bytes, is_bearer: bool, cut: int) -> None:
    ring, token, _, _ = ring_with()
    stranger, _ = new()
    for sent in (noise, token[:cut].encode() + b"#", stranger.encode(), (token + "x").encode()):
        headers = (b"Bearer " + sent, None) if is_bearer else (None, sent)
        try:
            ring.caller(*headers)
        except Unauthenticated as refusal:
            said = "".join(traceback.format_exception(refusal, chain=True)).split("Unauthenticated:", 1)[1]
            secret = sent.strip().decode("latin-1")
            assert len(secret) < 8 or secret not in said
            assert token[14:] not in said
            assert stranger[14:] not in said


def test_nothing_about_a_key_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    ring, token, _, _ = ring_with()
    ring.caller(bearer(token), None)
    for sent in (token[:-1], token.swapcase(), new()[0]):
        with pytest.raises(Unauthenticated):
            ring.caller(bearer(sent), None)
    assert caplog.text == ""


def _revoked(record: KeyRecord) -> KeyRecord:
    return msgspec.structs.replace(record, revoked_ns=NOON_NS + SECOND_NS, revoked_by="ben")
