"""Golden vectors: what the trainer records, what the gateway accepts and refuses, and that loading really runs them."""

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnxruntime as ort
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from gateway.contract import codec
from gateway.contract.golden import DTYPES, Expected, Golden, GoldenTensor, Tolerance
from gateway.contract.manifest import Manifest, Variant
from gateway.errors import DigestMismatch, GoldenMismatch, InvalidInput, ManifestInvalid
from gateway.repository import golden
from gateway.runtime.session import RunResult
from tests.support import goldens, models
from tests.support.memorystore import MemoryStore
from tests.support.repositories import WeighingLoader, Weight, followed, real, weighing

NAN, INF = float("nan"), float("inf")


def vectors(values: Any, *, rows: int = 2, absolute: float = 0.1, relative: float = 0.0, batch_rows: int = 2) -> Golden:
    output = goldens.tensor("y", np.asarray(values))
    expected = Expected("fp32", batch_rows, (output,), {"y": Tolerance(absolute=absolute, relative=relative)})
    return Golden(rows, (goldens.tensor("x", np.arange(rows, dtype=np.int64).reshape(rows, 1)),), (expected,))


async def checked(wanted: Golden, got: Any) -> bool:
    """Against a model that answers row x with `got[x]`."""

    async def run(inputs: dict[str, Any]) -> dict[str, Any]:
        return {"y": np.asarray(got)[inputs["x"][:, 0]]}

    return await golden.check(wanted, "fp32", "m", run)


@pytest.mark.parametrize(
    ("wanted", "got", "is_right"),
    [
        ([[0.5], [0.25]], [[0.5], [0.25]], True),
        ([[0.5], [0.25]], [[0.59], [0.16]], True),
        ([[0.5], [0.25]], [[0.5], [0.36]], False),
        ([[NAN], [INF]], [[NAN], [INF]], True),
        ([[0.5], [0.25]], [[NAN], [0.25]], False),
        ([[NAN], [0.25]], [[0.5], [0.25]], False),
        ([[INF], [0.25]], [[-INF], [0.25]], False),
        ([[0.5], [0.25]], [[0.5, 0.5], [0.25, 0.25]], False),
    ],
)
async def test_numbers_pass_within_their_tolerance_only(wanted: Any, got: Any, is_right: bool) -> None:
    check = checked(vectors(np.array(wanted, np.float32)), np.array(got, np.float32))
    if is_right:
        assert await check
    else:
        with pytest.raises(GoldenMismatch, match="model 'm', variant 'fp32', output 'y'"):
            await check


@pytest.mark.parametrize(
    ("wanted", "got", "is_right"),
    [
        (1000.0, 1000.9, True),
        (1000.0, 1001.2, False),
        (INF, INF, True),
        (INF, -INF, False),
        (INF, 1.0, False),
        (1.0, INF, False),
        (NAN, 1.0, False),
    ],
)
async def test_a_relative_tolerance_allows_nothing_where_a_value_is_no_number(
    wanted: float, got: float, is_right: bool
) -> None:
    check = checked(vectors(np.full((2, 1), wanted), relative=1e-3), np.full((2, 1), got))
    if is_right:
        assert await check
    else:
        with pytest.raises(GoldenMismatch):
            await check


@pytest.mark.parametrize("kind", [object, np.bool_])
async def test_text_and_booleans_pass_only_when_equal(kind: Any) -> None:
    values = np.array([["a"], ["b"]], object) if kind is object else np.array([[True], [False]])
    assert await checked(vectors(values), values)
    with pytest.raises(GoldenMismatch, match="2 of 2 values differ"):
        await checked(vectors(values), values[::-1])


async def test_vectors_run_in_the_batches_they_were_recorded_in_and_one_row_alone() -> None:
    batches: list[int] = []

    async def run(inputs: dict[str, Any]) -> dict[str, Any]:
        batches.append(len(inputs["x"]))
        return {"y": np.zeros((len(inputs["x"]), 1), np.float32)}

    wanted = vectors(np.zeros((5, 1), np.float32), rows=5)
    assert await golden.check(wanted, "fp32", "m", run)
    assert batches == [2, 2, 1, 1]
    assert not await golden.check(wanted, "int8", "m", run)  # nothing recorded for it


async def test_a_model_that_refuses_its_own_vectors_is_refused() -> None:
    async def run(inputs: dict[str, Any]) -> dict[str, Any]:
        raise InvalidInput("the model refuses this input")

    with pytest.raises(GoldenMismatch, match="its own golden inputs fail"):
        await golden.check(vectors(np.zeros((2, 1), np.float32)), "fp32", "m", run)


