"""CPU of a session's own threads: all of it is given to runs, none of it twice, whoever overlaps."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import InvalidInput, SettingsError
from gateway.runtime import poolclock
from gateway.runtime.model import Loader, RuntimeOptions
from gateway.runtime.poolclock import PoolClock, Share
from gateway.runtime.session import Session
from gateway.runtime.spent import Spent
from gateway.runtime.workers import Workers
from tests.support import graphs, models

FEATURES, HIDDEN = 512, 2048


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Session:
    """Heavy enough that both threads work on every run."""
    path = tmp_path_factory.mktemp("heavy") / "fp32.onnx"
    path.write_bytes(models.mlp_graph(FEATURES, HIDDEN, 512))
    return Session(path, graphs.manifest(models.mlp_signature(FEATURES, 512)), threads=2)


def rows(count: int) -> dict[str, "np.ndarray[tuple[int, int], np.dtype[np.float32]]"]:
    return {"features": np.ones((count, FEATURES), np.float32)}


def test_runs_cost_what_the_process_used_whatever_thread_used_it(session: Session) -> None:
    session.measured_run(rows(128))
    assert session._pool is not None
    process_ns, pool_ns = time.process_time_ns(), session._pool._seen_ns
    costs = [session.measured_run(rows(128)).cpu_ns for _ in range(8)]
    process_ns, pool_ns = time.process_time_ns() - process_ns, session._pool._seen_ns - pool_ns
    assert 0.8 * process_ns <= sum(costs) <= process_ns
    assert pool_ns > 0  # the other thread took part: the caller's own clock would miss it


def test_runs_at_once_share_what_the_process_used(session: Session) -> None:
    with ThreadPoolExecutor(3) as executor:
        list(executor.map(session.measured_run, [rows(1)] * 3))
        process_ns = time.process_time_ns()
        results = list(executor.map(session.measured_run, [rows(64)] * 30))
        process_ns = time.process_time_ns() - process_ns
    assert 0.8 * process_ns <= sum(result.cpu_ns for result in results) <= process_ns


def test_a_run_that_fails_leaves_the_clock(session: Session) -> None:
    with pytest.raises(InvalidInput, match="the model refuses this input"):
        session.measured_run({"features": np.ones((1, 3), np.float32)})
    assert session._pool is not None
    assert session._pool._inside == []


def test_one_thread_needs_no_clock_and_starts_no_thread(tmp_path: Path) -> None:
    path = tmp_path / "fp32.onnx"
    path.write_bytes(models.mlp_graph())
    Session(path, graphs.manifest(models.mlp_signature()))  # the first one also opens the arena
    before = set(Path("/proc/self/task").iterdir())
    session = Session(path, graphs.manifest(models.mlp_signature()))
    assert session._pool is None
    assert set(Path("/proc/self/task").iterdir()) <= before


def test_other_threads_that_start_meanwhile_are_not_the_pools() -> None:
    """Ours are told by the name that a thread takes from its creator."""
    end = threading.Event()
    with ThreadPoolExecutor(1) as elsewhere:
        elsewhere.submit(int).result()
        with poolclock.starting(1) as found:
            other = elsewhere.submit(lambda: threading.Thread(target=end.wait)).result()
            elsewhere.submit(other.start).result()
            own = threading.Thread(target=end.wait)
            own.start()
        end.set()
        other.join()
        own.join()
    assert found[0]._clocks == [(~own.native_id << 3) | 6]  # type: ignore[operator]


def watch(threads: int, error: Exception | None = None) -> None:
    """Start none of the threads that are waited for."""
    with poolclock.starting(threads):
        if error:
            raise error


def test_a_system_that_hides_the_threads_is_told_to_use_one() -> None:
    with pytest.raises(SettingsError, match=r"started 2 threads and 0 can be seen: set runtime\.threads_per_run to 1"):
        watch(2)


def test_the_watcher_keeps_its_own_name() -> None:
    own = Path(f"/proc/self/task/{threading.get_native_id()}/comm")
    before = own.read_text()
    with pytest.raises(KeyError):
        watch(2, KeyError())
    assert own.read_text() == before


@given(st.lists(st.tuples(st.integers(0, 10**9), st.booleans()), max_size=40))
def test_what_passes_while_runs_are_inside_is_given_out_exactly(steps: list[tuple[int, bool]]) -> None:
    clock = PoolClock(())
    inside: list[Share] = []
    passed_ns = 0
    before_ns = getattr(poolclock._elsewhere, "cpu_ns", 0)
    for used_ns, is_entry in steps:
        clock._seen_ns -= used_ns  # the threads' clocks have moved on by so much since
        passed_ns += used_ns if inside else 0
        if is_entry or not inside:
            inside.append(clock.enter())
        else:
            clock.leave(inside.pop(0))
    for share in inside:
        clock.leave(share)
    assert getattr(poolclock._elsewhere, "cpu_ns", 0) - before_ns == passed_ns


async def test_the_batcher_bills_what_a_sessions_own_threads_did(tmp_path: Path) -> None:
    signature = models.mlp_signature(FEATURES, 512)
    manifest, contents = models.manifest_of("heavy", signature, {"fp32": models.mlp_graph(FEATURES, HIDDEN, 512)})
    path = tmp_path / "fp32.onnx"
    path.write_bytes(contents["fp32.onnx"])
    options = RuntimeOptions(threads_per_run=2)
    spent = Spent()
    with Workers(1, levels=1, ageing_ns=1) as workers, ThreadPoolExecutor(1) as builder:
        loader = Loader(workers, builder, options, cpu_flags=frozenset())
        model, _ = await loader.load(manifest, manifest.variants[0], path)
        assert not model.is_inline(1)
        process_ns = time.process_time_ns()
        for _ in range(8):
            await model.run(rows(128), 128, deadline_ns=time.perf_counter_ns() + 10**11, spent=spent)
        process_ns = time.process_time_ns() - process_ns
    assert 0.75 * process_ns <= spent.cpu_ns <= process_ns
