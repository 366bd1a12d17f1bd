"""What a publisher, an operator or a failing disk can put into the store, met by a real gateway process over real HTTP.

A broken artifact is refused with a sentence, a garbage record is passed over, a store that is away or read-only is waited for; and
all the while others are served. What onnxruntime says to each broken graph is told in `tests/unit/test_bad_artifacts.py`.
"""

import asyncio
import contextlib
import http.client
import itertools
import json
import os
import random
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
import pytest
from onnx import helper

from gateway.accounting import segment
from gateway.contract import layout, prices
from gateway.contract.manifest import BatchCost
from gateway.objectstore.local import LocalStore
from tests.support import accesskeys, footprints, gateways, graphs, models
from tests.support.gateways import Answer, Gateway, until

MIB = 1 << 20
RUN_BYTES_MAX = 32 * MIB
BUILD_BYTES_MAX = 64 * MIB
PEAK_BYTES_MAX = 2 * BUILD_BYTES_MAX + RUN_BYTES_MAX
"""A build that runs out of memory is tried once more. The gibibytes that these graphs ask for would show."""

ROWS = {"rows": [dict(models.TINY_EXAMPLES.rows[0])]}


def infer(gateway: Gateway, model: str, value: float = 0) -> Answer:
    data = {"name": "x", "shape": [1, 3], "datatype": "FP32", "data": [value] * 3}
    return gateway.post(f"/v2/models/{model}/infer", {"inputs": [data]})


def is_served(gateway: Gateway, model: str = "tiny", **headers: str) -> bool:
    answer = gateway.request("POST", f"/v1/predict/{model}", ROWS, **headers)
    return answer.status == 200 and 0 < answer.json["predictions"][0]["late_probability"] < 1


def connected(gateway: Gateway) -> "contextlib.closing[http.client.HTTPConnection]":
    """For a caller who would wait for what never ends."""
    return contextlib.closing(http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=gateways.ANSWER_S))


def is_well(gateway: Gateway) -> None:
    assert gateway.process.poll() is None
    log = gateway.log.read_text()
    assert "Traceback" not in log, log


# Artifacts.


def external(location: str) -> onnx.ModelProto:
    return graphs.graph(graphs.add_weights(), tensors=[graphs.tensor([3], location=location, length="12")])


def many_numbers(count: int) -> onnx.ModelProto:
    return graphs.of_one("ConstantOfShape", shape=np.array([count], np.int64))


def doubled(times: int) -> onnx.ModelProto:
    """One number doubled so often, which is computed when the graph is built."""
    names = ["one", *(f"copy_{at}" for at in range(times))]
    nodes = [helper.make_node("Concat", [a, a], [b], axis=0) for a, b in itertools.pairwise(names)]
    nodes += [helper.make_node("ReduceMax", [names[-1]], ["most"], keepdims=0), *_added("most")]
    return graphs.graph(nodes, {"one": np.ones(1, np.float32)})


def sparse_gibibyte() -> onnx.ModelProto:
    nodes = [helper.make_node("ReduceMax", ["w"], ["most"], keepdims=0), *_added("most")]
    return graphs.graph(nodes, sparse=[graphs.sparse("w", 1 << 28)])


def as_many_as_asked() -> onnx.ModelProto:
    """Makes as many numbers as the caller's largest one says."""
    nodes = [
        helper.make_node("ReduceMax", ["x"], ["asked"], keepdims=1),
        helper.make_node("Cast", ["asked"], ["whole"], to=onnx.TensorProto.INT64),
        helper.make_node("Reshape", ["whole", "flat"], ["shape"]),
        helper.make_node("ConstantOfShape", ["shape"], ["numbers"]),
        helper.make_node("Shape", ["numbers"], ["size"]),
        helper.make_node("Cast", ["size"], ["most"], to=onnx.TensorProto.FLOAT),
        *_added("most"),
    ]
    return graphs.graph(nodes, {"flat": np.array([1], np.int64)})


def _added(name: str) -> list[onnx.NodeProto]:
    return [helper.make_node("Add", ["x", name], ["y"])]


