"""A signed version whose objects were changed in the store in ten thousand ways: none is served, and the champion always is."""

import base64
import binascii
import contextlib
import random
import re
from pathlib import Path

import pytest

from gateway.contract import layout
from gateway.errors import ArtifactError, ModelNotFound
from gateway.registry.reading import Registry
from gateway.registry.signatures import PinnedKeys
from tests.support import models, signingkeys
from tests.support.memorystore import MemoryStore
from tests.support.repositories import weighing
from tests.support.signingkeys import KeyFiles


async def published(store: MemoryStore, key: KeyFiles, seed: int, promote_to: str | None) -> list[str]:
    """The keys of what a gateway reads of this version: manifest, file, signature."""
    made = models.manifest_of("tiny", models.TINY_SIGNATURE, {"fp32": models.tiny_graph(seed)})
    record = await models.publish_files(store, *made, signer=key.signer, promote_to=promote_to)
    manifest = await Registry(store).manifest("tiny", record.manifest_sha256)
    files = [layout.blob("tiny", file.sha256) for file in manifest.files]
    signature = layout.signature("tiny", record.manifest_sha256, key.signer.key_id)
    return [layout.manifest("tiny", record.manifest_sha256), *files, signature]


def mutated(body: bytes, others: list[bytes], chance: random.Random) -> bytes | None:
    """None is deleted."""
    at = chance.randrange(len(body))
    match chance.randrange(6):
        case 0 | 1:
            return body[:at] + bytes([body[at] ^ (1 << chance.randrange(8))]) + body[at + 1 :]
        case 2:
            return body[:at]
        case 3:
            return body + chance.randbytes(chance.randrange(1, 100))
        case 4:
            return chance.choice([other for other in others if other != body])
        case _:
            return None if chance.randrange(10) == 0 else body[:at] + chance.randbytes(8) + body[at + 8 :]


SIGNED = re.compile(rb'"(mediaType|payloadType|payload|sig)":"([^"]*)"')


def says_the_same(body: bytes | None, whole: bytes) -> bool:
    """Of a signature's file: what in it is not signed, such as the name of its key, may be anything."""
    return body is not None and signed(body) == signed(whole)


def signed(bundle: bytes) -> list[tuple[bytes, bytes]]:
    """The bits that are left over in the last letter of base64 say nothing either."""
    found = SIGNED.findall(bundle)
    with contextlib.suppress(binascii.Error):
        return [(name, base64.b64decode(text) if name in {b"payload", b"sig"} else text) for name, text in found]
    return found


@pytest.mark.parametrize("rounds", [500, pytest.param(10_000, marks=pytest.mark.e2e)])
async def test_no_mutation_of_a_signed_version_is_served(tmp_path: Path, rounds: int) -> None:
    store, key, chance = MemoryStore(), signingkeys.make(tmp_path, "sign"), random.Random(rounds)
    old = await published(store, key, 0, "champion")
    new = await published(store, key, 1, None)
    whole = {name: store.objects[name] for name in [*old, *new]}
    keys = [str(key.public)]
    async with weighing(store, tmp_path, pinned=PinnedKeys(keys), public_keys=tuple(keys)) as (repository, loader, _):
        champion = await repository.ready("tiny")
        for number in range(rounds):
            name = chance.choice(new)
            body = mutated(whole[name], list(whole.values()), chance)
            if body == whole[name] or (name == new[-1] and says_the_same(body, whole[name])):
                continue
            store.objects.pop(name) if body is None else store.objects.update({name: body})
            with pytest.raises((ArtifactError, ModelNotFound)):
                await repository.ready("tiny", "2")
            assert await repository.ready("tiny") is champion, number
            store.objects[name] = whole[name]
        assert loader.built == {"tiny": 1}
        assert (await repository.ready("tiny", "2")).version == 2
