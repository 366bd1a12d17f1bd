"""A gateway behind a proxy that leaves a prefix in front of every path (protocol rule 6)."""

from collections.abc import Iterator

import msgspec
import pytest

from gateway.http.options import HttpOptions
from tests.support import gateways, models
from tests.support.gateways import Gateway

ROWS = {"rows": [dict(models.TINY_EXAMPLES.rows[0])]}


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    root = models.tiny_store(tmp_path_factory.mktemp("store"))
    folder = tmp_path_factory.mktemp("gateway")
    with gateways.running(root, folder, "--preload", "tiny", STEELYARD_SERVER__BASE_PATH="/a/b") as running:
        yield running


@pytest.mark.parametrize("base", ["/a/b", ""])
def test_a_prefix_is_taken_off_and_not_needed(gateway: Gateway, base: str) -> None:
    assert gateway.post(f"{base}/v1/predict/tiny", ROWS).status == 200
    assert gateway.post(f"{base}/v1/predict/tiny?x=1", ROWS).status == 200
    assert gateway.get(f"{base}/v2/health/live").json == {"live": True}
    assert gateway.get(f"{base}/v2/models/tiny").json["name"] == "tiny"
    assert gateway.get(f"{base}/").json["name"] == "steelyard"
    assert gateway.get(f"{base}?x=1" if base else "/?x=1").json["name"] == "steelyard"


@pytest.mark.parametrize("path", ["/a/bc/v2/health/live", "/a/v2/health/live", "/a/b/a/b/v2/health/live", "/A/b/v2"])
def test_what_only_looks_like_the_prefix_is_no_route(gateway: Gateway, path: str) -> None:
    assert gateway.get(path).status == 404


def test_the_page_names_its_files_below_the_prefix(gateway: Gateway) -> None:
    page = gateway.get("/a/b/docs").body.decode()
    assert 'src="/a/b/docs/assets/' in page
    assert gateway.get("/a/b/docs/assets/swagger-ui-bundle.js").status == 200
    assert gateway.get("/a/b/docs/openapi.json").json["servers"] == [{"url": "/a/b"}]


@pytest.mark.parametrize("base", ["/a/b", ""])
def test_the_links_to_the_documentation_lead_there_from_outside(gateway: Gateway, base: str) -> None:
    links = gateway.get(f"{base}/").json
    assert (links["docs"], links["openapi"]) == ("/a/b/docs", "/a/b/docs/openapi.json")
    assert gateway.get(links["openapi"]).json["openapi"].startswith("3.")
    assert gateway.get(f"{base}/nosuch").json["error"] == "no route GET /nosuch; see /a/b/docs"


@pytest.mark.parametrize("base", ["/", "a", "/a/", "/a b", "/a?b", "/a%20", "//a", "/a\n"])
def test_what_is_no_prefix_is_refused(base: str) -> None:
    with pytest.raises(msgspec.ValidationError, match="base_path"):
        msgspec.convert({"base_path": base}, HttpOptions)