IDENTITY = [helper.make_node("Identity", ["x"], ["y"])]
BAD: dict[str, tuple[Callable[[], onnx.ModelProto], str]] = {
    "beside": (lambda: external("weights.bin"), "external data"),
    "outside": (lambda: external("../../../../../../etc/hostname"), "external data"),
    "absolute": (lambda: external("/etc/hostname"), "external data"),
    "domain": (
        lambda: graphs.graph(
            [helper.make_node("Own", ["x"], ["y"], domain="corp.own")], opsets={"": 20, "corp.own": 1}
        ),
        "corp.own:Own",
    ),
    "opset": (lambda: graphs.graph(IDENTITY, opsets={"": 99}), "opset"),
    "ir": (lambda: graphs.graph(IDENTITY, ir_version=99), "IR version"),
    "terabytes": (
        lambda: graphs.graph(graphs.add_weights(), tensors=[graphs.tensor([1 << 40, 3], b"\0" * 12)]),
        "declares a size",
    ),
    "signature": (lambda: graphs.graph([helper.make_node("Cast", ["x"], ["y"], to=7)]), "onnxruntime refuses"),
    "built": (sparse_gibibyte, "runtime.build_bytes_max"),
    "folded": (lambda: doubled(28), "_bytes_max"),  # of builds or, when only the folding ran out of memory, of runs
    "run": (lambda: many_numbers(1 << 28), "runtime.run_bytes_max"),
    "endless": (graphs.endless, "runtime.first_run_s"),
}


async def publish(store: LocalStore, name: str, model: onnx.ModelProto, *, declared_ns: int = 20_000) -> None:
    """Under its own name in its own bytes, so that no cache of files can answer for it.

    `declared_ns` is what its manifest says that a run takes: little, and the gateway runs it on its event loop.
    """
    model.producer_name = name
    manifest, contents = models.manifest_of(name, graphs.SIGNATURE, {"fp32": model.SerializeToString()})
    [variant] = manifest.variants
    variant = msgspec.structs.replace(variant, batch_cost=BatchCost(base_ns=declared_ns, row_ns=100))
    await models.publish_files(store, msgspec.structs.replace(manifest, variants=(variant,)), contents)


async def publish_all(root: Path) -> None:
    store = LocalStore(root)
    await models.publish_tiny(store)
    await publish(store, "asked", as_many_as_asked())
    for name, (build, _) in BAD.items():
        await publish(store, name, build())


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("artifacts")
    asyncio.run(publish_all(root))
    return root


