"""`steelyard budgets`: alerts over real HTTP once per period and threshold, failed ones again, signed, and exit codes."""

import asyncio
import hashlib
import hmac
import json
import ssl
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner, Result

from gateway.budgets import alerting, webhook
from gateway.budgets.budgetfile import Budget, Webhook
from gateway.budgets.evaluating import Period, Standing, Threshold
from gateway.budgets.webhook import Undelivered
from gateway.cli.budgets import budgets as command
from gateway.contract import codec, layout
from gateway.contract.budgets import Alert
from gateway.contract.ledger import Posting
from gateway.errors import StoreUnavailable
from gateway.objectstore.local import LocalStore
from tests.support import ledgers
from tests.support.ledgers import HOUR_NS, T0_NS, VCPU
from tests.support.memorystore import MemoryStore
from tests.support.receivers import Receiver, receiving

SERVED = Posting("infer", VCPU, 600, 2_000_000, "digits", 1, "acme", "ok", 2, 4)
AT = "2026-11-05T13:00"
NOW_NS = T0_NS + HOUR_NS


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as up:
        yield up


@pytest.fixture
def root(tmp_path: Path) -> Path:
    ledgers.write(tmp_path / "store", ledgers.container("c", [[*ledgers.charges(600, 0), SERVED]]))
    return tmp_path


def written(root: Path, receiver: Receiver | None, *, usd: str = "0.0000000007", more: str = "") -> Path:
    hook = f'[webhook]\nurl = "{receiver.url}"\n{more}\n' if receiver else ""
    path = root / "budgets.toml"
    path.write_text(f'{hook}[[budget]]\nid = "digits"\nmodel = "digits"\nperiod = "day"\nusd = "{usd}"\n')
    return path


def ran(root: Path, *arguments: str, env: dict[str, str] | None = None) -> Result:
    options = ["--store", str(root / "store"), "--cache", str(root / "cache"), "--at", AT]
    return CliRunner(env=env).invoke(command, [*arguments, str(root / "budgets.toml"), *options])


# The command


def test_help_shows_a_file_that_works(root: Path) -> None:
    said = CliRunner().invoke(command, ["--help"]).output
    lines = [line.strip() for line in said[said.index("[[budget]]") : said.index("Options:")].splitlines()]
    (root / "budgets.toml").write_text("\n".join(lines))
    shown = ran(root, "show")
    assert (shown.exit_code, "search-month" in shown.output) == (0, True)


def test_the_text_of_the_file_may_be_in_a_variable(root: Path, receiver: Receiver):
    text = written(root, receiver).read_text()
    options = ["check", "--store", str(root / "store"), "--cache", str(root / "cache"), "--at", AT]
    told = CliRunner(env={"STEELYARD_BUDGETS": text}).invoke(command, options)
    assert (told.exit_code, len(receiver.told)) == (3, 1), told.output
    wrong = CliRunner(env={"STEELYARD_BUDGETS": text.replace("usd", "eur")}).invoke(command, options)
    assert "budgets in STEELYARD_BUDGETS: " in str(wrong.exception)
    neither = CliRunner(env={"STEELYARD_BUDGETS": ""}).invoke(command, options)
    assert (neither.exit_code, "put its text into STEELYARD_BUDGETS" in neither.output) == (2, True)


def test_crossing_is_told_once_and_exits_with_3(root: Path, receiver: Receiver):
    written(root, receiver)
    first, again = ran(root, "check"), ran(root, "check")
    assert (first.exit_code, again.exit_code) == (3, 3)
    assert "alert sent: digits, spent-0.8" in first.output
    assert "alert was sent before: digits, spent-0.8" in again.output
    [told] = receiver.told
    assert told == {
        "id": "digits/2026-11-05/spent-0.8",
        "budget": "digits",
        "model": "digits",
        "tenant": "*",
        "kind": "spent",
        "threshold": "0.8",
        "period": "day",
        "period_from": "2026-11-05T00:00:00Z",
        "period_to": "2026-11-06T00:00:00Z",
        "spent_usd": "0.0000000006",
        "limit_usd": "0.0000000007",
        "forecast_usd": "0.0000000072",
        "spent_picousd": 600,
        "limit_picousd": 700,
        "forecast_picousd": 7200,
        "share": 0.857143,
        "at": "2026-11-05T13:00:00Z",
        "schema_version": 1,
    }
    assert receiver.paths == ["/hook?team=ml"]
    assert "steelyard-signature" not in receiver.headers[0]


