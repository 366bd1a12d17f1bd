"""What a key below `ledger/v1/` says of the object it names; the inverse of `gateway.contract.layout`.

A listing alone then shows which segments of a life are there. Reports and the audit read keys with this; nobody else parses them.
"""

import re
from datetime import UTC, datetime
from typing import Literal

import msgspec

from gateway.contract import layout

_CONTAINER = r"(?P<container>[A-Za-z0-9][A-Za-z0-9._-]{0,127})"
_SEGMENT = re.compile(
    rf"{layout.LEDGER}dt=(?P<date>\d{{4}}-\d\d-\d\d)/hr=(?P<hour>\d\d)/{_CONTAINER}/(?P<boot>\d{{1,19}})-(?P<seq>\d{{12}})\.jsonl\.gz"
)
_RECORD = re.compile(rf"{layout.LEDGER}containers/{_CONTAINER}/(?P<boot>\d{{1,19}})-(?P<kind>open|close|ended)\.json")
_CORRECTIONS = re.compile(rf"{layout.CORRECTIONS}(?P<generation>\d{{6}})\.json")
_TRAINING = re.compile(rf"{layout.TRAINING}[a-z0-9][a-z0-9._-]{{0,62}}/\d{{4}}\.json")

Kind = Literal["segment", "open", "close", "ended", "training", "correction"]


class LedgerKey(msgspec.Struct, frozen=True):
    """`container` and `boot_ns` name the life; `seq` and `hour_ns` (when the hour begins) are a segment's only.

    Training and corrections are of no life; a correction's `seq` is its generation.
    """

    kind: Kind
    container: str = ""
    boot_ns: int = 0
    seq: int = 0
    hour_ns: int = 0


def parse(key: str) -> LedgerKey | None:
    """None for a key that this version does not know."""
    if found := _SEGMENT.fullmatch(key):
        try:
            hour = datetime.fromisoformat(f"{found['date']}T{found['hour']}:00:00").replace(tzinfo=UTC)
        except ValueError:  # a thirteenth month
            return None
        hour_ns = int(hour.timestamp()) * 10**9
        return LedgerKey("segment", found["container"], int(found["boot"]), int(found["seq"]), hour_ns)
    if found := _RECORD.fullmatch(key):
        kinds: dict[str, Kind] = {"open": "open", "close": "close", "ended": "ended"}
        return LedgerKey(kinds[found["kind"]], found["container"], int(found["boot"]))
    if found := _CORRECTIONS.fullmatch(key):
        return LedgerKey("correction", seq=int(found["generation"]))
    return LedgerKey("training") if _TRAINING.fullmatch(key) else None
