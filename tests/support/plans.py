"""Makes the plans in tests/unit/plans that `steelyard infra check` is tested with: `python -m tests.support.plans`.

Real ones, by Terraform of infra/terraform/envs/dev against moto's server; what the check does not read is cut away. Kept in the
repository, for its tests shall run where there is no Terraform.
"""

import json
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any  # Any: JSON

from tests.support import awsserver, terraform
from tests.support.terraform import Root

FOLDER = Path(__file__).parents[1] / "unit" / "plans"
ARTIFACTS = "module.steelyard.module.artifacts"
ECR = "123456789012.dkr.ecr.eu-central-1.amazonaws.com/steelyard-dev"
GATEWAY, TRAINER = f"{ECR}/gateway@sha256:{'1' * 64}", f"{ECR}/trainer@sha256:{'2' * 64}"
VARIABLES = {
    "region": "eu-central-1",
    "account_id": "123456789012",
    "bucket": "acme-steelyard-dev",
    "zones": ["eu-central-1a", "eu-central-1b"],
    "gateway_image": GATEWAY,
    "allowed_cidrs": ["10.0.0.0/8"],
    "jobs": {
        "weekly": {"recipe": "flights", "image": TRAINER, "schedule": {"expression": "cron(0 3 ? * MON *)"}},
        "once": {
            "recipe": "flights",
            "image": TRAINER,
            "schedule": {"expression": "at(2099-12-24T18:00:00)", "timezone": "Europe/Paris"},
        },
    },
}
READ = {
    "aws_s3_bucket": ("bucket",),
    "aws_ecr_repository": ("name",),
    "aws_subnet": ("availability_zone",),
    "aws_ecs_service": ("network_configuration",),
    "aws_lb": ("subnets",),
    "aws_ecs_task_definition": ("container_definitions",),
    "aws_batch_job_definition": ("container_properties",),
    "aws_scheduler_schedule": ("schedule_expression", "schedule_expression_timezone", "state"),
}


def main() -> None:
    """Writes all three; some minutes, most of them waits of the provider's."""
    with tempfile.TemporaryDirectory() as folder, awsserver.running(Path(folder) / "aws.log") as account:
        root = terraform.copied(Path(folder), "envs/dev")
        (root.folder / "backend_override.tf").write_text('terraform {\n  backend "local" {}\n}\n')
        environment = dict(root.environment) | account.environment() | {"AWS_REGION": VARIABLES["region"]}
        root = Root(root.folder, environment | {"AWS_DEFAULT_REGION": str(VARIABLES["region"])})
        root.run("init", "-reconfigure", "-input=false", "-no-color")
        written(root, "dev")
        written(root, "dev-first", f"-target={ARTIFACTS}")
        target = f"-target={ARTIFACTS}.aws_s3_bucket.store"
        root.run("apply", "-auto-approve", "-input=false", "-no-color", target)
        written(root, "dev-moved", target, bucket="acme-steelyard-elsewhere")


def written(root: Root, name: str, *options: str, **changed: str) -> None:
    (root.folder / "test.auto.tfvars.json").write_text(json.dumps(VARIABLES | changed))
    root.run("plan", "-input=false", "-no-color", f"-out={name}", *options)
    plan = json.loads(root.run("show", "-json", name).stdout)
    (FOLDER / f"{name}.json").write_text(json.dumps(cut(plan), indent=1) + "\n")


def cut(plan: dict[str, Any]) -> dict[str, Any]:
    """The same plan with what is read of it."""
    kept = {name: plan[name] for name in ("format_version", "terraform_version", "variables")}
    resources = list(_resources(plan["planned_values"]["root_module"]))
    return kept | {
        "planned_values": {"root_module": {"resources": resources}},
        "resource_changes": [_change(row) for row in plan["resource_changes"] if row["type"] in READ],
        "configuration": {"provider_config": plan["configuration"]["provider_config"]},
    }


def _resources(module: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for row in module.get("resources", ()):
        if row["type"] in READ:
            yield _head(row) | {"values": _read(row["type"], row["values"])}
    for child in module.get("child_modules", ()):
        yield from _resources(child)


def _change(row: dict[str, Any]) -> dict[str, Any]:
    change = {name: row["change"][name] for name in ("actions", "replace_paths") if name in row["change"]}
    sides = {side: row["change"][side] and _read(row["type"], row["change"][side]) for side in ("before", "after")}
    return _head(row) | {"change": change | sides}


def _head(row: dict[str, Any]) -> dict[str, Any]:
    return {name: row[name] for name in ("address", "mode", "type")}


def _read(kind: str, values: dict[str, Any]) -> dict[str, Any]:
    return {name: values[name] for name in READ[kind] if name in values}


if __name__ == "__main__":
    sys.exit(main())
