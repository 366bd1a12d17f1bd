"""What attempts cost and wasted, against simulated spot traces in which every step is counted as it is done."""

from fractions import Fraction

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.contract import codec
from gateway.contract.prices import NS_PER_HOUR, PICO_PER_USD
from gateway.contract.runs import Allotment, AttemptEnd, AttemptRecord, Heartbeat, MachineUse, Outcome, Progress
from tests.support import trainingruns
from tests.support.trainingruns import NOW_NS, S, attempt
from trainers.errors import SpecError
from trainers.runs import budget, settle

STEP_NS = 2 * S
USD = st.sampled_from(["0.526", "0.1578", "1.006", "63.296", "0.000001"])


class Life(msgspec.Struct, frozen=True):
    """One attempt in a trace: how many steps it gets to do, whether a checkpoint was lost, and what it spends beside steps."""

    steps: int
    usd_per_hour: str
    is_newest_checkpoint_lost: bool
    overhead_ns: int
    is_killed: bool


def life(overhead_ns: st.SearchStrategy[int]) -> st.SearchStrategy[Life]:
    return st.builds(Life, st.integers(0, 40), USD, st.booleans(), overhead_ns, st.booleans())


class Trace:
    """A run of `total` steps that saves every `every` steps; the log of steps is the truth that records are compared with."""

    def __init__(self, total: int, every: int) -> None:
        self.total, self.every = total, every
        self.done: list[tuple[int, int]] = []  # (attempt, step) in the order of doing
        self.checkpoints = [0]
        self.attempts: list[tuple[AttemptRecord, AttemptEnd]] = []

    def live(self, life: Life) -> None:
        if life.is_newest_checkpoint_lost and len(self.checkpoints) > 1:
            self.checkpoints.pop()
        record = attempt(len(self.attempts) + 1, usd_per_hour=life.usd_per_hour)
        first = self.checkpoints[-1]
        last = min(self.total, first + life.steps)
        self.done += [(record.attempt, step) for step in range(first, last)]
        self.checkpoints += [step for step in range(first + 1, last + 1) if step % self.every == 0]
        progress = Progress(
            step_first=first, step_last=last, step_saved=self.checkpoints[-1], steps_ns=(last - first) * STEP_NS
        )
        self.attempts.append((record, self.end(record, progress, life, is_done=last == self.total)))

    def end(self, record: AttemptRecord, progress: Progress, life: Life, *, is_done: bool) -> AttemptEnd:
        before = settle.earlier([end for _, end in self.attempts])
        elapsed_ns = progress.steps_ns + life.overhead_ns
        if life.is_killed and not is_done:
            return settle.abandoned(record, before, beat(record.attempt, progress, elapsed_ns))
        outcome: Outcome = "done" if is_done else "preempted"
        return settle.end(
            record, before, progress, outcome=outcome, exit_code=0, message="", ended_ns=NOW_NS, elapsed_ns=elapsed_ns
        )

    @property
    def is_done(self) -> bool:
        return bool(self.attempts) and self.attempts[-1][1].outcome == "done"

    @property
    def recomputed(self) -> int:
        """Steps done that a run without interruption, up to the same saved step, would not have done."""
        kept = max(end.kept_step for _, end in self.attempts)
        return len(self.done) - kept


def beat(number: int, progress: Progress, elapsed_ns: int) -> Heartbeat:
    return Heartbeat(
        run_id=trainingruns.RUN.run_id,
        attempt=number,
        at_ns=NOW_NS + elapsed_ns,
        interval_ns=30 * S,
        elapsed_ns=elapsed_ns,
        stage="train",
        step=progress.step_last,
        steps_total=1000,
        progress=progress,
    )


def run_trace(total: int, every: int, lives: list[Life]) -> Trace:
    trace = Trace(total, every)
    for life in lives:
        trace.live(life)
        if trace.is_done:
            break
    return trace


@settings(deadline=None)
@given(st.integers(1, 100), st.integers(1, 15), st.lists(life(st.just(0)), min_size=1, max_size=12))
def test_wasted_is_recomputed_steps_times_price(total: int, every: int, lives: list[Life]) -> None:
    trace = run_trace(total, every, lives)
    assert sum(end.steps_lost for _, end in trace.attempts) == trace.recomputed
    for record, end in trace.attempts:
        step_picousd = Fraction(record.usd_per_hour or "0") * PICO_PER_USD * STEP_NS / NS_PER_HOUR
        assert end.wasted_picousd == round(end.steps_lost * step_picousd)
        assert end.cost_picousd == round(end.steps_done * step_picousd)


