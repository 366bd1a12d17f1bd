"""The records of the compacted ledger against each other: plans, manifests, and which files lie in its folders.

An engine reads whole folders and asks no manifest, so a file that no manifest and no unfinished plan accounts for is a fault, and a
segment in two generations is counted twice. Files themselves are `gateway.audit.hours`'.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping

import msgspec

from gateway.audit import hours
from gateway.audit.findings import Finding
from gateway.contract import codec, layout
from gateway.contract.compacted import TABLES, Manifest, Plan
from gateway.errors import ManifestInvalid, WrittenByNewer

_KEY = re.compile(
    rf"{layout.COMPACTED}(?P<kind>plans|manifests|{'|'.join(TABLES)})"
    r"/dt=(?P<dt>\d{4}-\d\d-\d\d)/hr=(?P<hr>[01]\d|2[0-3])/(?P<generation>\d{6})\.(json|parquet)"
)
Place = tuple[str, str, int]
"""dt, hr, generation."""


class Records(msgspec.Struct):
    """What was read, by key, and which tables' files the listing shows."""

    plans: dict[str, Plan]
    manifests: dict[str, Manifest]
    files: list[str]


def kind_of(key: str) -> str:
    """`plans`, `manifests`, a table, or "" for what is none of this version's."""
    named = _KEY.fullmatch(key)
    if named is None or layout.compacted(named["kind"], named["dt"], named["hr"], int(named["generation"])) != key:
        return ""
    return named["kind"]


def decoded(records: Records, key: str, data: bytes) -> list[Finding]:
    """Into `records`, or why not."""
    kind: type[Plan | Manifest] = Plan if kind_of(key) == "plans" else Manifest
    try:
        record = codec.decode(data, kind, what=key)
    except WrittenByNewer as error:
        return [Finding("newer_version", str(error), key=key)]
    except ManifestInvalid as error:
        return [Finding("damaged", str(error), key=key)]
    name = "plans" if isinstance(record, Plan) else "manifests"
    if layout.compacted(name, record.dt, record.hr, record.generation) != key:
        text = f"{key} holds what belongs to {record.dt}T{record.hr}:00 generation {record.generation}"
        return [Finding("misplaced", text, key=key)]
    if codec.encode(record) != data:
        return [Finding("damaged", f"{key} was changed: these are not the bytes that Steelyard writes", key=key)]
    if isinstance(record, Plan):
        records.plans[key] = record
    else:
        records.manifests[key] = record
    return []


def check(records: Records) -> Iterator[Finding]:
    """All that does not need the files' contents."""
    for key, manifest in sorted(records.manifests.items()):
        yield from _against_plan(key, manifest, records.plans)
        if not hours.has_all_files(manifest):
            yield Finding("damaged", f"{key} does not list each table's file once, under its own key", key=key)
    committed = {_place(manifest) for manifest in records.manifests.values()}
    for key, plan in sorted(records.plans.items()):
        if _place(plan) not in committed:
            text = f"{key} was planned and is not finished: the next `steelyard ledger compact` finishes it"
            yield Finding("unfinished", text, is_fault=False, key=key)
    yield from _generations(records)
    yield from _twice(records.manifests)
    yield from _unlisted(records, committed)


def _place(record: Plan | Manifest) -> Place:
    return record.dt, record.hr, record.generation


def _against_plan(key: str, manifest: Manifest, plans: Mapping[str, Plan]) -> Iterator[Finding]:
    plan = plans.get(layout.compacted("plans", *_place(manifest)))
    if plan is None:
        yield Finding("missing_file", f"{key} has no plan that can be read", key=key)
    elif plan.inputs != manifest.inputs:
        yield Finding(
            "damaged", f"{key} does not list the segments that were planned: one of the two was edited", key=key
        )


def _generations(records: Records) -> Iterator[Finding]:
    """They are numbered from 0: a hole is an hour's part that is gone."""
    numbers: dict[tuple[str, str], set[int]] = defaultdict(set)
    every: list[Plan | Manifest] = [*records.plans.values(), *records.manifests.values()]
    for record in every:
        numbers[record.dt, record.hr].add(record.generation)
    for (dt, hr), found in sorted(numbers.items()):
        for missing in sorted(set(range(max(found))) - found):
            key = layout.compacted("manifests", dt, hr, missing)
            yield Finding("gap", f"{key} is missing, and later generations of the hour are there", key=key)


def _twice(manifests: Mapping[str, Manifest]) -> Iterator[Finding]:
    first: dict[str, str] = {}
    for key, manifest in sorted(manifests.items()):
        again = [given.key for given in manifest.inputs if first.setdefault(given.key, key) != key]
        if again:
            text = f"{key} lists {len(again):,} segments that {first[again[0]]} lists too, such as {again[0]}"
            yield Finding("duplicate", text, key=key)


def _unlisted(records: Records, committed: Iterable[Place]) -> Iterator[Finding]:
    """What a run that was stopped has written lies there until it is finished."""
    planned = {_place(plan) for plan in records.plans.values()} - set(committed)
    known = set(hours.listed_files(records.manifests))
    known |= {layout.compacted(table, *place) for table in TABLES for place in planned}
    for key in sorted(set(records.files) - known):
        text = f"{key} is in no manifest: whoever reads the folder as a table counts it too"
        yield Finding("duplicate", text, key=key)