@given(
    hnp.arrays(st.sampled_from([np.dtype(code) for code in DTYPES.values()]), hnp.array_shapes(max_dims=3, max_side=4))
)
def test_any_tensor_survives_being_stored(values: Any) -> None:
    stored = msgspec.json.decode(msgspec.json.encode(goldens.tensor("y", values)), type=GoldenTensor)
    np.testing.assert_array_equal(golden.array(stored), values)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rows": 3}, "first dimension must be 3"),
        ({"rows": 0}, "rows"),
        ({"rows": 65}, "rows"),
        ({"inputs": [{"name": "x", "datatype": "FP32", "shape": [2, 1], "data": "AAAA"}]}, "3 bytes"),
        ({"inputs": [{"name": "x", "datatype": "BYTES", "shape": [2, 1], "strings": ["a"]}]}, "1 strings"),
        ({"inputs": [{"name": "x", "datatype": "FP128", "shape": [2, 1]}]}, "FP128"),
    ],
)
def test_vectors_that_contradict_themselves_are_no_vectors(change: dict[str, Any], message: str) -> None:
    tree = msgspec.json.decode(codec.encode(vectors(np.zeros((2, 1), np.float32)))) | change
    with pytest.raises(ManifestInvalid, match=message):
        codec.decode(msgspec.json.encode(tree), Golden)


async def test_loading_runs_the_vectors_and_refuses_a_graph_that_computes_something_else(tmp_path: Path) -> None:
    store: Any = MemoryStore()
    await goldens.publish_tiny(store)
    await goldens.publish_tiny(store, seed=1, error=0.01)
    async with real(store, tmp_path) as repository:
        with pytest.raises(GoldenMismatch, match=r"output 'probability': is 0\.\d+ here and was 0\.\d+ where"):
            await repository.ready("tiny")
        assert (await repository.ready("tiny", "1")).version == 1
        assert repository.counts.failed_loads == 1
        assert repository.counts.unchecked == 0
        assert [resident.version for resident, _ in repository.residents()] == [1]


class Answering(WeighingLoader):
    """Builds for 1,000,000 ns, as all of them do, and says of each run that it took 7."""

    async def load(
        self, manifest: Manifest, variant: Variant, path: Path, tokenizer: Path | None = None
    ) -> tuple[Weight, int]:
        self.session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
        return await super().load(manifest, variant, path)

    async def answer(self, model: Weight, inputs: dict[str, Any]) -> RunResult:
        return RunResult({"probability": self.session.run(["probability"], inputs)[0]}, 7, 7)


async def test_what_the_check_takes_is_part_of_what_the_load_takes(tmp_path: Path) -> None:
    store: Any = MemoryStore()
    await goldens.publish_tiny(store)
    async with weighing(store, tmp_path, Answering()) as (repository, _, observed):
        await repository.ready("tiny")
        assert observed.cpu_ns == [1_000_000 + 2 * 7]  # the vectors' one batch, and a row alone


async def test_a_release_with_other_answers_is_refused_and_the_old_one_stays(tmp_path: Path) -> None:
    store: Any = MemoryStore()
    await goldens.publish_tiny(store)
    async with real(store, tmp_path) as repository:
        await repository.ready("tiny")
        await goldens.publish_tiny(store, seed=1, error=0.01)
        await followed(repository, "tiny")
        [(resident, problem)] = repository.residents()
        assert resident.version == 1
        assert "version 2 is refused: model 'tiny', variant 'fp32', output 'probability'" in problem
        await goldens.publish_tiny(store, seed=2)
        await followed(repository, "tiny")
        assert [(r.version, problem) for r, problem in repository.residents()] == [(3, "")]


@pytest.mark.parametrize(
    ("outputs", "message"),
    [
        ({"z": np.zeros((2, 1), np.float32)}, "has no output 'y'"),
        ({"y": np.zeros((2, 1), np.int64)}, "is int64 here and was float32"),
        ({"y": np.array([["a"], ["b"]], object)}, "is object here and was float32"),
        ({"y": np.zeros((), np.float32)}, r"has shape \[\] here"),
    ],
)
async def test_vectors_of_another_signature_are_the_publishers_fault(outputs: dict[str, Any], message: str) -> None:
    """Any other error would be taken for a passing one, and the artifact loaded again at every look."""

    async def run(inputs: dict[str, Any]) -> dict[str, Any]:
        return outputs

    with pytest.raises(GoldenMismatch, match=message):
        await golden.check(vectors(np.zeros((2, 1), np.float32)), "fp32", "m", run)


async def test_vectors_that_were_altered_are_refused(tmp_path: Path) -> None:
    store: Any = MemoryStore()
    await goldens.publish_tiny(store)
    [key] = [key for key, body in store.objects.items() if b'"expected"' in body and "/blobs/" in key]
    store.objects[key] = store.objects[key].replace(b"0.0001", b"1.0001")
    async with real(store, tmp_path) as repository:
        with pytest.raises(DigestMismatch, match=r"'golden\.json' has sha256 .* in the store"):
            await repository.ready("tiny")
        del store.objects[key]
        with pytest.raises(DigestMismatch, match=r"'golden\.json' is missing"):
            await repository.ready("tiny")


async def test_an_artifact_without_vectors_loads_and_is_counted(tmp_path: Path) -> None:
    store: Any = MemoryStore()
    await models.publish_tiny(store)
    async with real(store, tmp_path) as repository:
        await repository.ready("tiny")
        assert repository.counts.unchecked == 1
