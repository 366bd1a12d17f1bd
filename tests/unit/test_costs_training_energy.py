"""Energy and carbon of training: by hand, in portions that add up to the last nanojoule, unknown where nothing was recorded."""

import io
import itertools
from fractions import Fraction

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from gateway.contract import energy
from gateway.contract.energy import ZERO, Footprint, Span
from gateway.contract.runs import Allotment, AttemptEnd, MachineUse, Progress, TrainingCharge
from gateway.contract.words import DAY_NS, HOUR_NS
from gateway.errors import SettingsError
from gateway.reports import trainingpower, trainingview
from gateway.reports.amortizing import portion
from gateway.reports.breakdown import Breakdown, Energy
from gateway.reports.query import Plan, Query
from gateway.reports.training import Known
from gateway.reports.trainingpower import Portions, Took, of_attempt, of_attempts, portions, with_sci
from tests.support import trainingruns
from trainers.runs import settle

SHIPPED = energy.load()
GB = 2**30
HERE = Allotment("x86", 2000, 4 * GB, "us-east-1")
T0_NS = 1_793_880_000 * 10**9
FIGURES = ("energy_nj", "operational_ng", "embodied_ng")
PUE, GRID = Fraction("1.14"), Fraction("415.8")


def hour(allotted: Allotment = HERE, **changes: object) -> MachineUse:
    return MachineUse(allotted, HOUR_NS, HOUR_NS, **changes)  # type: ignore[arg-type]


def figures(of: Footprint) -> tuple[int, ...]:
    return tuple(number for name in FIGURES for number in msgspec.structs.astuple(getattr(of, name)))


# One attempt


def test_an_hour_on_two_cpus_by_hand() -> None:
    took = of_attempt(hour(), SHIPPED)
    watts = 2 * Fraction("1.036") + Fraction("3.124") + 4 * Fraction("0.392")
    assert took.footprint.energy_nj.value == watts * PUE * HOUR_NS
    assert abs(took.footprint.operational_ng.value - watts / 1000 * PUE * GRID * 10**9) <= 1
    assert took.footprint.embodied_ng.value == 240_000_000
    assert (took.footprint.tier, took.counted_nj, took.notes) == ("modelled", 0, ())


def test_what_nvml_counted_is_taken_as_it_is_and_the_building_comes_on_top() -> None:
    counted_nj = 100_000 * 10**9
    took = of_attempt(hour(gpu="Tesla T4", gpus=1, gpu_busy_ns=7, gpu_energy_nj=counted_nj), SHIPPED)
    cpus = of_attempt(hour(), SHIPPED).footprint
    assert took.footprint.energy_nj.value - cpus.energy_nj.value == counted_nj * PUE
    assert took.footprint.energy_nj.low - cpus.energy_nj.low == counted_nj * Fraction("1.04")
    assert took.footprint.embodied_ng.value - cpus.embodied_ng.value == 3_000_000_000
    assert (took.counted_nj, took.footprint.tier) == (counted_nj, "modelled")


def test_a_gpu_that_nobody_counted_is_modelled_by_how_busy_it_was() -> None:
    took = of_attempt(hour(gpu="NVIDIA A10G", gpus=2, gpu_busy_ns=HOUR_NS), SHIPPED).footprint
    watts = 2 * 18 + (153 - 18)
    assert took.energy_nj.value - of_attempt(hour(), SHIPPED).footprint.energy_nj.value == watts * PUE * HOUR_NS


def test_a_gpu_that_nobody_watched_is_anything_from_idle_to_busy_and_says_so() -> None:
    took = of_attempt(hour(gpu="Tesla T4", gpus=1), SHIPPED)
    idle, busy = (of_attempt(hour(gpu="Tesla T4", gpus=1, gpu_busy_ns=ns), SHIPPED) for ns in (0, HOUR_NS))
    assert took.footprint.energy_nj.low == idle.footprint.energy_nj.low
    assert took.footprint.energy_nj.high == busy.footprint.energy_nj.high
    assert idle.footprint.energy_nj.value < took.footprint.energy_nj.value < busy.footprint.energy_nj.value
    assert took.footprint.tier == "assumed"
    assert "nobody measured how busy its GPUs were" in took.notes[0]


@pytest.mark.parametrize(
    ("title", "name"),
    [
        ("Tesla T4", "T4"),
        ("NVIDIA L4", "L4"),
        ("NVIDIA A100-SXM4-40GB", "A100"),
        ("NVIDIA H100 80GB HBM3", "H100"),
        ("NVIDIA H200", "H200"),
    ],
)
def test_gpus_are_found_by_the_names_that_drivers_tell(title: str, name: str) -> None:
    took = of_attempt(hour(gpu=title, gpus=1, gpu_energy_nj=0), SHIPPED).footprint
    making = took.embodied_ng.value - of_attempt(hour(), SHIPPED).footprint.embodied_ng.value
    assert making == Fraction(SHIPPED.of_gpu(name).embodied_g_per_hour.value) * 10**9


