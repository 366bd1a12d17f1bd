"""The bill of materials: valid by CycloneDX's own schema, complete, and the same bytes for the same artifact."""

import json
from typing import Any

import msgspec
import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from gateway.contract import codec
from gateway.contract.manifest import DataSource, Evaluation, Gate, Lineage, Manifest
from tests.support import models
from trainers import bom, publish

PACKAGES = {"torch": "2.13.0", "numpy": "2.4.1"}
SOURCE = DataSource(name="flights", sha256="a" * 64, rows=336_776, first="2013-01-01", last="2013-12-31")


@pytest.fixture
def manifest() -> Manifest:
    made, _ = models.manifest_of("tiny", models.TINY_SIGNATURE, {"fp32": b"one", "int8": b"two"})
    lineage = Lineage(
        run_id="tiny-20261125-1",
        recipe="tiny",
        seed=7,
        data=(SOURCE,),
        code={"commit": "c0ffee"},
        environment={"python": "3.11.9", "device": "cpu"},
        parameters={"epochs": 3},
    )
    return msgspec.structs.replace(
        made,
        lineage=lineage,
        evaluations=(
            Evaluation(
                subject="fp32",
                split="test",
                rows=100,
                metrics={"roc_auc": 0.7043, "brier": 0.17},
                intervals={"roc_auc": (0.69, 0.72)},
            ),
        ),
        gates=(Gate(name="drift", variant="int8", passed=False, measured=0.2, limit=0.01),),
    )


def read(manifest: Manifest, **options: Any) -> Any:  # Any: JSON
    return json.loads(bom.bom(manifest, PACKAGES, **options))


@pytest.mark.parametrize("spdx", ["", "Apache-2.0", "Apache-2.0 OR MIT", "our own terms"])
def test_it_is_valid(manifest: Manifest, spdx: str) -> None:
    for packages in (PACKAGES, {}, None):
        text = bom.bom(manifest, packages, spdx=spdx).decode()
        assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None


def test_a_manifest_with_little_in_it_is_valid_too() -> None:
    made, _ = models.manifest_of("mlp", models.mlp_signature(), {"fp32": b"one"})
    text = bom.bom(msgspec.structs.replace(made, task="embed", evaluations=(), gates=()), {}).decode()
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None


def test_the_validator_refuses_what_is_wrong(manifest: Manifest) -> None:
    tree = read(manifest)
    tree["metadata"]["component"]["modelCard"]["modelParameters"]["approach"]["type"] = "guessing"
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(json.dumps(tree)) is not None


def test_the_same_artifact_gives_the_same_bytes(manifest: Manifest) -> None:
    first = bom.bom(manifest, PACKAGES)
    assert bom.bom(manifest, dict(reversed(PACKAGES.items()))) == first
    other = bom.bom(msgspec.structs.replace(manifest, choice="another"), PACKAGES)
    assert json.loads(other)["serialNumber"] != json.loads(first)["serialNumber"]


def test_it_is_a_file_of_the_artifact_by_its_media_type(manifest: Manifest) -> None:
    file = publish.describe(bom.SBOM, bom.bom(manifest, PACKAGES), "sbom")
    assert (file.name, file.role, file.media_type) == ("bom.cdx.json", "sbom", "application/vnd.cyclonedx+json")
    complete = msgspec.structs.replace(manifest, files=(*manifest.files, file))
    assert codec.decode(codec.encode(complete), Manifest) == complete


def test_it_is_dated_when_the_artifact_was_made(manifest: Manifest) -> None:
    assert read(manifest)["metadata"]["timestamp"] == "2026-09-21T14:13:20+00:00"


def test_the_model_is_there_with_every_file_and_its_digest(manifest: Manifest) -> None:
    model = read(manifest)["metadata"]["component"]
    assert (model["type"], model["name"], model["version"]) == ("machine-learning-model", "tiny", "tiny-20261125-1")
    hashes = {file["name"]: file["hashes"] for file in model["components"]}
    assert hashes == {file.name: [{"alg": "SHA-256", "content": file.sha256}] for file in manifest.files}
    properties = {entry["name"]: entry["value"] for entry in model["properties"]}
    assert properties["steelyard:code:commit"] == "c0ffee"
    assert properties["steelyard:environment:device"] == "cpu"
    assert (properties["steelyard:fit:epochs"], properties["steelyard:seed"]) == ("3", "7")


def test_the_data_is_there_with_its_digest_and_the_card_refers_to_it(manifest: Manifest) -> None:
    tree = read(manifest)
    [data] = [component for component in tree["components"] if component["type"] == "data"]
    assert data["hashes"] == [{"alg": "SHA-256", "content": SOURCE.sha256}]
    assert data["description"] == "336,776 rows, 2013-01-01 to 2013-12-31"
    card = tree["metadata"]["component"]["modelCard"]
    assert card["modelParameters"]["datasets"] == [{"ref": data["bom-ref"]}]


def test_the_packages_are_there_and_no_part_of_what_runs(manifest: Manifest) -> None:
    libraries = [one for one in read(manifest)["components"] if one["type"] == "library"]
    assert {one["purl"]: one["scope"] for one in libraries} == {
        "pkg:pypi/torch@2.13.0": "excluded",
        "pkg:pypi/numpy@2.4.1": "excluded",
    }
    assert {"msgspec", "onnx", "steelyard"} <= bom.installed().keys()


def test_the_card_says_how_good_it_is_and_what_it_is_not_good_for(manifest: Manifest) -> None:
    card = read(manifest)["metadata"]["component"]["modelCard"]
    assert card["modelParameters"]["task"] == "classify"
    assert card["modelParameters"]["inputs"][0] == {"format": "categories: BYTES [batch, 2]"}
    sure = {"confidenceInterval": {"lowerBound": "0.69", "upperBound": "0.72"}}
    assert card["quantitativeAnalysis"]["performanceMetrics"] == [
        {"type": "roc_auc", "value": "0.7043", "slice": "fp32 on test, 100 rows"} | sure,
        {"type": "brier", "value": "0.17", "slice": "fp32 on test, 100 rows"},
    ]
    limits = card["considerations"]["technicalLimitations"]
    assert "It knows nothing of before 2013-01-01 and after 2013-12-31 (flights)." in limits
    assert "'hour' is meant to be from 0 to 23." in limits
    assert "'carrier' was trained with 3 values; all others count as one." in limits
    assert "'int8' is not served: drift is 0.2, allowed is 0.01." in card["considerations"]["performanceTradeoffs"]


def test_the_licence_is_an_spdx_expression_or_a_name(manifest: Manifest) -> None:
    def licences(spdx: str) -> Any:  # Any: JSON
        return read(manifest, spdx=spdx)["metadata"]["component"].get("licenses")

    assert licences("") is None
    assert licences("Apache-2.0")[0]["license"]["id"] == "Apache-2.0"
    assert licences("Apache-2.0 OR MIT") == [{"expression": "Apache-2.0 OR MIT"}]
