"""The artifact's bill of materials, CycloneDX 1.6 as JSON: what the model is made of, for tools that audit it. The model card
(`trainers.card`) says the same to people.

The model with its files, the data it learned from, the packages it was trained with, each with digest or version, and CycloneDX's
own model card. The only door to `cyclonedx`, which has no classes for model cards: that part is written as its schema says, and
tests validate the whole. Equal manifests give equal bytes. Called by `trainers.run`.
"""

import json
import math
import uuid
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from importlib.metadata import distributions
from typing import Any  # Any: JSON-like trees

from cyclonedx.contrib.license.factories import LicenseFactory
from cyclonedx.model import HashAlgorithm, HashType, Property
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentScope, ComponentType
from cyclonedx.model.lifecycle import LifecyclePhase, PredefinedLifecycle
from cyclonedx.output.json import JsonV1Dot6
from packageurl import PackageURL

from gateway.contract import codec
from gateway.contract.manifest import DataSource, File, Manifest, Tensor

SBOM = "bom.cdx.json"
"""Its name in an artifact, under the role `sbom`; CycloneDX asks for names that end so."""

MODEL_REF = "model"
PREFIX = "steelyard"


def bom(manifest: Manifest, packages: Mapping[str, str] | None = None, *, spdx: str = "") -> bytes:
    """Describes a manifest that lists every file but this one.

    `packages`: name to version, of the training environment; None: of this one. `spdx`: the model's licence, an SPDX expression.
    """
    packages = installed() if packages is None else packages
    made = Bom(components=[*map(_data, manifest.lineage.data), *_packages(packages)])
    made.metadata.timestamp = datetime.fromtimestamp(manifest.created_ns // 1_000_000_000, UTC)
    made.metadata.lifecycles.add(PredefinedLifecycle(LifecyclePhase.BUILD))
    made.metadata.component = model = _model(manifest, spdx)
    made.register_dependency(model, made.components)
    tree: dict[str, Any] = json.loads(JsonV1Dot6(made).output_as_string())
    tree["metadata"]["component"]["modelCard"] = _card(manifest)
    del tree["serialNumber"]  # the one that the library draws; ours is the same for the same content
    serial = uuid.uuid5(uuid.NAMESPACE_OID, codec.sha256(_bytes(tree)))
    return _bytes(tree | {"serialNumber": serial.urn})


def installed() -> dict[str, str]:
    """Every distribution that is importable here, by its name in lower case."""
    return {found.name.lower(): found.version for found in distributions() if found.name}


def _bytes(tree: Mapping[str, Any]) -> bytes:
    return json.dumps(tree, sort_keys=True, indent=1, ensure_ascii=False).encode() + b"\n"


def _model(manifest: Manifest, spdx: str) -> Component:
    lineage, cost = manifest.lineage, manifest.training_cost
    facts = {"recipe": lineage.recipe, "run": lineage.run_id, "seed": lineage.seed, "served_variant": manifest.serve}
    facts |= {"training_sku": cost.sku, "training_seconds": f"{cost.seconds:.1f}"}
    for section, values in (("code", lineage.code), ("environment", lineage.environment), ("fit", lineage.parameters)):
        facts |= {f"{section}:{name}": value for name, value in values.items()}
    return Component(
        name=manifest.model,
        version=lineage.run_id,
        type=ComponentType.MACHINE_LEARNING_MODEL,
        bom_ref=MODEL_REF,
        description=manifest.description,
        licenses=[LicenseFactory().make_from_string(spdx)] if spdx else (),
        components=map(_file, manifest.files),
        properties=[Property(name=f"{PREFIX}:{name}", value=str(value)) for name, value in facts.items()],
    )


def _file(file: File) -> Component:
    return Component(
        name=file.name,
        type=ComponentType.FILE,
        bom_ref=f"file:{file.name}",
        hashes=[HashType(alg=HashAlgorithm.SHA_256, content=file.sha256)],
        properties=[
            # Not `mime_type`: cyclonedx-python-lib 11.12 writes it under a name that its own schema refuses.
            Property(name=f"{PREFIX}:media_type", value=file.media_type),
            Property(name=f"{PREFIX}:role", value=file.role),
            Property(name=f"{PREFIX}:size_bytes", value=str(file.size)),
        ],
    )


def _data(source: DataSource) -> Component:
    period = f", {source.first} to {source.last}" if source.first else ""
    return Component(
        name=source.name,
        type=ComponentType.DATA,
        bom_ref=_data_ref(source),
        description=f"{source.rows:,} rows{period}",
        hashes=[HashType(alg=HashAlgorithm.SHA_256, content=source.sha256)],
    )


def _data_ref(source: DataSource) -> str:
    return f"data:{source.name}:{source.sha256[:16]}"


def _packages(packages: Mapping[str, str]) -> Iterator[Component]:
    """Excluded from the scope: training needed them, an ONNX graph in a gateway does not."""
    for name, version in packages.items():
        url = PackageURL("pypi", None, name, version)
        yield Component(
            name=name,
            version=version,
            type=ComponentType.LIBRARY,
            scope=ComponentScope.EXCLUDED,
            bom_ref=url.to_string(),
            purl=url,
        )


def _card(manifest: Manifest) -> dict[str, Any]:
    parameters: dict[str, Any] = {
        "task": manifest.task,
        "datasets": [{"ref": _data_ref(source)} for source in manifest.lineage.data],
        "inputs": _formats(manifest.signature.inputs),
        "outputs": _formats(manifest.signature.outputs),
    }
    if manifest.task in {"classify", "regress"}:
        parameters["approach"] = {"type": "supervised"}
    return {
        "modelParameters": parameters,
        "quantitativeAnalysis": {"performanceMetrics": [*_metrics(manifest)]},
        "considerations": {
            "useCases": [manifest.description],
            "technicalLimitations": [*_limitations(manifest)],
            "performanceTradeoffs": [manifest.choice, *_refused(manifest)],
        },
    }


def _metrics(manifest: Manifest) -> Iterator[dict[str, Any]]:
    for one in manifest.evaluations:
        for name, value in one.metrics.items():
            metric = {
                "type": name,
                "value": f"{value:.6g}",
                "slice": f"{one.subject} on {one.split}, {one.rows:,} rows",
            }
            low_high = (one.intervals or {}).get(name)
            bounds = low_high and {"lowerBound": f"{low_high[0]:.6g}", "upperBound": f"{low_high[1]:.6g}"}
            yield metric | ({"confidenceInterval": bounds} if bounds else {})


def _formats(tensors: Iterable[Tensor]) -> list[dict[str, str]]:
    return [{"format": f"{one.name}: {one.datatype} [{', '.join(map(str, one.shape))}]"} for one in tensors]


def _limitations(manifest: Manifest) -> Iterator[str]:
    """What the model has not seen, as far as the manifest knows."""
    for source in manifest.lineage.data:
        if source.first:
            yield f"It knows nothing of before {source.first} and after {source.last} ({source.name})."
    for tensor in manifest.signature.inputs:
        for column in tensor.columns:
            low, high = column.minimum, column.maximum
            if low is not None or high is not None:
                yield f"'{column.name}' is meant to be from {_bound(low, -math.inf)} to {_bound(high, math.inf)}."
            if column.known:
                yield f"'{column.name}' was trained with {len(column.known)} values; all others count as one."


def _bound(value: float | None, otherwise: float) -> str:
    return f"{otherwise if value is None else value:g}"


def _refused(manifest: Manifest) -> Iterator[str]:
    for gate in manifest.gates:
        if not gate.passed:
            yield f"'{gate.variant}' is not served: {gate.name} is {gate.measured:.3g}, allowed is {gate.limit:.3g}."
