"""A real onnxruntime session behind the shared workers: the right answers for everyone, large requests in parts, what is inline."""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import numpy as np
import pytest
from onnx import TensorProto, helper

from gateway.contract.manifest import BatchCost, Signature, Tensor
from gateway.errors import DeadlineExceeded, InvalidInput, Overloaded, SettingsError
from gateway.runtime.model import INLINE_SAMPLED, LoadedModel, Loader, RuntimeOptions
from gateway.runtime.spent import BatchShare, Spent
from gateway.runtime.workers import Workers
from gateway.settings import load
from tests.support import graphs, models
from tests.support.batching import FAR_NS, working
from tests.support.manualclock import until

SLOW = BatchCost(base_ns=1_000_000, row_ns=1000)
"""So that it goes to a worker, wherever it runs."""

GATHER = Signature(
    inputs=(
        Tensor(name="table", datatype="FP32", shape=("batch", "length")),
        Tensor(name="index", datatype="INT64", shape=("batch", 1)),
    ),
    outputs=(Tensor(name="picked", datatype="FP32", shape=("batch", 1)),),
)


def gather_graph() -> bytes:
    """The element of each row that its index names; onnxruntime refuses an index that is out of bounds."""
    node = helper.make_node("GatherElements", ["table", "index"], ["picked"], axis=1)
    inputs = [
        helper.make_tensor_value_info("table", TensorProto.FLOAT, ["batch", "length"]),
        helper.make_tensor_value_info("index", TensorProto.INT64, ["batch", 1]),
    ]
    outputs = [helper.make_tensor_value_info("picked", TensorProto.FLOAT, ["batch", 1])]
    graph = helper.make_graph([node], "gather", inputs, outputs)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", models.OPSET)], ir_version=10)
    return bytes(model.SerializeToString())


async def test_an_answer_for_nobody_ends_so_that_others_can_be_loaded(tmp_path: Path) -> None:
    """Golden vectors and shadows run in the one thread that builds models: what never ends there would be the last load."""
    graph = graphs.endless(only_for_positive=True).SerializeToString()
    manifest, contents = models.manifest_of("rows", graphs.SIGNATURE, {"fp32": graph})
    path = tmp_path / "fp32.onnx"
    path.write_bytes(contents[path.name])
    with ThreadPoolExecutor(1) as builder, working(1) as workers:
        loader = Loader(workers, builder, RuntimeOptions(first_run_s=0.1), cpu_flags=frozenset())
        model, _ = await loader.load(manifest, manifest.variants[0], path)
        with pytest.raises(DeadlineExceeded, match="took too long"):
            await loader.answer(model, {"x": np.ones((1, 3), np.float32)})
        again, _ = await loader.load(manifest, manifest.variants[0], path)
        assert (await loader.answer(again, {"x": np.zeros((1, 3), np.float32)})).outputs["y"].tolist() == [[0, 0, 0]]


async def test_leaving_stops_runs_that_would_not_end(tmp_path: Path) -> None:
    """Of callers in the workers, of golden vectors and shadows where models are built: the ledger has to close in time."""
    graph = graphs.endless(only_for_positive=True).SerializeToString()
    manifest, contents = models.manifest_of("rows", graphs.SIGNATURE, {"fp32": graph})
    variant = msgspec.structs.replace(manifest.variants[0], batch_cost=SLOW)
    path = tmp_path / variant.file
    path.write_bytes(contents[path.name])
    ones = {"x": np.ones((1, 3), np.float32)}
    with working(1) as workers:
        with Loader(workers, ThreadPoolExecutor(1), RuntimeOptions(), cpu_flags=frozenset()) as loader:
            model, _ = await loader.load(manifest, variant, path)
            golden = asyncio.create_task(loader.answer(model, ones))
            left = asyncio.create_task(loader.answer(model, ones))
            await until(lambda: any(job.running() for job in loader._jobs))
            left.cancel()
        with pytest.raises(DeadlineExceeded, match="stopped"):
            await golden
        caller = asyncio.create_task(model.run(ones, 1, deadline_ns=far(), spent=Spent()))
        await until(lambda: workers.idle == 0)
    with pytest.raises(Overloaded, match="stopping"):
        await caller
    assert left.cancelled()


Load = Callable[..., Awaitable[LoadedModel]]


@pytest.fixture
async def load_gather(tmp_path: Path) -> AsyncIterator[Load]:
    with ThreadPoolExecutor(1) as builder, working(2) as workers:

        async def load_one(
            *, cost: BatchCost | None = SLOW, max_batch: int = 32, batch_invariant: bool = True
        ) -> LoadedModel:
            manifest, contents = models.manifest_of("gather", GATHER, {"fp32": gather_graph()})
            [variant] = manifest.variants
            variant = msgspec.structs.replace(
                variant, batch_cost=cost, max_batch=max_batch, batch_invariant=batch_invariant
            )
            manifest = msgspec.structs.replace(manifest, variants=(variant,))
            path = tmp_path / variant.file
            path.write_bytes(contents[variant.file])
            options = RuntimeOptions(queue_rows_max=10**6)
            model, _ = await Loader(workers, builder, options, cpu_flags=frozenset()).load(manifest, variant, path)
            return model

        yield load_one


