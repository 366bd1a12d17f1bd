"""Real S3 servers as child processes: moto (quick, checks no credentials) and SeaweedFS (a true store with real credentials).

Both listen on loopback ports that were free a moment ago, answer before the caller goes on, and die by SIGKILL: SeaweedFS
takes 25 s over a SIGTERM. Nothing here is a mock of our own code.
"""

import contextlib
import json
import os
import socket
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import msgspec
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

READY_S = 150  # SeaweedFS needs 4 s on an idle machine


class S3Server(msgspec.Struct, frozen=True):
    """Where a server listens and one pair of credentials that it accepts."""

    url: str
    access_key: str = "steelyard-test"
    secret_key: str = "only-for-tests"

    def environment(self) -> dict[str, str]:
        """What an S3 client reads; points away from whatever the person running the tests has configured."""
        return {
            "AWS_ENDPOINT_URL_S3": self.url,
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_REGION": "us-east-1",
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    @contextlib.contextmanager
    def client(self) -> Iterator[Any]:
        """An S3 client that is not ours, for arranging and for looking at what our own left behind."""
        client = boto3.client(
            "s3",
            endpoint_url=self.url,
            aws_access_key_id=self.access_key,
            aws_secret_access_key=self.secret_key,
            region_name="us-east-1",
            config=Config(retries={"total_max_attempts": 1}),
        )
        with contextlib.closing(client):
            yield client


@contextlib.contextmanager
def moto() -> Iterator[S3Server]:
    (port,) = free_ports(1)
    server = S3Server(url=f"http://127.0.0.1:{port}")
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with _running(command, Path(os.devnull)) as process:
        _wait_for_put(server, process)
        yield server


@contextlib.contextmanager
def seaweedfs() -> Iterator[S3Server]:
    master, volume, filer, s3 = free_ports(4)
    server = S3Server(url=f"http://127.0.0.1:{s3}")
    with (
        tempfile.TemporaryDirectory(prefix="seaweedfs-", ignore_cleanup_errors=True) as folder,
        _sockets_removed(master, volume, filer, s3),
    ):
        identities = Path(folder, "identities.json")
        identities.write_text(json.dumps(_identities(server)))
        command = [
            str(Path(sysconfig.get_path("scripts"), "weed")),
            "server",
            f"-dir={folder}",
            "-ip=127.0.0.1",
            "-ip.bind=127.0.0.1",
            f"-master.port={master}",
            f"-volume.port={volume}",
            f"-filer.port={filer}",
            f"-s3.port={s3}",
            "-s3",
            f"-s3.config={identities}",
            "-s3.autoCreateBucket=false",  # a missing bucket must be an error, as on AWS
            "-s3.port.iceberg=0",
            "-s3.port.lance=0",
            "-master.telemetry=false",  # on by default
            "-master.volumeSizeLimitMB=64",
            "-volume.max=1000",  # each bucket takes its own volumes; they are sparse
        ]
        log = Path(folder, "log")
        with _running(command, log) as process:
            try:
                _wait_for_put(server, process)
            except RuntimeError as error:
                error.add_note(log.read_text()[-2000:])
                raise
            yield server


def free_ports(count: int) -> list[int]:
    """Ports nobody listens on; nor on port + 10000, where SeaweedFS puts the gRPC side of each."""
    with contextlib.ExitStack() as held:
        found: list[int] = []
        while len(found) < count:
            port = held.enter_context(_bound(0)).getsockname()[1]
            if port + 10_000 > 65_535:
                continue
            with contextlib.suppress(OSError):
                held.enter_context(_bound(port + 10_000))
                found.append(port)
        return found


def _bound(port: int) -> socket.socket:
    sock = socket.socket()
    try:
        sock.bind(("127.0.0.1", port))
    except OSError:
        sock.close()
        raise
    return sock


@contextlib.contextmanager
def _sockets_removed(*ports: int) -> Iterator[None]:
    """SeaweedFS puts sockets in /tmp whatever it is told, and a killed one leaves them there."""
    try:
        yield
    finally:
        for port in (*ports, *(port + 10_000 for port in ports)):
            for path in Path("/tmp").glob(f"seaweedfs-*-{port}.sock"):
                path.unlink(missing_ok=True)


def _identities(server: S3Server) -> dict[str, Any]:
    credentials = [{"accessKey": server.access_key, "secretKey": server.secret_key}]
    return {"identities": [{"name": "tests", "credentials": credentials, "actions": ["Admin"]}]}


@contextlib.contextmanager
def _running(command: list[str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as output, subprocess.Popen(command, stdout=output, stderr=output) as process:
        try:
            yield process
        finally:
            process.kill()


def _wait_for_put(server: S3Server, process: subprocess.Popen[bytes]) -> None:
    """Return after the first object is stored: a listening port says little about SeaweedFS."""
    deadline = time.monotonic() + READY_S
    with server.client() as client:
        while not _can_put(client):
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{process.args!r} did not become ready")
            time.sleep(0.05)


def _can_put(client: Any) -> bool:
    with contextlib.suppress(BotoCoreError, ClientError):
        client.create_bucket(Bucket="ready")
    with contextlib.suppress(BotoCoreError, ClientError):
        client.put_object(Bucket="ready", Key="ready", Body=b"")
        return True
    return False
