"""Where everything lies in the bucket. Trainers and gateways meet only in these keys.

models/<name>/blobs/sha256/<hex>            immutable files
models/<name>/manifests/sha256/<hex>        immutable manifests
models/<name>/signatures/sha256/<hex>/<key>.json   who signed that manifest and its files, one sigstore bundle for each key
models/<name>/versions/<n>.json             which manifest version n is; claimed once
models/<name>/log/<generation>.json         decisions about aliases, append-only: the truth
models/<name>/aliases/<alias>.json          the log's newest entry for this alias
ledger/v1/dt=<date>/hr=<hour>/<container>/<boot>-<seq>.jsonl.gz   what happened and what it cost
ledger/v1/containers/<container>/<boot>-open.json, -close.json    when a container's bill began and ended
ledger/v1/containers/<container>/<boot>-ended.json   when a killed container's bill ended, as its platform says
ledger/v1/training/<run>/<attempt>.json     what an attempt at training cost, and how much of that was in vain
ledger/v1/corrections/<generation>.json     what a provider's bill says differently, one posting of one bill; claimed once
compacted/v1/<table>/dt=<date>/hr=<hour>/<generation>.parquet   segments, charges, postings and requests for other engines
compacted/v1/plans/dt=<date>/hr=<hour>/<generation>.json       which segments a generation is made of; claimed once
compacted/v1/manifests/dt=<date>/hr=<hour>/<generation>.json   that it is made: the commit
runs/<run>/run.json                         what a training run was asked for
runs/<run>/attempts/<n>.json, <n>-end.json  who tried, claimed once, and how that ended
runs/<run>/heartbeat.json                   the newest attempt's last sign of life
runs/<run>/cancel.json                      there while nobody may go on with it
runs/<run>/decision.json                    what was decided about promoting its result
runs/<run>/metrics/<n>-<seq>.jsonl, logs/<n>-<seq>.txt   append-only segments
runs/<run>/stages/<stage>/<key>.json        what a stage made of the inputs with this digest
runs/<run>/blobs/sha256/<hex>               the files that stages made
runs/<run>/checkpoints/<step>-<attempt>/    state.safetensors, facts.json and, written last, manifest.json
runs/<run>/checkpoints/LATEST               the newest attempt and the checkpoint to resume from; moved by compare-and-swap
features/v1/<model>/dt=<date>/hr=<hour>/<container>-<boot>-<seq>.json   how many rows fell into which bin; counts, no values
prices/sha256/<hex>                         the price books that ledger and manifests refer to
prices/current.json                         the book that new containers are billed by; moved by compare-and-swap
keys/<id>.json                              who may call; changed only to revoke
schedules/<name>/<time>.json                which job runs the event of this time; claimed once
schedules/<name>/lease.json                 the run that holds the schedule now; moved by compare-and-swap
submissions/<run>/<n>.json                  who decided what about a run whose attempts were used up
spend/v1/dt=<date>/<container>-<boot>.json  what keys with a budget spent today, as each container saw it
budgets/v1/<budget>/<period>/<threshold>.json   that its alert went out; claimed once
"""

from datetime import UTC, datetime

MODELS = "models/"
LEDGER = "ledger/v1/"
COMPACTED = "compacted/v1/"
FEATURES = "features/v1/"
KEYS = "keys/"
SPEND = "spend/v1/"
RUNS = "runs/"
TRAINING = f"{LEDGER}training/"
CORRECTIONS = f"{LEDGER}corrections/"
SCHEDULES = "schedules/"
SUBMISSIONS = "submissions/"
CHAMPION = "champion"

MANIFEST = "manifest.json"
"""The manifest's name in a folder that holds an artifact; there the files lie beside it, under the names it gives them."""


def blob(model: str, sha256: str) -> str:
    return f"models/{model}/blobs/sha256/{sha256}"


def manifest(model: str, sha256: str) -> str:
    return f"models/{model}/manifests/sha256/{sha256}"


def signatures(model: str, manifest_sha256: str) -> str:
    """The prefix of all signatures of one manifest."""
    return f"models/{model}/signatures/sha256/{manifest_sha256}/"


def signature(model: str, manifest_sha256: str, key_id: str) -> str:
    return f"{signatures(model, manifest_sha256)}{key_id}.json"


def versions(model: str) -> str:
    """The prefix of all version records."""
    return f"models/{model}/versions/"


def version(model: str, number: int) -> str:
    return f"models/{model}/versions/{number}.json"


def promotions(model: str) -> str:
    """The prefix of the promotion log; keys sort by generation."""
    return f"models/{model}/log/"


def promotion(model: str, generation: int) -> str:
    return f"models/{model}/log/{generation:010d}.json"


def alias(model: str, name: str) -> str:
    return f"models/{model}/aliases/{name}.json"


def aliases(model: str) -> str:
    """The prefix of a model's aliases."""
    return f"models/{model}/aliases/"


def segments() -> str:
    """The prefix of all ledger segments; keys sort by hour."""
    return f"{LEDGER}dt="


