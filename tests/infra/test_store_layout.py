"""What policies say about keys is what gateway/contract/layout.py makes of them; a key that is new there must be judged here."""

import inspect
import re

import pytest

from gateway.contract import layout
from tests.support import hcl

SHA = "0" * 64
RUN = "nightly-20261130t020000z"
HOUR_NS = 1_795_600_800_000_000_000

# Every function of the layout that names an object: its key, whether it is written once, and who writes it besides operators.
GATEWAY, JOB, KEEPER, OPERATOR = "gateway", "job", "keeper", "operator"
KEYS: dict[str, tuple[str, bool, set[str]]] = {
    "blob": (layout.blob("m", SHA), True, {JOB}),
    "manifest": (layout.manifest("m", SHA), True, {JOB}),
    "signature": (layout.signature("m", SHA, "k"), True, {JOB}),
    "version": (layout.version("m", 1), True, {JOB}),
    "promotion": (layout.promotion("m", 1), True, {JOB}),
    "alias": (layout.alias("m", "champion"), False, {JOB}),
    "segment": (layout.segment(from_ns=HOUR_NS, container="c", boot_ns=1, seq=1), True, {GATEWAY}),
    "container_open": (layout.container_open("c", 1), True, {GATEWAY}),
    "container_close": (layout.container_close("c", 1), True, {GATEWAY}),
    "container_ended": (layout.container_ended("c", 1), True, {GATEWAY}),
    "corrections": (layout.corrections(1), True, {OPERATOR}),
    "budget_alert": (layout.budget_alert("b", "2026-11", "0.8"), False, {KEEPER}),
    "compacted": (layout.compacted("charges", "2026-11-25", "10", 1), True, {KEEPER}),
    "feature_window": (layout.feature_window("m", from_ns=HOUR_NS, container="c", boot_ns=1, seq=1), True, {GATEWAY}),
    "price_book": (layout.price_book(SHA), True, {GATEWAY, JOB}),
    "current_prices": (layout.current_prices(), False, {OPERATOR}),
    "key": (layout.key("k"), False, {OPERATOR}),
    "spend": (layout.spend("2026-11-25", "c", 1), False, {GATEWAY}),
    "checkpoint_file": (layout.checkpoint_file(RUN, 1, 1, "facts.json"), True, {JOB}),
    "latest_checkpoint": (layout.latest_checkpoint(RUN), False, {JOB}),
    "run": (layout.run(RUN), True, {JOB}),
    "attempt": (layout.attempt(RUN, 1), True, {JOB}),
    "attempt_end": (layout.attempt_end(RUN, 1), True, {JOB}),
    "heartbeat": (layout.heartbeat(RUN), False, {JOB}),
    "cancellation": (layout.cancellation(RUN), True, {JOB}),
    "decision": (layout.decision(RUN), False, {JOB}),
    "metrics_segment": (layout.metrics_segment(RUN, 1, 1), True, {JOB}),
    "logs_segment": (layout.logs_segment(RUN, 1, 1), True, {JOB}),
    "stage": (layout.stage(RUN, "fit", SHA), True, {JOB}),
    "run_blob": (layout.run_blob(RUN, SHA), True, {JOB}),
    "training_charge": (layout.training_charge(RUN, 1), True, {JOB}),
    "schedule_claim": (layout.schedule_claim("nightly", "20261130T030000Z"), True, {JOB}),
    "schedule_lease": (layout.schedule_lease("nightly"), False, {JOB}),
    "submission": (layout.submission(RUN, 1), False, {JOB}),
}
PREFIXES = {
    "signatures", "versions", "promotions", "aliases", "segments", "containers", "feature_windows", "spends", "checkpoints",
    "checkpoint", "attempts", "metrics", "logs", "stages",
}  # fmt: skip

IMMUTABLE = hcl.strings("modules/artifacts/layout.tf", "immutable")
ONCE = hcl.strings("modules/trainer/roles.tf", "once")
MOVED = hcl.strings("modules/trainer/roles.tf", "moved")
READS = [each.removeprefix("${var.store.arn}/") for each in hcl.statement("modules/gateway/roles.tf", "Read")]
JOB_READS = [each for each in hcl.statement("modules/trainer/roles.tf", "Read") if each.endswith("/*")]
KEEPER_ONCE, KEEPER_MOVED = (
    [each.removeprefix("${var.store.arn}/") for each in hcl.strings("modules/keeper/roles.tf", name)]
    for name in ("compacted", "alerts")
)
KEEPER_READS = [each for each in hcl.statement("modules/keeper/roles.tf", "Read") if each.endswith("/*")]
WRITES = [each.removeprefix("${var.store.arn}/") for each in hcl.statement("modules/gateway/roles.tf", "Write")]