def test_another_threshold_and_another_day_are_told_anew(root: Path, receiver: Receiver):
    written(root, receiver)
    ran(root, "check")
    written(root, receiver, usd="0.0000000006")
    ran(root, "check")
    assert [told["threshold"] for told in receiver.told] == ["0.8", "1"]
    later = ledgers.container("d", [[*ledgers.charges(600, 0), SERVED]], boot_ns=T0_NS + 24 * HOUR_NS)
    ledgers.write(root / "store", later)
    options = ["--store", str(root / "store"), "--cache", str(root / "cache"), "--at", "2026-11-06T13:00"]
    CliRunner().invoke(command, ["check", str(root / "budgets.toml"), *options])
    assert [told["period_from"][:10] for told in receiver.told[2:]] == ["2026-11-06"] * 2


def test_nothing_crossed_exits_with_0_and_tells_nobody(root: Path, receiver: Receiver):
    written(root, receiver, usd="1")
    result = ran(root, "check")
    assert result.exit_code == 0
    assert receiver.bodies == []
    assert "digits" in result.output


def test_show_tells_nobody_and_exits_with_0(root: Path, receiver: Receiver):
    written(root, receiver)
    result = ran(root, "show")
    assert (result.exit_code, receiver.bodies) == (0, [])
    assert "80 %" in result.output
    assert "85.7" in result.output


def test_failed_delivery_exits_with_75_and_the_next_run_tries_again(root: Path, receiver: Receiver):
    written(root, receiver)
    receiver.status = 500
    failed = ran(root, "check")
    assert failed.exit_code == 75
    assert "NOT DELIVERED" in failed.output
    assert "answered 500" in failed.output
    receiver.status = 200
    assert ran(root, "check").exit_code == 3
    assert ran(root, "check").exit_code == 3
    assert len(receiver.bodies) == 2
    key = layout.budget_alert("digits", "2026-11-05", "spent-0.8")
    alert = codec.decode((root / "store" / key).read_bytes(), Alert, what="alert")
    assert (alert.state, alert.attempts) == ("sent", 2)


def test_bodies_are_signed_with_the_secret_of_the_environment(root: Path, receiver: Receiver):
    written(root, receiver, more='secret_env = "HOOK_SECRET"')
    missing = ran(root, "check", env={"HOOK_SECRET": ""})
    assert missing.exit_code == 1
    assert "no HOOK_SECRET" in str(missing.exception)
    assert receiver.bodies == []
    assert ran(root, "check", env={"HOOK_SECRET": "s3cret"}).exit_code == 3
    at, signed = receiver.headers[0]["steelyard-signature"].split(",")
    text = at.removeprefix("t=").encode() + b"." + receiver.bodies[0]
    assert signed == "v1=" + hmac.new(b"s3cret", text, hashlib.sha256).hexdigest()
    assert at == f"t={NOW_NS // 10**9}"


def test_json_has_whole_pico_dollars_and_the_alerts(root: Path, receiver: Receiver):
    written(root, receiver)
    found = json.loads(ran(root, "check", "--json").output)
    assert found["budgets"][0]["spent_picousd"] == 600
    assert found["alerts"] == [{"budget": "digits", "threshold": "spent-0.8", "state": "sent", "reason": ""}]


def test_without_a_webhook_the_exit_code_alone_says_it(root: Path):
    written(root, None)
    result = ran(root, "check")
    assert result.exit_code == 3
    assert not (root / "store" / "budgets").exists()


def test_an_empty_period_is_said_and_no_alarm(root: Path, receiver: Receiver):
    written(root, receiver)
    options = ["--store", str(root / "store"), "--cache", str(root / "cache"), "--at", "2026-12-05"]
    result = CliRunner().invoke(command, ["check", str(root / "budgets.toml"), *options])
    assert result.exit_code == 0
    assert "the ledger has nothing in the period of 'digits'" in result.output


def test_a_bad_file_is_named_before_anything_is_asked(root: Path):
    (root / "budgets.toml").write_text('[[budget]]\nid = "x"\nperiod = "day"\nusd = "-1"\n')
    result = CliRunner().invoke(command, ["check", str(root / "budgets.toml"), "--store", "s3://nobody/there"])
    assert result.exit_code == 1
    assert "budgets.toml" in str(result.exception)


