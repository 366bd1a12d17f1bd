"""What a plan is about to do, and with which provider: read from `terraform show -json`, beside `gateway.stack.plan`'s resources.

Terraform writes a provider's arguments as expressions. A constant and a root variable by itself are understood; what is computed in
any other way is left out, and whoever asks says that it is not known.
"""

import re
from collections.abc import Iterator
from typing import Any  # Any: values of resources are whatever Terraform has there

import msgspec

from gateway.stack.plan import Resource, resources_of

PINNED = re.compile(r"[^@\s]+@sha256:[0-9a-f]{64}")
REGION = re.compile(r"[a-z]{2}(-[a-z]+)+-[0-9]")


class Change(msgspec.Struct, frozen=True):
    """One resource's part of the plan. A replacement both destroys and creates; `because` names the arguments that force it."""

    address: str
    type: str
    creates: bool
    destroys: bool
    before: dict[str, Any]
    after: dict[str, Any]
    because: tuple[str, ...] = ()


class Provider(msgspec.Struct, frozen=True):
    """As whom and where Terraform will act; empty where the plan does not say. `keys` are an access key and its secret."""

    region: str = ""
    account_ids: tuple[str, ...] = ()
    profile: str = ""
    keys: tuple[str, str] | None = None
    endpoints: dict[str, str] = {}
    assumes_role: bool = False


class Image(msgspec.Struct, frozen=True):
    """An image that tasks, functions or jobs will be started from, and who names it: a resource or a variable."""

    where: str
    name: str


def changes(plan: dict[str, Any]) -> list[Change]:
    """Every managed resource that the plan touches, and those it leaves as they are."""
    return [
        Change(
            address=found["address"],
            type=found["type"],
            creates="create" in found["change"]["actions"],
            destroys="delete" in found["change"]["actions"],
            before=found["change"].get("before") or {},
            after=found["change"].get("after") or {},
            because=tuple(".".join(map(str, path)) for path in found["change"].get("replace_paths", ())),
        )
        for found in plan.get("resource_changes", ())
        if found.get("mode") == "managed"
    ]


def provider(plan: dict[str, Any]) -> Provider:
    """The AWS provider of the root; those with an alias are not looked at."""
    found = plan.get("configuration", {}).get("provider_config", {}).get("aws", {}).get("expressions", {})
    said = {name: _resolved(expression, plan) for name, expression in found.items() if name in _ARGUMENTS}
    accounts, keys = said.get("allowed_account_ids") or (), (said.get("access_key"), said.get("secret_key"))
    region = str(said.get("region") or "")
    return Provider(
        region=region if REGION.fullmatch(region) else "",
        account_ids=(accounts,) if isinstance(accounts, str) else tuple(accounts),
        profile=str(said.get("profile") or ""),
        keys=(str(keys[0]), str(keys[1])) if all(keys) else None,
        endpoints=dict(_endpoints(found.get("endpoints", ()), plan)),
        assumes_role=bool({"assume_role", "assume_role_with_web_identity"} & found.keys()),
    )


_ARGUMENTS = frozenset({"region", "allowed_account_ids", "profile", "access_key", "secret_key"})


def _endpoints(blocks: Any, plan: dict[str, Any]) -> Iterator[tuple[str, str]]:
    for block in blocks:
        for service, expression in block.items():
            url = _resolved(expression, plan)
            if isinstance(url, str) and url.startswith("http"):
                yield service, url


def _resolved(expression: Any, plan: dict[str, Any]) -> Any:
    """A constant's value, or a root variable's; None for everything else."""
    if "constant_value" in expression:
        return expression["constant_value"]
    match expression.get("references"):
        case [str(name)] if name.startswith("var."):
            return plan.get("variables", {}).get(name.removeprefix("var."), {}).get("value")
    return None


def images(plan: dict[str, Any]) -> list[Image]:
    """Each image once, of what will be there; none where nothing starts one.

    Before a first apply container definitions are not known: they hold names of what is not made yet. The root's variables are:
    whatever in them is called an image, or is written as one with its digest.
    """
    starting = [found for found in resources_of(plan) if found.type in _STARTS]
    if not starting:
        return []
    found = {image.name: image for image in _of_variables(plan.get("variables", {}))}
    found |= {image.name: image for resource in starting for image in _of_resource(resource)}
    return list(found.values())


_STARTS = {
    "aws_ecs_task_definition": "container_definitions",
    "aws_batch_job_definition": "container_properties",
    "aws_lambda_function": "image_uri",
}


def _of_resource(resource: Resource) -> Iterator[Image]:
    said = resource.values.get(_STARTS[resource.type])
    if not said:  # known after apply, or a function that is no container
        return
    if resource.type == "aws_lambda_function":
        yield Image(resource.address, said)
        return
    containers = msgspec.json.decode(said)
    for container in containers if isinstance(containers, list) else [containers]:
        yield Image(resource.address, container["image"])


def _of_variables(variables: dict[str, Any]) -> Iterator[Image]:
    for name, row in variables.items():
        for path, value in _texts(row.get("value"), name):
            if PINNED.fullmatch(value) or re.search(r"(^|[._])image$", path):
                yield Image(f"variable {path}", value)


def _texts(value: Any, path: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, str):
        yield path, value
    elif isinstance(value, dict):
        for name, inner in value.items():
            yield from _texts(inner, f"{path}.{name}")
    elif isinstance(value, list):
        for inner in value:
            yield from _texts(inner, path)