def covers(patterns: list[str], key: str) -> bool:
    """As S3 reads a resource: `*` is any number of any signs."""
    return any(re.fullmatch(".*".join(map(re.escape, pattern.split("*"))), key) for pattern in patterns)


def test_every_key_of_the_layout_is_judged_here() -> None:
    functions = {name for name, found in vars(layout).items() if inspect.isfunction(found)}
    assert functions == set(KEYS) | PREFIXES, "say of the new one whether it is written once, and by whom"


@pytest.mark.parametrize("name", KEYS)
def test_the_bucket_has_written_once_what_is_written_once(name: str) -> None:
    key, is_written_once, _ = KEYS[name]
    assert covers(IMMUTABLE, key) == is_written_once, key


@pytest.mark.parametrize("name", KEYS)
def test_gateways_jobs_and_the_keeper_may_write_what_they_write_and_no_more(name: str) -> None:
    key, is_written_once, writers = KEYS[name]
    assert covers(WRITES, key) == (GATEWAY in writers), key
    assert covers(ONCE, key) == (JOB in writers and is_written_once), key
    assert covers(MOVED, key) == (JOB in writers and not is_written_once), key
    assert covers(KEEPER_ONCE, key) == (KEEPER in writers and is_written_once), key
    assert covers(KEEPER_MOVED, key) == (KEEPER in writers and not is_written_once), key


def test_a_gateway_reads_what_it_serves_accounts_and_shows_and_no_run() -> None:
    unread = {name for name, (key, _, _) in KEYS.items() if not covers(READS, key)}
    runs = {name for name, (key, _, _) in KEYS.items() if key.startswith(layout.RUNS)}
    assert unread == runs | {"schedule_claim", "schedule_lease", "submission", "budget_alert"}


def test_a_job_reads_no_keys_and_nothing_of_what_gateways_account_for() -> None:
    unread = {name for name, (key, _, _) in KEYS.items() if not covers(JOB_READS, key)}
    assert unread == {
        "segment", "container_open", "container_close", "container_ended", "compacted", "corrections", "key", "spend",
        "budget_alert",
    }  # fmt: skip


def test_the_keeper_reads_the_whole_ledger_and_no_model_key_or_run() -> None:
    read = {name for name, (key, _, _) in KEYS.items() if covers(KEEPER_READS, key)}
    ledger = {
        name for name, (key, _, _) in KEYS.items() if key.startswith((layout.LEDGER, layout.COMPACTED, "prices/"))
    }
    assert read == ledger


def test_every_pattern_is_about_a_key_that_there_is() -> None:
    keys = [key for key, _, _ in KEYS.values()]
    for pattern in (*IMMUTABLE, *ONCE, *MOVED, *WRITES, *KEEPER_ONCE, *KEEPER_MOVED, *KEEPER_READS):
        assert any(covers([pattern], key) for key in keys), pattern


def test_gateways_and_the_keeper_may_delete_nothing_and_the_bucket_keeps_no_operator_from_expiring_the_ledger() -> None:
    """`steelyard ledger expire` is an operator's: what writes the ledger can take nothing from it."""
    for path in sorted(path for name in ("gateway", "keeper") for path in (hcl.FOLDER / "modules" / name).glob("*.tf")):
        assert "s3:Delete" not in path.read_text(), path
    assert "s3:Delete" not in hcl.text("modules/artifacts/store.tf")
    deletes = [each for each in hcl.statement("modules/trainer/roles.tf", "Delete") if "*" in each]
    assert not any(
        covers(deletes, KEYS[name][0]) for name in ("segment", "container_open", "container_close", "compacted")
    )


def test_nothing_that_a_job_may_delete_is_anything_but_a_runs() -> None:
    deletes = [each for each in hcl.statement("modules/trainer/roles.tf", "Delete") if "*" in each]
    assert deletes
    for name, (key, _, _) in KEYS.items():
        if covers(deletes, key):
            assert key.startswith(layout.RUNS), name