@pytest.mark.parametrize("counted", [None, 10**12])
def test_a_gpu_without_coefficients_is_unknown_also_where_nvml_counted(counted: int | None) -> None:
    with pytest.raises(SettingsError, match=r"no energy coefficients for GPU 'NVIDIA A10' \(there are: T4, .*H200\)"):
        of_attempt(hour(gpu="NVIDIA A10", gpus=1, gpu_energy_nj=counted), SHIPPED)


def test_grams_are_of_the_region_where_it_ran() -> None:
    north = of_attempt(hour(msgspec.structs.replace(HERE, region="eu-north-1")), SHIPPED)
    here = of_attempt(hour(), SHIPPED)
    assert north.footprint.energy_nj == here.footprint.energy_nj
    assert abs(north.footprint.operational_ng.value * GRID / 8 - here.footprint.operational_ng.value) < GRID
    assert (north.footprint.tier, north.notes) == ("modelled", ())


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"region": ""}, "nobody knows where; the grid is taken for that of us-east-1"),
        ({"region": "mars-1"}, "it ran in mars-1; the grid is taken"),
        ({"processor": ""}, "its processor is not known; taken for x86"),
    ],
)
def test_what_is_not_known_is_assumed_and_said(changes: dict[str, str], says: str) -> None:
    took = of_attempt(hour(msgspec.structs.replace(HERE, **changes)), SHIPPED)
    assert figures(took.footprint) == figures(of_attempt(hour(), SHIPPED).footprint)
    assert took.footprint.tier == "assumed"
    assert says in took.notes[0]


allotments = st.builds(
    Allotment, st.sampled_from(["x86", "arm", ""]), st.integers(1, 10**6), st.integers(1, 2**42),
    st.sampled_from(["", "us-east-1", "eu-west-3", "mars-1"]),
)  # fmt: skip
amounts = st.integers(0, 10**17)
unaccelerated = st.builds(MachineUse, allotments, amounts, amounts)
accelerated = st.builds(
    MachineUse, allotments, amounts, amounts, st.sampled_from(["Tesla T4", "NVIDIA H200"]), st.integers(1, 8),
    st.none() | amounts, st.none() | st.integers(0, 10**22),
)  # fmt: skip
uses = st.lists(unaccelerated | accelerated, min_size=1, max_size=6)


@settings(deadline=None)
@given(uses)
def test_attempts_add_up_and_no_low_end_is_above_a_high_one(found: list[MachineUse]) -> None:
    took = of_attempts(found, SHIPPED)
    parts = [figures(of_attempt(use, SHIPPED).footprint) for use in found]
    assert figures(took.footprint) == tuple(map(sum, zip(*parts, strict=True)))
    assert took.counted_nj == sum(use.gpu_energy_nj or 0 for use in found)
    for name in FIGURES:
        span = getattr(took.footprint, name)
        assert 0 <= span.low <= span.value <= span.high


# Portions


plans = st.builds(Plan, st.sampled_from(["rows", "days"]), st.integers(1, 1000))


@settings(deadline=None)
@given(
    uses=uses,
    plan=plans,
    edges=st.lists(st.tuples(st.integers(0, 400 * DAY_NS), st.integers(0, 500)), min_size=2, max_size=6),
    retired=st.none() | st.integers(0, 500 * DAY_NS),
    cost=st.none() | st.integers(0, 2**70),
)
def test_what_periods_take_and_what_remains_is_all_of_training(
    uses: list[MachineUse],
    plan: Plan,
    edges: list[tuple[int, int]],
    retired: int | None,
    cost: int | None,
) -> None:
    moments, counts = sorted(T0_NS + at for at, _ in edges), list(itertools.accumulate(count for _, count in edges))
    known = Known(cost, published_ns=T0_NS, uses=tuple(uses))
    retired_ns = None if retired is None else T0_NS + retired
    told = [
        portion(("m", 1), known, plan, pair, period, retired_ns, SHIPPED).energy
        for pair, period in zip(itertools.pairwise(counts), itertools.pairwise(moments), strict=True)
    ]
    assert told[0] is not None
    whole = figures(of_attempts(uses, SHIPPED).footprint)
    taken = figures(told[0].earlier)
    for part in told:
        assert part is not None
        assert figures(part.whole) == whole
        assert figures(part.earlier) == taken
        assert all(
            0 <= one <= more for one, more in zip(figures(part.written_off), figures(part.expensed), strict=True)
        )
        taken = tuple(map(sum, zip(taken, figures(part.expensed), strict=True)))
        assert tuple(map(sum, zip(taken, figures(part.remaining), strict=True))) == whole
        for named in (part.earlier, part.expensed, part.remaining):
            for name in FIGURES:
                span = getattr(named, name)
                assert span.low <= span.value + 1 <= span.high + 2


def test_energy_is_told_in_the_portions_of_the_money() -> None:
    took = of_attempt(hour(), SHIPPED).footprint.energy_nj
    known = Known(took.value, published_ns=T0_NS, uses=(hour(),))
    row = portion(("m", 1), known, Plan("rows", 3), (1, 2), (T0_NS, T0_NS + DAY_NS), None, SHIPPED)
    assert row.energy is not None
    parts = (row.energy.earlier, row.energy.expensed, row.energy.remaining)
    assert [part.energy_nj.value for part in parts] == [
        row.earlier_picousd,
        row.expensed_picousd,
        row.remaining_picousd,
    ]


