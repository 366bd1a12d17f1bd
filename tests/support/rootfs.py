"""Starts programs in a root filesystem as a container would: read-only, as nobody, own mounts, no privileges to be had back."""

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from tests.support import gateways
from tests.support.gateways import Gateway

USER = 65532
GATEWAY_VOLUMES = {"/tmp": "64m", "/var/cache/steelyard": "256m"}
"""As the chart mounts them, and how large a test lets them be."""


def missing() -> str:
    """Why this machine cannot do it, "" when it can."""
    if os.geteuid() != 0:
        return "needs root: it gives up its rights to user 65532, and only root may"
    for tool in ("unshare", "setpriv", "chroot", "mmdebstrap"):
        if shutil.which(tool) is None:
            return f"needs {tool}: apt-get install {'mmdebstrap' if tool == 'mmdebstrap' else 'util-linux coreutils'}"
    tried = subprocess.run(["unshare", "--mount", "true"], capture_output=True, check=False)
    return "" if tried.returncode == 0 else "needs mount namespaces, which are not allowed here"


def command(
    words: Sequence[str],
    volumes: Mapping[str, str] = GATEWAY_VOLUMES,
    folders: Mapping[str, Path] = {},
) -> list[str]:
    """`words` in `$ROOT`; `volumes` are empty and writable, `folders` are this machine's.

    Every step of the script replaces its process, so that a signal to the first reaches the program.
    """
    script = f"""
set -e
mount --make-rprivate /
mount --bind "$ROOT" "$ROOT"
mount -o remount,bind,ro,nosuid,nodev "$ROOT"
mount -t tmpfs -o size=64k tmpfs "$ROOT/dev"
for each in null zero urandom; do : > "$ROOT/dev/$each"; mount --bind "/dev/$each" "$ROOT/dev/$each"; done
mkdir "$ROOT/dev/shm"
{_lines('mount --bind {1} "$ROOT{0}"', folders)}
{_lines(f'mount -t tmpfs -o size={{1}},mode=0700,uid={USER},gid={USER} tmpfs "$ROOT{{0}}"', volumes)}
mount --rbind /proc "$ROOT/proc"
exec setpriv --no-new-privs chroot --userspec={USER}:{USER} "$ROOT" "$@"
"""
    return ["unshare", "--mount", "sh", "-c", script, "enter", *words]


def _lines(pattern: str, mounts: Mapping[str, object]) -> str:
    return "\n".join(pattern.format(at, what) for at, what in mounts.items())


def environment(root: Path, path: str, **more: str) -> dict[str, str]:
    """Nothing of this machine's but where the tools lie, which the image's own `path` comes before."""
    return {"ROOT": str(root.absolute()), "PATH": f"{path}:{os.environ['PATH']}"} | more


@contextlib.contextmanager
def running(root: Path, words: Sequence[str], log: Path, environ: dict[str, str]) -> Iterator[Gateway]:
    """A gateway in it that is ready."""
    with gateways.started(command(words), log, environ) as gateway:
        yield gateway
