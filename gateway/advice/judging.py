"""Everything that was measured, costed and simulated, brought to a verdict: one `Advice` with one sentence. Pure and seeded.

The command prints it (`view`), draws it (`chart`) or writes it as JSON.
"""

from decimal import Decimal
from math import ceil, log10

import msgspec

from gateway.advice import accuracy, costing, functions, promising, units
from gateway.advice import capacity as capacities
from gateway.advice.advised import Advice, Option, Wish, Zero
from gateway.advice.capacity import Capacity
from gateway.advice.chart import Curve
from gateway.advice.measured import Measured, disagreements
from gateway.advice.scenarios import Scenario, scenarios
from gateway.advice.traffic import Traffic, at_rate
from gateway.advice.units import Unit
from gateway.advice.wording import verdict
from gateway.contract.energy import Coefficients, Span, Tier, sci_per_thousand_ng
from gateway.contract.manifest import Manifest
from gateway.contract.offers import OfferFile

CURVE_DECADES, CURVE_STEPS_PER_DECADE = 4, 24


def advise(
    measured: Measured, manifest: Manifest, traffic: Traffic, offers: OfferFile, coefficients: Coefficients, wish: Wish
) -> Advice:
    """The whole computation; the same arguments give the same advice."""
    served = measured.served
    capacity = _capacity(measured, wish)
    offered = units.of_offers(offers, measured, manifest, capacity, objective_ns=wish.objective_ns, target=wish.target)
    every = promising.with_cold_shares(offered, measured, traffic, wish)
    cold_start_ns = served.cold_start_ns + wish.provision_ns
    table = scenarios(every, traffic, floor=wish.floor, cold_start_ns=cold_start_ns)
    replicas = _cheapest_replicas(every, traffic, wish, cold_start_ns)
    options = tuple(_option(unit, traffic, wish, coefficients, cold_start_ns, replicas) for unit in every)
    zero = _zero(replicas, traffic, wish, cold_start_ns) if replicas else None
    chosen = _recommended(table[0], every)
    promise = promising.promise(chosen, measured, traffic, wish, wish.floor) if chosen else None
    keeper = None
    if chosen and promise and not promise.holds:
        keeper = promising.keeper(_candidates(every, chosen, replicas), promise, measured, traffic, wish)
    tier, tier_reason = _tier(table, every, traffic)
    return Advice(
        measured=measured,
        disagreements=disagreements(measured, manifest),
        capacity=capacity,
        traffic=traffic,
        wish=wish,
        region=offers.region,
        options=options,
        scenarios=table,
        zero=zero,
        promise=promise,
        keeper=keeper,
        loads=promising.loads(chosen, measured, wish.seed),
        judged=accuracy.judged(manifest),
        tier=tier,
        tier_reason=tier_reason,
        verdict=verdict(options, table, zero, promise, keeper, traffic, wish.objective_ns),
    )


def _capacity(measured: Measured, wish: Wish) -> Capacity:
    return capacities.of_worker(
        measured.served.service, objective_ns=wish.objective_ns, target=wish.target, seed=wish.seed
    )


def _cheapest_replicas(every: tuple[Unit, ...], traffic: Traffic, wish: Wish, cold_start_ns: int) -> Unit | None:
    """Of CPUs that stay up: what GPUs and scaling to zero are compared with."""
    kept = [unit for unit in units.usable(every, gpu=False) if unit.offer.kind != "function"]
    floor = max(1, wish.floor)
    return min(
        kept,
        key=lambda unit: costing.cost(traffic, unit, floor=floor, cold_start_ns=cold_start_ns).cost_picousd,
        default=None,
    )


def _option(
    unit: Unit, traffic: Traffic, wish: Wish, coefficients: Coefficients, cold_start_ns: int, replicas: Unit | None
) -> Option:
    offer = unit.offer
    bare = Option(offer.name, offer.kind, unit.tier, unit.note, unit.rps)
    if not unit.rps:
        return bare

    def costed(rps: float) -> costing.Costed:
        at = msgspec.structs.replace(unit, rps=rps)
        return costing.cost(traffic, at, floor=wish.floor, cold_start_ns=cold_start_ns)

    here = costed(unit.rps)
    footprint = costing.footprint(here, unit, coefficients)
    energy = None if footprint is None else footprint.energy_nj
    compared = replicas if offer.kind == "gpu" else None
    break_even = costing.break_even_rps(compared, unit, floor=wish.floor) if compared else None
    return msgspec.structs.replace(
        bare,
        million_picousd=here.million_picousd,
        million_low_picousd=costed(unit.rps_high).million_picousd,
        million_high_picousd=costed(unit.rps_low).million_picousd,
        busy_million_picousd=costing.busy_million_picousd(unit) or here.million_picousd,
        month_picousd=here.month_picousd,
        replicas_min=here.replicas_min,
        replicas_peak=here.replicas_peak,
        energy_million_nj=energy
        and Span(*(round(one * 1e6 / here.requests) for one in msgspec.structs.astuple(energy))),
        sci_thousand_ng=footprint and sci_per_thousand_ng(footprint, max(1, round(here.requests))),
        carbon_tier=footprint and footprint.tier,
        break_even_rps=break_even,
        is_sure=break_even is not None and break_even < max(1, wish.floor) * unit.rps_low,
    )


