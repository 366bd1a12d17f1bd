"""A CycloneDX 1.6 bill of materials of an installed environment. Standard library alone: it runs in an image's build stage.

The same environment gives the same bytes: no time, no serial number. `infra/images/rootfs.py` writes it into the image.
"""

import re
import sys
from importlib.metadata import Distribution, distributions
from pathlib import Path
from typing import Any, NamedTuple  # Any: a JSON document is a tree of plain values


class Package(NamedTuple):
    """One of Debian's."""

    name: str
    version: str
    architecture: str


def document(site_packages: Path, packages: list[Package]) -> dict[str, Any]:
    """Everything in `site_packages`, Python itself and Debian's packages; the environment's own project is what it is about."""
    found = sorted(distributions(path=[str(site_packages)]), key=lambda each: _normal(each.metadata["Name"]))
    (project,) = (each for each in found if _normal(each.metadata["Name"]) == "steelyard")
    python = "{}.{}.{}".format(*sys.version_info[:3])
    components = [
        *(_distribution(each) for each in found if each is not project),
        {"type": "platform", "bom-ref": f"python@{python}", "name": "python", "version": python},
        *(_package(each) for each in packages),
    ]
    main = _distribution(project) | {"type": "application"}
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {"component": main},
        "components": components,
        "dependencies": [{"ref": main["bom-ref"], "dependsOn": [each["bom-ref"] for each in components]}],
    }


def _distribution(found: Distribution) -> dict[str, Any]:
    name, version = _normal(found.metadata["Name"]), found.version
    purl = f"pkg:pypi/{name}@{version}"
    component: dict[str, Any] = {"type": "library", "bom-ref": purl, "name": name, "version": version, "purl": purl}
    said = found.metadata.json
    licence = said.get("license", "")
    if said.get("license_expression"):
        component["licenses"] = [{"expression": said["license_expression"]}]
    elif licence and len(licence) < 100 and "\n" not in licence:  # some write the whole text there
        component["licenses"] = [{"license": {"name": licence}}]
    return component


def _package(package: Package) -> dict[str, Any]:
    version = package.version.replace("+", "%2B").replace(":", "%3A")
    purl = f"pkg:deb/debian/{package.name}@{version}?arch={package.architecture}"
    return {"type": "library", "bom-ref": purl, "name": package.name, "version": package.version, "purl": purl}


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


if __name__ == "__main__":
    import json
    import sysconfig

    text = json.dumps(document(Path(sysconfig.get_path("purelib")), []), indent=1)
    Path(sys.argv[1]).write_text(text + "\n")
