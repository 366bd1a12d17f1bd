"""SeaweedFS as the cluster's object store: one process on loopback, its data and credentials in the cluster's folder.

Callers of S3 need the credentials, which are made once. SeaweedFS's other ports ask for none: whoever may log in to this machine
may read and write through them. That is for a laptop; it is no store to put on a network.
"""

import asyncio
import contextlib
import json
import os
import secrets
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec

from gateway.cluster import processes, programs
from gateway.cluster.asking import ask
from gateway.cluster.envoyfile import Address
from gateway.cluster.processes import Child
from gateway.errors import GatewayError, SettingsError

BUCKET = "steelyard"
URL = f"s3://{BUCKET}/cluster"
S3_PORT = 8333
"""SeaweedFS's own default; a folder whose first start finds it taken gets another one."""

READY_S = 60.0
"""Four seconds on an idle machine."""

STOP_S = 3.0
"""It takes 15 s over a SIGTERM, waiting for clients of its own. What it has acknowledged survives the SIGKILL that follows."""

GRPC_OFFSET = 10_000
LOOK_S = 0.1
_HOST = "127.0.0.1"


class Kept(msgspec.Struct, frozen=True):
    """What stays the same from one start to the next: its files know the ports, other terminals the credentials."""

    access_key: str
    secret_key: str
    s3: int
    master: int
    volume: int
    filer: int

    def environment(self) -> dict[str, str]:
        """What an S3 client reads."""
        return {
            "AWS_ENDPOINT_URL_S3": f"http://{_HOST}:{self.s3}",
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }


def kept(folder: Path) -> Kept:
    """Of this folder's store, made when it has none yet. Raises `SettingsError` when another program has one of its ports."""
    file = folder / "seaweedfs.json"
    if file.exists():
        found = msgspec.json.decode(file.read_bytes(), type=Kept)
    else:
        *others, spare = _free_ports(4)
        s3 = S3_PORT if is_free(S3_PORT) and is_free(S3_PORT + GRPC_OFFSET) else spare
        found = Kept(secrets.token_hex(10), secrets.token_urlsafe(30), s3, *others)
        write_private(file, msgspec.json.format(msgspec.json.encode(found)))
    for port in (found.s3, found.master, found.volume, found.filer):
        if not is_free(port) or not is_free(port + GRPC_OFFSET):
            raise SettingsError(
                f"port {port} or {port + GRPC_OFFSET}, which SeaweedFS needs, is taken by another program; stop it, or change "
                f"the port in {file} (and remove {folder / 'objects'} unless it is 's3')"
            )
    return found


@contextlib.asynccontextmanager
async def running(folder: Path, kept: Kept) -> AsyncIterator[Child]:
    """A SeaweedFS with the bucket, which takes writes. Raises `GatewayError`."""
    data = folder / "objects"
    data.mkdir(parents=True, exist_ok=True)
    identities = folder / "identities.json"
    who = {
        "name": "steelyard",
        "credentials": [{"accessKey": kept.access_key, "secretKey": kept.secret_key}],
        "actions": ["Admin"],
    }
    write_private(identities, json.dumps({"identities": [who]}).encode())
    child = await processes.start("SeaweedFS", _command(data, identities, kept), folder / "seaweedfs.log")
    try:
        await _ready(child, Address(_HOST, kept.filer), Address(_HOST, kept.s3))
        yield child
    finally:
        await child.stop(STOP_S)


def _command(data: Path, identities: Path, kept: Kept) -> list[str]:
    return [
        programs.find("weed"),
        "server",
        f"-dir={data}",
        f"-ip={_HOST}",
        f"-ip.bind={_HOST}",
        f"-master.port={kept.master}",
        "-master.electionTimeout=1s",  # it is alone; with the default of 10 s a second start takes 17
        "-master.telemetry=false",  # on by default
        "-master.volumeSizeLimitMB=256",
        f"-volume.port={kept.volume}",
        "-volume.max=0",  # as many as the disk holds
        "-volume.preStopSeconds=0",
        f"-filer.port={kept.filer}",
        "-s3",
        f"-s3.port={kept.s3}",
        f"-s3.config={identities}",
        "-s3.autoCreateBucket=false",  # a missing bucket is an error, as on AWS
        "-s3.port.iceberg=0",
        "-s3.port.lance=0",
    ]


async def _ready(child: Child, filer: Address, s3: Address) -> None:
    """A listening port says little: a file outside of all buckets must be taken, which needs every part of it but S3."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(READY_S):
            while child.is_running:
                with contextlib.suppress(OSError):
                    await ask(filer, f"/buckets/{BUCKET}/", method="POST", body=b"")
                    status, _ = await ask(filer, "/ready", method="PUT", body=b"ready")
                    if status in {200, 201} and (await ask(s3, f"/{BUCKET}"))[0] == 403:  # it asks who we are
                        return
                await asyncio.sleep(LOOK_S)
    raise GatewayError(f"SeaweedFS did not become ready: {child.last_words} (its log: {child.log})")


def write_private(file: Path, data: bytes) -> None:
    """For the owner only, from the first byte on."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as opened:
        opened.write(data)


def is_free(port: int, host: str = _HOST) -> bool:
    """Whether a program could listen there now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


def _free_ports(count: int) -> list[int]:
    """Ports that nobody has, nor the one 10,000 above, where SeaweedFS puts the gRPC side of each."""
    found: list[int] = []
    with contextlib.ExitStack() as held:
        while len(found) < count:
            probe = held.enter_context(socket.socket())
            probe.bind((_HOST, 0))
            port = int(probe.getsockname()[1])
            if port + GRPC_OFFSET < 65_536 and is_free(port + GRPC_OFFSET):
                found.append(port)
    return found
