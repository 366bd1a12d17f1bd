"""Traffic against the rate from which a GPU pays: rates and CPU time by hand, ranges in order, measured figures before assumed."""

import re
import tempfile
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.contract import energy, layout, offers
from gateway.contract.ledger import Charge, Posting
from gateway.contract.manifest import GpuFigure
from gateway.objectstore.local import LocalStore
from gateway.reports import lanes, plotdata
from gateway.reports.breakeven import OBJECTIVE_NS, TARGET, Demand, standings
from gateway.reports.lanes import Lane
from gateway.reports.page import html
from gateway.reports.plotdata import PageData
from gateway.reports.query import Query
from tests.support import ledgers, models
from tests.support.ledgers import HOUR_NS, MEMORY, T0_NS, VCPU, Ledger

MS = 10**6
BUSY = Posting("infer", VCPU, 10, 6000 * 20 * MS * 1000, "digits", 1, "", "ok", 6000, 12_000)
AROUND = Posting("overhead", VCPU, 10, 6000 * MS * 1000)
FILE = offers.load()


def segment(*postings: Posting) -> list[Charge | Posting]:
    bill = {sku: sum(posting.cost_picousd for posting in postings if posting.sku == sku) for sku in (VCPU, MEMORY)}
    return [*ledgers.charges(bill[VCPU], bill[MEMORY]), *postings]


def gathered(ledger: Ledger, **asked: object) -> PageData:
    with tempfile.TemporaryDirectory() as folder:
        data, _, _ = plotdata.gather(ledgers.write(Path(folder), ledger), Query(**asked), energy.load())  # type: ignore[arg-type]
        return data


def demand(cpu_ms: float = 20.0, around_ms: float = 1.0, rows: float = 1.0) -> Demand:
    return Demand("digits", 1, 10.0, 20.0, (cpu_ms + around_ms) * MS, around_ms * MS, rows)


def figure(rows_per_s: float, p99_ns: int = MS, gpu: str = "T4") -> GpuFigure:
    return GpuFigure(gpu, "fp16", 32, rows_per_s, p99_ns, 100)


# Demand


def test_rate_and_cpu_time_of_a_request_by_hand():
    [one] = gathered(ledgers.container("c", [segment(BUSY, AROUND)] * 2)).standings
    assert one.demand.mean_rps == one.demand.peak_rps == 100.0  # 12,000 in two minutes
    assert one.demand.request_cpu_ns == 21 * MS
    assert one.demand.around_cpu_ns == 1 * MS
    assert one.demand.rows_per_request == 2.0


def test_only_the_last_day_counts_and_silence_lowers_the_mean():
    old = ledgers.container("a", [segment(BUSY)], boot_ns=T0_NS - 40 * HOUR_NS)
    quiet = Posting("idle_cpu", VCPU, 1, 1)
    new = ledgers.container("b", [segment(BUSY, AROUND), segment(quiet)])
    [one] = gathered(old | new).standings
    assert one.demand.mean_rps == pytest.approx(6000 / (24 * 3600), rel=0.05)
    assert one.demand.peak_rps == 50.0  # two minutes of its hour are in the ledger


def test_a_model_nobody_asked_has_no_lane():
    warm = Posting("resident", MEMORY, 1, 5, "digits", 1)
    data = gathered(ledgers.container("c", [segment(warm)]))
    assert data.standings == ()
    assert "CPU against GPU" not in html(data)


# Break-even


def test_rate_is_that_of_advise():
    [one] = standings([demand(4.0, 1.0)], FILE, {}, "x86")
    cpu = next(offer for offer in FILE.offer if offer.name == one.cpu)
    gpu = next(offer for offer in FILE.offer if offer.name == one.perhaps_gpu)
    assert (one.cpu, one.perhaps_gpu) == ("c7i.large", "g4dn.xlarge")
    assert one.perhaps_rps == pytest.approx(float(gpu.usd) / (float(cpu.usd) / 2) * 200 * TARGET)
    assert one.surely_rps is None  # at 2.4 vCPUs no GPU pays
    assert not one.is_measured


@settings(deadline=None)
@given(st.floats(0.05, 1000), st.floats(0.001, 10))
def test_the_sure_rate_is_never_below_the_possible_one(cpu_ms: float, around_ms: float):
    for one in standings([demand(cpu_ms, around_ms)], FILE, {}, "x86"):
        assert one.surely_rps is None or (one.perhaps_rps is not None and one.perhaps_rps <= one.surely_rps)


