"""Which folders of this machine a gateway uses, where nobody has named any. The store keeps what must outlive the container."""

import hashlib
import os
import tempfile
from pathlib import Path


def cache(configured: str) -> Path:
    """Downloads of one user are shared between processes; every use verifies the digest again."""
    return Path(configured) if configured else _mine("cache")


def spill(configured: str, cached: Path) -> Path:
    """Where the ledger waits for a store that is away. The cache leaves files alone that are not its own."""
    return Path(configured) if configured else cached / "ledger"


def ledger_copies(store: str) -> Path:
    """Copies of the ledger are kept by user and store."""
    return _mine("ledger") / hashlib.sha256(store.encode()).hexdigest()[:16]


def _mine(what: str) -> Path:
    return Path(tempfile.gettempdir()) / f"steelyard-{what}-{os.getuid()}"
