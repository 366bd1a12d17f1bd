"""Versions of a small model in a store, and who moves their aliases, for tests of what follows aliases."""

from typing import Any

from gateway.objectstore.protocol import ObjectStore
from gateway.registry import releasing
from tests.support import models

AUTHOR = releasing.Author(actor="tests", reason="", now_ns=1)
CHAMPION: dict[str, Any] = {"alias": "champion", "author": AUTHOR}


async def publish(store: ObjectStore, name: str, versions: int = 1) -> None:
    for seed in range(versions):
        await models.publish_mlp(store, name, seed=seed, hidden=8, promote_to="champion" if seed == 0 else None)
