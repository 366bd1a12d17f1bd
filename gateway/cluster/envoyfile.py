"""infra/envoy/gateway.yaml with the values of one place in its marked lines, and the file of endpoints that it follows.

Text in, text out: comments stay, and no YAML library is needed. Whether the result is right is Envoy's to say (`validated`).
"""

import json
import re
import subprocess
import tempfile
from collections.abc import Sequence
from importlib import resources
from pathlib import Path

import msgspec

from gateway.cluster import programs
from gateway.errors import SettingsError

ENDPOINTS = "endpoints.yaml"
VALIDATE_S = 20
"""Envoy takes 0.15 s to read the file."""

_CLUSTER = "gateways"
_MESSAGE_MAX = 300


class Address(msgspec.Struct, frozen=True, order=True):
    """Where something listens, or a DNS name that stands for several."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"

    @property
    def flow(self) -> str:
        """As YAML, which JSON is."""
        return f"{{socket_address: {{address: {json.dumps(self.host)}, port_value: {self.port}}}}}"


def parsed(text: str) -> Address:
    """`127.0.0.1:8080`, `[::1]:8080`, `gateways.internal:8080`. Raises `SettingsError`."""
    found = re.fullmatch(r"\[([0-9a-f:]+)\]:(\d{1,5})|([\w.-]+):(\d{1,5})", text, re.ASCII)
    if found is None or int(found[2] or found[4]) > 65535:
        raise SettingsError(f"{text!r} is no address; write HOST:PORT, such as 127.0.0.1:8080")
    return Address(found[1] or found[3], int(found[2] or found[4]))


def shipped() -> str:
    """A wheel carries infra/envoy inside this package; a checkout has it beside the packages."""
    packaged = resources.files("gateway.cluster").joinpath("bundled_envoy", "gateway.yaml")
    if packaged.is_file():
        return packaged.read_text()
    return (Path(__file__).parents[2] / "infra" / "envoy" / "gateway.yaml").read_text()


def configured(
    text: str, *, listen: Address | None = None, admin: Address | None = None, dns: Address | None = None
) -> str:
    """The file with these values; None leaves a line as it is. `dns`: gateways behind one name instead of a file of endpoints.

    Raises `SettingsError` when a line that has to change is not there.
    """
    for mark, address in (("listen", listen), ("admin", admin)):
        if address is not None:
            text = _replaced(text, mark, r"socket_address: .*", address.flow[1:-1])
    if dns is not None:
        endpoint = f"{{endpoint: {{address: {dns.flow}}}}}"
        assigned = f"load_assignment: {{cluster_name: {_CLUSTER}, endpoints: [{{lb_endpoints: [{endpoint}]}}]}}"
        text = _replaced(text, "discovery", "type: EDS", "type: STRICT_DNS")
        text = _replaced(text, "discovery", r"eds_cluster_config: .*", assigned)
    return text


def endpoints(addresses: Sequence[Address]) -> str:
    """What `endpoints.yaml` says of these gateways, none included. IP addresses only: Envoy resolves no names in it."""
    found = [
        {"endpoint": {"address": {"socket_address": {"address": a.host, "port_value": a.port}}}} for a in addresses
    ]
    assignment = {
        "@type": "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment",
        "cluster_name": _CLUSTER,
        "endpoints": [{"lb_endpoints": found}],
    }
    return json.dumps({"resources": [assignment]}, indent=1) + "\n"


def write_endpoints(folder: Path, addresses: Sequence[Address]) -> None:
    """Renamed into place: Envoy looks when that happens, and never sees half a file."""
    new = folder / f"{ENDPOINTS}.new"
    new.write_text(endpoints(addresses))
    new.replace(folder / ENDPOINTS)


def validate(text: str, name: str) -> None:
    """Raises `SettingsError` with Envoy's reason, in a sentence about the file called `name`."""
    envoy = programs.find("envoy")
    with tempfile.TemporaryDirectory(prefix="steelyard-envoy-") as folder:
        Path(folder, "gateway.yaml").write_text(text)
        Path(folder, ENDPOINTS).write_text(endpoints(()))
        command = [envoy, "--mode", "validate", "-c", "gateway.yaml", "-l", "critical"]
        done = subprocess.run(
            command, cwd=folder, capture_output=True, text=True, errors="replace", check=False, timeout=VALIDATE_S
        )
    if done.returncode:
        raise SettingsError(f"Envoy refuses {name}: {_reason(done.stderr + done.stdout)}")


def _replaced(text: str, mark: str, pattern: str, value: str) -> str:
    """Every line that ends in `# mark` and has this before it, changed after its indentation."""
    changed, count = re.subn(
        rf"^( *){pattern} # {mark}$", lambda found: f"{found[1]}{value} # {mark}", text, flags=re.MULTILINE
    )
    if not count:
        what = pattern.partition(":")[0]
        raise SettingsError(f"the Envoy file has no line '{what}: ... # {mark}', where a value of this place belongs")
    return changed


def _reason(output: str) -> str:
    """Envoy's last words without time, place in its source and the whole file as JSON."""
    last = next((line for line in reversed(output.splitlines()) if "[critical]" in line), "it gave no reason")
    said = re.sub(r"\s+", " ", last.rpartition("error initializing configuration 'gateway.yaml': ")[2])
    if "INVALID_ARGUMENT: " in said:
        said = said.partition("INVALID_ARGUMENT: ")[2].partition(") has unknown fields")[0].partition("): {")[0]
        said = re.sub(r"invalid JSON in envoy.config.bootstrap.v3.Bootstrap @ |, near \S+ \(offset \d+\)", "", said)
    return said if len(said) <= _MESSAGE_MAX else said[:_MESSAGE_MAX] + "..."
