"""From a URL in the settings to an object store. Opens no connection: a store is reached by its first call.

async with contextlib.aclosing(open_store("s3://bucket/prefix")) as store: ...
"""

import re
from pathlib import Path
from urllib.parse import unquote, urlsplit

from gateway.errors import SettingsError
from gateway.objectstore import durable
from gateway.objectstore.attempts import Attempts
from gateway.objectstore.local import LocalStore
from gateway.objectstore.protocol import ObjectStore

ALLOWED = "a folder (./store, /srv/store), file:///srv/store or s3://bucket/prefix"
_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")


def open_store(url: str, *, create: bool = False, attempts: Attempts | None = None) -> ObjectStore:
    """The store at `url`; with `create`, a missing local folder is made. A bucket is never made: infra/terraform does that.

    What it is asked is counted in `attempts`.
    Raises `SettingsError` for a URL that names no store, or a folder that cannot be made.
    """
    if url.startswith("s3://"):
        return _s3(url, attempts)
    root = _root(url)
    if create:
        try:
            durable.make_root(root)
        except OSError as error:
            raise SettingsError(f"store {url!r}: cannot create the folder {root}: {error.strerror}") from error
    return LocalStore(root, attempts)


def _root(url: str) -> Path:
    if url.startswith("file://"):
        parts = urlsplit(url)
        if parts.netloc or not parts.path.startswith("/") or parts.query or parts.fragment:
            raise SettingsError(f"store {url!r}: a file URL has three slashes and a path; use {ALLOWED}")
        return Path(unquote(parts.path))
    if not url or "://" in url:
        raise SettingsError(f"store {url!r}: no such kind of store; use {ALLOWED}")
    return Path(url).expanduser().absolute()


def _s3(url: str, attempts: Attempts | None) -> ObjectStore:
    bucket, _, prefix = url.removeprefix("s3://").partition("/")
    if not _BUCKET.fullmatch(bucket):
        raise SettingsError(f"store {url!r}: {bucket!r} is no bucket name; use {ALLOWED}")
    # Imported here because it would cost a local user 0.6 s and 30 MB.
    from gateway.objectstore.s3 import S3Store  # noqa: PLC0415 - half a second that a folder need not pay

    return S3Store(bucket, prefix.strip("/"), attempts)
