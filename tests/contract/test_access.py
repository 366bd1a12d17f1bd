"""What gateways rely on about key records: a revocation makes one longer, keeps what it does not know, and happens to no other."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.contract import codec
from gateway.contract.access import KeyRecord, revoked
from gateway.errors import ManifestInvalid
from tests.support.accesskeys import NOON_NS, new


@given(st.integers(0, 2**63), st.text(max_size=20), st.text(max_size=50))
def test_a_revocation_makes_a_record_longer(at_ns: int, by: str, note: str) -> None:
    stored = codec.encode(new(note=note)[1])
    changed = revoked(stored, at_ns=max(at_ns, NOON_NS), by=by)
    assert len(changed) > len(stored)
    record = codec.decode(changed, KeyRecord)
    assert (record.revoked_ns, record.revoked_by, record.note) == (max(at_ns, NOON_NS), by, note)


def test_a_revocation_keeps_what_a_newer_release_wrote() -> None:
    stored = codec.encode(new()[1])
    tree = msgspec.json.decode(stored) | {"added_in_a_later_release": {"x": 1}}
    changed = msgspec.json.decode(revoked(msgspec.json.encode(tree), at_ns=NOON_NS, by="ben"))
    assert changed == tree | {"revoked_ns": NOON_NS, "revoked_by": "ben"}


@pytest.mark.parametrize("stored", [b"", b"{}", b"[]", b'{"schema_version":2}'])
def test_what_is_no_key_record_is_not_changed(stored: bytes) -> None:
    with pytest.raises(ManifestInvalid):
        revoked(stored, at_ns=NOON_NS, by="ben")
