"""What other readers of Parquet say of a compacted ledger. Runs in `.venv-spark`; prints one line of JSON.

    python reader_session.py STORE DDL_FOLDER

Each is given a table's folder and what type the partition's columns have. sqlglot only parses: the shipped statements, as the
dialects of those who run them.
"""

import json
import sys
from pathlib import Path

import datafusion
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import sqlglot
from sqlglot import exp

DIALECTS = ("athena", "hive", "spark")
TABLES = ("segments", "charges", "postings", "requests", "sums")
Found = list[dict[str, object]]


KEYS = pa.schema([("dt", pa.string()), ("hr", pa.string())])


def by_pyarrow(folder: Path) -> Found:
    return (
        ds.dataset(folder, partitioning=ds.partitioning(KEYS, flavor="hive"), schema=_schema(folder))
        .to_table()
        .to_pylist()
    )


def _schema(folder: Path) -> pa.Schema:
    """All files': a dataset that is not told takes the first file's, which may lack a later column."""
    files = ds.dataset(folder, partitioning=ds.partitioning(KEYS, flavor="hive")).get_fragments()
    return pa.schema([*pa.unify_schemas([file.physical_schema for file in files]), *KEYS])


def by_polars(folder: Path) -> Found:
    keys = pl.Schema({"dt": pl.String, "hr": pl.String})
    return pl.scan_parquet(folder, hive_schema=keys, missing_columns="insert").collect().to_dicts()


def by_pandas(folder: Path) -> Found:
    """In Arrow's types: pandas' own make floats of whole numbers where one is missing."""
    keys = ds.partitioning(KEYS, flavor="hive")
    frame = pd.read_parquet(folder, dtype_backend="pyarrow", partitioning=keys, schema=_schema(folder))
    return pa.Table.from_pandas(frame, preserve_index=False).to_pylist()


def by_datafusion(folder: Path) -> Found:
    context = datafusion.SessionContext()
    context.register_parquet("t", folder, table_partition_cols=[(key.name, key.type) for key in KEYS])
    return context.sql("SELECT * FROM t").to_arrow_table().to_pylist()


def sums_by_pyarrow(folder: Path) -> list[object]:
    cost = ds.dataset(folder).to_table(columns=["cost_picousd"])["cost_picousd"]
    return [pc.sum(cost).as_py(), pc.sum(cost.cast(pa.decimal128(38, 0))).as_py()]


def sums_by_polars(folder: Path) -> list[object]:
    cost = pl.col("cost_picousd")
    frame = pl.scan_parquet(folder, missing_columns="insert", extra_columns="ignore")
    return list(frame.select(cost.sum(), cost.cast(pl.Decimal(38, 0)).sum().alias("wide")).collect().row(0))


def sums_by_pandas(folder: Path) -> list[object]:
    cost = pd.read_parquet(folder, columns=["cost_picousd"])["cost_picousd"]
    return [int(cost.sum()), sum(map(int, cost))]


def sums_by_datafusion(folder: Path) -> list[object]:
    context = datafusion.SessionContext()
    context.register_parquet("t", folder)
    sums = ("sum(cost_picousd)", "sum(CAST(cost_picousd AS decimal(38,0)))")
    return [context.sql(f"SELECT {total} AS total FROM t").to_pylist()[0]["total"] for total in sums]


READERS = {
    "pyarrow": (by_pyarrow, sums_by_pyarrow),
    "polars": (by_polars, sums_by_polars),
    "pandas": (by_pandas, sums_by_pandas),
    "datafusion": (by_datafusion, sums_by_datafusion),
}


def of(reader: str, place: Path) -> dict[str, object]:
    """Every row of every table, and the charges' cost summed as it is stored and as decimals."""
    read, sums = READERS[reader]
    found: dict[str, object] = {table: [plain(row) for row in read(place / table)] for table in TABLES}
    return found | {"sums of charges": [int(str(total)) for total in sums(place / "charges")]}


def plain(row: dict[str, object]) -> dict[str, object]:
    return {
        name: value if value is None or isinstance(value, str | int | dict) else int(value)
        for name, value in row.items()
    }


def parsed(text: str, dialect: str) -> list[list[object]]:
    """Columns and their types, as the dialect reads a statement: the partition's last."""
    create = sqlglot.parse_one(text, dialect=dialect)
    assert isinstance(create, exp.Create)
    return [[column.name, column.args["kind"].sql("hive").lower()] for column in create.find_all(exp.ColumnDef)]


def main() -> None:
    store, ddl = Path(sys.argv[1]), Path(sys.argv[2])
    found: dict[str, object] = {reader: of(reader, store / "compacted/v1") for reader in READERS}
    found["parsed"] = {
        dialect: {table: parsed((ddl / f"{table}.sql").read_text(), dialect) for table in TABLES}
        for dialect in DIALECTS
    }
    found["versions"] = {module.__name__: module.__version__ for module in (pa, pl, pd, datafusion, sqlglot)}
    sys.stdout.write(f"{json.dumps(found)}\n")


if __name__ == "__main__":
    main()
