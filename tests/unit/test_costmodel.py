"""What the cost model believes: the published figures, then what it sees; neither jitter nor an outlier carries it away."""

import random

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gateway.contract.manifest import BatchCost, Latency
from gateway.runtime.costmodel import ROWS_ENOUGH_MIN, ROWS_MAX, CostModel, rows_worth

PUBLISHED = BatchCost(base_ns=300_000, row_ns=2_000_000)


def feed(
    model: CostModel,
    rng: random.Random,
    runs: int,
    *,
    scale: float = 1,
    jitter: float = 0.1,
    base=300_000,
    row=2_000_000,
):
    for _ in range(runs):
        rows = rng.choice((1, 4, 8))
        model.correct(rows, 1, int(scale * (base + row * rows) * max(0.1, rng.gauss(1, jitter))))


def test_the_published_cost_is_believed_before_anything_ran():
    model = CostModel(PUBLISHED, has_length=False)
    assert model.run_ns(4, 1) == 8_300_000
    assert (model.is_within(1, 2_300_000), model.is_within(2, 2_300_000)) == (True, False)


def test_nothing_published_predicts_nothing_until_the_first_run():
    model = CostModel(None, has_length=False)
    assert (model.is_known, model.run_ns(8, 1), model.is_within(1, 10**12)) == (False, 0, False)
    model.correct(4, 1, 8_000_000)
    assert model.is_known
    assert model.run_ns(4, 1) == pytest.approx(8_000_000)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.integers(0, 5 * 10**6), st.integers(10_000, 3 * 10**6), st.booleans())
def test_any_line_is_learned_from_nothing(seed: int, base_ns: int, row_ns: int, is_published: bool):
    rng = random.Random(seed)
    model = CostModel(PUBLISHED if is_published else None, has_length=False)
    feed(model, rng, 150, base=base_ns, row=row_ns, jitter=0.03)
    for rows in (1, 4, 8):
        assert model.run_ns(rows, 1) == pytest.approx(base_ns + row_ns * rows, rel=0.2)


@pytest.mark.parametrize("scale", [0.1, 0.5, 2.0, 10.0])
def test_another_speed_is_followed_within_thirty_runs(scale: float):
    model, rng = CostModel(PUBLISHED, has_length=False), random.Random(7)
    feed(model, rng, 300)
    feed(model, rng, 30, scale=scale)
    for rows in (1, 8):
        assert model.run_ns(rows, 1) == pytest.approx(scale * (300_000 + 2_000_000 * rows), rel=0.15)


@settings(max_examples=20, deadline=None)
@example(14537)  # four preemptions in a row
@given(st.integers(0, 10**6))
def test_jitter_and_rare_preemptions_do_not_swing_it(seed: int):
    model, rng = CostModel(PUBLISHED, has_length=False), random.Random(seed)
    feed(model, rng, 50)
    for _ in range(1500):
        rows = rng.choice((1, 4, 8))
        preempted = 20 if rng.random() < 0.03 else 1
        model.correct(rows, 1, int((300_000 + 2_000_000 * rows) * max(0.1, rng.gauss(1, 0.1)) * preempted))
        assert 0.75 < model.run_ns(8, 1) / 16_300_000 < 1.35


def test_one_size_for_a_long_time_does_not_make_the_others_a_wild_guess():
    model, rng = CostModel(PUBLISHED, has_length=False), random.Random(3)
    for _ in range(3000):
        model.correct(1, 1, int(2_300_000 * rng.gauss(1, 0.1)))
    assert 0.5 < model.run_ns(8, 1) / 16_300_000 < 2


def test_the_length_of_rows_is_told_from_their_number():
    model, rng = CostModel(None, has_length=True), random.Random(5)
    for _ in range(400):
        rows, length = rng.choice((1, 2, 4, 8)), rng.choice((8, 64, 128, 512))
        model.correct(rows, length, int((1e6 + 1e5 * rows + 8e4 * rows * length) * rng.gauss(1, 0.05)))
    for rows, length in ((1, 8), (8, 8), (1, 512), (8, 512)):
        assert model.run_ns(rows, length) == pytest.approx(1e6 + 1e5 * rows + 8e4 * rows * length, rel=0.2)
    assert not model.is_within(1, 10**15)  # how long it is, nobody has said


@given(st.lists(st.tuples(st.integers(1, 64), st.integers(1, 512), st.integers(0, 10**12)), max_size=60), st.booleans())
def test_no_run_whatever_it_took_makes_a_cost_negative_or_infinite(runs: list[tuple[int, int, int]], has_length: bool):
    model = CostModel(PUBLISHED, has_length=has_length)
    for rows, length, measured_ns in runs:
        model.correct(rows, length, measured_ns)
        for value in (model.base_ns, model.row_ns, model.row_length_ns):
            assert 0 <= value < 1e15
        assert 0.1 <= model.caution <= 1


def test_a_batch_grows_only_while_that_saves_something():
    heavy_rows = CostModel(BatchCost(base_ns=20_000, row_ns=2_000_000), has_length=False)
    heavy_base = CostModel(BatchCost(base_ns=2_000_000, row_ns=20_000), has_length=False)
    assert heavy_rows.rows_enough(1, 100_000) == ROWS_ENOUGH_MIN
    assert heavy_base.rows_enough(1, 100_000) == 32 * 105


def cells(*cells: tuple[int, float], length: int = 1) -> list[Latency]:
    """Latencies of these batch sizes, from milliseconds per row."""
    return [
        Latency(batch_rows=rows, p50_ns=round(ms * rows * 1e6), p99_ns=round(ms * rows * 2e6), runs=30, length=length)
        for rows, ms in cells
    ]


@pytest.mark.parametrize(
    ("published", "rows"),
    [
        (cells((1, 2.0), (8, 2.3), (32, 2.3)), 1),  # rows get dearer together
        (cells((1, 0.2), (8, 0.05), (32, 0.0495), (128, 0.06)), 32),  # the hand-over counts too
        (cells((1, 2.0), (8, 1.0), (32, 1.0)), 8),  # all the gain is at eight
    ],
)
def test_a_batch_is_no_larger_than_what_was_measured_to_be_worth_it(published: list[Latency], rows: int) -> None:
    assert rows_worth(published) == rows


@pytest.mark.parametrize("published", [[], cells((1, 2.0)), cells((1, 2.0), (8, 1.0), (32, 0.5))])
def test_nothing_measured_or_still_cheaper_at_the_end_is_no_limit(published: list[Latency]) -> None:
    assert rows_worth(published) == ROWS_MAX


def test_the_longest_rows_decide() -> None:
    published = cells((1, 2.0), (8, 2.3), length=64) + cells((1, 2.0), (8, 1.0), length=8)
    assert rows_worth(published) == 1
