"""`steelyard advise`: CPU or GPU for one model, from measurements on this host, its own traffic and dated prices."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from gateway.cli import options
from gateway.contract import layout

if TYPE_CHECKING:
    from gateway.advice.measured import Measured
    from gateway.advice.traffic import Traffic
    from gateway.contract.manifest import Manifest
    from gateway.objectstore.protocol import ObjectStore

TRACE_BYTES_MAX = 256 << 20
"""Twelve million timestamps; longer traces are better given as counts."""


@click.command
@click.argument("model")
@options.store
@click.option("--version", default=layout.CHAMPION, show_default=True, help="A version's number, or an alias.")
@click.option(
    "--rps", type=float, metavar="RATE", help="Requests a second, all the time, instead of what the ledger has."
)
@click.option(
    "--trace",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE",
    help="CSV of timestamps, or of timestamps and counts, instead of what the ledger has.",
)
@click.option(
    "--objective-ms",
    type=click.FloatRange(0.1, 600_000),
    default=100,
    show_default=True,
    help="What 99 of 100 may take.",
)
@click.option(
    "--min-replicas", type=click.IntRange(0, 1000), default=1, show_default=True, help="Kept always; 0 scales to zero."
)
@click.option(
    "--provision-s",
    type=click.FloatRange(0, 3600),
    default=30,
    show_default=True,
    help="What the platform takes until a new container's process begins: an assumption.",
)
@click.option("--offers", type=click.Path(path_type=Path), metavar="FILE", help="Prices of your own; see infra/prices.")
@click.option(
    "--energy", type=click.Path(path_type=Path), metavar="FILE", help="Coefficients of your own; see infra/energy."
)
@click.option("--format", "form", type=click.Choice(["table", "json"]), default="table", show_default=True)
@click.option(
    "--svg",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Draw dollars and grams against the rate.",
)
@click.option("--seed", type=int, default=0, help="Of the simulation.")
@click.option("--cache", type=click.Path(file_okay=False, path_type=Path), help="Folder for copies of the ledger.")
def advise(
    model: str,
    store: str,
    version: str,
    rps: float | None,
    trace: Path | None,
    objective_ms: float,
    min_replicas: int,
    provision_s: float,
    offers: Path | None,
    energy: Path | None,
    form: str,
    svg: Path | None,
    seed: int,
    cache: Path | None,
) -> None:
    """Measure MODEL on this host and say where it is served cheapest, also when that is a GPU, or nowhere at night.

    \b
    steelyard advise flights                    with the traffic that the ledger has
    steelyard advise flights --rps 40 --objective-ms 50
    steelyard advise flights --trace day.csv --svg flights.svg
    """
    if rps is not None and trace is not None:
        raise click.UsageError("--rps and --trace exclude each other")
    import msgspec

    from gateway.advice import chart, judging, view
    from gateway.advice.advised import Wish
    from gateway.contract import energy as coefficients
    from gateway.contract import offers as prices

    offered, footprints = prices.load(offers), coefficients.load(energy)

    async def ask(opened: "ObjectStore") -> "tuple[Traffic, Measured, Manifest]":
        from gateway.advice import measuring
        from gateway.registry.reading import Registry

        await Registry(opened).resolve(model, version)  # a name that is nobody's has no traffic either: say which it is
        traffic = await _traffic(opened, model, rps, trace, cache)
        click.echo("measuring, some 15 seconds; a busy machine makes the figures worse", err=True)
        return traffic, *await measuring.measure(opened, model, version, rps_max=traffic.peak_rps)

    if svg is not None and not svg.parent.is_dir():
        raise click.UsageError(f"{svg} cannot be written: there is no folder {svg.parent}")
    traffic, measured, manifest = options.with_store(store, ask)
    wish = Wish(
        objective_ns=round(objective_ms * 1e6), floor=min_replicas, provision_ns=round(provision_s * 1e9), seed=seed
    )
    advice = judging.advise(measured, manifest, traffic, offered, footprints, wish)
    if svg is not None:
        _write(svg, chart.draw(judging.curves(measured, manifest, traffic, offered, footprints, wish), advice))
    if form == "json":
        click.echo(msgspec.json.encode(advice))
    else:
        view.render(advice, options.console())


async def _traffic(
    store: "ObjectStore", model: str, rps: float | None, trace: Path | None, cache: Path | None
) -> "Traffic":
    from gateway.advice import traffic

    if rps is not None:
        return traffic.at_rate(rps)
    if trace is not None:
        return traffic.of_trace(trace.name, _text(trace))
    from gateway.reports import hourly

    folder = options.ledger_folder(store, cache)
    return traffic.of_hours("the ledger", await hourly.requests(store, folder, model))


def _text(path: Path) -> str:
    try:
        if path.stat().st_size > TRACE_BYTES_MAX:
            raise click.UsageError(f"{path} is larger than {TRACE_BYTES_MAX >> 20} MiB; sum it to counts first")
        return path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise click.UsageError(f"{path} cannot be read as text: {error}") from error


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text)
    except OSError as error:
        raise click.UsageError(f"{path} cannot be written: {error.strerror}") from error
