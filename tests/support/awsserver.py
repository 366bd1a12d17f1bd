"""moto's server with what Terraform and our policies need of AWS and moto 5.2 has not: `python -m tests.support.awsserver -p PORT`.

It remembers what it is told of services, scalable targets, rules and launch templates, so that a second plan finds nothing to do;
and it judges conditions of policies (`tests.support.policies`) by the request's own headers, so that a bucket's policy can insist
on If-None-Match. Requests count as TLS: the loopback has none. moto asks for no credentials until /moto-api/reset-auth says so.
"""

import contextlib
import inspect
import json
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any  # Any: moto's classes are not typed for what is done here

import boto3
import msgspec

from tests.support.servers import free_ports

REGION = "us-east-1"
READY_S = 60
NEVER = 10**9
"""Requests that are let through before credentials are asked for."""


class Account(msgspec.Struct, frozen=True):
    """A server that stands for one AWS account."""

    url: str

    def client(self, service: str, keys: dict[str, str] | None = None) -> Any:
        """A client of the account's owner, or of whoever these credentials are."""
        given = keys or {"aws_access_key_id": "local", "aws_secret_access_key": "local"}
        return boto3.client(service, endpoint_url=self.url, region_name=REGION, **given)

    def environment(self, keys: dict[str, str] | None = None) -> dict[str, str]:
        """For a process that shall work in it, with these credentials."""
        given = keys or {"aws_access_key_id": "local", "aws_secret_access_key": "local"}
        return {name.upper(): value for name, value in given.items()} | {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_REGION": REGION,
            "AWS_DEFAULT_REGION": REGION,
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def assume(self, role_arn: str) -> dict[str, str]:
        """The credentials that the platform gives to what runs in this role."""
        found = self.client("sts").assume_role(RoleArn=role_arn, RoleSessionName="test")["Credentials"]
        return {
            "aws_access_key_id": found["AccessKeyId"],
            "aws_secret_access_key": found["SecretAccessKey"],
            "aws_session_token": found["SessionToken"],
        }

    @contextlib.contextmanager
    def asking_for_credentials(self) -> Iterator[None]:
        """From here on requests are signed by somebody who may, or refused."""
        self._reset_auth(0)
        try:
            yield
        finally:
            self._reset_auth(NEVER)

    def _reset_auth(self, count: int) -> None:
        request = urllib.request.Request(
            f"{self.url}/moto-api/reset-auth", str(count).encode(), {"Content-Type": "text/plain"}, method="POST"
        )
        urllib.request.urlopen(request).close()


@contextlib.contextmanager
def running(log: Path) -> Iterator[Account]:
    (port,) = free_ports(1)
    command = [sys.executable, "-m", "tests.support.awsserver", "-H", "127.0.0.1", "-p", str(port)]
    settings = {"MOTO_IAM_LOAD_MANAGED_POLICIES": "true", "INITIAL_NO_AUTH_ACTION_COUNT": str(NEVER)}
    account = Account(f"http://127.0.0.1:{port}")
    with (
        log.open("wb") as output,
        subprocess.Popen(command, stdout=output, stderr=output, env=os.environ | settings) as server,
    ):
        try:
            _wait(account, server, log)
            yield account
        finally:
            server.kill()


def _wait(account: Account, server: "subprocess.Popen[bytes]", log: Path) -> None:
    deadline = time.monotonic() + READY_S
    while time.monotonic() < deadline and server.poll() is None:
        with contextlib.suppress(OSError):
            urllib.request.urlopen(f"{account.url}/moto-api/").close()
            return
        time.sleep(0.05)
    raise RuntimeError(f"the server did not start:\n{log.read_text()[-2000:]}")


def main(arguments: list[str]) -> None:
    """Serve, patched, until killed."""
    import moto.server
    from moto.core.config import default_user_config

    default_user_config["batch"] = {"use_docker": False}
    remember_services()
    remember_tags_of_scalable_targets()
    remember_descriptions_of_rules()
    keep_tags_out_of_launch_templates()
    judge_conditions()
    moto.server.main(arguments)


def remember_services() -> None:
    """ECS gives back what a service was created with; moto forgets these and says EC2."""
    from moto.ecs.responses import EC2ContainerServiceResponse

    fields = {
        "capacityProviderStrategy": "capacity_provider_strategy",
        "healthCheckGracePeriodSeconds": "health_check_grace_period_seconds",
        "enableECSManagedTags": "enable_ecs_managed_tags",
        "availabilityZoneRebalancing": "availability_zone_rebalancing",
        "deploymentConfiguration": "deployment_configuration",
    }
    original = EC2ContainerServiceResponse.create_service

    def create_service(self: Any) -> Any:
        answer = original(self)
        service = self.ecs_backend.describe_services(self._get_param("cluster"), [self._get_param("serviceName")])[0][0]
        for name, attribute in fields.items():
            setattr(service, attribute, self._get_param(name))
        if service.capacity_provider_strategy:
            service.launch_type = None
        return answer

    EC2ContainerServiceResponse.create_service = create_service


def remember_tags_of_scalable_targets() -> None:
    from moto.applicationautoscaling.responses import ApplicationAutoScalingResponse

    tags: dict[str, Any] = {}
    original = ApplicationAutoScalingResponse.register_scalable_target

    def register(self: Any) -> Any:
        answer = original(self)
        if self._get_param("Tags"):
            tags[json.loads(answer)["ScalableTargetARN"]] = self._get_param("Tags")
        return answer

    def list_tags(self: Any) -> str:
        return json.dumps({"Tags": tags.get(self._get_param("ResourceARN"), {})})

    ApplicationAutoScalingResponse.register_scalable_target = register
    ApplicationAutoScalingResponse.list_tags_for_resource = list_tags


def remember_descriptions_of_rules() -> None:
    """moto looks for the description of a rule among addresses only, and not where a rule names a group or a prefix list."""
    from moto.ec2.models.security_groups import SecurityGroupRule

    original = SecurityGroupRule.__init__

    def init(self: Any, *arguments: Any, **named: Any) -> None:
        original(self, *arguments, **named)
        bound = inspect.signature(original).bind(self, *arguments, **named).arguments
        parts = [bound.get(name) or {} for name in ("ip_range", "source_group", "prefix_list_id")]
        self.told_description = next((part["Description"] for part in parts if part.get("Description")), None)

    SecurityGroupRule.__init__ = init
    SecurityGroupRule.description = property(lambda rule: rule.told_description)


def keep_tags_out_of_launch_templates() -> None:
    """Tags of the template itself are not those of what it starts; moto mixes them."""
    from moto.ec2.responses.launch_templates import LaunchTemplates

    original = LaunchTemplates.create_launch_template

    def create(self: Any) -> Any:
        answer = original(self)
        name = self._get_param("LaunchTemplateName")
        template = self.ec2_backend.get_launch_template_by_name(name)
        data = template.versions[-1].data
        data["TagSpecifications"] = [
            each for each in data.get("TagSpecifications", ()) if each["ResourceType"] != "launch-template"
        ]
        return answer

    LaunchTemplates.create_launch_template = create


def judge_conditions() -> None:
    """Statements about resources are judged by `tests.support.policies`, with what S3 knows of the request."""
    from moto.iam.access_control import IAMPolicy, PermissionResult
    from moto.s3.models import FakeBucket

    from tests.support import policies

    results = {"allow": PermissionResult.PERMITTED, "deny": PermissionResult.DENIED, "silent": PermissionResult.NEUTRAL}
    original = IAMPolicy.is_action_permitted
    as_permission = {"s3:PostObject": "s3:PutObject", "s3:HeadObject": "s3:GetObject"}

    def permitted(self: Any, action: str, resource: str = "*", *more: Any, **named: Any) -> Any:
        statements = policies.statements_of(self._policy_json)
        if not all("Resource" in statement for statement in statements):
            return original(self, action, resource, *more, **named)  # who may take a role
        return results[policies.judged(statements, action, resource, _request_context())]

    def bucket_permission(self: Any, action: str, resource: str) -> Any:
        if self.policy is None:
            return PermissionResult.NEUTRAL
        return permitted(IAMPolicy(self.policy.decode()), as_permission.get(action, action), resource)

    IAMPolicy.is_action_permitted = permitted
    FakeBucket.get_permission = bucket_permission


def _request_context() -> dict[str, str]:
    from flask import request

    starts, sends_part = "uploads" in request.args, "partNumber" in request.args
    context = {"aws:SecureTransport": "true"}
    if request.method in {"PUT", "POST"}:
        context["s3:ObjectCreationOperation"] = str(not (starts or sends_part)).lower()
    for header in ("If-None-Match", "If-Match"):
        if header in request.headers:
            context[f"s3:{header.lower()}"] = request.headers[header]
    return context


if __name__ == "__main__":
    main(sys.argv[1:])
