"""Every error has a status, and every failure body is the protocol's shape."""

import json
from collections.abc import Iterator

import pytest

from gateway import errors
from gateway.http import problems


def family(kind: type[errors.GatewayError]) -> Iterator[type[errors.GatewayError]]:
    yield kind
    for child in kind.__subclasses__():
        yield from family(child)


@pytest.mark.parametrize("kind", sorted(family(errors.GatewayError), key=lambda kind: kind.__name__))
def test_every_error_is_mapped(kind: type[errors.GatewayError]) -> None:
    status, body, headers = problems.describe(kind("what to do"))
    assert 400 <= status < 600
    assert json.loads(body) == {"error": "what to do"}
    assert (status < 500) == issubclass(kind, errors.RequestError | errors.Overloaded)
    assert (b"retry-after" in dict(headers)) == issubclass(kind, errors.Unavailable)


def test_retry_after_is_whole_seconds_and_never_too_early() -> None:
    _, _, headers = problems.describe(errors.Overloaded("full", retry_after_ms=1001))
    assert dict(headers)[b"retry-after"] == b"2"
    _, _, headers = problems.describe(errors.BudgetExceeded("the next one in 1 ms", retry_after_ms=1))
    assert dict(headers)[b"retry-after"] == b"1"


def test_who_is_not_known_is_told_how_to_say_who() -> None:
    _, _, headers = problems.describe(errors.Unauthenticated("a key is needed"))
    assert dict(headers)[b"www-authenticate"] == b'Bearer realm="steelyard"'


def test_the_tree_in_the_docstring_is_the_tree() -> None:
    drawn = {line.strip("|`- ").split()[0] for line in (errors.__doc__ or "").splitlines() if "- " in line[:16]}
    assert drawn | {"GatewayError"} == {kind.__name__ for kind in family(errors.GatewayError)}


def test_only_this_containers_own_load_is_called_not_admitted() -> None:
    marked = {
        kind
        for kind in family(errors.GatewayError)
        if b"steelyard-not-admitted" in dict(problems.describe(kind("-"))[2])
    }
    assert marked == {errors.Overloaded, errors.WouldBeLate}