def asked(values: list[float], index: int = 0, length: int = 3) -> dict[str, np.ndarray]:
    table = np.zeros((len(values), length), np.float32)
    table[:, min(index, length - 1)] = values
    return {"table": table, "index": np.full((len(values), 1), index, np.int64)}


def far() -> int:
    return time.perf_counter_ns() + FAR_NS


async def test_thousands_of_callers_get_their_own_answers_among_failures_and_departures(load_gather: Load):
    models_ = [
        await load_gather(max_batch=24),
        await load_gather(max_batch=7),
        await load_gather(batch_invariant=False),
    ]
    rng = random.Random(11)
    calls = []
    for number in range(3000):
        fate = rng.choices(("stay", "poison", "leave", "late"), (80, 5, 10, 5))[0]
        calls.append((models_[number % 3], fate, rng.randrange(1, 40), rng.randrange(1, 4), rng.randrange(9)))

    async def call(number: int) -> BatchShare:
        model, fate, rows, length, priority = calls[number]
        inputs = asked(
            [float(number * 100 + row) for row in range(rows)], 99 if fate == "poison" else length - 1, length
        )
        deadline_ns = time.perf_counter_ns() - 1 if fate == "late" else far()
        return await model.run(inputs, rows, deadline_ns=deadline_ns, priority=priority, spent=Spent())

    tasks = []
    for number, (_, fate, *_) in enumerate(calls):
        tasks.append(asyncio.create_task(call(number)))
        if number % 50 == 0:
            await asyncio.sleep(0)
        if fate == "leave":
            tasks[rng.randrange(number + 1)].cancel()
    answers = await asyncio.gather(*tasks, return_exceptions=True)
    refusals = {"poison": InvalidInput, "late": DeadlineExceeded}
    answered = 0
    for number, (answer, (_, fate, rows, _, _)) in enumerate(zip(answers, calls, strict=True)):
        if isinstance(answer, asyncio.CancelledError):
            continue
        if fate in refusals:
            assert type(answer) is refusals[fate]
            continue
        assert isinstance(answer, BatchShare)
        assert answer.outputs["picked"][:, 0].tolist() == [float(number * 100 + row) for row in range(rows)]
        answered += 1
    assert answered > 1500
    for model in models_:
        assert (model.lanes.rows, model.lanes.input_bytes) == (0, 0)


async def test_a_request_larger_than_the_largest_batch_is_answered_whole_and_counted_whole(load_gather: Load):
    model, spent = await load_gather(max_batch=8), Spent()
    values = [float(value) for value in range(61)]
    share = await model.run(asked(values), 61, deadline_ns=far(), spent=spent)
    assert share.outputs["picked"][:, 0].tolist() == values
    assert share.batch_rows == 8
    assert (share.cpu_ns, share.run_ns, share.queue_ns) == (spent.cpu_ns, spent.run_ns, spent.queue_ns)
    assert spent.cpu_ns > 0


async def test_one_bad_part_refuses_the_whole_request_and_takes_the_others_out(load_gather: Load):
    model, spent = await load_gather(max_batch=4), Spent()
    inputs = asked([1.0] * 400)
    inputs["index"][10] = 99
    with pytest.raises(InvalidInput, match="the model refuses this input"):
        await model.run(inputs, 400, deadline_ns=far(), spent=spent)
    assert model.lanes.rows == 0
    assert spent.cpu_ns > 0


async def test_a_large_request_that_would_be_late_is_refused_before_its_first_part(load_gather: Load):
    model, spent = await load_gather(max_batch=4, cost=BatchCost(base_ns=50_000_000, row_ns=0)), Spent()
    with pytest.raises(DeadlineExceeded, match="give it a later one"):
        await model.run(asked([1.0] * 80), 80, deadline_ns=time.perf_counter_ns() + 400_000_000, spent=spent)
    assert (spent.cpu_ns, spent.run_ns) == (0, 0)


async def test_a_caller_that_leaves_takes_all_parts_along(load_gather: Load):
    model = await load_gather(max_batch=1)
    task = asyncio.create_task(model.run(asked([1.0] * 5000), 5000, deadline_ns=far(), spent=Spent()))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert model.lanes.rows == 0


