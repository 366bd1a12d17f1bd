"""What Spark says of a compacted ledger. Runs in `.venv-spark`, which `make spark` creates; prints one line of JSON.

    python spark_session.py STORE INTERRUPTED_STORE DDL_FOLDER SCRATCH

Tables come from the statements in infra/athena, with a store as the place, by Spark's own Hive catalog; two questions from its
README.
"""

import json
import re
import sys
from functools import reduce
from pathlib import Path

from pyspark.errors import PySparkException
from pyspark.sql import Row, SparkSession
from pyspark.sql.functions import count

TABLES = ("segments", "charges", "postings", "requests", "sums")
DETAIL = ("segments", "charges", "postings")
ELSEWHERE = "America/St_Johns"
READERS = {
    "spark": {},
    "spark row by row": {"spark.sql.parquet.enableVectorizedReader": "false"},
    "hive serde": {"spark.sql.hive.convertMetastoreParquet": "false"},
}


def session(scratch: Path) -> SparkSession:
    """One core, no web page, all of Hive's files below `scratch`, and a time zone that is not the ledger's."""
    return (
        SparkSession.builder.master("local[1]")
        .config("spark.ui.enabled", "false")
        .config("spark.ui.showConsoleProgress", "false")
        .config("spark.driver.bindAddress", "127.0.0.1")
        .config("spark.driver.host", "127.0.0.1")
        .config("spark.sql.shuffle.partitions", "1")
        .config("spark.sql.files.openCostInBytes", "0")  # many small files in one task
        .config("spark.sql.session.timeZone", ELSEWHERE)
        .config("spark.sql.warehouse.dir", str(scratch / "warehouse"))
        .config("spark.driver.extraJavaOptions", f"-Dderby.system.home={scratch} -Duser.timezone={ELSEWHERE}")
        .enableHiveSupport()
        .getOrCreate()
    )


def create(spark: SparkSession, store: str, ddl: Path) -> None:
    """From the shipped statements, as they are but for the place; then Hive's own search for partitions."""
    for table in TABLES:
        text = (ddl / f"{table}.sql").read_text()
        statement = text[text.index("CREATE") :].strip().removesuffix(";").replace("s3://BUCKET", f"file://{store}")
        spark.sql(f"DROP TABLE IF EXISTS steelyard_{table}")
        spark.sql(statement)
        spark.sql(f"MSCK REPAIR TABLE steelyard_{table}")


def plain(value: object) -> object:
    if isinstance(value, Row):
        return value.asDict()
    return value if value is None or isinstance(value, str | int) else int(value)


def rows(spark: SparkSession, query: str) -> list[list[object]]:
    return [[plain(value) for value in row] for row in spark.sql(query).collect()]


def every(spark: SparkSession, reader: str, groups: str) -> dict[str, object]:
    for name in ("spark.sql.parquet.enableVectorizedReader", "spark.sql.hive.convertMetastoreParquet"):
        spark.conf.set(name, READERS[reader].get(name, "true"))
    found: dict[str, object] = {table: rows(spark, f"SELECT * FROM steelyard_{table}") for table in TABLES}
    found["groups"] = rows(spark, groups)
    found["groups of sums"] = rows(spark, groups.replace("steelyard_postings", "steelyard_sums WHERE type = 'posting'"))
    found["bills"] = rows(
        spark,
        """SELECT 'charges', sum(CAST(cost_picousd AS decimal(38,0))) FROM steelyard_charges
           UNION ALL SELECT 'segments', sum(CAST(cost_picousd AS decimal(38,0))) FROM steelyard_segments
           UNION ALL SELECT type, sum(cost_picousd) FROM steelyard_sums GROUP BY type""",
    )
    return found


def uncast(spark: SparkSession) -> dict[str, object]:
    """What a sum without a cast says, by whether Spark follows ANSI."""
    said: dict[str, object] = {}
    for ansi in ("true", "false"):
        spark.conf.set("spark.sql.ansi.enabled", ansi)
        try:
            said[ansi] = rows(spark, "SELECT sum(cost_picousd) FROM steelyard_charges")[0][0]
        except PySparkException as error:
            said[ansi] = error.getCondition()
    spark.conf.set("spark.sql.ansi.enabled", "true")
    return said


def chosen(spark: SparkSession) -> dict[str, list[list[object]]]:
    """By predicates, which files' statistics and Bloom filters answer first: each value finds its own rows."""
    counts = {}
    for table, column in (("postings", "model"), ("postings", "tenant"), ("postings", "quantity"), ("requests", "id")):
        frame = spark.table(f"steelyard_{table}")
        whole = dict(frame.groupBy(column).count().collect())
        values = sorted(whole)[:: max(1, len(whole) // 13)]
        one_by_one = (frame.filter(frame[column] == value).agg(count("*")) for value in values)
        found = reduce(lambda one, other: one.unionAll(other), one_by_one).collect()
        counts[f"{table}.{column}"] = [
            [str(value), row[0], whole[value]] for value, row in zip(values, found, strict=True)
        ]
    return counts


def times(spark: SparkSession) -> list[list[object]]:
    """Requests by the partition's hour and by their own time, once the session says UTC."""
    query = """SELECT count_if(date_format(timestamp_micros(at_ns div 1000), "yyyy-MM-dd HH") = concat(dt, ' ', hr)), count(*)
               FROM steelyard_requests"""
    spark.conf.set("spark.sql.session.timeZone", "UTC")
    told = rows(spark, query)
    spark.conf.set("spark.sql.session.timeZone", ELSEWHERE)
    return told


def main() -> None:
    store, interrupted, ddl, scratch = sys.argv[1], sys.argv[2], Path(sys.argv[3]), Path(sys.argv[4])
    groups, whole = re.findall(r"```sql\n(.+?)```", (ddl / "README.md").read_text(), re.DOTALL)
    spark = session(scratch)
    create(spark, store, ddl)
    found: dict[str, object] = {reader: every(spark, reader, groups) for reader in READERS}
    found["uncast"] = uncast(spark)
    found["chosen"] = chosen(spark)
    found["times"] = times(spark)
    found["properties"] = dict(spark.sql("SHOW TBLPROPERTIES steelyard_postings").collect())
    folder = spark.read.option("mergeSchema", "true").parquet(f"file://{store}/compacted/v1/charges")
    found["folder"] = [folder.count(), dict(folder.dtypes)]
    create(spark, interrupted, ddl)
    found["interrupted"] = {table: rows(spark, f"SELECT * FROM steelyard_{table}") for table in DETAIL}
    found["interrupted, whole"] = {
        table: rows(spark, whole.replace("steelyard_charges", f"steelyard_{table}")) for table in DETAIL
    }
    found["versions"] = [spark.version, spark._jvm.java.lang.System.getProperty("java.version")]
    sys.stdout.write(f"{json.dumps(found)}\n")


if __name__ == "__main__":
    main()
