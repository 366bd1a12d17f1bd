"""Empty stores for tests that ask the same of a folder and of S3 servers: `return stores.empty(request)` in a fixture with params.

The servers themselves are fixtures of `tests.conftest`.
"""

import secrets
from pathlib import Path

import pytest

from tests.support.servers import S3Server


def empty(request: pytest.FixtureRequest, prefix: str = "team") -> str:
    """The URL of an empty store of the kind `request.param`: `local`, or an S3 server by its fixture's name."""
    if request.param == "local":
        folder: Path = request.getfixturevalue("tmp_path") / "store"
        folder.mkdir()
        return folder.as_uri()
    server: S3Server = request.getfixturevalue(request.param)
    return f"s3://{bucket(server, request.getfixturevalue('monkeypatch'))}/{prefix}"


def bucket(server: S3Server, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a new bucket; S3 is this server until the test ends."""
    use(server, monkeypatch)
    name = f"bucket-{secrets.token_hex(6)}"
    with server.client() as client:
        client.create_bucket(Bucket=name)
    return name


def use(server: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """S3 is this server until the test ends."""
    for name, value in server.environment().items():
        monkeypatch.setenv(name, value)