def test_what_the_training_job_measured_replaces_the_assumption():
    fast = {("digits", 1): (figure(100_000.0),)}
    [one] = standings([demand()], FILE, fast, "x86")
    assert one.is_measured
    assert one.surely_gpu == one.perhaps_gpu == "g4dn.xlarge"
    assert one.surely_rps == one.perhaps_rps is not None


@pytest.mark.parametrize("figures", [(figure(2.0),), (figure(100_000.0, p99_ns=OBJECTIVE_NS + 1),)])
def test_a_gpu_that_was_measured_slow_or_late_does_not_pay(figures: tuple[GpuFigure, ...]):
    only_t4 = msgspec.structs.replace(FILE, offer=tuple(one for one in FILE.offer if one.gpu in {"", "T4"}))
    [one] = standings([demand()], only_t4, {("digits", 1): figures}, "x86")
    assert (one.perhaps_rps, one.surely_rps) == (None, None)


def test_rows_of_a_request_are_answered_one_by_one():
    only_t4 = msgspec.structs.replace(FILE, offer=tuple(one for one in FILE.offer if one.gpu in {"", "T4"}))
    [alone] = standings([demand(rows=1)], only_t4, {("digits", 1): (figure(1000.0),)}, "x86")
    [many] = standings([demand(rows=100)], only_t4, {("digits", 1): (figure(1000.0),)}, "x86")
    assert alone.perhaps_rps is not None
    assert many.perhaps_rps is None  # ten requests a second


def test_its_own_vcpus_limit_a_gpu():
    [one] = standings([demand(cpu_ms=0.01, around_ms=5.0)], FILE, {("digits", 1): (figure(1e9),)}, "x86")
    assert one.perhaps_gpu != "g4dn.xlarge"  # its four vCPUs read and write 800 a second


def test_without_offers_for_the_architecture_nothing_is_compared():
    bare = msgspec.structs.replace(FILE, offer=tuple(one for one in FILE.offer if one.architecture == "x86"))
    assert standings([demand()], bare, {}, "arm") == ()
    unknown = msgspec.structs.replace(FILE, assumption=())
    assert standings([demand()], unknown, {}, "x86") == ()


# On the page


def test_page_draws_a_lane_per_model_and_the_band_of_what_is_assumed():
    page = html(gathered(ledgers.container("c", [segment(BUSY, AROUND)] * 2)))
    assert "CPU against GPU" in page
    assert "100/s, peak 100/s; a GPU may pay from" in page
    assert 'class="k-perhaps" x="' in page
    assert 'class="k-gpu" x="' not in page


async def test_page_uses_the_manifests_figures(tmp_path: Path):
    (tmp_path / "store").mkdir()
    store = LocalStore(tmp_path / "store")
    made, files = models.manifest_of("digits", models.mlp_signature(), {"fp32": models.mlp_graph()})
    await models.publish_files(store, msgspec.structs.replace(made, gpu=(figure(100_000.0),)), files)
    ledgers.write(tmp_path / "store", ledgers.container("c", [segment(BUSY, AROUND)] * 2))
    data = await plotdata.read(store, tmp_path / "cache", Query())
    [one] = data.standings
    assert one.is_measured
    assert "a GPU pays from" in html(data)
    assert (tmp_path / "store" / layout.LEDGER).is_dir()


rates = st.floats(1e-6, 1e6)


@settings(deadline=None)
@given(st.lists(st.tuples(rates, rates, st.none() | rates, st.none() | rates), min_size=1, max_size=20))
def test_nothing_leaves_the_lanes(values: list[tuple[float, float, float | None, float | None]]):
    rows = [
        Lane("m", "w", mean, max(mean, peak), first, first and last and max(first, last), ("a", "b", "c"))
        for mean, peak, first, last in values
    ]
    drawn = lanes.draw(rows, "rate", title="t")
    spans = re.findall(r'<rect [^>]*x="([^"]+)"[^>]* width="([^"]+)"', drawn)
    assert len(re.findall("<circle", drawn)) == min(len(rows), lanes.LANES_MAX)
    for x, width in spans:
        assert lanes.LEFT - 0.1 <= float(x) <= float(x) + float(width) <= 400 - lanes.RIGHT + 0.1
    for centre in re.findall(r'cx="([^"]+)"', drawn):
        assert lanes.LEFT <= float(centre) <= 400 - lanes.RIGHT
