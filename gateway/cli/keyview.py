"""How `steelyard keys` shows a key record: never its digest, and never a key but the one just made."""

import json

import msgspec

from gateway.contract.access import KeyRecord
from gateway.wording import moment, usd

COLUMNS = ("id", "tenant", "rights", "models", "limits", "created", "state", "note")


def table(records: list[KeyRecord], now_ns: int) -> list[str]:
    """A heading and one line for each record, in columns as wide as what they hold."""
    rows = [COLUMNS, *(_row(record, now_ns) for record in records)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(COLUMNS))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def as_json(record: KeyRecord, now_ns: int, *, key: str | None = None) -> str:
    """The record as one JSON object, with the state it is in; and the key, where it was just made."""
    shown = msgspec.to_builtins(record)
    del shown["secret_sha256"], shown["schema_version"]
    return json.dumps({**({"key": key} if key else {}), **shown, "state": state(record, now_ns)})


def state(record: KeyRecord, now_ns: int) -> str:
    """`active`, `expired` or `revoked`."""
    if record.revoked_ns is not None:
        return "revoked"
    return "expired" if record.expires_ns is not None and record.expires_ns <= now_ns else "active"


def summary(record: KeyRecord) -> str:
    """Rights, models and limits in one line."""
    return f"{', '.join(record.rights)} on {', '.join(record.models)}; {_limits(record) or 'no limits'}"


def _row(record: KeyRecord, now_ns: int) -> tuple[str, ...]:
    return (
        record.id,
        record.tenant,
        ",".join(record.rights),
        ",".join(record.models),
        _limits(record) or "-",
        moment(record.created_ns),
        _state_since(record, now_ns),
        " ".join(record.note.split()),
    )


def _state_since(record: KeyRecord, now_ns: int) -> str:
    match state(record, now_ns):
        case "revoked":
            return f"revoked {moment(record.revoked_ns or 0)} by {record.revoked_by}"
        case "active" if record.expires_ns is not None:
            return f"active until {moment(record.expires_ns)}"
        case "expired":
            return f"expired {moment(record.expires_ns or 0)}"
    return "active"


def _limits(record: KeyRecord) -> str:
    limits = {
        "${}/day": None if record.budget_picousd_per_day is None else usd(record.budget_picousd_per_day),
        "{}/s": record.rps,
        "burst {}": record.burst,
        "{} at once": record.concurrency,
    }
    return ", ".join(text.format(limit) for text, limit in limits.items() if limit is not None)
