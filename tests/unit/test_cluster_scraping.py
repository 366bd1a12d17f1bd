"""The figures of a cluster's table, read from a page as the gateway writes it and as Prometheus's own library does."""

from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest

from gateway.cluster.scraping import Figures, figures, total
from gateway.telemetry import definitions as d


def test_a_page_is_summed_over_models_and_exact_in_picodollars() -> None:
    picodollars = 2**53 + 1  # no float has it
    page = "\n".join(
        [
            f"# TYPE {d.COST_PICODOLLARS.name} counter",
            f'{d.COST_PICODOLLARS.sample}{{model="a b",version="1"}} {picodollars}',
            f'{d.COST_PICODOLLARS.sample}{{model="b}} 7",version="2"}} 5',
            f'{d.REQUESTS.sample}{{model="a",version="1",outcome="ok"}} 3',
            f'{d.REQUESTS.sample}{{model="a",version="1",outcome="shed"}} 4',
            f"{d.SATURATION.sample} 0.75",
            f'{d.SATURATION_PART.sample}{{part="cpu"}} 0.75',
            f"{d.RESIDENT_VERSIONS.sample} 2",
            "something_else NaN",
        ]
    )
    found = figures(page)
    assert found == Figures(requests=7, cost_picousd=picodollars + 5, models=2, saturation=0.75)


def test_prometheus_own_format_is_read() -> None:
    registry = CollectorRegistry()
    Counter(d.LOADS.name, "-", registry=registry).inc(3)
    Gauge(d.IN_FLIGHT_REQUESTS.name, "-", registry=registry).set(2)
    Counter(d.REFUSALS.name, "-", ["reason"], registry=registry).labels("budget").inc(4)
    assert figures(generate_latest(registry).decode()) == Figures(loads=3, in_flight=2, refusals=4)


def test_all_gateways_together() -> None:
    both = total(
        [Figures(requests=1, cost_picousd=2, saturation=0.5), Figures(requests=3, cost_picousd=4, saturation=0.1)]
    )
    assert (both.requests, both.cost_picousd, both.saturation) == (4, 6, 0.3)
    assert total([]) == Figures()
