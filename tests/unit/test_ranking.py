"""The sorted queue against a plain sorted list, whatever enters and leaves."""

from bisect import insort

from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.runtime.ranking import BLOCK, Ranking

STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("enter"), st.integers(0, 3), st.integers(0, 50), st.integers(0, 10**9)),
        st.tuples(st.just("leave"), st.floats(0, 1, exclude_max=True)),
        st.tuples(st.just("ahead"), st.integers(0, 3), st.integers(0, 50)),
    ),
    max_size=400,
)


@settings(max_examples=60, deadline=None)
@given(STEPS)
def test_it_behaves_as_a_sorted_list(steps: list[tuple]) -> None:
    ranking: Ranking[int] = Ranking()
    model: list[tuple[tuple[int, int, int], int]] = []
    for number, step in enumerate(steps):
        if step[0] == "enter":
            rank = (step[1], step[2], number)
            ranking.enter(rank, number, step[3])
            insort(model, (rank, step[3]))
        elif step[0] == "leave" and model:
            rank, _ = model.pop(int(step[1] * len(model)))
            ranking.leave(rank)
        elif step[0] == "ahead":
            rank = (step[1], step[2], number)
            assert ranking.ahead_ns(rank) == sum(work_ns for other, work_ns in model if other < rank)
        assert bool(ranking) == bool(model)
        assert ranking.total_ns == sum(work_ns for _, work_ns in model)
        if model:
            assert ranking.first == model[0][0][2]


@settings(max_examples=10, deadline=None)
@given(st.randoms(use_true_random=False), st.integers(3 * BLOCK, 12 * BLOCK))
def test_many_blocks_drain_in_order(random, count: int) -> None:
    ranks = [(random.randrange(3), random.randrange(1000), number) for number in range(count)]
    ranking: Ranking[int] = Ranking()
    for rank in ranks:
        ranking.enter(rank, rank[2], 1)
    for rank in random.sample(ranks, count // 3):
        ranking.leave(rank)
        ranks.remove(rank)
    for ahead, rank in enumerate(sorted(ranks)):
        assert ranking.ahead_ns(rank) == ahead
    for rank in sorted(ranks):
        assert ranking.first == rank[2]
        ranking.leave(rank)
    assert not ranking