@pytest.mark.parametrize(
    ("known", "reason"),
    [
        (Known(5, published_ns=T0_NS, unused="2 of its 3 attempts did not record"), "2 of its 3 attempts"),
        (Known(None, "no manifest", unused="no manifest"), "no manifest"),
        (Known(5, published_ns=T0_NS, uses=(hour(gpu="Voodoo", gpus=1),)), "no energy coefficients for GPU 'Voodoo'"),
    ],
)
def test_what_is_not_known_is_unknown_and_never_nothing(known: Known, reason: str) -> None:
    row = portion(("m", 1), known, Plan("days", 9), (0, 5), (T0_NS, T0_NS + DAY_NS), None, SHIPPED)
    assert row.energy is None
    assert reason in row.energy_reason
    assert "unknown" in trainingview.units([row]).cells(row)
    assert "0" not in trainingview.units([row]).cells(row)
    unasked = portion(("m", 1), known, Plan("days", 9), (0, 5), (T0_NS, T0_NS + DAY_NS), None)
    assert unasked.energy is None


def test_unpriced_training_has_energy_all_the_same() -> None:
    known = Known(None, published_ns=T0_NS, uses=(hour(),))
    row = portion(("m", 1), known, Plan("rows", 10), (0, 5), (T0_NS, T0_NS + DAY_NS), None, SHIPPED)
    assert (row.cost_picousd, row.expensed_picousd) == (None, None)
    assert row.energy is not None
    assert row.energy.expensed.energy_nj.value == row.energy.whole.energy_nj.value // 2


def test_scores_tell_training_and_serving_alone_and_together() -> None:
    took = Took(Footprint(ZERO, Span(10, 20, 30), ZERO, "modelled"))
    told = portions(took, lambda amount: (0, amount, 0, 0))
    scored = with_sci(told, Footprint(ZERO, ZERO, Span(1, 2, 3), "assumed"), 500)
    assert scored.training_sci_per_1000_rows_ng == Span(20, 40, 60)
    assert scored.serving_sci_per_1000_rows_ng == Span(2, 4, 6)
    assert scored.sci_per_1000_rows_ng == Span(22, 44, 66)
    silent = with_sci(told, took.footprint, 0)
    assert (silent.training_sci_per_1000_rows_ng, silent.sci_per_1000_rows_ng) == (None, None)


# What began in a period


def charge(progress: Progress, number: int = 1, **changes: object) -> TrainingCharge:
    record = msgspec.structs.replace(trainingruns.attempt(number), allotted=HERE, **changes)
    return settle.charge(trainingruns.RUN, record, ended(record, progress))


def ended(record: settle.AttemptRecord, progress: Progress) -> AttemptEnd:
    return settle.end(
        record, settle.Earlier(), progress, outcome="done", exit_code=0, message="", ended_ns=T0_NS, elapsed_ns=HOUR_NS
    )


def test_attempts_that_recorded_nothing_are_counted_and_in_no_sum() -> None:
    known = charge(Progress(cpu_ns=HOUR_NS, utilisation=0.5))
    found = trainingpower.begun([known, charge(Progress(), 2)], SHIPPED)
    assert found is not None
    assert isinstance(known.use, MachineUse)
    assert (found.runs, found.attempts, found.unknown) == (1, 2, 1)
    assert figures(found.footprint) == figures(of_attempt(known.use, SHIPPED).footprint)
    [note] = found.notes
    assert note == "training of flights is partly unknown: attempts did not record what they used"
    assert trainingpower.begun([], SHIPPED) is None


def test_nothing_but_unknown_attempts_has_no_figure_that_could_be_read_as_nothing() -> None:
    found = trainingpower.begun([charge(Progress())], SHIPPED)
    report = told(found)
    [sentence, _] = trainingview.notes(report)
    begins, ends = "training begun in this period, in no row: 1 run, 1 attempt", "for 1 of the attempts"
    assert sentence == f"{begins}; unknown, which is not zero, {ends}"


def told(begun: trainingpower.Begun | None) -> Breakdown:
    nothing = Footprint(ZERO, ZERO, ZERO, "modelled")
    return Breakdown(
        Query(), 0, 0, 0, (), 0, 0, None, True, (), (), energy=Energy(nothing, nothing, "us-east-1", (), begun)
    )


def test_what_a_bucket_names_cannot_control_the_terminal() -> None:
    found = trainingpower.begun([charge(Progress(cpu_ns=1), gpu="\x1b[31mred")], SHIPPED)
    console = Console(width=100, file=io.StringIO(), color_system=None)
    trainingview.show(told(found), console)
    assert isinstance(console.file, io.StringIO)
    assert "\x1b" not in console.file.getvalue()
    assert "GPU '�[31mred'" in console.file.getvalue()


def test_portions_of_nothing_are_nothing() -> None:
    told = portions(Took(Footprint(ZERO, ZERO, ZERO, "measured")), lambda amount: (0, amount, 0, 0))
    assert isinstance(told, Portions)
    assert told.expensed.is_nothing
