"""Keys as a person and two gateways see them: made at the command line, known to both, held to one budget, revoked in both.

Over a real folder and a real S3 server. Commands are real processes.
"""

import asyncio
import contextlib
import http.server
import json
import re
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from gateway.access.gate import AccessOptions, Gate
from gateway.contract import layout
from gateway.errors import BudgetExceeded, Unauthenticated
from gateway.objectstore.opening import open_store
from tests.support import stores
from tests.support.manualclock import LIMIT_S

KEY = re.compile(r"sy_[a-km-np-z2-9]{10}_[0-9A-Za-z]{36}")


def steelyard(*arguments: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "gateway", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


def added(store: str, *arguments: str) -> str:
    done = steelyard("keys", "add", "--store", store, *arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout.removesuffix("\n")


@pytest.fixture(params=["local", "moto"])
def url(request: pytest.FixtureRequest) -> str:
    return stores.empty(request)


@contextlib.asynccontextmanager
async def gate(url: str, container: str) -> AsyncIterator[Gate]:
    """As `gateway.bootstrap` opens one, but quicker to look."""
    async with (
        contextlib.aclosing(open_store(url)) as store,
        Gate(
            store,
            AccessOptions(poll_s=0.05, spend_interval_s=0.05),
            container=container,
            boot_ns=time.time_ns(),
            now_ns=time.time_ns,
            is_loopback=False,
            insecure_no_auth=False,
        ) as opened,
    ):
        yield opened


async def until(claim: Callable[[], bool]) -> None:
    async with asyncio.timeout(LIMIT_S):
        while not claim():  # noqa: ASYNC110 - what changes has no event to wait for
            await asyncio.sleep(0.01)


def refusal(attempt: Callable[[], object]) -> str:
    """What the attempt is refused with, or nothing."""
    try:
        attempt()
    except (Unauthenticated, BudgetExceeded) as error:
        return str(error)
    return ""


async def test_a_key_serves_in_two_gateways_shares_its_budget_and_is_revoked_in_both(url: str) -> None:
    token = added(
        url, "--tenant", "search", "--budget-usd-per-day", "0.000001", "--models", "flights"
    )  # a million pico-dollars
    header = f"Bearer {token}".encode()
    async with gate(url, "c1") as one, gate(url, "c2") as two:
        for caller in (one.caller(header, None), two.caller(header, None)):
            assert caller.tenant == "search"
            caller.check("flights")
            caller.enter()
            caller.leave(400_000)
        latecomer = added(url, "--tenant", "ads")
        for opened in (one, two):
            await until(lambda opened=opened: not refusal(lambda: opened.caller(None, latecomer.encode())))  # type: ignore[misc]

        def spend_in_two() -> bool:
            """Alone, two knows of 400,000 and a few; that the budget ends is what one has spent."""
            if refusal(two.caller(header, None).enter):
                return True
            two.caller(header, None).leave(1)
            return False

        one.caller(header, None).enter()
        one.caller(header, None).leave(200_000)
        await until(spend_in_two)
        assert "$0.000001 a day; it resets at" in refusal(two.caller(header, None).enter)

        async with gate(url, "c3") as three:  # a container that starts now knows before it answers
            assert "has spent its budget" in refusal(three.caller(header, None).enter)

        assert steelyard("keys", "revoke", token, "--store", url).returncode == 0
        for opened in (one, two):
            await until(lambda opened=opened: "was revoked" in refusal(lambda: opened.caller(header, None)))  # type: ignore[misc]
            assert opened.caller(None, latecomer.encode()).tenant == "ads"


async def test_what_is_stored_holds_no_key(url: str) -> None:
    token = added(url, "--tenant", "search")
    async with contextlib.aclosing(open_store(url)) as store:
        stored = [(info.key, (await store.get(info.key)).body) async for info in store.list("")]
    [(key, body)] = stored
    assert key == layout.key(token[3:13])
    assert token[14:].encode() not in body


# --- the command line


def test_add_prints_the_key_alone_and_once(tmp_path: Path) -> None:
    done = steelyard("keys", "add", "--tenant", "search", "--rps", "50", "--store", str(tmp_path))
    assert KEY.fullmatch(done.stdout.removesuffix("\n"))
    key = done.stdout.strip()
    assert done.stderr == (
        f"key {key[3:13]} for search (predict on *; 50/s); it is not stored and cannot be shown again\n"
    )
    for command in (("keys", "list"), ("keys", "list", "--json"), ("keys", "revoke", key)):
        shown = steelyard(*command, "--store", str(tmp_path))
        assert key[14:] not in shown.stdout + shown.stderr
        assert "sha256" not in shown.stdout


def test_everything_that_was_asked_for_is_in_the_record(tmp_path: Path) -> None:
    wanted = [
        "--models",
        "flights,search-*",
        "--rights",
        "predict,costs",
        "--budget-usd-per-day",
        "2.50",
        "--rps",
        "50",
    ]
    wanted += ["--burst", "100", "--concurrency", "8", "--expires", "2099-01-01", "--note", "the ranking service"]
    made = json.loads(added(str(tmp_path), "--tenant", "search", *wanted, "--json"))
    listed = json.loads(steelyard("keys", "list", "--store", str(tmp_path), "--json").stdout)
    assert KEY.fullmatch(made.pop("key"))
    assert listed == [made]
    assert made["budget_picousd_per_day"] == 2_500_000_000_000
    assert (made["rps"], made["burst"], made["concurrency"]) == (50, 100, 8)
    assert (made["rights"], made["models"]) == (["predict", "costs"], ["flights", "search-*"])
    assert (made["expires_ns"], made["state"]) == (4_070_908_800_000_000_000, "active")
    [_, line] = steelyard("keys", "list", "--store", str(tmp_path)).stdout.splitlines()
    for cell in (
        "search",
        "$2.5/day, 50/s, burst 100, 8 at once",
        "active until 2099-01-01T00:00:00Z",
        "the ranking service",
    ):
        assert cell in line


def test_a_revoked_key_stays_in_the_list_with_when_and_by_whom(tmp_path: Path) -> None:
    key = added(str(tmp_path), "--tenant", "search")
    first = steelyard("keys", "revoke", key[3:13], "--store", str(tmp_path))
    assert first.stdout == f"key {key[3:13]} of search is revoked\n"
    again = steelyard("keys", "revoke", key, "--store", str(tmp_path))
    assert (again.returncode, "is revoked already, at 20" in again.stdout) == (0, True)
    [_, line] = steelyard("keys", "list", "--store", str(tmp_path)).stdout.splitlines()
    assert re.search(r"  revoked 20\S+Z by \S+$", line)


def test_a_mangled_key_is_not_repeated(tmp_path: Path) -> None:
    key = added(str(tmp_path), "--tenant", "search")
    done = steelyard("keys", "revoke", key[:-1], "--store", str(tmp_path))
    assert done.returncode == 2
    assert key[14:-1] not in done.stderr


def test_a_record_that_cannot_be_read_is_named_and_the_others_are_listed(tmp_path: Path) -> None:
    key = added(str(tmp_path), "--tenant", "search")
    newer = {"schema_version": 7}
    (tmp_path / layout.key("zzzzzzzzzz")).write_text(json.dumps(newer))
    done = steelyard("keys", "list", "--store", str(tmp_path))
    assert done.returncode == 1
    assert key[3:13] in done.stdout
    assert "schema_version 7; this Steelyard reads up to 1: upgrade it first" in done.stderr
    refused = steelyard("keys", "revoke", "zzzzzzzzzz", "--store", str(tmp_path))
    assert (refused.returncode, "upgrade it first" in refused.stderr) == (1, True)


def test_an_empty_store_says_how_to_make_a_key(tmp_path: Path) -> None:
    done = steelyard("keys", "list", "--store", str(tmp_path))
    assert (done.returncode, done.stdout) == (
        0,
        f"no keys in {tmp_path}; try: steelyard keys add --tenant NAME --store {tmp_path}\n",
    )
    assert steelyard("keys", "list", "--store", str(tmp_path), "--json").stdout == "[]\n"


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["add"], 2, "Missing option '--tenant'"),
        (["add", "--tenant", "Search Team"], 2, "'--tenant': 'Search Team' must be lower case letters"),
        (["add", "--tenant", "search\n"], 2, "'--tenant': 'search\\n' must be"),
        (["add", "--tenant", "t" * 64], 2, "at most 63, the first no sign"),
        (
            ["add", "--tenant", "t", "--rights", "predict,root"],
            2,
            "'--rights': 'root' is none of predict, costs, admin",
        ),
        (["add", "--tenant", "t", "--rights", "costs,costs"], 2, "'--rights': 'costs' is named twice"),
        (["add", "--tenant", "t", "--rights", ""], 2, "'--rights': name one or more of predict, costs, admin"),
        (["add", "--tenant", "t", "--models", ""], 2, "'--models': name one or more; '*' allows all of them"),
        (["add", "--tenant", "t", "--models", "ok,a b"], 2, "'--models': 'a b' must be lower case letters"),
        (["add", "--tenant", "t", "--note", "x" * 501], 2, "'--note': it has 501 characters; at most 500"),
        (["add", "--tenant", "t", "--rps", "1" + "0" * 30], 2, "'--rps': 1" + "0" * 30 + " is not in the range"),
        (["add", "--tenant", "t", "--budget-usd-per-day", "lots"], 2, "'lots' is not an amount of dollars"),
        (["add", "--tenant", "t", "--budget-usd-per-day", "NaN"], 2, "'NaN' is not an amount of dollars"),
        (["add", "--tenant", "t", "--budget-usd-per-day", "0"], 2, "'0' is not between"),
        (["add", "--tenant", "t", "--budget-usd-per-day", "-1"], 2, "'-1' is not between"),
        (["add", "--tenant", "t", "--budget-usd-per-day", "1e999999"], 2, "'1e999999' is not an amount of dollars"),
        (["add", "--tenant", "t", "--budget-usd-per-day", "1.0000000000001"], 2, "in steps of the first"),
        (["add", "--tenant", "t", "--rps", "0"], 2, "--rps"),
        (["add", "--tenant", "t", "--burst", "5"], 2, "--burst needs --rps"),
        (["add", "--tenant", "t", "--expires", "2020-01-01"], 2, "--expires is in the past"),
        (["add", "--tenant", "t", "--expires", "soon"], 2, "'soon' is not an ISO date"),
        (["revoke", "nasuchkeyx"], 1, "no key 'nasuchkeyx' in file://"),
        (["revoke", "../models/x"], 2, "neither an id as `steelyard keys list` shows them nor a whole key"),
        (["revoke", ""], 2, "neither an id"),
    ],
)
def test_a_mistake_is_one_clear_line(tmp_path: Path, arguments: list[str], code: int, message: str) -> None:
    done = steelyard("keys", *arguments, "--store", str(tmp_path))
    assert done.returncode == code, done.stderr
    assert message in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


