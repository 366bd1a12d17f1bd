"""`steelyard advise` on a real artifact: measured by a real gateway process, traffic from a real ledger, refusals by name."""

import asyncio
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner, Result

from gateway.cli.advise import advise as command
from gateway.errors import GatewayError, InvalidInput, ModelNotFound, SettingsError
from gateway.objectstore.local import LocalStore
from gateway.reports import hourly
from tests.support import goldens, ledgers


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("store")
    asyncio.run(goldens.publish_tiny(LocalStore(root)))
    return root


def ran(root: Path, *arguments: str) -> Result:
    return CliRunner().invoke(command, ["tiny", "--store", str(root), *arguments])


def refused(root: Path, *arguments: str) -> GatewayError:
    result = ran(root, *arguments)
    assert isinstance(result.exception, GatewayError), result.output
    return result.exception


@pytest.fixture(scope="module")
def json_and_svg(root: Path) -> tuple[dict[str, Any], str, str]:
    """One measurement for several tests: it starts a gateway."""
    trace, svg = root.parent / "trace.csv", root.parent / "advice.svg"
    trace.write_text("time,requests\n2026-11-01T00:00,360000\n2026-11-01T01:00,0\n2026-11-01T02:00,7200\n")
    result = ran(root, "--trace", str(trace), "--format", "json", "--svg", str(svg), "--objective-ms", "500")
    assert result.exit_code == 0, result.output
    return msgspec.json.decode(result.stdout), svg.read_text(), result.stderr


def test_json_is_the_whole_advice(json_and_svg: tuple[dict[str, Any], str, str]):
    advice, _, said = json_and_svg
    measured = advice["measured"]
    assert (measured["model"], measured["version"], measured["is_real"]) == ("tiny", 1, True)
    assert [cell["batch_rows"] for cell in measured["cells"]] == [1, 8, 32]
    assert measured["served"]["request_cpu_ns"] > measured["cells"][0]["cpu_ns"]  # HTTP comes on top
    assert measured["served"]["cold_start_ns"] > 10**8
    assert measured["served"]["resident_bytes"] > 30 << 20
    assert advice["traffic"]["counts"] == [360_000, 0, 7200]
    assert {"fargate-x86", "fargate-arm", "lambda-x86", "c7i.large", "g5.xlarge"} <= {
        one["name"] for one in advice["options"]
    }
    assert advice["scenarios"][0]["what"] == "as measured"
    assert advice["verdict"].endswith(".")
    assert "measuring" in said


def test_the_drawing_is_well_formed_and_stands_alone(json_and_svg: tuple[dict[str, Any], str, str]):
    _, svg, _ = json_and_svg
    tree = ET.fromstring(svg)
    words = "".join(tree.itertext())
    assert "tiny@1" in words
    assert "today, 34/s" in words
    for name in ("fargate-arm", "lambda-x86", "g4dn.xlarge"):
        assert name in words
    assert "http" not in svg.replace("http://www.w3.org/2000/svg", "")
    assert "grams: modelled" in words
    assert " g" in words
    assert len(list(tree.iter("{http://www.w3.org/2000/svg}polyline"))) >= 2 * 9  # dollars and grams
    numbers = [
        float(n)
        for line in tree.iter("{http://www.w3.org/2000/svg}polyline")
        for n in line.attrib["points"].replace(",", " ").split()
    ]
    assert numbers
    assert all(-1 <= number <= 961 for number in numbers)
    for panel in tree.iter("{http://www.w3.org/2000/svg}g"):
        assert "today" in "".join(panel.itertext())


def test_plain_output_has_the_verdict_last_and_no_control_codes(root: Path):
    result = ran(root, "--rps", "2")
    assert result.exit_code == 0, result.output
    assert "\x1b" not in result.stdout
    assert result.stdout.strip().splitlines()[-1].startswith("verdict: ")
    assert "confidence: assumed (the traffic was not observed)" in result.stdout


def test_measuring_leaves_the_store_as_it_was(root: Path, json_and_svg: object):
    assert not (root / "ledger").exists()


async def test_traffic_of_a_ledger_is_that_of_its_hours(tmp_path: Path):
    ledger = ledgers.random_ledger(11)
    ledgers.write(tmp_path / "store", ledger)
    store = LocalStore(tmp_path / "store")
    postings = [
        line for line in ledgers.all_lines(ledger) if type(line).__name__ == "Posting" and line.account == "infer"
    ]
    for model in {line.model for line in postings if line.model}:
        hours = await hourly.requests(store, tmp_path / "cache", model)
        assert sum(hours.values()) == sum(line.requests for line in postings if line.model == model)
    assert not any((await hourly.requests(store, tmp_path / "cache", "nobody")).values())


def test_a_model_that_is_not_published_is_named_before_its_traffic(root: Path):
    result = CliRunner().invoke(command, ["tinny", "--store", str(root)])
    assert isinstance(result.exception, ModelNotFound)
    assert "tinny" in str(result.exception)


def test_refusals_say_what_to_do(root: Path, tmp_path: Path):
    assert "say --rps, or --trace FILE" in str(refused(root))  # an empty ledger
    assert isinstance(refused(root, "--rps", "-1"), InvalidInput)
    assert isinstance(refused(root, "--rps", "1", "--version", "7"), ModelNotFound)
    assert isinstance(refused(root, "--rps", "1", "--offers", str(tmp_path / "none.toml")), SettingsError)
    assert "there is no folder" in ran(root, "--rps", "1", "--svg", str(tmp_path / "none" / "x.svg")).output
    both = ran(root, "--rps", "1", "--trace", __file__)
    assert both.exit_code == 2
    assert "exclude each other" in both.output
    binary = tmp_path / "trace.csv"
    binary.write_bytes(b"\xff\xfe\x00")
    assert ran(root, "--trace", str(binary)).exit_code == 2