def segment(*, from_ns: int, container: str, boot_ns: int, seq: int) -> str:
    """The hour is that of the segment's first nanosecond (UTC); a segment never crosses an hour."""
    hour = datetime.fromtimestamp(from_ns // 1_000_000_000, UTC)
    return f"{LEDGER}dt={hour:%Y-%m-%d}/hr={hour:%H}/{container}/{boot_ns}-{seq:012d}.jsonl.gz"


def containers() -> str:
    """The prefix of all open and close records."""
    return f"{LEDGER}containers/"


def container_open(container: str, boot_ns: int) -> str:
    return f"{LEDGER}containers/{container}/{boot_ns}-open.json"


def container_close(container: str, boot_ns: int) -> str:
    return f"{LEDGER}containers/{container}/{boot_ns}-close.json"


def container_ended(container: str, boot_ns: int) -> str:
    return f"{LEDGER}containers/{container}/{boot_ns}-ended.json"


def corrections(generation: int) -> str:
    """Keys sort by generation, which begins at 1."""
    return f"{CORRECTIONS}{generation:06d}.json"


def compacted(kind: str, dt: str = "", hr: str = "", generation: int = 0) -> str:
    """The key of a plan, a manifest (`kind` is plans, manifests) or a table's file; without `dt` the prefix of all of a kind."""
    prefix = f"{COMPACTED}{kind}/"
    suffix = "json" if kind in {"plans", "manifests"} else "parquet"
    return f"{prefix}dt={dt}/hr={hr}/{generation:06d}.{suffix}" if dt else prefix


def feature_windows(model: str, date: str) -> str:
    """The prefix of a model's feature windows of one day (UTC, 2026-11-25); keys sort by hour."""
    return f"{FEATURES}{model}/dt={date}/"


def feature_window(model: str, *, from_ns: int, container: str, boot_ns: int, seq: int) -> str:
    """The hour is that of the window's first nanosecond (UTC)."""
    hour = datetime.fromtimestamp(from_ns // 1_000_000_000, UTC)
    return f"{feature_windows(model, f'{hour:%Y-%m-%d}')}hr={hour:%H}/{container}-{boot_ns}-{seq:08d}.json"


def price_book(sha256: str) -> str:
    return f"prices/sha256/{sha256}"


def current_prices() -> str:
    return "prices/current.json"


def key(key_id: str) -> str:
    return f"{KEYS}{key_id}.json"


def spends(date: str) -> str:
    """The prefix of all spend records of one day (UTC, 2026-11-25)."""
    return f"{SPEND}dt={date}/"


def spend(date: str, container: str, boot_ns: int) -> str:
    return f"{SPEND}dt={date}/{container}-{boot_ns}.json"


def checkpoints(run_id: str) -> str:
    """The prefix of all checkpoints of a run, of all its attempts."""
    return f"{RUNS}{run_id}/checkpoints/"


def checkpoint(run_id: str, step: int, attempt: int) -> str:
    """The prefix of one checkpoint's files; keys sort by step."""
    return f"{checkpoints(run_id)}{step:012d}-{attempt:04d}/"


def checkpoint_file(run_id: str, step: int, attempt: int, name: str) -> str:
    return f"{checkpoint(run_id, step, attempt)}{name}"


def latest_checkpoint(run_id: str) -> str:
    return f"{checkpoints(run_id)}LATEST"


def run(run_id: str) -> str:
    return f"{RUNS}{run_id}/run.json"


def attempts(run_id: str) -> str:
    """The prefix of claims and ends; keys sort by attempt, and an end before its claim."""
    return f"{RUNS}{run_id}/attempts/"


def attempt(run_id: str, number: int) -> str:
    return f"{RUNS}{run_id}/attempts/{number:04d}.json"


def attempt_end(run_id: str, number: int) -> str:
    return f"{RUNS}{run_id}/attempts/{number:04d}-end.json"


def heartbeat(run_id: str) -> str:
    return f"{RUNS}{run_id}/heartbeat.json"


def cancellation(run_id: str) -> str:
    return f"{RUNS}{run_id}/cancel.json"


def decision(run_id: str) -> str:
    return f"{RUNS}{run_id}/decision.json"


def metrics(run_id: str, attempt_number: int | None = None) -> str:
    """The prefix of metrics segments, of all attempts or of one; keys sort by attempt, then by time."""
    return f"{RUNS}{run_id}/metrics/" + ("" if attempt_number is None else f"{attempt_number:04d}-")


def metrics_segment(run_id: str, attempt_number: int, seq: int) -> str:
    return f"{metrics(run_id, attempt_number)}{seq:08d}.jsonl"


def logs(run_id: str, attempt_number: int | None = None) -> str:
    """The prefix of log segments, as `metrics`."""
    return f"{RUNS}{run_id}/logs/" + ("" if attempt_number is None else f"{attempt_number:04d}-")


def logs_segment(run_id: str, attempt_number: int, seq: int) -> str:
    return f"{logs(run_id, attempt_number)}{seq:08d}.txt"


def stages(run_id: str) -> str:
    """The prefix of all stage records."""
    return f"{RUNS}{run_id}/stages/"


def stage(run_id: str, name: str, key_sha256: str) -> str:
    return f"{RUNS}{run_id}/stages/{name}/{key_sha256}.json"


def run_blob(run_id: str, sha256: str) -> str:
    return f"{RUNS}{run_id}/blobs/sha256/{sha256}"


def training_charge(run_id: str, attempt_number: int) -> str:
    return f"{TRAINING}{run_id}/{attempt_number:04d}.json"


def schedule_claim(name: str, time: str) -> str:
    """`time` is 20261130T030000Z, in UTC."""
    return f"{SCHEDULES}{name}/{time}.json"


def schedule_lease(name: str) -> str:
    return f"{SCHEDULES}{name}/lease.json"


def budget_alert(budget_id: str, period: str, threshold: str) -> str:
    return f"budgets/v1/{budget_id}/{period}/{threshold}.json"


def submission(run_id: str, number: int) -> str:
    return f"{SUBMISSIONS}{run_id}/{number:04d}.json"
