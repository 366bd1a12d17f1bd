"""The door to boto3: clients with named waits, and its errors as sentences. Credentials and region come from the usual environment.

`AWS_ENDPOINT_URL` points all of it somewhere else, as for every AWS tool.
"""

import contextlib
from collections.abc import Iterator
from typing import Any  # Any: boto3 makes its clients at run time

import boto3
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    NoCredentialsError,
    NoRegionError,
    PartialCredentialsError,
    ProfileNotFound,
)

from trainers.errors import LauncherUnavailable, SpecError

CONNECT_S = 10
READ_S = 30
TRIES = 3
"""Of calls that may be repeated. Submitting is tried once: Batch has no token by which it would know a second time."""

REFUSED = {
    "AccessDenied",
    "AccessDeniedException",
    "UnrecognizedClientException",
    "InvalidClientTokenId",
    "ExpiredTokenException",
    "ExpiredToken",
}
WRONG = {
    "ClientException",
    "ValidationException",
    "ValidationError",
    "ResourceNotFoundException",
    "InvalidParameterValue",
}


def session() -> Any:
    """What clients of one place share; reads the environment once."""
    with sentences("read the AWS configuration"):
        return boto3.session.Session()


def client(service: str, *, tries: int = TRIES, of: Any = None) -> Any:
    """`of` is a session. Raises `SpecError` when no region is configured."""
    config = Config(
        connect_timeout=CONNECT_S, read_timeout=READ_S, retries={"mode": "standard", "total_max_attempts": tries}
    )
    with sentences(f"connect to {service}"):
        return (of or session()).client(service, config=config)


@contextlib.contextmanager
def sentences(doing: str) -> Iterator[None]:
    """`SpecError` for what will not work the next time either, `LauncherUnavailable` for what may."""
    try:
        yield
    except (NoCredentialsError, PartialCredentialsError) as error:
        raise SpecError(
            f"cannot {doing}: there are no AWS credentials; set AWS_PROFILE or AWS_ACCESS_KEY_ID"
        ) from error
    except NoRegionError as error:
        raise SpecError(f"cannot {doing}: there is no AWS region; set AWS_REGION") from error
    except ProfileNotFound as error:
        raise SpecError(f"cannot {doing}: {error}; set AWS_PROFILE to one that ~/.aws/config has") from error
    except ClientError as error:
        code, message = error.response["Error"].get("Code", ""), error.response["Error"].get("Message", "")
        if code in REFUSED:
            raise SpecError(f"cannot {doing}: AWS refuses these credentials: {message}") from error
        if code in WRONG:
            raise SpecError(f"cannot {doing}: {message}") from error
        raise LauncherUnavailable(f"cannot {doing} now: {code}: {message}; try again") from error
    except BotoCoreError as error:
        raise LauncherUnavailable(f"cannot {doing} now: {error}; try again") from error
