"""One replica of each offer: how many requests a second it answers, how sure that is, and what it holds. Pure.

CPUs are `modelled`: measured on this host's CPU, not on that one; another architecture is `assumed` to take the same CPU time. A
GPU is `measured` where the manifest carries its figure, else `assumed` within the range that the offers' file states.
"""

from collections.abc import Iterator

import msgspec
from msgspec import UNSET

from gateway.advice.capacity import Capacity
from gateway.advice.measured import Measured
from gateway.contract.energy import Tier
from gateway.contract.manifest import GpuFigure, Manifest
from gateway.contract.offers import Offer, OfferFile

COLD_SHARE = 0.01
"""Of calls of a function, at least: AWS says less than 1 % (AWS Lambda documentation)."""


class Unit(msgspec.Struct, frozen=True):
    """`rps` is what a scaler should leave on one replica, between its ends; `saturated_rps` what it could. 0: it cannot serve this.

    `request_cpu_ns` of its vCPUs per request; `init_ns`: from its process's beginning to its first answer. `note` says what the
    figure rests on, or why there is none. `cold_share`: of calls of a function that find it cold. `figure`: of a GPU's batches that
    keep the objective, where the training job measured any.
    """

    offer: Offer
    rps: float
    rps_low: float
    rps_high: float
    saturated_rps: float
    request_cpu_ns: int
    init_ns: int
    tier: Tier
    note: str
    cold_share: float = COLD_SHARE
    figure: GpuFigure | None = None

    def scaled(self, factor: float) -> "Unit":
        """With so many times the throughput."""
        return msgspec.structs.replace(
            self,
            rps=self.rps * factor,
            rps_low=self.rps_low * factor,
            rps_high=self.rps_high * factor,
            saturated_rps=self.saturated_rps * factor,
            request_cpu_ns=round(self.request_cpu_ns / factor),
        )


def of_offers(
    file: OfferFile, measured: Measured, manifest: Manifest, capacity: Capacity, *, objective_ns: int, target: float
) -> tuple[Unit, ...]:
    """In the file's order; an offer about which nothing is known is there with rates of 0, and says so."""
    figures = () if manifest.gpu is UNSET else manifest.gpu
    return tuple(
        _gpu(offer, file, measured, capacity, figures, objective_ns, target)
        if offer.kind == "gpu"
        else _cpu(offer, measured, capacity)
        for offer in file.offer
    )


def _cpu(offer: Offer, measured: Measured, capacity: Capacity) -> Unit:
    rps, saturated = capacity.usable_rps * offer.vcpus, capacity.saturated_rps * offer.vcpus
    processes = 1 if offer.kind == "function" else offer.vcpus
    need_gb = measured.served.resident_bytes * processes / 2**30
    if need_gb > float(offer.memory_gb):
        rps = 0.0
        note = f"does not fit: {need_gb:.2f} GB are needed"
    elif not rps:
        note = f"a lone request takes {capacity.alone_p99_ns / 1e6:.3g} ms at the 99th percentile: over the objective"
    elif offer.architecture == "arm":
        note = (
            "CPU time assumed as measured here on x86" if "x86" in _kind(measured.cpu) else "CPU time as measured here"
        )
    else:
        note = f"CPU time as measured here on {measured.cpu}"
    tier: Tier = "assumed" if offer.architecture != _kind(measured.cpu) else "modelled"
    return Unit(
        offer, rps, rps, rps, saturated, measured.served.request_cpu_ns, measured.served.cold_start_ns, tier, note
    )


def _kind(cpu: str) -> str:
    return "arm" if any(word in cpu.lower() for word in ("aarch64", "arm", "graviton")) else "x86"


def _gpu(
    offer: Offer,
    file: OfferFile,
    measured: Measured,
    capacity: Capacity,
    figures: tuple[GpuFigure, ...],
    objective_ns: int,
    target: float,
) -> Unit:
    """Its own vCPUs still read and answer every request, and may be what limits it."""
    run_cpu_ns = min(cell.cpu_ns for cell in measured.cells if cell.batch_rows == 1)
    around_ns = max(1, measured.served.request_cpu_ns - run_cpu_ns)
    ceiling = offer.vcpus * 1e9 / around_ns
    best = None
    own = [figure for figure in figures if figure.gpu == offer.gpu]
    if own:
        meeting = [figure for figure in own if figure.p99_ns <= objective_ns]
        best = max(meeting, key=lambda figure: figure.rows_per_s, default=None)
        low = middle = high = best.rows_per_s * offer.gpus if best else 0.0
        tier: Tier = "measured"
        note = "measured by the training job" if meeting else "measured by the training job: over the objective"
    elif assumed := file.assumed(offer.gpu):
        low, middle, high = (
            vcpus * capacity.saturated_rps * offer.gpus
            for vcpus in (float(assumed.low_vcpus), assumed.middle_vcpus, float(assumed.high_vcpus))
        )
        tier = "assumed"
        note = f"ASSUMED: one {offer.gpu} answers what {assumed.low_vcpus} to {assumed.high_vcpus} vCPUs do"
    else:
        low = middle = high = 0.0
        tier = "assumed"
        note = f"unknown: no figure for {offer.gpu} was measured, and none is assumed"
    if high > ceiling:
        note += f"; its {offer.vcpus} vCPUs read and write no more than {ceiling:,.0f} requests a second"
    low, middle, high = (min(rate, ceiling) for rate in (low, middle, high))
    return Unit(
        offer,
        middle * target,
        low * target,
        high * target,
        middle,
        around_ns,
        measured.served.cold_start_ns,
        tier,
        note,
        figure=best,
    )


def usable(units: tuple[Unit, ...], *, gpu: bool) -> Iterator[Unit]:
    """Those that can serve."""
    return (unit for unit in units if unit.rps > 0 and (unit.offer.kind == "gpu") == gpu)