@pytest.fixture(scope="module")
def gateway(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    settings = {
        "RUNTIME__RUN_BYTES_MAX": str(RUN_BYTES_MAX),
        "RUNTIME__BUILD_BYTES_MAX": str(BUILD_BYTES_MAX),
        "RUNTIME__FIRST_RUN_S": "0.2",
        "RUNTIME__TRIM_S": "0.2",
        "REPOSITORY__REFUSED_S": "0",
    }
    environment = {f"STEELYARD_{name}": value for name, value in settings.items()}
    with gateways.running(root, tmp_path_factory.mktemp("gateway"), "--preload", "tiny", **environment) as running:
        yield running


@pytest.mark.parametrize("name", BAD)
def test_a_bad_artifact_is_a_sentence_at_every_door_and_others_are_served(
    gateway: Gateway, root: Path, name: str
) -> None:
    _, sentence = BAD[name]
    for answer in (
        infer(gateway, name),
        gateway.post(f"/v1/predict/{name}", {"rows": [{"x": [0, 0, 0]}]}),
        gateway.post(f"/v2/repository/models/{name}/load", b""),
        gateway.get(f"/v2/models/{name}/ready"),
    ):
        assert (answer.status, sentence in answer.error) == (503, True), answer.error
        assert f"'{name}'" in answer.error
        assert str(root.parent) not in answer.error
        assert is_served(gateway)
    assert name not in {entry["name"] for entry in gateway.get("/v1/loaded").json}
    is_well(gateway)


def test_bad_artifacts_leave_nothing_behind(gateway: Gateway) -> None:
    """What each of them left would be there fifteen times. Once is no leak: on an overloaded core the process has been seen to hold
    42 MB more than at another time and to stay there, about what onnxruntime's one arena may have.
    """
    for name in BAD:
        infer(gateway, name)
    base = footprints.settled(gateway.process.pid)
    for _ in range(15):
        for name in BAD:
            assert infer(gateway, name).status == 503
    footprints.comes_within(gateway.process.pid, base, bytes_more=16 * MIB + RUN_BYTES_MAX, threads_more=4)
    assert footprints.of(gateway.process.pid).peak_bytes < base.resident_bytes + PEAK_BYTES_MAX
    is_well(gateway)


@pytest.mark.parametrize("value", [1e8, 1e12, 9e18, -1, 3e38])
def test_rows_for_which_a_graph_needs_too_much_are_refused_and_the_next_are_answered(
    gateway: Gateway, value: float
) -> None:
    refused = infer(gateway, "asked", value)
    assert refused.status == 400
    assert "runtime.run_bytes_max" in refused.error or "its operator ConstantOfShape failed" in refused.error
    assert infer(gateway, "asked", 2).json["outputs"][0]["data"] == [4, 4, 4]
    assert is_served(gateway)
    is_well(gateway)


@pytest.mark.parametrize("declared_ns", [20_000, 10_000_000], ids=["on the event loop", "in a worker"])
def test_rows_for_which_a_graph_never_ends_hold_up_their_own_caller_only(tmp_path: Path, declared_ns: int) -> None:
    root = tmp_path / "store"
    root.mkdir()
    asyncio.run(publish(LocalStore(root), "endless", graphs.endless(only_for_positive=True), declared_ns=declared_ns))
    with gateways.running(root, tmp_path, "--preload", "endless", STEELYARD_RUNTIME__WORKERS="1") as gateway:
        assert infer(gateway, "endless", -1).status == 200
        body = {"inputs": [{"name": "x", "shape": [1, 3], "datatype": "FP32", "data": [1, 1, 1]}]}
        with connected(gateway) as caller:
            caller.request("POST", "/v2/models/endless/infer", json.dumps(body), {"Steelyard-Timeout-Ms": "200"})
            assert caller.getresponse().status == 503
        with connected(gateway) as caller:
            body["inputs"][0]["data"] = [-1, -1, -1]
            caller.request("POST", "/v2/models/endless/infer", json.dumps(body), {"Steelyard-Timeout-Ms": "20000"})
            assert caller.getresponse().status == 200


# Records.


def garbage(seed: int = 0) -> list[bytes]:
    """Nothing, noise, JSON of the wrong shape, too deep, too large, from the future."""
    rng = random.Random(seed)
    return [
        b"",
        rng.randbytes(200),
        b"\xff\xfe{}",
        b"null",
        b"[]",
        b"{}",
        b"[" * 8000,
        b'{"schema_version":' * 400,
        b'{"schema_version":99}',
        b'{"schema_version":1e400}',
        b'{"schema_version":' + b"9" * 5000 + b"}",
        b"x" * 100_000,
    ]


def broken(good: dict[str, Any], **wrong: Sequence[Any]) -> list[bytes]:
    """Good records, each with one field that is not."""
    return [json.dumps(good | {name: value}).encode() for name, values in wrong.items() for value in values]


def test_garbage_among_keys_and_spend_records_changes_nothing_for_good_keys(tmp_path: Path) -> None:
    root = tmp_path / "store"
    root.mkdir()
    store = LocalStore(root)
    asyncio.run(models.publish_tiny(store))
    token, record = asyncio.run(accesskeys.added(store, budget_picousd_per_day=10**12))
    keys = garbage() + broken(
        json.loads(msgspec.json.encode(record)),
        id=["", 5, "../../etc", record.id],
        secret_sha256=["", "0" * 63, None],
        rights=[[], ["root"], "predict", ["predict", "predict"]],
        models=[[], [5], ["../*"]],
        rps=[0, -1, 10**30],
        created_ns=[-1, 1e400, "now"],
    )
    day = time.strftime("%Y-%m-%d", time.gmtime())
    spends = garbage() + broken(
        {"container": "c", "boot_ns": 1, "date": day, "spent_picousd": {record.id: 5}},
        boot_ns=[-1, "x"],
        date=["today", 5],
        spent_picousd=[{record.id: -(10**18)}, {record.id: 10**40}, {"../x": 1}, [5], {record.id: "5"}],
    )
    for at, body in enumerate(keys):
        (root / layout.KEYS / f"garbage{at}.json").write_bytes(body)
    (root / layout.KEYS / "folder.json").mkdir()
    (root / layout.KEYS / os.fsdecode(b"\xff\n.json")).write_bytes(b"{}")
    folder = root / layout.spends(day)
    folder.mkdir(parents=True)
    for at, body in enumerate(spends):
        (folder / f"garbage{at}-1.json").write_bytes(body)
    settings = {"STEELYARD_ACCESS__POLL_S": "0.05", "STEELYARD_ACCESS__SPEND_INTERVAL_S": "0.05"}
    with gateways.running(root, tmp_path, "--preload", "tiny", **settings) as gateway:
        assert is_served(gateway, Steelyard_Key=token)
        assert gateway.post("/v1/predict/tiny", ROWS).status == 401
        until(
            lambda: any(record.id in path.read_text(errors="replace") for path in folder.glob("[!g]*.json")),
            "own spend",
        )
        (root / layout.key(record.id)).write_bytes(b"garbage now, of another length")
        until(lambda: gateway.request("POST", "/v1/predict/tiny", ROWS, Steelyard_Key=token).status == 401, "refused")
        is_well(gateway)


def test_a_garbage_price_book_in_the_store_costs_nobody_the_ledger(tmp_path: Path) -> None:
    root = models.tiny_store(tmp_path / "store")
    book = root / layout.price_book(prices.load().sha256)
    book.write_bytes(b"garbage")
    with gateways.running(root, tmp_path, "--preload", "tiny", STEELYARD_LEDGER__FLUSH_INTERVAL_S="0.1") as gateway:
        assert is_served(gateway)
        until(lambda: requests_in(root) == 1, "the request is in the ledger")
        assert "price book" in gateway.log.read_text()
        is_well(gateway)
        assert gateway.terminate() == 0


# The store itself.


def requests_in(root: Path) -> int:
    """How many requests the ledger accounts for; every segment balances."""
    found = [segment.decode(path.read_bytes()) for path in root.glob("ledger/v1/dt=*/hr=*/*/*.jsonl.gz")]
    assert all(segment.discrepancies(one) == () for one in found)
    return sum(posting.requests for one in found for posting in one.postings)


def away(root: Path) -> Callable[[], object]:
    gone = root.with_name("gone")
    shutil.move(root, gone)
    return lambda: shutil.move(gone, root)


def read_only(root: Path) -> Callable[[], object]:
    folders = [root, *(path for path in root.rglob("*") if path.is_dir())]
    for folder in folders:
        folder.chmod(0o555)
    return lambda: [folder.chmod(0o755) for folder in folders]


@pytest.mark.parametrize("harm", [away, read_only])
def test_a_store_that_cannot_be_used_for_a_while_stops_nobody_and_loses_no_request(
    tmp_path: Path, harm: Callable[[Path], Callable[[], object]]
) -> None:
    root = tmp_path / "store"
    root.mkdir()
    store = LocalStore(root)
    asyncio.run(models.publish_tiny(store))
    asyncio.run(models.publish_tiny(store, "later", seed=1))
    token, _ = asyncio.run(accesskeys.added(store, budget_picousd_per_day=10**12))
    settings = {
        "ACCESS__POLL_S": "0.05",
        "ACCESS__SPEND_INTERVAL_S": "0.05",
        "REPOSITORY__POLL_S": "0.05",
        "LEDGER__FLUSH_INTERVAL_S": "0.1",
    }
    environment = {f"STEELYARD_{name}": value for name, value in settings.items()}
    with gateways.running(
        root, tmp_path, "--preload", "tiny", prefix=without_root_s_exemption(), **environment
    ) as gateway:
        assert is_served(gateway, Steelyard_Key=token)
        until(lambda: requests_in(root) == 1, "a request in the ledger")
        heal = harm(root)
        try:
            until(lambda: "ledger: cannot write" in gateway.log.read_text(), "the ledger has noticed")
            for _ in range(20):
                assert is_served(gateway, Steelyard_Key=token)
            unloaded = gateway.request("POST", "/v1/predict/later", ROWS, Steelyard_Key=token)
            if harm is away:
                assert (unloaded.status, "retry-after" in unloaded.headers) == (503, True)
            else:
                assert unloaded.status == 200  # reading works
        finally:
            heal()
        asked = 21 + (unloaded.status == 200)
        until(lambda: is_served(gateway, "later", Steelyard_Key=token), "what was not loaded is served")
        assert gateway.terminate() == 0
    assert requests_in(root) >= asked + 1
    [closed] = root.glob("ledger/v1/containers/*/*-close.json")
    assert json.loads(closed.read_bytes())["segments"] == len(list(root.glob("ledger/v1/dt=*/hr=*/*/*.jsonl.gz")))
    log = gateway.log.read_text()
    assert "Traceback" not in log
    assert "are not in the ledger" not in log


def without_root_s_exemption() -> tuple[str, ...]:
    """What starts a process for which permissions hold, whoever runs the tests."""
    if os.geteuid() != 0:
        return ()
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        pytest.skip("NOT PROVEN: root passes over permissions, and there is no setpriv (util-linux) to take that away")
    dropped = "-dac_override,-dac_read_search"
    return (setpriv, f"--bounding-set={dropped}", f"--inh-caps={dropped}")
