"""Energy and carbon of a report: whatever one groups by, the rows add up to what the containers took, to the nanojoule."""

import csv
import io
import tempfile
from collections import defaultdict
from pathlib import Path

import duckdb
import msgspec
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.accounting import footprint
from gateway.accounting.footprint import Claim, Held
from gateway.cli.costs import costs as command
from gateway.contract import codec, energy, layout, prices
from gateway.contract.energy import Footprint, Span, Use, processor_of
from gateway.contract.ledger import Charge, Open, Posting, Segment
from gateway.errors import ModelNotFound
from gateway.reports import breakdown, energyview, export, powered, tables
from gateway.reports.breakdown import Breakdown, Sheet
from gateway.reports.query import DIMENSIONS, VIEWS, Dimension, Query, View
from tests.support import ledgers
from tests.support.ledgers import HOUR_NS, MEMORY, T0_NS, VCPU, Ledger

MINUTE_NS = 60 * 10**9
HERE = {ledgers.BOOK: "us-east-1"}
SERVED = Posting("infer", VCPU, 600, 30 * MINUTE_NS, "digits", 1, "acme", "ok", 2, 4)
OTHER = Posting("infer", VCPU, 200, 10 * MINUTE_NS, "flights", 7, "", "ok", 1, 1)
IDLE = Posting("idle_cpu", VCPU, 1000, 1960 * MINUTE_NS)
WARM = Posting("resident", MEMORY, 100, (1 << 30) * MINUTE_NS, "digits", 1)
FREE = Posting("idle_mem", MEMORY, 300, (3 << 30) * MINUTE_NS)
FIGURES = ("energy_nj", "operational_ng", "embodied_ng")


def reported(ledger: Ledger, regions: dict[str, str] | None = None, **asked: object) -> Breakdown:
    made = read(ledger, regions, **asked)
    return breakdown.report(made, made.query.by)


def read(ledger: Ledger, regions: dict[str, str] | None = None, **asked: object) -> Sheet:
    chosen = Query(**asked)  # type: ignore[arg-type]
    source = powered.Source(energy.load(), HERE if regions is None else regions)
    with tempfile.TemporaryDirectory() as folder, tables.opened(ledgers.write(Path(folder), ledger)) as connection:
        return breakdown.sheet(connection, chosen, source)


def segment(*postings: Posting) -> list[Charge | Posting]:
    bill = {sku: sum(posting.cost_picousd for posting in postings if posting.sku == sku) for sku in (VCPU, MEMORY)}
    return [*ledgers.charges(bill[VCPU], bill[MEMORY]), *postings]


def figures(of: Footprint) -> tuple[int, ...]:
    return tuple(number for name in FIGURES for number in msgspec.structs.astuple(getattr(of, name)))


def summed(report: Breakdown) -> tuple[int, ...]:
    assert report.energy is not None
    parts = [figures(row.footprint) for row in report.rows if row.footprint] + [figures(report.energy.others)]
    return tuple(map(sum, zip(*parts, strict=True)))


