"""Whether the data is what the job's spec pinned: the same bytes, enough of them, and not too old. Called when it is loaded."""

from collections.abc import Sequence
from datetime import date, timedelta

from gateway.contract.manifest import DataSource
from trainers.errors import DataError, SpecError
from trainers.spec.jobspec import DataPin


def require(pinned: Sequence[DataPin], sources: Sequence[DataSource], today: date) -> None:
    """Raises `DataError` naming the source and both sides; `SpecError` for what a recipe's sources cannot tell."""
    found = {source.name: source for source in sources}
    for pin in pinned:
        if pin.version_id is not None:
            raise SpecError(
                f"data '{pin.name}' is pinned by version_id, which no recipe's source tells; pin its sha256"
            )
        if pin.name not in found:
            raise DataError(
                f"data '{pin.name}' is pinned and the recipe read no such source; it read: {', '.join(found)}"
            )
        _require(pin, found[pin.name], today)


def _require(pin: DataPin, source: DataSource, today: date) -> None:
    if pin.sha256 not in {None, source.sha256}:
        raise DataError(f"data '{pin.name}' has digest {source.sha256}, pinned is {pin.sha256}")
    if pin.min_rows is not None and source.rows < pin.min_rows:
        raise DataError(f"data '{pin.name}' has {source.rows:,} rows, at least {pin.min_rows:,} are needed")
    if pin.max_age is None:
        return
    if not source.last:
        raise SpecError(f"data '{pin.name}' has a max_age, and the recipe does not say from when its newest row is")
    try:
        last = date.fromisoformat(source.last)
    except ValueError:
        raise SpecError(
            f"data '{pin.name}' has a max_age, and the recipe says '{source.last}' for its newest row; "
            "a date such as 2026-11-30 is needed"
        ) from None
    oldest = today - timedelta(seconds=pin.max_age.seconds)
    if last < oldest:
        raise DataError(f"data '{pin.name}' ends on {source.last}, {pin.max_age} before today is {oldest}")
