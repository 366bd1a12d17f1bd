"""The flights of 2013 as a service would have met them: trained on the months so far, stopped on the next, judged on two more.

What is worse on purpose, is so by its data: shuffled labels, or nothing newer than January. `every` thins the rows for quick tests.
"""

import calendar
from functools import lru_cache

import msgspec
import numpy as np

from gateway.contract.manifest import Column, DataSource
from trainers.arrays import Array
from trainers.job import Data, Split, TrainJob
from trainers.recipes import flights
from trainers.rules import Rules

MONTH = [column.name for column in flights.NUMBERS].index("month")
MONTHS = 12


def monthly(
    through: int,
    *,
    every: int = 1,
    epochs: int | None = None,
    trained: tuple[int, ...] = (),
    is_shuffled: bool = False,
    rules: Rules | None = None,
) -> TrainJob:
    """`trained` are the months to train on, all until `through` unless told."""
    job = flights.flights().fitted_with(seed=None, epochs=epochs)
    months = trained or tuple(range(1, through + 1))

    def load() -> Data:
        return _data(months, through, every, is_shuffled=is_shuffled)

    parameters = {"through": through, "months": str(months), "every": every, "shuffled": is_shuffled}
    return msgspec.structs.replace(job, load=load, promotion=rules or Rules(), parameters=parameters)


def _data(months: tuple[int, ...], through: int, every: int, *, is_shuffled: bool) -> Data:
    data, rows = _year()
    tested = tuple(range(through + 2, min(through + 3, MONTHS) + 1))
    train, validation, test = (_of(rows, chosen, every) for chosen in (months, (through + 1,), tested))
    if is_shuffled:
        train = Split(train.inputs, np.random.default_rng(0).permutation(train.targets))
    known = [tuple(np.unique(values)) for values in train.inputs["categories"].T]
    last = f"2013-{tested[-1]:02d}-{calendar.monthrange(2013, tested[-1])[1]}"
    return msgspec.structs.replace(
        data,
        train=train,
        validation=validation,
        test=test,
        sources=tuple(_until(source, last) for source in data.sources),
        signature=_knowing(data, known),
        vocabularies=dict(zip(data.vocabularies, known, strict=True)),
        slices={origin: test.inputs["categories"][:, 1] == origin for origin in ("EWR", "JFK", "LGA")},
    )


@lru_cache(maxsize=1)
def _year() -> tuple[Data, Split]:
    """What the recipe loads, and all its rows in one."""
    data = flights.load()
    splits = (data.train, data.validation, data.test)
    inputs = {name: np.concatenate([split.inputs[name] for split in splits]) for name in data.train.inputs}
    return data, Split(inputs, np.concatenate([split.targets for split in splits]))


def _of(rows: Split, months: tuple[int, ...], every: int) -> Split:
    """The same flights whichever months are asked for."""
    found: Array = np.flatnonzero(np.isin(rows.inputs["numbers"][:, MONTH], months))
    return rows.picked(found[found % every == 0])


def _until(source: DataSource, last: str) -> DataSource:
    return msgspec.structs.replace(source, last=last)


def _knowing(data: Data, known: list[tuple[str, ...]]) -> object:
    categories, numbers = data.signature.inputs
    columns: tuple[Column, ...] = tuple(
        msgspec.structs.replace(column, known=values) for column, values in zip(categories.columns, known, strict=True)
    )
    return msgspec.structs.replace(
        data.signature, inputs=(msgspec.structs.replace(categories, columns=columns), numbers)
    )
