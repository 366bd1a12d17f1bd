"""The arena all models share, in processes of their own: its first size stays until a process ends."""

import itertools
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper

from gateway.runtime import memory
from tests.support import graphs, models

PRELUDE = """
import sys
from pathlib import Path
import numpy as np
from gateway.errors import InvalidInput
from gateway.runtime import memory
from gateway.runtime.session import Session
from tests.support import graphs, models

def resident_mib():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:")) // 1024

MIB = 1 << 20
path = Path(sys.argv[1])
"""


def in_a_process(path: Path, script: str) -> list[str]:
    """The words that the script prints."""
    command = [sys.executable, "-c", PRELUDE + script, str(path)]
    outcome = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert outcome.returncode == 0, outcome.stderr
    assert outcome.stderr == ""
    return outcome.stdout.split()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A graph whose run needs 12,000 bytes per row and some: it repeats every row a thousand times."""
    nodes = [
        helper.make_node("Tile", ["x", "times"], ["many"]),
        helper.make_node("ReduceMax", ["many", "axis"], ["most"]),
        helper.make_node("Add", ["x", "most"], ["y"]),
    ]
    constants = {"times": np.array([1, 1000], np.int64), "axis": np.array([1], np.int64)}
    return graphs.saved(graphs.graph(nodes, constants), tmp_path)


def test_rows_that_need_more_than_all_runs_may_have_are_refused_and_fewer_are_answered(path: Path) -> None:
    script = """
session = Session(path, graphs.manifest(), run_bytes_max=8 * MIB)
for rows in (1, 100, 2000, 100):
    try:
        print(rows, len(session.run({"x": np.ones((rows, 3), np.float32)})["y"]))
    except InvalidInput as refusal:
        print(rows, str(refusal).replace(" ", "_"))
"""
    refusal = f"running_these_rows_takes_more_memory_than_all_runs_may_have_(runtime.run_bytes_max_is_{8 << 20})"
    assert in_a_process(path, script) == ["1", "1", "100", "100", "2000", refusal, "100", "100"]


def test_free_memory_in_pieces_too_small_is_joined_before_a_run_is_refused(path: Path) -> None:
    """Up to 3.6 MB, then 7.2 MB of 8: the smaller batches have left regions behind that it cannot have beside its own."""
    script = """
session = Session(path, graphs.manifest(), run_bytes_max=8 * MIB)
for rows in (100, 200, 300, 600, 100, 600):
    print(len(session.run({"x": np.ones((rows, 3), np.float32)})["y"]))
"""
    assert in_a_process(path, script) == ["100", "200", "300", "600", "100", "600"]


def test_a_run_that_others_leave_no_memory_for_may_come_again(path: Path) -> None:
    """The other run is only an entry in the list of runs: what is tested is what this one answers then."""
    script = """
from gateway.errors import Overloaded
from gateway.runtime import session as module
session = Session(path, graphs.manifest(), run_bytes_max=8 * MIB)
module._running.append(session)
try:
    session.run({"x": np.ones((2000, 3), np.float32)})
except Overloaded as refusal:
    print(str(refusal).replace(" ", "_"), len(module._running))
"""
    refusal = f"other_runs_hold_the_memory_that_this_one_needs_(runtime.run_bytes_max_is_{8 << 20})"
    assert in_a_process(path, script) == [refusal, "1"]


def test_the_first_limit_stays(path: Path) -> None:
    script = "print(memory.open_arena(8 * MIB), memory.open_arena(9 * MIB), memory.open_arena())"
    assert in_a_process(path, script) == [str(8 << 20)] * 3


def deep_graph(layers: int, width: int) -> bytes:
    """So many linear layers of 4 * width^2 bytes."""
    names = ["features", *(f"layer_{i}" for i in range(layers - 1)), "scores"]
    nodes = [helper.make_node("MatMul", [a, f"w_{b}"], [b]) for a, b in itertools.pairwise(names)]
    weights = {f"w_{b}": np.full((width, width), i, np.float32) for i, b in enumerate(names[1:])}
    return models.graph_of(nodes, models.mlp_signature(width, width), weights)


def test_memory_goes_back_after_a_large_run_and_after_a_large_model(path: Path) -> None:
    path.with_name("deep.onnx").write_bytes(deep_graph(8, 1536))
    script = """
small = Session(path, graphs.manifest(), run_bytes_max=1024 * MIB)
small.warm_up()
memory.trim()
before = resident_mib()
small.run({"x": np.ones((20_000, 3), np.float32)})
print(resident_mib() - before)
memory.trim()
print(resident_mib() - before)
signature = models.mlp_signature(1536, 1536)
before = resident_mib()
large = Session(path.with_name("deep.onnx"), graphs.manifest(signature))
large.warm_up()
memory.trim()
print(resident_mib() - before)
del large
memory.trim()
print(resident_mib() - before)
"""
    after_run, after_trim, with_model, without = map(int, in_a_process(path, script))
    assert after_run > 200
    assert after_trim < 30
    assert 72 <= with_model < 90  # 72 MiB of weights
    assert without < 10


def test_growing_batches_of_many_shapes_keep_what_a_few_of_them_need(path: Path) -> None:
    """User complaint: memory that grows with every new shape. 60 growing batches need 7 MB each at most."""
    script = """
session = Session(path, graphs.manifest(), run_bytes_max=1024 * MIB)
session.warm_up()
before = resident_mib()
for rows in range(10, 610, 10):
    session.run({"x": np.ones((rows, 3), np.float32)})
print(resident_mib() - before)
"""
    (grown,) = map(int, in_a_process(path, script))
    assert grown < 40
    assert sum(12_000 * rows for rows in range(10, 610, 10)) > 200 << 20


def test_the_graph_that_does_nothing_is_sound() -> None:
    onnx.checker.check_model(memory._identity_graph(), full_check=True)


def test_a_run_that_a_build_left_no_memory_for_waits_for_it(path: Path) -> None:
    """The limit of a build holds for all threads; the run is not to blame. It waits asleep, and so does whoever looks."""
    script = """
import threading
from concurrent.futures import ThreadPoolExecutor

session = Session(path, graphs.manifest(), run_bytes_max=1024 * MIB)
started = threading.Event()

def run():
    started.ident = threading.get_native_id()
    started.set()
    return session.run({"x": np.ones((20_000, 3), np.float32)})

def is_asleep(ident):
    return ") S " in Path(f"/proc/self/task/{ident}/stat").read_text()

with ThreadPoolExecutor(1) as worker:
    with memory.build_limit(64 * MIB):
        running = worker.submit(run)
        started.wait()
        looks = 0
        while not running.done() and looks < 1000:
            looks = looks + 1 if is_asleep(started.ident) else 0
        print(running.done())
    print(len(running.result()["y"]))
"""
    assert in_a_process(path, script) == ["False", "20000"]


def test_a_builds_limit_is_lifted_when_it_fails() -> None:
    before = resource.getrlimit(resource.RLIMIT_DATA)

    def fail() -> None:
        with memory.build_limit(1 << 30):
            assert resource.getrlimit(resource.RLIMIT_DATA) != before
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert resource.getrlimit(resource.RLIMIT_DATA) == before
