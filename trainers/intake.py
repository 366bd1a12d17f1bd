"""Whether loaded data can be trained on: whole, with something in every column, and what the job's spec pinned."""

from collections.abc import Sequence
from datetime import date, timedelta

import numpy as np

from gateway.contract.manifest import DataSource
from trainers import wellformed
from trainers.errors import DataError, SpecError
from trainers.job import Data
from trainers.spec.jobspec import DataPin


def check(data: Data) -> None:
    """Raises `DataError` naming the split, and the input or column that is wrong or holds nothing."""
    wellformed.require(data)
    for tensor in data.signature.inputs:
        values = data.train.inputs[tensor.name]
        if values.dtype.kind == "f" and tensor.columns:
            for at, column in enumerate(tensor.columns):
                if np.isnan(values[:, at]).all():
                    raise DataError(f"column '{column.name}' has no number in any of {len(values):,} training rows")


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
