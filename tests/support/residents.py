"""A resident model around a real manifest, for tests of what only reads the manifest."""

from types import SimpleNamespace
from typing import Any

from gateway.contract.manifest import Manifest, Signature
from gateway.repository.residents import Resident
from tests.support import models


def resident_of(signature: Signature, name: str = "tiny") -> Resident[Any]:  # Any: only `memo` of the model is used
    manifest, _ = models.manifest_of(name, signature, {"fp32": models.tiny_graph()})
    return of_manifest(manifest)


def of_manifest(manifest: Manifest) -> Resident[Any]:
    return Resident(manifest.model, 3, manifest, manifest.variants[0], SimpleNamespace(memo={}), 0)
