"""`steelyard cluster`: several gateways behind one Envoy on one machine, without a container engine.

Everything in it is what runs elsewhere too: the same gateway, the same Envoy file, an object store that speaks S3. Only the
autoscaler is a demonstration.
"""

import asyncio
import contextlib
import json
import sys
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import click

from gateway.cli import examples, options

if TYPE_CHECKING:
    from rich.console import Console

    from gateway.cluster.running import Plan, Running
    from gateway.contract.manifest import Examples
    from gateway.objectstore.protocol import ObjectStore

T = TypeVar("T")

DEMO_MODEL = "flights"


@click.command
@click.option(
    "--gateways", type=click.IntRange(1, 64), default=3, show_default=True, help="How many, without --autoscale."
)
@click.option(
    "--autoscale", metavar="FEWEST..MOST", help="A demonstration of scaling on the saturation gauge, such as 0..4."
)
@click.option(
    "--idle", "idle_s", type=click.FloatRange(min=1), default=30.0, show_default=True, metavar="SECONDS",
    help="With --autoscale 0..N: the last gateway goes after so long without a request.",
)  # fmt: skip
@click.option("--store", metavar="URL", help="Use this store instead of a SeaweedFS of the cluster's own.")
@click.option(
    "--port", type=click.IntRange(0, 65535), default=8080, show_default=True, help="For callers; 0 takes a free one."
)
@click.option(
    "--envoy", "envoy_path", type=click.Path(path_type=Path, dir_okay=False, exists=True), metavar="FILE",
    help="Use this Envoy file instead of the shipped one.",
)  # fmt: skip
@click.option(
    "--folder", type=click.Path(path_type=Path, file_okay=False), default=Path(".steelyard/cluster"), show_default=True,
    help="For logs, and the objects of the cluster's own store.",
)  # fmt: skip
@click.option("--train/--no-train", default=True, help=f"Train and publish '{DEMO_MODEL}' when the store has no model.")
def cluster(
    gateways: int,
    autoscale: str | None,
    idle_s: float,
    store: str | None,
    port: int,
    envoy_path: Path | None,
    folder: Path,
    train: bool,
) -> int:
    """Run an object store, several gateways and one Envoy here, until Ctrl-C.

    Gateways take the settings of `steelyard serve` from the environment.
    """
    from gateway.cluster import autoscaling, envoyfile, running
    from gateway.errors import SettingsError

    try:
        envoy_file = envoy_path.read_text() if envoy_path else envoyfile.shipped()
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{envoy_path} cannot be read as text: {error}") from error
    plan = running.Plan(
        folder=folder.absolute(),
        store=store or "",
        listen=envoyfile.Address("127.0.0.1", port),
        gateways=gateways,
        bounds=autoscaling.parsed(autoscale) if autoscale else None,
        idle_s=idle_s,
        envoy_file=envoy_file,
        envoy_name=str(envoy_path or "the shipped file"),
    )
    asyncio.run(_run(plan, options.console(), train=train))
    return 0


async def _run(plan: "Plan", console: "Console", *, train: bool) -> None:
    from gateway.cluster import running

    async def fill(store: str) -> None:
        if await _names(store):
            return
        if not train:
            console.print(f"the store has no model yet: steelyard train {DEMO_MODEL} --store {store}")
            return
        console.print(f"the store has no model: training '{DEMO_MODEL}'")
        await _train(store)

    async def tell(what: "Running") -> None:
        await _tell(what, console)

    await running.run(plan, console, fill=fill, tell=tell)


async def _names(store: str) -> list[str]:
    from gateway.registry.reading import Registry

    return await _with_store(store, lambda opened: Registry(opened).names())


async def _with_store(url: str, ask: "Callable[[ObjectStore], Awaitable[T]]") -> T:
    from gateway.objectstore.opening import open_store

    async with contextlib.aclosing(open_store(url, create=True)) as opened:
        return await ask(opened)


async def _train(store: str) -> None:
    """In this terminal, as anybody would; its failure is ours."""
    command = [sys.executable, "-m", "gateway", "train", DEMO_MODEL, "--store", store]
    process = await asyncio.create_subprocess_exec(*command)
    try:
        code = await process.wait()
    except asyncio.CancelledError:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        await process.wait()
        raise
    if code:
        raise click.ClickException(f"steelyard train failed with exit code {code}; --no-train starts without a model")


async def _tell(what: "Running", console: "Console") -> None:
    """How to call it, and where its parts are."""
    url = f"http://{what.callers}"
    console.print(
        f"\n[bold]{url}[/] answers for all gateways (documentation: {url}/docs, Envoy's own pages: http://{what.admin})"
    )
    console.print(f"gateways and their pids, as Prometheus's file_sd_configs reads them: {what.targets}")
    if what.environment:
        console.print(f"in other terminals: . {what.environment}   and then any command with --store {what.store}")
    if call := await _a_call(what.store):
        console.print(f"\ncurl {url}{call}", markup=False)
    console.print("\nCtrl-C stops everything.\n")


async def _examples_of(model: str, store: "ObjectStore") -> "Examples | None":
    return await examples.of(store, model)


async def _a_call(store: str) -> str:
    """The path and the body of a prediction, of the first model that answers and brought rows; "" when there is none."""
    from gateway.errors import GatewayError

    for name in await _names(store):
        with contextlib.suppress(GatewayError):
            found = await _with_store(store, partial(_examples_of, name))
            if found is not None:
                return f"/v1/predict/{name} -d '{json.dumps({'rows': [found.rows[0]]})}'"
    return ""
