"""`steelyard serve`: one gateway process over one store."""

import os
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import click

from gateway import lambdaruntime
from gateway.cli import options


@click.command
@click.option("--store", metavar="URL", help=options.STORE_HELP + f"  [default: {options.DEFAULT_STORE}]")
@click.option("--host", help="Address to listen on.  [default: 127.0.0.1]")
@click.option("--port", type=click.IntRange(0, 65535), help="Port; 0 takes a free one.  [default: 8080]")
@click.option("--preload", multiple=True, metavar="MODEL", help="Load before answering as ready; may be repeated.")
@click.option(
    "--config", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE", help="TOML file with any setting."
)
@click.option(
    "--insecure-no-auth", is_flag=True, help="Allow an address that others can reach though the store holds no key."
)
def serve(
    store: str | None,
    host: str | None,
    port: int | None,
    preload: tuple[str, ...],
    config: Path | None,
    insecure_no_auth: bool,
) -> int:
    """Serve published models over HTTP, with a receipt for every prediction.

    Settings come from --config, then from the environment (STEELYARD_SERVER__PORT=80), then from these options.
    """
    from gateway.telemetry.startup import Startup

    startup = Startup()
    from gateway import server, settings

    startup.mark_imports()
    overrides = {
        "store": store,
        "server.host": host,
        "server.port": port,
        "preload": list(preload) or None,
        "insecure_no_auth": insecure_no_auth or None,
    }
    with _failures_told():
        loaded = settings.load(config, overrides=overrides)
        startup.mark_settings()
        return server.serve(loaded, startup)


def _failures_told() -> AbstractContextManager[None]:
    """On Lambda its log and its caller are told why a function does not start."""
    address = os.environ.get(lambdaruntime.RUNTIME_API)
    if address is None:
        return nullcontext()
    from gateway.lambdaruntime import api

    return api.told(address)
