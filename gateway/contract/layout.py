"""Where everything lies in the bucket. Trainers and gateways meet only in these keys.

models/<name>/blobs/sha256/<hex>            immutable files
models/<name>/manifests/sha256/<hex>        immutable manifests
models/<name>/versions/<n>.json             which manifest version n is; claimed once
models/<name>/log/<generation>.json         decisions about aliases, append-only: the truth
models/<name>/aliases/<alias>.json          the log's newest entry for this alias
ledger/v1/dt=<date>/hr=<hour>/<container>/<boot>-<seq>.jsonl.gz   what happened and what it cost
ledger/v1/containers/<container>/<boot>-open.json, -close.json    when a container's bill began and ended
prices/sha256/<hex>                         the price books that ledger and manifests refer to
keys/<id>.json                              who may call; changed only to revoke
spend/v1/dt=<date>/<container>-<boot>.json  what keys with a budget spent today, as each container saw it
runs/<run_id>/checkpoints/<step>-<attempt>/ state.safetensors, facts.json and, written last, manifest.json
runs/<run_id>/checkpoints/LATEST            the newest attempt and the checkpoint to resume from; moved by compare-and-swap
"""

from datetime import UTC, datetime

MODELS = "models/"
LEDGER = "ledger/v1/"
KEYS = "keys/"
SPEND = "spend/v1/"
RUNS = "runs/"
CHAMPION = "champion"


def blob(model: str, sha256: str) -> str:
    return f"models/{model}/blobs/sha256/{sha256}"


def manifest(model: str, sha256: str) -> str:
    return f"models/{model}/manifests/sha256/{sha256}"


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


def price_book(sha256: str) -> str:
    return f"prices/sha256/{sha256}"


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