@settings(deadline=None)
@given(
    st.integers(1, 100),
    st.integers(1, 15),
    st.lists(life(st.integers(0, 300 * S)), min_size=1, max_size=12),
)
def test_attempts_add_up_and_none_wastes_more_than_it_cost(total: int, every: int, lives: list[Life]) -> None:
    trace = run_trace(total, every, lives)
    cost = settle.training_cost(trace.attempts)
    ends = [end for _, end in trace.attempts]
    assert cost.cost_picousd == sum(end.cost_picousd or 0 for end in ends)
    assert cost.wasted_picousd == sum(end.wasted_picousd or 0 for end in ends)
    assert all((end.wasted_picousd or 0) <= (end.cost_picousd or 0) for end in ends)
    if trace.is_done:
        assert sum(end.steps_done - end.steps_lost for end in ends) == total
    charges = [settle.charge(trainingruns.RUN, record, end) for record, end in trace.attempts]
    assert sum(charge.cost_picousd or 0 for charge in charges) == cost.cost_picousd
    assert [charge.attempt for charge in charges] == list(range(1, len(ends) + 1))


@settings(deadline=None)
@given(st.integers(1, 100), st.integers(1, 15), st.integers(0, 300 * S), USD)
def test_a_run_without_interruption_wastes_nothing(total: int, every: int, overhead_ns: int, usd: str) -> None:
    trace = run_trace(total, every, [Life(total, usd, False, overhead_ns, False)])
    [(_, end)] = trace.attempts
    assert (end.steps_lost, end.wasted_ns, end.wasted_picousd) == (0, 0, 0)


def end_of(progress: Progress, before: settle.Earlier = settle.Earlier(), outcome: Outcome = "preempted") -> AttemptEnd:  # noqa: B008
    return settle.end(
        attempt(), before, progress, outcome=outcome, exit_code=0, message="", ended_ns=NOW_NS, elapsed_ns=100 * S
    )


AFTER = settle.Earlier(attempts=1, kept_step=50, has_progress=True, cost_picousd=1)


def test_the_overhead_of_going_on_is_wasted_and_that_of_beginning_is_not() -> None:
    progress = Progress(step_first=50, step_last=90, step_saved=90, steps_ns=80 * S)
    assert end_of(progress, AFTER).wasted_ns == 20 * S
    assert end_of(msgspec.structs.replace(progress, step_first=0)).wasted_ns == 0


def test_a_stage_cut_off_is_wasted_and_a_finished_one_is_not() -> None:
    assert end_of(Progress(stages=("export",), stages_ns=60 * S, cut_off_ns=30 * S)).wasted_ns == 30 * S
    assert end_of(Progress(stages=("export",), stages_ns=60 * S, cut_off_ns=30 * S), AFTER).wasted_ns == 40 * S


def test_a_stage_at_work_when_all_is_done_is_not_cut_off() -> None:
    """As when the manifest, which states the cost, is written within the last stage."""
    end = end_of(Progress(stages=("export",), stages_ns=60 * S, cut_off_ns=30 * S), AFTER, "done")
    assert (end.wasted_ns, end.progress.cut_off_ns, end.progress.stages_ns) == (10 * S, 0, 90 * S)


def test_an_attempt_of_which_nothing_remains_is_wasted_whole() -> None:
    assert end_of(Progress()).wasted_ns == 100 * S
    assert end_of(Progress(step_last=9, step_saved=0, steps_ns=40 * S)).wasted_ns == 100 * S
    assert end_of(Progress(), outcome="done").wasted_ns == 0


def test_steps_saved_after_the_last_heartbeat_are_not_counted_as_done_twice() -> None:
    """The dead attempt's heartbeat knew of 50; its last checkpoint was at 70, and the next went on from there."""
    end = end_of(Progress(step_first=70, step_last=90, step_saved=80, steps_ns=80 * S), AFTER)
    assert (end.steps_done, end.steps_lost, end.kept_step) == (20, 10, 80)


def test_an_attempt_killed_before_its_first_heartbeat_costs_nothing_that_is_known() -> None:
    for heartbeat in (None, beat(1, Progress(step_last=5), 60 * S)):
        end = settle.abandoned(attempt(2), AFTER, heartbeat)
        assert (end.outcome, end.evidence, end.cost_picousd, end.kept_step) == ("lost", "claim", 0, 50)


def test_a_running_attempt_has_not_lost_what_it_has_not_saved() -> None:
    progress = Progress(step_first=50, step_last=90, step_saved=60, steps_ns=80 * S)
    seen = beat(2, progress, 100 * S)
    assert settle.so_far(attempt(2), AFTER, seen).steps_lost == 0
    assert settle.abandoned(attempt(2), AFTER, seen).steps_lost == 30


def test_one_unpriced_attempt_makes_the_sum_unknown() -> None:
    priced = end_of(Progress(step_last=10, step_saved=10, steps_ns=S))
    unpriced = settle.end(
        attempt(2, usd_per_hour=None), AFTER, Progress(), outcome="failed", exit_code=70, message="",
        ended_ns=NOW_NS, elapsed_ns=S,
    )  # fmt: skip
    assert unpriced.cost_picousd is unpriced.wasted_picousd is None
    cost = settle.training_cost([(attempt(1), priced), (attempt(2, usd_per_hour=None), unpriced)])
    assert cost.cost_picousd is cost.wasted_picousd is None
    assert cost.seconds == 101.0
    assert settle.earlier([priced, unpriced]).cost_picousd is None