def containers(ledger: Ledger) -> tuple[int, ...]:
    """What all containers took, read from the ledger's lines and nothing of the report's: by container and hour."""
    hours: dict[tuple[str, int, int], list[Charge | Posting]] = defaultdict(list)
    for key in ledgers.segment_keys(ledger):
        head, *rows = ledgers.lines(ledger[key])
        assert isinstance(head, Segment)
        hour = (head.container, head.boot_ns, head.from_ns // HOUR_NS)
        hours[hour] += [row for row in rows if isinstance(row, Charge | Posting)]
    total = [0] * 9
    for rows in hours.values():
        charges = [row for row in rows if isinstance(row, Charge)]
        held = Held(*(sum(row.quantity for row in charges if row.sku == sku) for sku in (VCPU, MEMORY)))
        vcpu = [row for row in rows if isinstance(row, Posting) and row.sku == VCPU]
        work = defaultdict(int)
        for row in vcpu:
            work[row.account, row.model, row.version, row.tenant, row.outcome] += row.quantity
        worked = sum(sum_ // 1000 for key, sum_ in work.items() if key[0] in {"infer", "load", "overhead", "ledger"})
        perhaps = sum(sum_ // 1000 for key, sum_ in work.items() if key[0] == "boot")
        claims = [Claim(cpu_ns=worked, perhaps_cpu_ns=perhaps)]
        took = figures(footprint.whole("x86", held, claims, energy.load()))
        total = [one + more for one, more in zip(total, took, strict=True)]
    return tuple(total)


# What adds up


@settings(max_examples=40, deadline=None)
@given(
    st.integers(0, 2**32),
    st.lists(st.sampled_from(DIMENSIONS), min_size=1, unique=True).map(tuple),
    st.sampled_from(VIEWS),
    st.sampled_from([None, "digits"]),
)
def test_rows_and_what_filters_leave_out_are_what_the_containers_took(
    seed: int, by: tuple[Dimension, ...], view: View, model: str | None
):
    ledger = ledgers.random_ledger(seed)
    try:
        report = reported(ledger, by=by, view=view, model=model)
    except ModelNotFound:
        return
    assert report.energy is not None
    assert summed(report) == figures(report.energy.whole) == containers(ledger)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32), st.lists(st.sampled_from(DIMENSIONS), min_size=1, unique=True), st.sampled_from(VIEWS))
def test_groupings_differ_by_rounding_only(seed: int, by: list[Dimension], view: View):
    """Shares are summed before they are split, by what is asked for: the page's models are the table's."""
    made = read(ledgers.random_ledger(seed), by=tuple(by), view=view)
    coarse, fine = breakdown.took(made, ("model", "version")), breakdown.took(made, ("model", "version", *by))
    assert coarse is not None
    assert fine is not None
    parts: dict[object, list[Footprint]] = defaultdict(list)
    for key, took in fine.items():
        parts[key and key[:2]].append(took)
    assert parts.keys() == coarse.keys()
    for key, took in coarse.items():
        pairs = zip(figures(took), figures(powered.together(parts[key])), strict=True)
        assert all(abs(one - other) <= 2 * len(made.every) + 28 for one, other in pairs)
    assert figures(powered.together(coarse.values())) == figures(powered.together(fine.values()))


def test_many_containers_are_taken_together_and_lose_nothing(monkeypatch: pytest.MonkeyPatch):
    ledger = {}
    for index in range(7):
        ledger |= ledgers.container(f"c{index}", [segment(SERVED, OTHER, IDLE, WARM, FREE)] * 3)
    each = reported(ledger, by=("model", "activity"), view="direct")
    monkeypatch.setattr(powered, "HOURS_MAX", 6)
    folded = reported(ledger, by=("model", "activity"), view="direct")
    assert folded.energy is not None
    assert summed(folded) == figures(folded.energy.whole)
    for one, other in zip(each.rows, folded.rows, strict=True):
        assert one.footprint is not None
        assert other.footprint is not None
        assert all(abs(a - b) <= 28 for a, b in zip(figures(one.footprint), figures(other.footprint), strict=True))


quantities = st.integers(0, 10**20)
claims = st.lists(st.builds(Claim, quantities, quantities, quantities, quantities), min_size=1, max_size=20)


@settings(deadline=None)
@given(st.sampled_from(["x86", "arm"]), st.builds(Held, quantities, quantities), claims)
def test_shares_of_a_container_and_window_are_its_energy_to_the_nanojoule(processor, held: Held, found: list[Claim]):
    parts = footprint.of_container(processor, held, found, energy.load())
    whole = footprint.whole(processor, held, found, energy.load())
    assert len(parts) == len(found)
    assert tuple(map(sum, zip(*map(figures, parts), strict=True))) == figures(whole)
    for part in parts:
        assert min(figures(part)) >= 0
    for span in (whole.energy_nj, whole.operational_ng, whole.embodied_ng):
        assert span.low <= span.value <= span.high


# Who took it


def test_a_minute_by_hand():
    report = reported(
        ledgers.container("c", [segment(SERVED, OTHER, IDLE, WARM, FREE)]), by=("model", "activity"), view="direct"
    )
    rows = {(row.model, row.activity): row.footprint for row in report.rows if row.footprint}
    coefficients = energy.load()
    working = energy.working(Use("x86", 0, 0, 0, cpu_ns=30 * MINUTE_NS // 1000), coefficients).energy_nj.value
    vcpus = energy.idle(Use("x86", 30, 0, MINUTE_NS, 0), coefficients)
    assert abs(rows["digits", "infer"].energy_nj.value - working - vcpus.energy_nj.value) <= 1
    assert abs(rows["digits", "infer"].embodied_ng.value - vcpus.embodied_ng.value) <= 1
    warm = energy.idle(Use("x86", 0, 1 << 30, MINUTE_NS, 0), coefficients)
    assert abs(rows["digits", "resident"].energy_nj.value - warm.energy_nj.value) <= 1
    assert rows["digits", "resident"].embodied_ng.value == 0
    assert rows["", "idle_cpu"].embodied_ng.value > 60 * rows["digits", "infer"].embodied_ng.value


def test_energy_moves_by_the_weights_of_the_money():
    ledger = ledgers.container("c", [segment(SERVED, OTHER, IDLE)])
    own = {row.model: row.footprint for row in reported(ledger, by=("model",), view="direct").rows}
    full = {row.model: row.footprint for row in reported(ledger, by=("model",), view="full").rows}
    moved = full["digits"].energy_nj.value - own["digits"].energy_nj.value  # type: ignore[union-attr]
    shared = own[""].energy_nj.value  # type: ignore[union-attr]
    assert moved in {shared * 3 // 4, shared * 3 // 4 + 1}  # 600 p$ of 800
    assert full[""].is_nothing  # type: ignore[union-attr]


def test_boot_works_perhaps_and_that_is_its_high_end_only():
    booting = Posting("boot", VCPU, 5, 2000 * MINUTE_NS)
    [boot] = reported(ledgers.container("c", [segment(booting)]), by=("activity",)).rows
    [idle] = reported(
        ledgers.container("c", [segment(msgspec.structs.replace(booting, account="idle_cpu"))]), by=("activity",)
    ).rows[1:]
    assert boot.footprint.energy_nj.value == idle.footprint.energy_nj.value  # type: ignore[union-attr]
    assert boot.footprint.energy_nj.high > 2 * idle.footprint.energy_nj.high  # type: ignore[union-attr]


def test_what_is_billed_beyond_a_life_took_nothing():
    lived = reported(ledgers.container("c", [segment(SERVED, IDLE, FREE)]))
    charges = [
        msgspec.structs.replace(charge, beyond=charge.quantity * 9) for charge in segment(SERVED, IDLE, FREE)[:2]
    ]
    beyond = Posting("boot", VCPU, 0, 9 * 2000 * MINUTE_NS)
    billed = reported(ledgers.container("c", [[*charges, SERVED, IDLE, FREE, beyond]]), by=("activity",), view="direct")
    assert lived.energy is not None
    assert billed.energy is not None
    assert figures(billed.energy.whole) == figures(lived.energy.whole)
    boot = next(row for row in billed.rows if row.activity == "boot")
    assert boot.footprint is not None
    assert boot.footprint.is_nothing


def test_money_without_time_took_nothing_and_assumes_nothing():
    timeless = [msgspec.structs.replace(charge, quantity=0) for charge in ledgers.charges(500, 0)]
    other = ledgers.container("x", [[*timeless, Posting("overhead", VCPU, 500, 0)]])
    del other[layout.container_open("x", T0_NS)]
    report = reported(ledgers.container("c", [segment(SERVED, IDLE)]) | other, by=("activity",), view="direct")
    assert report.energy is not None
    assert (report.energy.notes, report.energy.whole.tier) == ((), "modelled")
    assert next(row for row in report.rows if row.activity == "overhead").footprint.is_nothing  # type: ignore[union-attr]


def test_charges_without_postings_are_nobodys_and_not_lost():
    report = reported(ledgers.container("c", [ledgers.charges(0, 0)]), by=("activity",), view="direct")
    rows = {row.activity: row.footprint for row in report.rows}
    assert report.energy is not None
    assert rows["unattributed"] == report.energy.whole


def test_sci_is_all_carbon_per_thousand_answers_and_none_without_any():
    report = reported(ledgers.container("c", [segment(SERVED, IDLE)]), by=("model",), view="direct")
    by_model = {row.model: row for row in report.rows}
    took = by_model["digits"].footprint
    assert took is not None
    assert by_model["digits"].sci_per_1000_rows_ng == Span(
        *(ng * 250 for ng in msgspec.structs.astuple(took.carbon_ng))
    )
    assert by_model[""].sci_per_1000_rows_ng is None


# How sure it is


@pytest.mark.parametrize(
    ("platform", "processor"),
    [
        ("fargate-x86", "x86"),
        ("fargate-spot-arm", "arm"),
        ("lambda-arm", "arm"),
        ("ec2-c7i.large", "x86"),
        ("ec2-c7g.large", "arm"),
        ("ec2-g4dn.xlarge", "x86"),
        ("machine", None),
        ("", None),
    ],
)
def test_platforms_name_their_processor_or_do_not(platform: str, processor: str | None):
    assert processor_of(platform) == processor


def test_every_shipped_platform_on_aws_names_its_processor():
    named = [platform.name for platform in prices.load().platforms if processor_of(platform.name) is None]
    assert named == ["machine"]


@pytest.mark.parametrize(
    ("regions", "tier", "says"),
    [
        (HERE, "modelled", None),
        ({}, "assumed", "the price book is not there"),
        ({ledgers.BOOK: "eu-north-1"}, "modelled", None),
        ({ledgers.BOOK: "us-central1"}, "assumed", "coefficients are of us-east-1, the price book is of us-central1"),
    ],
)
def test_a_region_without_a_grid_is_assumed_and_said(regions: dict[str, str], tier: str, says: str | None):
    report = reported(ledgers.container("c", [segment(SERVED, IDLE)]), regions)
    assert report.energy is not None
    assert report.energy.whole.tier == tier
    assert [says in note for note in report.energy.notes] == [True] * bool(says)  # type: ignore[operator]


def test_another_region_has_its_own_grid_and_everything_else_alike():
    ledger = ledgers.container("c", [segment(SERVED, IDLE)])
    here, there = (reported(ledger, {ledgers.BOOK: region}).energy for region in ("us-east-1", "eu-north-1"))
    assert here is not None
    assert there is not None
    assert (here.region, there.region) == ("us-east-1", "eu-north-1")
    assert (here.whole.energy_nj, here.whole.embodied_ng) == (there.whole.energy_nj, there.whole.embodied_ng)
    assert there.whole.operational_ng.value * 51 < here.whole.operational_ng.value  # 8 to 415.8 g/kWh


def test_unnamed_processor_is_taken_for_x86_and_said():
    ledger = ledgers.container("c", [segment(SERVED, IDLE)])
    key = layout.container_open("c", T0_NS)
    opened = msgspec.structs.replace(codec.decode(ledger[key], Open, what="open"), platform="machine")
    report = reported(ledger | {key: codec.encode(opened)})
    assert report.energy is not None
    assert report.energy.whole.tier == "assumed"
    assert "platform 'machine' does not name its processor" in report.energy.notes[0]


# Forms


def run(tmp_path: Path, *arguments: str) -> str:
    ledgers.write(tmp_path / "store", ledgers.container("c", [segment(SERVED, OTHER, IDLE, WARM, FREE)]))
    options = ["--store", str(tmp_path / "store"), "--cache", str(tmp_path / "cache")]
    result = CliRunner(env={"COLUMNS": "120"}).invoke(command, [*options, *arguments])
    assert result.exit_code == 0, result.output
    return result.output


def test_table_stays_within_120_columns_and_says_what_was_assumed(tmp_path: Path):
    text = run(tmp_path, "--energy", "--by", "model,version,activity")
    table = text[text.index("Energy and carbon") :].split("\n\n")[0]
    assert max(map(len, table.splitlines()[:-3])) <= 120
    assert "mg CO2e" in text or "µg CO2e" in text or "g CO2e" in text
    assert "energy is assumed" in text
    assert "Energy and carbon" not in run(tmp_path, "--by", "model")


def test_files_carry_flat_integers_that_add_up(tmp_path: Path):
    rows = list(csv.DictReader(io.StringIO(run(tmp_path, "--csv", "--energy", "--by", "model", "--model", "digits"))))
    whole = msgspec.json.decode(run(tmp_path, "--json", "--energy", "--by", "model"), type=Breakdown).energy
    assert whole is not None
    assert {row["model"] for row in rows if row["cost_picousd"] != "0"} == {"digits", "(others)"}
    assert sum(int(row["energy_nj"] or 0) for row in rows) == whole.whole.energy_nj.value
    assert sum(int(row["carbon_high_ng"] or 0) for row in rows) == whole.whole.carbon_ng.high
    path = tmp_path / "costs.parquet"
    run(tmp_path, "--format", "parquet", "--energy", "--by", "model", "--out", str(path))
    with duckdb.connect() as connection:
        found = connection.execute(f"SELECT sum(energy_low_nj), any_value(energy_tier) FROM '{path}'").fetchone()
    assert found == (whole.whole.energy_nj.low, "assumed")


def test_nobody_asks_nothing_is_computed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def computed(*_: object) -> None:
        raise AssertionError("energy was computed, and nobody asked")

    monkeypatch.setattr(powered, "taken", computed)
    page = tmp_path / "costs.html"
    run(tmp_path, "--html", str(page))
    assert "Energy and carbon" not in page.read_text()
    report = msgspec.json.decode(run(tmp_path, "--json", "--by", "model"), type=Breakdown)
    assert report.energy is None
    assert {row.footprint for row in report.rows} == {None}
    [first, *_] = csv.DictReader(io.StringIO(run(tmp_path, "--csv", "--by", "model")))
    assert first["energy_nj"] == first["energy_tier"] == ""
    with pytest.raises(AssertionError, match="nobody asked"):
        CliRunner().invoke(command, ["--store", str(tmp_path / "store"), "--energy"], catch_exceptions=False)


def test_the_page_tells_energy_that_is_asked_for(tmp_path: Path):
    page = tmp_path / "costs.html"
    run(tmp_path, "--html", str(page), "--energy", "--by", "tenant,day")
    assert "Energy and carbon" in page.read_text()
    assert "Carbon of 1,000 predictions" in page.read_text()


def test_own_coefficients_are_used_and_a_bad_file_is_named(tmp_path: Path):
    shipped = (Path(__file__).parents[2] / "infra/energy/aws-us-east-1.toml").read_text()
    mine = tmp_path / "mine.toml"
    mine.write_text(shipped.replace('value = "415.8"\nlow = "370"', 'value = "52"\nlow = "52"'))
    before, after = (
        msgspec.json.decode(run(tmp_path, "--json", "--energy", *more), type=Breakdown).energy
        for more in ((), ("--energy-book", str(mine)))
    )
    assert before is not None
    assert after is not None
    assert after.whole.energy_nj == before.whole.energy_nj
    assert after.whole.operational_ng.value < before.whole.operational_ng.value // 7
    mine.write_text("region = 1")
    refused = CliRunner().invoke(command, ["--store", str(tmp_path / "store"), "--energy-book", str(mine)])
    assert refused.exit_code != 0
    assert "mine.toml" in f"{refused.output}{refused.exception}"


def test_nothing_is_told_without_energy():
    report = reported(ledgers.container("c", [segment(SERVED)]))
    without = msgspec.structs.replace(report, energy=None)
    assert energyview.told(without) is None
    assert energyview.basis(without) == ()
    assert b"energy_nj" in export.encoded(without, "csv")