def _zero(unit: Unit, traffic: Traffic, wish: Wish, cold_start_ns: int) -> Zero:
    kept = costing.cost(traffic, unit, floor=max(1, wish.floor), cold_start_ns=cold_start_ns)
    zero = costing.cost(traffic, unit, floor=0, cold_start_ns=cold_start_ns)
    wake_usd = costing.price_usd(unit, "list") * cold_start_ns / (3600 * 10**9)
    return Zero(
        offer=unit.offer.name,
        kept_month_picousd=kept.month_picousd,
        zero_month_picousd=zero.month_picousd,
        wakes_per_month=traffic.wakes * costing.MONTH_S / traffic.seconds,
        cold_start_ns=cold_start_ns,
        wake_picousd=round(wake_usd * 10**12),
        silent_share=traffic.silent_share,
    )


def _recommended(base: Scenario, every: tuple[Unit, ...]) -> Unit | None:
    """Whom the verdict names: of an undecided one the CPU, until the GPU is measured."""
    name = base.gpu if base.winner == "gpu" else base.cpu
    return next((unit for unit in every if unit.offer.name == name), None)


def _candidates(every: tuple[Unit, ...], chosen: Unit, replicas: Unit | None) -> list[Unit]:
    """Who might keep an objective that the chosen one misses. All functions answer alike: the cheapest stands for them."""
    every_function = [unit for unit in units.usable(every, gpu=False) if unit.offer.kind == "function"]
    function = min(every_function, key=lambda unit: Decimal(unit.offer.usd), default=None)
    kept = None if chosen.offer.kind == "function" else chosen
    found = {unit.offer.name: unit for unit in (kept, replicas, function) if unit is not None}
    return list(found.values())


def _tier(table: tuple[Scenario, ...], every: tuple[Unit, ...], traffic: Traffic) -> tuple[Tier, str]:
    """An assumption that changes nothing within its range costs no confidence; a made-up traffic does."""
    base = table[0]
    if base.winner == "undecided":
        return "assumed", "where the GPU's throughput lies in its assumed range decides"
    if not traffic.is_observed:
        return "assumed", "the traffic was not observed"
    chosen = next((unit for unit in every if unit.offer.name == (base.gpu if base.winner == "gpu" else base.cpu)), None)
    if chosen is None or chosen.tier == "assumed":
        return "assumed", "nothing was measured of what it chooses" if chosen is None else chosen.note
    return (
        "modelled",
        "observed traffic, list prices, and CPU time measured on this host rather than on the one that is priced",
    )


def curves(
    measured: Measured, manifest: Manifest, traffic: Traffic, offers: OfferFile, coefficients: Coefficients, wish: Wish
) -> tuple[Curve, ...]:
    """Cost and carbon per million at constant rates, of every offer that can serve; today's rate is among them."""
    capacity = _capacity(measured, wish)
    every = units.of_offers(offers, measured, manifest, capacity, objective_ns=wish.objective_ns, target=wish.target)
    cold_start_ns = measured.served.cold_start_ns + wish.provision_ns
    top = max((unit.rps for unit in every), default=1.0) * 3
    decades = max(CURVE_DECADES, 0.3 + log10(top / traffic.mean_rps))
    steps = reversed(range(ceil(decades * CURVE_STEPS_PER_DECADE)))
    rates = [top * 10 ** (-step / CURVE_STEPS_PER_DECADE) for step in steps]

    def costs(unit: Unit, rps: float) -> list[costing.Costed]:
        found = []
        for one in rates:
            share = max(units.COLD_SHARE, functions.cold_share_at(one))
            at = msgspec.structs.replace(unit, rps=rps, cold_share=share)
            found.append(costing.cost(at_rate(one), at, floor=wish.floor, cold_start_ns=cold_start_ns))
        return found

    def points(unit: Unit, rps: float) -> tuple[tuple[float, int], ...]:
        return tuple((one, cost.million_picousd) for one, cost in zip(rates, costs(unit, rps), strict=True))

    def grams(unit: Unit) -> tuple[tuple[float, int], ...]:
        found = zip(rates, costs(unit, unit.rps), strict=True)
        carbon = ((one, costing.million_ng(cost, unit, coefficients)) for one, cost in found)
        return tuple((one, ng) for one, ng in carbon if ng)

    return tuple(
        Curve(
            name=unit.offer.name,
            is_gpu=unit.offer.kind == "gpu",
            points=points(unit, unit.rps),
            low=points(unit, unit.rps_high) if unit.rps_high > unit.rps_low else (),
            high=points(unit, unit.rps_low) if unit.rps_high > unit.rps_low else (),
            grams=grams(unit),
        )
        for unit in every
        if unit.rps
    )
