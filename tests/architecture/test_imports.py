"""What an import may pull in, seen from fresh interpreters: a linter reads import statements and misses what runs."""

import subprocess
import sys

import pytest

BLOCK = """
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split('.')[0] in {blocked!r} or name in {blocked!r}:
            raise ImportError(f'{{name}} must not be imported here')
sys.meta_path.insert(0, Refuse())
import {module}
"""

HEAVY = {
    "litestar",
    "uvicorn",
    "aiobotocore",
    "botocore",
    "boto3",
    "onnxruntime",
    "numpy",
    "duckdb",
    "torch",
    "onnx",
    "cryptography",
    "model_signing",
}


def starts_without(module: str, blocked: set[str]) -> "subprocess.CompletedProcess[str]":
    code = BLOCK.format(module=module, blocked=blocked)
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)


@pytest.mark.parametrize(
    ("module", "blocked"),
    [
        ("gateway.contract.manifest", HEAVY | {"click", "rich"}),
        ("gateway.contract.ledger", HEAVY | {"click", "rich"}),
        ("gateway.contract.features", HEAVY | {"click", "rich"}),
        ("gateway.contract.prices", HEAVY | {"click", "rich"}),
        ("gateway.contract.runs", HEAVY | {"click", "rich"}),
        ("gateway.config", HEAVY | {"click", "rich"}),
        ("gateway.errors", HEAVY | {"click", "rich", "msgspec"}),
        ("gateway.allocator, gateway.whoami, gateway.wording", HEAVY | {"click", "rich", "msgspec"}),
        ("gateway.objectstore.opening", HEAVY),
        ("gateway.accounting.ledger", HEAVY),
        ("gateway.registry.reading, gateway.registry.releasing, gateway.registry.fetching", HEAVY),
        ("gateway.registry.signatures", (HEAVY | {"sigstore", "OpenSSL"}) - {"cryptography"}),
        ("gateway.repository.residents", HEAVY - {"numpy"}),
        ("gateway.features.recorder", HEAVY - {"numpy"}),
        ("gateway.telemetry.startup, gateway.telemetry.logs", HEAVY | {"click", "rich", "opentelemetry"}),
        ("gateway.access.gate", HEAVY | {"click", "rich"}),
        ("gateway.dataplane", (HEAVY | {"trainers"}) - {"onnxruntime", "numpy"}),
        (
            "gateway.server",
            {
                "trainers",
                "torch",
                "onnx",
                "onnxscript",
                "boto3",
                "aiobotocore",
                "duckdb",
                "sklearn",
                "pandas",
                "opentelemetry",
                "prometheus_client",
                "cryptography",
                "model_signing",
                "cyclonedx",
                "tokenizers",
                "gateway.lambdaruntime.api",
                "gateway.lambdaruntime.serving",
            },
        ),
        ("gateway.cli.main", HEAVY),
        ("gateway.cli.serve, gateway.cli.predict, gateway.cli.models, gateway.cli.keys, gateway.cli.costs", HEAVY),
        ("trainers.cli, trainers.countersign", HEAVY),
        ("trainers.drift.commands", HEAVY | {"scipy", "sklearn"}),
        (
            "trainers.drift.trigger, trainers.drift.profile",
            {"litestar", "torch", "onnx", "onnxruntime", "duckdb", "sklearn"},
        ),
        (
            "trainers.run",
            {
                "litestar",
                "uvicorn",
                "duckdb",
                "gateway.http",
                "gateway.runtime",
                "gateway.repository",
                "gateway.dataplane",
            },
        ),
        ("trainers.publish, trainers.signing", HEAVY),
        ("trainers.importing.bringing, trainers.summary", {"torch", "onnxscript", "litestar", "gateway.runtime"}),
        ("trainers.interruption.spot, trainers.interruption.grace", HEAVY | {"click", "rich"}),
        ("gateway.contract.checkpoint", HEAVY | {"click", "rich"}),
        ("trainers.runs.commands", HEAVY | {"rich"}),
        ("trainers.runs.heartbeat, trainers.runs.journal, trainers.runs.stages", HEAVY | {"click", "rich"}),
        ("trainers.runs.budget, trainers.runs.machine", HEAVY | {"click", "rich"}),
        ("trainers.spec.reading", HEAVY | {"click", "rich"}),
        ("trainers.launch.commands, trainers.launch.local, trainers.launch.claim, trainers.launch.kubernetes", HEAVY),
    ],
)
def test_a_module_starts_without_what_it_does_not_need(module: str, blocked: set[str]) -> None:
    outcome = starts_without(module, blocked)
    assert outcome.returncode == 0, outcome.stderr.strip().splitlines()[-1]


def test_the_block_blocks() -> None:
    outcome = starts_without("gateway.server", {"litestar"})
    assert outcome.returncode != 0
    assert "litestar must not be imported here" in outcome.stderr