# Once, whoever checks


def crossing(factor: str = "1") -> Standing:
    budget = Budget("b", "day", "1", thresholds=(factor,))
    period = Period(T0_NS, T0_NS + 24 * HOUR_NS, "2026-11-05")
    return Standing(budget, period, 1, 10**12, 10**12, (Threshold("spent", factor, is_crossed=True),))


def hook(receiver: Receiver, timeout_s: float = 10.0) -> Webhook:
    return Webhook(receiver.url, timeout_s=timeout_s)


async def test_many_checkers_at_once_send_one(tmp_path: Path, receiver: Receiver):
    store = LocalStore(tmp_path)
    checks = [alerting.alert(store, hook(receiver), None, [crossing()], NOW_NS) for _ in range(12)]
    states = sorted(outcome.state for [outcome] in await asyncio.gather(*checks))
    assert states == ["sent", *["told"] * 11]
    assert len(receiver.bodies) == 1


async def test_who_died_sending_is_taken_over_when_his_time_is_over_and_not_before(receiver: Receiver):
    store = MemoryStore()
    dead = Alert("b", "spent-1", T0_NS, "sending", 1, NOW_NS, NOW_NS + 70 * 10**9)
    await store.put_if_absent(layout.budget_alert("b", "2026-11-05", "spent-1"), codec.encode(dead))
    [early] = await alerting.alert(store, hook(receiver), None, [crossing()], NOW_NS + 69 * 10**9)
    assert (early.state, receiver.bodies) == ("told", [])
    [late] = await alerting.alert(store, hook(receiver), None, [crossing()], NOW_NS + 70 * 10**9)
    assert (late.state, len(receiver.bodies)) == ("sent", 1)


async def test_a_store_that_is_down_sends_nothing(receiver: Receiver):
    store = MemoryStore()
    store.is_down = True
    with pytest.raises(StoreUnavailable):
        await alerting.alert(store, hook(receiver), None, [crossing()], NOW_NS)
    assert receiver.bodies == []


async def test_one_that_fails_does_not_keep_others_from_being_told(receiver: Receiver):
    nowhere = Webhook("http://127.0.0.1:1/", timeout_s=5)
    both = msgspec.structs.replace(
        crossing(), thresholds=tuple(Threshold("spent", factor, is_crossed=True) for factor in ("0.5", "1"))
    )
    store = MemoryStore()
    assert [one.state for one in await alerting.alert(store, nowhere, None, [both], NOW_NS)] == ["failed", "failed"]
    assert [one.state for one in await alerting.alert(store, hook(receiver), None, [both], NOW_NS)] == ["sent", "sent"]


# Delivery


async def undelivered(to: Webhook) -> str:
    with pytest.raises(Undelivered) as failed:
        await webhook.deliver(to, b"{}", None, 1)
    return str(failed.value)


async def test_redirects_are_not_followed(receiver: Receiver):
    receiver.status, receiver.location = 307, receiver.url
    assert "redirects are not followed" in await undelivered(hook(receiver))
    assert len(receiver.bodies) == 1


async def test_a_receiver_that_does_not_answer_is_left(receiver: Receiver):
    receiver.gate.clear()
    assert "no answer within 0.3 s" in await undelivered(hook(receiver, 0.3))


@pytest.mark.parametrize(
    "answer", [b"", b"SSH-2.0-x\r\n\r\n", b"HTTP/1.1 abc\r\n\r\n", b"HTTP/1.1 100 x\r\n\r\n" * 9, b"x" * 40_000]
)
async def test_what_does_not_speak_http_is_no_receiver(answer: bytes):
    async def answered(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        writer.close()

    async with await asyncio.start_server(answered, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        assert await undelivered(Webhook(f"http://127.0.0.1:{port}/", timeout_s=5))


async def test_https_without_a_trusted_certificate_is_refused(receiver: Receiver):
    port = receiver.url.split(":")[2].split("/")[0]
    said = await undelivered(Webhook(f"https://127.0.0.1:{port}/", timeout_s=5))
    assert "SSL" in said
    assert ssl.create_default_context().verify_mode is ssl.CERT_REQUIRED
