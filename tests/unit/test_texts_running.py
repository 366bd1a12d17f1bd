"""Models of text as a gateway runs them: the same answers alone and among others, what they weigh, one thread, little memory."""

import asyncio
import sys
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from gateway.registry import releasing
from gateway.runtime.model import LoadedModel, Loader, RuntimeOptions
from gateway.runtime.spent import Spent
from tests.support import texts as made
from tests.support.batching import FAR_NS, working
from tests.support.memorystore import MemoryStore
from tests.support.repositories import followed, real

WORDPIECE = made.wordpiece()


@pytest.fixture
async def load(tmp_path: Path) -> AsyncIterator[Any]:
    with ThreadPoolExecutor(1) as builder, working(2) as workers:

        async def load_one(**changes: Any) -> LoadedModel:
            manifest, contents = made.manifest(**changes)
            for name, content in contents.items():
                (tmp_path / name).write_bytes(content)
            loader = Loader(workers, builder, RuntimeOptions(), cpu_flags=frozenset())
            [variant] = manifest.variants
            model, _ = await loader.load(manifest, variant, tmp_path / variant.file, tmp_path / "tokenizer.json")
            return model

        yield load_one


async def answer(model: LoadedModel, sent: list[str]) -> tuple[Any, int]:
    assert model.texts is not None
    found = model.texts.read(sent)
    assert found is not None
    share = await model.run(found[0], len(sent), deadline_ns=FAR_NS, spent=Spent(), ragged=found[1])
    return share.outputs["embedding"], share.batch_rows


SENT = [
    "the cat sat on a mat",
    "",
    "rocket",
    "a dog flies on",
    "god",
    "zzzz the mac " * 9,
    "orbit engine",
    "the",
    "ice ice",
    "gun",
]


@pytest.mark.parametrize(("is_invariant", "distance"), [(True, 1e-5), (False, 0.0)])
async def test_an_answer_is_the_same_alone_and_among_others(load: Any, is_invariant: bool, distance: float) -> None:
    """In requests beyond the largest batch too; a variant that is not batch-invariant runs each row alone, to the last bit."""
    model = await load(batch_invariant=is_invariant)
    alone = np.concatenate([(await answer(model, [text]))[0] for text in SENT])
    together, batch_rows = await answer(model, SENT)
    assert np.abs(alone - together).max() <= distance
    assert batch_rows in (range(2, 9) if is_invariant else [1])
    assert np.ptp(alone, axis=0).max() > 0.01, "all texts are one to this encoder"


async def test_without_a_mask_nothing_is_padded(load: Any) -> None:
    """A graph that sums ids: padding with anything but nothing would count."""
    import onnx

    nodes = [
        onnx.helper.make_node("Add", ["input_ids", "one"], ["more"]),
        onnx.helper.make_node("ReduceSum", ["more", "axis"], ["sum"], keepdims=1),
        onnx.helper.make_node("Cast", ["sum"], ["embedding"], to=onnx.TensorProto.FLOAT),
    ]
    graph = onnx.helper.make_graph(
        nodes,
        "sums",
        [onnx.helper.make_tensor_value_info("input_ids", onnx.TensorProto.INT64, ["batch", "tokens"])],
        [onnx.helper.make_tensor_value_info("embedding", onnx.TensorProto.FLOAT, ["batch", 1])],
        [onnx.numpy_helper.from_array(np.array([1]), name) for name in ("one", "axis")],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 20)], ir_version=10)
    output = msgspec.structs.replace(made.SIGNATURE.outputs[0], shape=("batch", 1))
    loaded = await load(
        graph=model.SerializeToString(),
        signature=msgspec.structs.replace(made.SIGNATURE, inputs=made.SIGNATURE.inputs[:1], outputs=(output,)),
        text=msgspec.structs.replace(made.TEXT, mask=""),
    )
    expected = [sum(number + 1 for number in one.ids) for one in map(made.reference(WORDPIECE).encode, SENT)]
    assert (await answer(loaded, SENT))[0].ravel().tolist() == expected


async def test_the_tokenizer_weighs_and_its_build_is_billed(load: Any) -> None:
    model = await load()
    assert model.texts.resident_bytes == 20 * len(WORDPIECE)
    assert model.resident_bytes == len(made.encoder()) + 20 * len(WORDPIECE)
    assert model.manifest.tokenizer_bytes_max == 60 * len(WORDPIECE)


ALONE = """
import os, pathlib, sys, time
import tests.support.texts as made
from gateway.runtime import texts
manifest, contents = made.manifest()
path = pathlib.Path(sys.argv[1])
path.write_bytes(contents["tokenizer.json"])
tasks = len(os.listdir("/proc/self/task"))
reader = texts.build(manifest, path)
began = time.process_time(), time.thread_time()
reader.read(["the cat sat " * 5000] * 8)
spent = time.process_time() - began[0], time.thread_time() - began[1]
assert len(os.listdir("/proc/self/task")) == tasks, "threads"
assert spent[1] > 0.9 * spent[0] > 0.01, spent
assert not [name for name in sys.modules if name.startswith(("huggingface", "hf_xet", "httpx2"))], "hub"
"""


async def test_the_library_starts_no_threads_and_no_hub(tmp_path: Path) -> None:
    """In a process of its own: what a gateway imports for texts, and on whose thread it reads them."""
    arguments = [sys.executable, "-c", ALONE, str(tmp_path / "tokenizer.json")]
    process = await asyncio.create_subprocess_exec(*arguments, stderr=asyncio.subprocess.PIPE)
    _, stderr = await process.communicate()
    assert process.returncode == 0, stderr.decode()


SHORT = """
import pathlib, sys
import tests.support.texts as made
from gateway.runtime import memory, texts
manifest, contents = made.manifest()
path = pathlib.Path(sys.argv[1])
path.write_bytes(contents["tokenizer.json"])
reader = texts.build(manifest, path)
with memory.build_limit(1 << 20):
    try:
        reader.read(["x!" * 50_000])
    except MemoryError:
        print("MemoryError")
reader.read(["x!" * 50_000])
"""


async def test_short_memory_is_an_error_that_callers_are_told(tmp_path: Path) -> None:
    """Rust ends the process where it gets none, and while a model is being built there is little for everybody."""
    arguments = [sys.executable, "-c", SHORT, str(tmp_path / "tokenizer.json")]
    process = await asyncio.create_subprocess_exec(*arguments, stdout=asyncio.subprocess.PIPE)
    stdout, _ = await process.communicate()
    assert (process.returncode, stdout) == (0, b"MemoryError\n")


async def test_a_shadow_with_another_tokenizer_is_refused(tmp_path: Path) -> None:
    store: Any = MemoryStore()
    await made.publish(store)
    await made.publish(store, promote_to="second", graph=made.encoder(1))
    await made.publish(store, promote_to="third", tokenizer=made.wordpiece(truncation=None))
    decide: dict[str, Any] = {"model": "topics", "alias": "champion", "author": releasing.Author("tests", "", 1)}
    async with real(store, tmp_path) as repository:
        await repository.ready("topics")
        await releasing.shadow(store, version=2, sample_bp=10_000, **decide)
        await followed(repository, "topics")
        [state] = repository.servings()
        assert (state.shadow_version, state.problem) == (2, "")
        await releasing.shadow(store, version=3, sample_bp=10_000, **decide)
        await followed(repository, "topics")
        [state] = repository.servings()
        assert state.shadow_version is None
        assert (
            "version 3 does not take part in alias 'champion': it reads text by another tokenizer than version 1"
            in state.problem
        )
        assert {resident.version for resident, _ in repository.residents()} == {1}
