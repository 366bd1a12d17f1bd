"""Which right a route needs, and that no spelling of a path needs less than another."""

import pytest

from gateway.access.rights import needed


@pytest.mark.parametrize(
    ("method", "path", "right"),
    [
        ("GET", "/", None),
        ("GET", "/v2/health/live", None),
        ("HEAD", "/v2/health/ready", None),
        ("GET", "/ping", None),
        ("GET", "/docs", None),
        ("GET", "/docs/assets/swagger-ui.css", None),
        ("GET", "/metrics", None),
        ("GET", "/v2", "predict"),
        ("GET", "/v2/models", "predict"),
        ("GET", "/v2/models/flights/versions/3/ready", "predict"),
        ("POST", "/v2/repository/index", "predict"),
        ("POST", "/v2/repository/models/flights/load", "admin"),
        ("POST", "/v2/repository/models/flights/unload", "admin"),
        ("POST", "/v2/logging", "admin"),
        ("GET", "/v2/logging", "predict"),
        ("GET", "/v1/loaded", "admin"),
        ("GET", "/costs", "costs"),
        ("GET", "/v1/costs", "costs"),
        ("GET", "/v1/costs/flights", "costs"),
        ("GET", "/nosuch", "predict"),
        ("DELETE", "/v2/models/flights", "admin"),
    ],
)
def test_a_route_needs_its_right(method: str, path: str, right: str | None) -> None:
    assert needed(method, path, metrics_open=True) == right


@pytest.mark.parametrize("path", ["/v1/loaded/", "//v1/loaded", "/v1//loaded", "/v1/loaded/x"])
def test_slashes_change_nothing(path: str) -> None:
    assert needed("GET", path, metrics_open=True) == "admin"


@pytest.mark.parametrize("path", ["/docsx", "/pingx", "/v2/healthx/live", "/v2/health-live"])
def test_a_longer_name_is_another_route(path: str) -> None:
    assert needed("GET", path, metrics_open=True) == "predict"


@pytest.mark.parametrize("path", ["/metrics", "/metrics/", "//metrics"])
def test_metrics_can_be_closed(path: str) -> None:
    assert needed("GET", path, metrics_open=False) == "costs"
