"""A job spec that uses every key, as a tree and as TOML, for tests that put something wrong into it."""

import copy
import json
import math
from typing import Any

DIGEST = "sha256:" + "5" * 64

FULL: dict[str, Any] = {
    "version": 1,
    "name": "flights-delay",
    "recipe": "flights",
    "image": f"registry.example/steelyard-train@{DIGEST}",
    "params": {"learning_rate": 3e-4, "epochs": 5, "optimizer": "adamw", "shuffle": True},
    "data": [
        {"name": "train", "uri": "s3://data/train.csv", "version_id": "v1", "min_rows": 100_000, "max_age": "7d"},
        {"name": "test", "uri": "s3://data/test.csv", "sha256": "0" * 64},
    ],
    "resources": {"gpu": 1, "gpu_memory_gb": 16, "cpu": 4, "memory_gb": 15.5, "shm_gb": 4, "disk_gb": 50},
    "market": {"prefer": "spot", "fallback_on_demand_after": "2h"},
    "checkpoint": {"every": "auto", "keep": 3, "strict_resume": True, "grace": "100s"},
    "limits": {"wall": "12h", "attempt": "6h", "max_cost_usd": 25, "no_progress_attempts": 3},
    "target": {"threads": 2, "flags": ["avx512_vnni"], "batch_mix": {"1": 0.7, "8": 0.3}, "sku": "c7i.large"},
    "promote": {"to": "challenger", "require_manual": False},
    "schedule": {"cron": "0 3 * * 1", "timezone": "Europe/Paris", "overlap": "forbid", "catch_up": "none"},
}


def full() -> dict[str, Any]:
    """A copy that may be altered."""
    return copy.deepcopy(FULL)


def toml(tree: dict[str, Any], prefix: str = "") -> str:
    """Plain TOML: values first, then tables, then arrays of tables, each statement on a line of its own."""
    lines = [f"{_key(key)} = {_value(value)}" for key, value in tree.items() if not _is_table(value)]
    for key, value in tree.items():
        path = prefix + _key(key)
        if isinstance(value, dict):
            lines += ["", f"[{path}]", toml(value, f"{path}.")]
        elif _is_table(value):
            lines += [part for row in value for part in ("", f"[[{path}]]", toml(row, f"{path}."))]
    return "\n".join(lines)


def _is_table(value: Any) -> bool:
    return isinstance(value, dict) or (
        isinstance(value, list) and bool(value) and all(isinstance(row, dict) for row in value)
    )


def _key(key: str) -> str:
    return json.dumps(key)


def _value(value: Any) -> str:
    if isinstance(value, list):
        return f"[{', '.join(_value(row) for row in value)}]"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{_key(key)} = {_value(inner)}' for key, inner in value.items())}}}"
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return json.dumps(value)
