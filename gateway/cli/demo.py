"""`steelyard demo`: the whole chain on real data, through the same commands and the same HTTP that anyone would use.

It starts `steelyard train` and `steelyard serve` as processes of their own, sends held-out rows from the published artifact, and
prints a receipt and the cost report. Nothing in here is special to the demo but the order.
"""

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from gateway.cli import examples, options
from gateway.contract.manifest import Examples

if TYPE_CHECKING:
    from gateway.objectstore.protocol import ObjectStore

MODEL = "flights"
REQUESTS = 2000
CLIENTS = 4
BATCH_ROWS = 32
FLUSH_S = 2
BILLED_AS = {"STEELYARD_ACCOUNTING__VCPUS": "2", "STEELYARD_ACCOUNTING__MEMORY_GB": "4"}
"""A common task size: this machine's whole memory at Fargate's price would drown everything else."""


@click.command
@click.option("--once", is_flag=True, help="Exit when the report is printed instead of staying up.")
@options.store
def demo(once: bool, store: str) -> int:
    """Train on 336,776 real flights, quantize, publish, serve, predict, and print the bill."""
    console = Console()
    began = time.monotonic()
    _step(console, 1, f"train and publish '{MODEL}'")
    _steelyard("train", MODEL, "--store", store)
    _step(console, 2, "start the gateway")
    log = Path(".steelyard/gateway.log")
    with contextlib.ExitStack() as stack:
        with console.status("  waiting until it is ready"):
            address, process = stack.enter_context(_gateway(store, log))
        console.print(f"  listening on {address}, its log is {log}", highlight=False)
        _step(console, 3, "send real predictions from held-out flights")
        held_out = options.with_store(store, _examples)
        _show_some(console, address, held_out)
        _send_many(console, address, held_out)
        if once:
            _stop(process)
        else:
            _await_flush(console)
        _step(console, 4, "what it cost")
        _steelyard("costs", "--store", store)
        console.print(f"\n[bold]done in {time.monotonic() - began:.0f} s[/]")
        if not once:
            _invite(console, address, held_out)
            _wait_for_interrupt(console, process)
    return 0


def _step(console: Console, number: int, what: str) -> None:
    console.rule(f"[bold]{number}  {what}", align="left")


def _steelyard(*arguments: str) -> None:
    """Run one of our own commands in this terminal; its failure is ours."""
    code = subprocess.run([sys.executable, "-m", "gateway", *arguments], check=False).returncode
    if code:
        raise click.ClickException(f"steelyard {arguments[0]} failed with exit code {code}")


@contextlib.contextmanager
def _gateway(store: str, log: Path) -> Iterator[tuple[str, "subprocess.Popen[bytes]"]]:
    port = _free_port()
    log.parent.mkdir(parents=True, exist_ok=True)
    environment = BILLED_AS | os.environ | {"STEELYARD_LEDGER__FLUSH_INTERVAL_S": str(FLUSH_S)}
    environment |= {
        "STEELYARD_ACCESS__REQUIRED": "never"
    }  # on loopback, and the store may hold keys whose secrets nobody has
    arguments = ["serve", "--store", store, "--port", str(port), "--preload", MODEL]
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "gateway", *arguments], stdout=output, stderr=subprocess.STDOUT, env=environment
        )
    try:
        _await_ready(f"http://127.0.0.1:{port}", process, log)
        yield f"http://127.0.0.1:{port}", process
    finally:
        _stop(process)


def _free_port() -> int:
    """8080 when nobody has it, since that is what the README says."""
    for port in (8080, 0):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))
            return int(probe.getsockname()[1])
    raise click.ClickException("no free port on 127.0.0.1")


def _await_ready(address: str, process: "subprocess.Popen[bytes]", log: Path) -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(OSError):
            if _request(address, "GET", "/v2/health/ready")[0] == 200:
                return
        time.sleep(0.05)
    last = log.read_text(errors="replace").strip().splitlines()[-1:] or ["it said nothing"]
    raise click.ClickException(f"the gateway did not become ready: {last[0]}")


def _stop(process: "subprocess.Popen[bytes]") -> None:
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=40)


async def _examples(store: "ObjectStore") -> Examples:
    """The held-out rows that the artifact carries."""
    found = await examples.of(store, MODEL)
    assert found is not None, "this recipe's artifacts carry examples"
    return found


def _show_some(console: Console, address: str, examples: Examples) -> None:
    """One request of a few rows, with its receipt in headers and body."""
    rows = examples.rows[:5]
    headers, answer = _predict(address, list(rows))
    for row, prediction, outcome in zip(rows, answer["predictions"], examples.outcomes, strict=False):
        probability = next(iter(prediction.values()))
        what = f"{row.get('carrier')} {row.get('origin')}-{row.get('dest')}"
        truth = "was late" if outcome else "was on time"
        console.print(f"  {what:<12} P(more than 15 min late) = {probability:.3f}   truth: {truth}", highlight=False)
    console.print("  the receipt of these five:")
    for name in ("steelyard-request-id", "steelyard-model", "steelyard-cost-picousd", "server-timing"):
        console.print(f"    {name}: {headers[name]}", soft_wrap=True, highlight=False)
    console.print("    " + json.dumps(answer["receipt"]), soft_wrap=True, highlight=False)


def _send_many(console: Console, address: str, examples: Examples) -> None:
    """Single rows and batches, from several clients at once."""
    rows = list(examples.rows)
    jobs = [rows[i % len(rows) :][:BATCH_ROWS] if i % 10 == 0 else [rows[i % len(rows)]] for i in range(REQUESTS)]
    columns = (TextColumn("  requests"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console) as progress, ThreadPoolExecutor(CLIENTS) as pool:
        task = progress.add_task("requests", total=len(jobs))
        for _ in pool.map(lambda job: _predict(address, job), jobs):
            progress.advance(task)


def _predict(address: str, rows: list[Any]) -> tuple[http.client.HTTPMessage, Any]:
    status, headers, body = _request(address, "POST", f"/v1/predict/{MODEL}", json.dumps({"rows": rows}))
    if status != 200:
        raise click.ClickException(f"the gateway answered {status}: {body[:300].decode(errors='replace')}")
    return headers, json.loads(body)


def _request(
    address: str, method: str, path: str, body: str | None = None
) -> tuple[int, http.client.HTTPMessage, bytes]:
    connection = http.client.HTTPConnection(urlsplit(address).netloc, timeout=30)
    with contextlib.closing(connection):
        connection.request(method, path, body, {"Content-Type": "application/json"} if body else {})
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read()


def _await_flush(console: Console) -> None:
    with console.status("  waiting for the ledger's next segment"):
        time.sleep(FLUSH_S + 1)


def _invite(console: Console, address: str, examples: Examples) -> None:
    body = json.dumps({"rows": [examples.rows[0]]})
    console.print(f"\nThe gateway stays up at [bold]{address}[/] (documentation: {address}/docs). Try:\n")
    console.print(f"curl {address}/v1/predict/{MODEL} -d '{body}'", soft_wrap=True, highlight=False)
    console.print("\nCtrl-C stops it.")


def _wait_for_interrupt(console: Console, process: "subprocess.Popen[bytes]") -> None:
    try:
        process.wait()
    except KeyboardInterrupt:
        console.print("stopping")
