"""The AWS account that a plan is for, asked with the caller's own credentials: reads only. botocore's one door in the gateway.

`gateway.stack.preflight` calls it. Whatever AWS answers instead of an answer becomes `SettingsError` with a sentence.
"""

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any, Literal  # Any: botocore makes its clients' classes at run time

import botocore.session
import msgspec
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    CredentialRetrievalError,
    NoCredentialsError,
    PartialCredentialsError,
    ProfileNotFound,
    SSOError,
    TokenRetrievalError,
)

from gateway.errors import SettingsError
from gateway.objectstore import s3_answers
from gateway.stack.changes import Provider

NO_CREDENTIALS = "there are no AWS credentials"
GIVE_CREDENTIALS = "set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or log in (aws sso login)"
CONNECT_S, READ_S = 3, 10
"""AWS accepts in milliseconds and answers these questions in less than a second."""

_UNUSABLE = (
    NoCredentialsError,
    PartialCredentialsError,
    CredentialRetrievalError,
    TokenRetrievalError,
    SSOError,
    ProfileNotFound,
)


class Caller(msgspec.Struct, frozen=True):
    """Who AWS says we are."""

    account_id: str
    arn: str


class Account:
    """Asks in `region`: the provider's, else the caller's own. `environ` holds the caller's AWS settings."""

    def __init__(self, provider: Provider, environ: Mapping[str, str]) -> None:
        self._provider = provider
        self._session: Any = botocore.session.Session(profile=provider.profile or None)
        self.own_region = self._own_region(environ)
        self.region = provider.region or self.own_region

    def caller(self) -> Caller:
        """By STS, in the plan's region."""
        with _named("sts:GetCallerIdentity"):
            found = self._client("sts").get_caller_identity()
        return Caller(found["Account"], found["Arn"])

    def zones(self) -> set[str]:
        """Availability zones of the region that are open to this account."""
        with _named("ec2:DescribeAvailabilityZones"):
            found = self._client("ec2").describe_availability_zones()["AvailabilityZones"]
        return {zone["ZoneName"] for zone in found}

    def bucket(self, name: str, owner: str) -> Literal["free", "ours", "taken"]:
        """Whose a bucket is. `taken` is also what S3 says where our own may not be listed by us."""
        try:
            with _named("s3:ListBucket", "404", "403", "301"):  # a HEAD has no body: its code is its status
                self._client("s3").head_bucket(Bucket=name, ExpectedBucketOwner=owner)
        except _Answered as answer:
            return "free" if answer.code == "404" else "taken"
        return "ours"

    def image(self, repository: str, digest: str) -> Literal["there", "no repository", "not there"]:
        """Whether this account's registry in this region has an image."""
        try:
            with _named("ecr:DescribeImages", "ImageNotFoundException", "RepositoryNotFoundException"):
                self._client("ecr").describe_images(repositoryName=repository, imageIds=[{"imageDigest": digest}])
        except _Answered as answer:
            return "not there" if answer.code == "ImageNotFoundException" else "no repository"
        return "there"

    def _own_region(self, environ: Mapping[str, str]) -> str:
        """AWS's containers say AWS_REGION, which botocore does not read."""
        with _named("the AWS settings"):
            return environ.get("AWS_REGION") or self._session.get_config_variable("region") or ""

    def _client(self, service: str) -> Any:
        if not self.region:
            raise SettingsError("no region is known: set AWS_REGION")
        own = self._provider.endpoints.get(service)
        keys = self._provider.keys or (None, None)
        config = Config(
            connect_timeout=CONNECT_S,
            read_timeout=READ_S,
            retries={"mode": "standard", "max_attempts": 2},
            # An endpoint of one's own rarely answers to bucket.host.
            s3={"addressing_style": "path"} if own else None,
        )
        return self._session.create_client(
            service,
            region_name=self.region,
            endpoint_url=own,
            aws_access_key_id=keys[0],
            aws_secret_access_key=keys[1],
            config=config,
        )


class _Answered(Exception):
    """An error that is an answer: what was asked for is not there, or not ours."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


@contextlib.contextmanager
def _named(action: str, *answers: str) -> Iterator[None]:
    """The one place where botocore's errors become ours; those with a code among `answers` are answers."""
    try:
        yield
    except ClientError as error:
        code = str(error.response.get("Error", {}).get("Code", ""))
        if code in answers:
            raise _Answered(code) from error
        raise SettingsError(f"{action} is refused: {code}") from error
    except _UNUSABLE as error:
        raise SettingsError(f"{NO_CREDENTIALS} to use ({s3_answers.quotable(error)})") from error
    except (BotoCoreError, ValueError) as error:
        raise SettingsError(f"{action} got no answer ({s3_answers.quotable(error)})") from error