async def test_a_large_request_never_holds_more_of_the_queue_than_a_part_per_worker_and_one(load_gather: Load):
    model = await load_gather(max_batch=4)
    task = asyncio.create_task(model.run(asked([1.0] * 400), 400, deadline_ns=far(), spent=Spent()))
    seen = set()
    while not task.done():
        seen.add(model.lanes.rows)
        await asyncio.sleep(0)
    assert max(seen) <= 3 * 4
    assert (await task).outputs["picked"].shape == (400, 1)


async def test_a_variant_that_is_not_batch_invariant_runs_each_request_alone_but_whole(load_gather: Load):
    model = await load_gather(batch_invariant=False, max_batch=16)
    shares = await asyncio.gather(
        *(model.run(asked([1.0] * rows), rows, deadline_ns=far(), spent=Spent()) for rows in (3, 16, 5, 7))
    )
    assert [share.batch_rows for share in shares] == [3, 16, 5, 7]


async def test_the_length_of_rows_is_learned_and_never_inline(load_gather: Load):
    model = await load_gather(cost=BatchCost(base_ns=1, row_ns=1, row_length_ps=1))
    assert not model.is_inline(1)
    await model.run(asked([1.0], 2, length=500), 1, deadline_ns=far(), spent=Spent())
    assert {lane[0][1] for lane in model.lanes._lanes} == {(500,)}
    [lane] = model.lanes._lanes.values()
    assert lane.length == 500


async def test_a_model_of_unknown_cost_starts_from_its_first_run(load_gather: Load):
    model = await load_gather(cost=None)
    assert not model.is_inline(1)
    await model.run(asked([1.0, 2.0]), 2, deadline_ns=far(), spent=Spent())
    assert model.cost.is_known


@pytest.mark.parametrize(("priority", "level"), [(0, 4), (1, 1), (3, 3), (8, 8), (9, 8), (2**31, 8)])
async def test_priorities_of_the_protocol_are_levels(load_gather: Load, priority: int, level: int):
    model = await load_gather()
    entered = []
    enter = model._batcher.enter

    def note(*args, **kwargs):
        entered.append(enter(*args, **kwargs))
        return entered[-1]

    model._batcher.enter = note  # type: ignore[method-assign]
    await model.run(asked([1.0]), 1, deadline_ns=far(), priority=priority, spent=Spent())
    assert entered[0].level == level


async def test_a_negative_priority_is_refused_by_name(load_gather: Load):
    model = await load_gather()
    with pytest.raises(InvalidInput, match="priority is -1"):
        await model.run(asked([1.0]), 1, deadline_ns=far(), priority=-1, spent=Spent())


async def test_inline_runs_correct_the_cost_and_a_slow_host_moves_them_to_the_workers(tmp_path: Path):
    signature = Signature(
        inputs=(Tensor(name="features", datatype="FP32", shape=("batch", 32)),),
        outputs=(Tensor(name="scores", datatype="FP32", shape=("batch", 10)),),
    )
    manifest, contents = models.manifest_of("mlp", signature, {"fp32": models.mlp_graph()})
    [variant] = manifest.variants
    variant = msgspec.structs.replace(
        variant, batch_cost=BatchCost(base_ns=10, row_ns=1)
    )  # a machine of the far future
    manifest = msgspec.structs.replace(manifest, variants=(variant,))
    path = tmp_path / variant.file
    path.write_bytes(contents[variant.file])
    with ThreadPoolExecutor(1) as builder, working() as workers:
        model, _ = await Loader(workers, builder, RuntimeOptions(), cpu_flags=frozenset()).load(manifest, variant, path)
        inputs = {"features": np.zeros((1, 32), np.float32)}
        assert model.is_inline(100_000)
        for _ in range(INLINE_SAMPLED * 8):
            model.run_inline(inputs)
        assert model.cost.run_ns(1, 1) > 1000
        assert not model.is_inline(100_000)


async def test_an_idle_worker_holds_on_to_nobodys_tensors(load_gather: Load):
    import gc
    import weakref

    model = await load_gather()
    inputs = asked([1.0])
    ghost = weakref.ref(inputs["table"])
    await model.run(inputs, 1, deadline_ns=far(), spent=Spent())
    del inputs

    def is_gone() -> bool:
        gc.collect()
        return ghost() is None

    await until(is_gone)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("priority_levels", "3"),
        ("priority_levels", "65"),
        ("priority_default", "0"),
        ("ageing_ms", "0"),
        ("queue_rows_max", "0"),
    ],
)
def test_options_that_cannot_be_meant_are_refused_by_name(option: str, value: str):
    with pytest.raises(SettingsError, match=option):
        load(environ={f"STEELYARD_RUNTIME__{option.upper()}": value})


def test_workers_of_one_process_are_as_many_as_asked():
    with working(3) as workers:
        assert isinstance(workers, Workers)
        assert (workers.count, workers.idle) == (3, 3)