# --- starting


def test_an_address_that_others_reach_is_refused_without_a_key_and_before_a_bill_begins(tmp_path: Path) -> None:
    done = steelyard("serve", "--host", "0.0.0.0", "--port", "0", "--store", str(tmp_path))
    assert done.returncode == 2
    assert done.stderr == (
        "Error: this address lets others in and the store holds no usable key: steelyard keys add --tenant NAME, "
        "keep 127.0.0.1 behind a proxy, or say --insecure-no-auth\n"
    )
    assert list(tmp_path.iterdir()) == []


def test_predict_sends_the_key_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str | None] = []

    class Refusing(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked.append(self.headers["Steelyard-Key"])
            self.rfile.read(int(self.headers["Content-Length"]))
            body = b'{"error": "the key in the Steelyard-Key header is not known here"}'
            self.send_response(401)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Nothing on stderr."""

    monkeypatch.setenv("STEELYARD_KEY", "sy_from_the_environment")
    with http.server.HTTPServer(("127.0.0.1", 0), Refusing) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        done = steelyard("predict", "flights", "--row", "a=1", "--url", f"http://127.0.0.1:{server.server_port}")
        server.shutdown()
        thread.join()
    assert asked == ["sy_from_the_environment"]
    assert (done.returncode, done.stderr) == (
        1,
        "Error: the key in the Steelyard-Key header is not known here (HTTP 401)\n",
    )