USD_1 = PICO_PER_USD


@settings(deadline=None)
@given(st.integers(0, 50 * USD_1), st.integers(0, 50 * USD_1), USD, st.floats(0, 600))
def test_seconds_left_never_cost_more_than_the_cap(cap: int, earlier: int, usd: str, reserve_s: float) -> None:
    left = budget.seconds_left(max_cost_picousd=cap, earlier_picousd=earlier, usd_per_hour=usd, reserve_s=reserve_s)
    assert left is not None
    if left:
        total = earlier + (left + reserve_s) * float(usd) * PICO_PER_USD / 3600
        assert total <= cap * (1 + 1e-9) + 1


def test_a_cap_that_pays_for_nothing_is_refused_at_the_start_and_stops_a_later_attempt() -> None:
    known = {"max_cost_picousd": USD_1 // 100, "usd_per_hour": "0.526", "reserve_s": 30.0, "least_s": 60.0}
    with pytest.raises(SpecError, match=r"max_cost_usd 0\.01 pays for 38 s .* at least 60 s are needed"):
        budget.check(**known, earlier_picousd=0)
    assert budget.check(**known, earlier_picousd=USD_1 // 100) == 0.0
    assert budget.check(**known | {"max_cost_picousd": None}, earlier_picousd=0) is None


@pytest.mark.parametrize(("usd", "earlier"), [(None, 0), ("0.526", None)])
def test_a_cap_on_an_unknown_price_is_refused(usd: str | None, earlier: int | None) -> None:
    with pytest.raises(SpecError, match=r"needs the machine's price per hour; name one .* with --priced-as"):
        budget.seconds_left(max_cost_picousd=USD_1, earlier_picousd=earlier, usd_per_hour=usd, reserve_s=0)


# Energy


def test_energy_of_a_run_is_that_of_the_attempts_that_counted_it():
    record, other = attempt(1), attempt(2)
    counted = ended(record, Progress(energy_nj=5 * 10**12))
    silent = ended(other, Progress())
    assert settle.training_cost([(record, counted), (other, silent)]).energy_nj == 5 * 10**12
    assert settle.training_cost([(other, silent)]).energy_nj is msgspec.UNSET
    assert settle.charge(trainingruns.run("r"), record, counted).energy_nj == 5 * 10**12
    assert b"energy" not in codec.encode(settle.charge(trainingruns.run("r"), other, silent))


ALLOTTED = Allotment("x86", 4000, 16 << 30, "us-east-1")


def test_what_an_attempt_used_is_in_its_charge_and_in_the_manifest():
    record = msgspec.structs.replace(attempt(1), allotted=ALLOTTED)
    end = ended(record, Progress(cpu_ns=3 * S, utilisation=0.25, energy_nj=70))
    use = settle.use(record, end)
    assert use == MachineUse(ALLOTTED, S, 3 * S, "Tesla T4", 1, S // 4, 70)
    assert settle.charge(trainingruns.RUN, record, end).use == use
    cost = settle.training_cost([(record, end)])
    assert cost.attempts
    assert cost.attempts[0].use == use


def test_nobody_measured_is_not_nothing():
    record = msgspec.structs.replace(attempt(1), allotted=ALLOTTED)
    unwatched = settle.use(record, ended(record, Progress(cpu_ns=0)))
    assert isinstance(unwatched, MachineUse)
    assert (unwatched.gpu_busy_ns, unwatched.gpu_energy_nj) == (None, None)
    assert settle.use(record, ended(record, Progress())) is msgspec.UNSET
    assert settle.use(attempt(1), ended(record, Progress(cpu_ns=5))) is msgspec.UNSET
    bare = msgspec.structs.replace(record, gpu="", gpus=0)
    on_cpus = settle.use(bare, ended(bare, Progress(cpu_ns=5, utilisation=0.5)))
    assert on_cpus == MachineUse(ALLOTTED, S, 5)


def test_an_attempt_gone_after_its_claim_used_as_much_as_it_cost():
    record = msgspec.structs.replace(attempt(1), allotted=ALLOTTED)
    use = settle.use(record, settle.abandoned(record, settle.Earlier(), None))
    assert isinstance(use, MachineUse)
    assert (use.held_ns, use.cpu_ns) == (0, 0)
    seen = settle.use(record, settle.abandoned(record, settle.Earlier(), beat(1, Progress(cpu_ns=9), 60 * S)))
    assert isinstance(seen, MachineUse)
    assert (seen.held_ns, seen.cpu_ns) == (60 * S, 9)


def ended(record: AttemptRecord, progress: Progress) -> AttemptEnd:
    return settle.end(
        record,
        settle.Earlier(),
        progress,
        outcome="done",
        exit_code=0,
        message="",
        ended_ns=NOW_NS + S,
        elapsed_ns=S,
    )
