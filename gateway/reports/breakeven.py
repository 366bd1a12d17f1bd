"""Where each model's traffic sits against the rate from which a GPU would cost less, from what the ledger measured. Pure.

The CPU side is measured: requests of the period's last day, and the CPU time of one with its share of HTTP. A GPU's throughput is
the training job's where a manifest has it, else the range that the offers' file assumes, and then the rate is a range too. The
verdict with latency, memory and a floor of replicas is `steelyard advise`'s.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence

import msgspec

from gateway.contract.manifest import GpuFigure
from gateway.contract.offers import Offer, OfferFile, break_even_rps
from gateway.contract.words import DAY_NS, HOUR_NS
from gateway.reports.breakdown import Sheet

AROUND = frozenset({"overhead", "ledger"})
TARGET = 0.6
"""Of saturation, that a scaler leaves on either side; as `steelyard advise` takes it."""

OBJECTIVE_NS = 100 * 10**6
"""Of a GPU's batch at the 99th percentile; as `steelyard advise` takes it."""

Version = tuple[str, int]
Figures = Mapping[Version, tuple[GpuFigure, ...]]


class Demand(msgspec.Struct, frozen=True):
    """Of one model version on the last day: requests a second on average and in its busiest hour, and what one takes.

    `request_cpu_ns` has a request's share of HTTP and the ledger in it, `around_cpu_ns` is that share alone.
    """

    model: str
    version: int
    mean_rps: float
    peak_rps: float
    request_cpu_ns: float
    around_cpu_ns: float
    rows_per_request: float


class Standing(msgspec.Struct, frozen=True):
    """A GPU pays from `perhaps_rps` on at the upper end of what is known of its throughput, from `surely_rps` on at the lower end.

    None where no rate makes it pay. Both are of the offers named; equal where it was `measured`.
    """

    demand: Demand
    cpu: str
    perhaps_rps: float | None
    perhaps_gpu: str
    surely_rps: float | None
    surely_gpu: str
    is_measured: bool


def demand(made: Sheet) -> tuple[Demand, ...]:
    """The busiest first. A model that nobody asked on the last day has none."""
    from_ns = max(made.span.from_ns, made.span.to_ns - DAY_NS)
    first_ns = from_ns // HOUR_NS * HOUR_NS
    begin_ns = max(made.span.from_ns, first_ns)
    asked: dict[Version, dict[int, int]] = defaultdict(lambda: defaultdict(int))
    cpu_ns: dict[Version, int] = defaultdict(int)
    rows: dict[Version, int] = defaultdict(int)
    around_ns, requests = 0, 0
    for cell in made.every:
        if cell.hour_ns < first_ns:
            continue
        requests += cell.requests
        around_ns += cell.cpu_ns if cell.activity in AROUND else 0
        if cell.activity == "infer" and cell.model and cell.requests:
            version = (cell.model, cell.version)
            asked[version][cell.hour_ns] += cell.requests
            cpu_ns[version] += cell.cpu_ns
            rows[version] += cell.rows
    around = around_ns / max(1, requests)
    found = []
    for (model, number), hours in asked.items():
        count = sum(hours.values())
        found.append(
            Demand(
                model,
                number,
                mean_rps=count * 1e9 / max(1, made.span.to_ns - begin_ns),
                peak_rps=max(
                    each * 1e9 / max(1, min(made.span.to_ns, at + HOUR_NS) - max(begin_ns, at))
                    for at, each in hours.items()
                ),
                request_cpu_ns=cpu_ns[model, number] / count + around,
                around_cpu_ns=around,
                rows_per_request=max(1.0, rows[model, number] / count),
            )
        )
    return tuple(sorted(found, key=lambda one: (-one.mean_rps, one.model, one.version)))


def standings(found: Sequence[Demand], file: OfferFile, figures: Figures, architecture: str) -> tuple[Standing, ...]:
    """Against the cheapest CPUs of this architecture; empty where the file has none, or no GPU about which anything is known."""
    cpus = [offer for offer in file.offer if offer.kind in {"task", "machine"} and offer.architecture == architecture]
    gpus = [offer for offer in file.offer if offer.kind == "gpu"]
    if not cpus:
        return ()
    cpu = min(cpus, key=lambda offer: float(offer.usd) / offer.vcpus)
    every = (
        _standing(one, cpu, gpus, file, figures.get((one.model, one.version), ()))
        for one in found
        if one.request_cpu_ns
    )
    return tuple(standing for standing in every if standing is not None)


def _standing(
    one: Demand, cpu: Offer, gpus: Sequence[Offer], file: OfferFile, figures: Sequence[GpuFigure]
) -> Standing | None:
    vcpu_rps = 1e9 / one.request_cpu_ns
    perhaps: list[tuple[float, str]] = []
    surely: list[tuple[float, str]] = []
    ranges = [(gpu, _range(one, gpu, file, figures, vcpu_rps)) for gpu in gpus]
    known = [(gpu, ends) for gpu, ends in ranges if ends is not None]
    for gpu, (low, high) in known:
        for end, rates in ((high, perhaps), (low, surely)):
            rate = break_even_rps(cpu, vcpu_rps * cpu.vcpus * TARGET, gpu, end * TARGET)
            if rate is not None:
                rates.append((rate, gpu.name))
    if not known:
        return None
    measured = {figure.gpu for figure in figures}
    first, last = min(perhaps, default=None), min(surely, default=None)
    return Standing(
        demand=one,
        cpu=cpu.name,
        perhaps_rps=first and first[0],
        perhaps_gpu=first[1] if first else "",
        surely_rps=last and last[0],
        surely_gpu=last[1] if last else "",
        is_measured=any(gpu.gpu in measured and gpu.name == (first or last or ("", ""))[1] for gpu, _ in known),
    )


def _range(
    one: Demand, gpu: Offer, file: OfferFile, figures: Sequence[GpuFigure], vcpu_rps: float
) -> tuple[float, float] | None:
    """Requests a second of all its GPUs, saturated; its own vCPUs still read and write every request."""
    ceiling = gpu.vcpus * 1e9 / one.around_cpu_ns if one.around_cpu_ns else float("inf")
    own = [figure for figure in figures if figure.gpu == gpu.gpu]
    if own:
        rows_per_s = max((figure.rows_per_s for figure in own if figure.p99_ns <= OBJECTIVE_NS), default=0.0)
        low = high = rows_per_s / one.rows_per_request * gpu.gpus
    elif assumed := file.assumed(gpu.gpu):
        low, high = (float(vcpus) * vcpu_rps * gpu.gpus for vcpus in (assumed.low_vcpus, assumed.high_vcpus))
    else:
        return None
    return min(low, ceiling), min(high, ceiling)
