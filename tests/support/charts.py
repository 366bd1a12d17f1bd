"""The chart as Helm itself renders it, offline. `python -m tests.support.charts` (of `make chart`) writes the golden files."""

from pathlib import Path
from typing import Any

import helm_python
import yaml

CHART = Path("infra/k8s/chart")
GOLDEN = Path("tests/contract/golden/chart")
MODES = ("hpa", "keda", "knative", "none")
EXAMPLES = (*MODES, "envoy", "keeper")
RELEASE, NAMESPACE = "shop", "ml"


def example(mode: str) -> dict[str, Any]:
    """The values that the chart shows for this mode, for Envoy before one, or for the keeper beside one."""
    values: dict[str, Any] = yaml.safe_load((CHART / f"ci/{mode}-values.yaml").read_text())
    return values


def rendered(values: dict[str, Any]) -> dict[str, str]:
    """Every template's text, by its name. Raises `helm_python.HelmError`, as `helm install` would end."""
    with helm_python.Chart.load(CHART) as chart:
        chart.validate_schema(chart.merge_values(values))
        files = chart.render(values, name=RELEASE, namespace=NAMESPACE)
    return {name.split("/", 1)[1]: body.strip() for name, body in sorted(files.items()) if body.strip()}


def text(values: dict[str, Any]) -> str:
    """All manifests as one file, each below the name of its template."""
    manifests = {
        name: body.removeprefix("---").strip() for name, body in rendered(values).items() if name.endswith(".yaml")
    }
    return "".join(f"---\n# {name}\n{body}\n" for name, body in manifests.items())


def documents(values: dict[str, Any]) -> list[dict[str, Any]]:
    """The manifests."""
    return [document for document in yaml.safe_load_all(text(values)) if document]


def one(manifests: list[dict[str, Any]], kind: str) -> dict[str, Any]:
    """The only manifest of this kind."""
    (found,) = (manifest for manifest in manifests if manifest["kind"] == kind)
    return found


def container(manifests: list[dict[str, Any]]) -> dict[str, Any]:
    """The gateway's, from a Deployment or a Knative Service."""
    owner = one(
        [found for found in manifests if "template" in found.get("spec", {}) and found["kind"] != "Job"],
        _owner(manifests),
    )
    (found,) = owner["spec"]["template"]["spec"]["containers"]
    return dict(found)


def _owner(manifests: list[dict[str, Any]]) -> str:
    return "Deployment" if any(found["kind"] == "Deployment" for found in manifests) else "Service"


if __name__ == "__main__":
    GOLDEN.mkdir(parents=True, exist_ok=True)
    for mode in EXAMPLES:
        (GOLDEN / f"{mode}.yaml").write_text(text(example(mode)))
