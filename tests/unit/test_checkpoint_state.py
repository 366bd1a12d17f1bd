"""A training's state survives being written and read to the last bit, and nothing of it can be left out unnoticed."""

import json
import math
import random
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from gateway.contract.checkpoint import CheckpointManifest, Origin
from gateway.errors import DigestMismatch, ManifestInvalid
from tests.support.smalltraining import PARTS, STEPS, SmallTraining
from trainers.checkpoint import files, state
from trainers.errors import DataError, SpecError

ORIGIN = Origin("0" * 64, {"train": "1" * 64}, {"threads": "1"})


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Any:
    threads, was_deterministic = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(was_deterministic)


@pytest.fixture(scope="module")
def whole() -> str:
    return SmallTraining().run_to(STEPS).weight_hash()


def through_bytes(snapshot: state.Snapshot) -> state.Snapshot:
    manifest, data = packed(snapshot)
    return files.unpack(manifest, data)


def packed(snapshot: state.Snapshot) -> tuple[CheckpointManifest, dict[str, bytes]]:
    draft = CheckpointManifest("run", snapshot.step, 1, 0, ORIGIN, "proven", ())
    written = {file.name: data for file, data in files.pack(snapshot, draft).files}
    return msgspec.json.decode(written.pop("manifest.json"), type=CheckpointManifest), written


# --- bit-exact


RESUME_IN_A_NEW_PROCESS = """
import sys, msgspec, torch
from pathlib import Path
from gateway.contract.checkpoint import CheckpointManifest
from tests.support.smalltraining import STEPS, SmallTraining
from trainers.checkpoint import files
torch.set_num_threads(1)
folder = Path(sys.argv[1])
manifest = msgspec.json.decode((folder / "manifest.json").read_bytes(), type=CheckpointManifest)
snapshot = files.unpack(manifest, {file.name: (folder / file.name).read_bytes() for file in manifest.files})
print(SmallTraining().resume(snapshot).run_to(STEPS).weight_hash())
"""


def test_a_new_process_goes_on_to_the_same_weights(whole: str, tmp_path: Path) -> None:
    step = random.SystemRandom().randrange(1, STEPS)  # the module's own generator belongs to the training
    snapshot = SmallTraining().run_to(step).snapshot()
    draft = CheckpointManifest("run", snapshot.step, 1, 0, ORIGIN, "proven", ())
    for file, data in files.pack(snapshot, draft).files:
        (tmp_path / file.name).write_bytes(data)

    command = [sys.executable, "-c", RESUME_IN_A_NEW_PROCESS, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2])

    assert (done.stdout.strip(), done.stderr) == (whole, ""), f"resumed at step {step}"


@pytest.mark.parametrize("step", [0, 1, STEPS // 2, STEPS - 1, STEPS])
def test_every_step_is_a_good_one_to_resume_from(whole: str, step: int) -> None:
    snapshot = through_bytes(SmallTraining().run_to(step).snapshot())

    assert SmallTraining(seed=0).resume(snapshot).run_to(STEPS).weight_hash() == whole


@pytest.mark.parametrize("part", PARTS)
def test_no_part_can_be_left_out(whole: str, part: str) -> None:
    snapshot = through_bytes(SmallTraining().run_to(77).snapshot())

    assert SmallTraining().resume(snapshot, without=part).run_to(STEPS).weight_hash() != whole


@pytest.mark.parametrize("generator", ["torch", "numpy", "python"])
def test_no_random_number_generator_can_be_left_out(whole: str, generator: str) -> None:
    snapshot = through_bytes(SmallTraining().run_to(77).snapshot())
    fresh = SmallTraining().snapshot()
    mixed = {**snapshot.parts[state.RANDOM], generator: fresh.parts[state.RANDOM][generator]}
    tensors = {**snapshot.tensors, **{n: t for n, t in fresh.tensors.items() if n.startswith(f"random/{generator}")}}
    damaged = state.Snapshot(77, tensors, {**snapshot.parts, state.RANDOM: mixed}, {})

    assert SmallTraining().resume(damaged).run_to(STEPS).weight_hash() != whole


def test_a_resumed_training_does_not_change_the_snapshot_it_came_from(whole: str) -> None:
    snapshot = through_bytes(SmallTraining().run_to(30).snapshot())
    SmallTraining().resume(snapshot).run_to(STEPS)

    assert SmallTraining().resume(snapshot).run_to(STEPS).weight_hash() == whole


def test_a_copy_does_not_follow_the_training(whole: str) -> None:
    training = SmallTraining().run_to(40)
    buffers: dict[str, torch.Tensor] = {}
    state.copied(SmallTraining().run_to(0).snapshot(), buffers)  # left-overs of an earlier save are overwritten
    training.resume(SmallTraining().run_to(40).snapshot())
    snapshot = state.copied(training.snapshot(), buffers)
    training.run_to(STEPS)

    assert SmallTraining().resume(snapshot).run_to(STEPS).weight_hash() == whole


def test_facts_do_not_follow_the_training() -> None:
    history = [{"loss": 1.0}]
    snapshot = state.capture(1, {}, {"history": history})
    history[0]["loss"] = 0.5
    history.append({"loss": 0.25})

    assert through_bytes(snapshot).facts == {"history": [{"loss": 1.0}]}


class OddTensors(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.tied = nn.Linear(4, 4)
        self.again = self.tied  # two names, one tensor
        self.register_buffer("transposed", torch.arange(6.0).reshape(2, 3).T)
        self.register_buffer("brief", torch.tensor([1.5, float("nan")], dtype=torch.bfloat16))
        self.register_buffer("empty", torch.empty(0, 3))


def test_tied_transposed_half_and_empty_tensors_come_back() -> None:
    saved, loaded = OddTensors(), OddTensors()
    snapshot = through_bytes(state.copied(state.capture(1, {"module": saved}, {})))
    for tensor in loaded.state_dict().values():
        tensor.zero_()

    state.restore(snapshot, {"module": loaded})

    for name, tensor in saved.state_dict().items():
        assert torch.equal(tensor.nan_to_num(7), loaded.state_dict()[name].nan_to_num(7)), name


def test_schedules_and_a_scaler_that_say_infinity_come_back() -> None:
    def parts() -> dict[str, Any]:
        optimizer = torch.optim.SGD([nn.Parameter(torch.ones(3))], 0.1, momentum=0.9)
        return {
            "optimizer": optimizer,
            "plateau": torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer),
            "scaler": torch.amp.GradScaler("cpu", init_scale=1024.0),
        }

    saved, loaded = parts(), parts()
    saved["plateau"].step(0.25)
    saved["scaler"].scale(torch.zeros(1))
    saved["scaler"].update(0.1)

    state.restore(through_bytes(state.capture(5, saved, {})), loaded)

    for name in saved:
        assert loaded[name].state_dict() == saved[name].state_dict()


# --- what JSON cannot say


plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: (
        st.lists(inner)
        | st.lists(inner).map(tuple)
        | st.dictionaries(st.text() | st.integers() | st.sampled_from(["$tuple", "$float", "$tensor", "$items"]), inner)
    ),
    max_leaves=20,
)


@given(plain)
def test_facts_come_back_as_they_were(value: Any) -> None:
    tree = json.loads(json.dumps(state.encode(value, "fact", {}), allow_nan=False))

    assert bits(state.decode(tree, {})) == bits(value)


def bits(value: Any) -> Any:
    """Floats by their bits (all not-a-numbers alike), containers with their types."""
    if isinstance(value, float):
        return "nan" if math.isnan(value) else struct.pack("<d", value)
    if isinstance(value, list | tuple):
        return type(value), [bits(item) for item in value]
    if isinstance(value, dict):
        return [(key, bits(item)) for key, item in value.items()]
    return type(value), value


def test_numpy_numbers_are_numbers() -> None:
    assert state.decode(state.encode({"loss": np.float32(0.1), "rows": np.int64(7)}, "", {}), {}) == {
        "loss": float(np.float32(0.1)),
        "rows": 7,
    }


def test_two_keys_that_read_alike_keep_their_tensors() -> None:
    tensors: dict[str, torch.Tensor] = {}
    tree = state.encode({0: torch.zeros(1), "0": torch.ones(1)}, "part", tensors)

    assert {key: float(tensor) for key, tensor in state.decode(tree, tensors).items()} == {0: 0.0, "0": 1.0}


# --- refusals


@pytest.mark.parametrize("value", [object(), {1, 2}, b"bytes", lambda: None, torch.eye(2).to_sparse()])
def test_what_is_no_data_is_refused_by_name(value: Any) -> None:
    with pytest.raises(SpecError, match="'facts/deep/0'"):
        state.capture(0, {}, {"deep": [value]})


def test_facts_hold_no_tensors() -> None:
    with pytest.raises(SpecError, match=r"facts/loss.*keep them in a part"):
        state.capture(0, {}, {"loss": torch.zeros(1)})


def test_the_random_part_has_its_name_for_itself() -> None:
    with pytest.raises(SpecError, match="random"):
        state.capture(0, {"random": nn.Linear(1, 1)}, {})


def test_other_parts_than_were_saved_are_refused() -> None:
    snapshot = SmallTraining().snapshot()
    parts = SmallTraining().parts()
    del parts["schedule"]

    with pytest.raises(SpecError, match="schedule"):
        state.restore(snapshot, parts)


@pytest.mark.parametrize(
    ("part", "other"),
    [("model", nn.Linear(2, 2)), ("optimizer", torch.optim.SGD([nn.Parameter(torch.zeros(1))], 0.1))],
)
def test_a_part_of_another_shape_is_refused_by_name(part: str, other: Any) -> None:
    with pytest.raises(SpecError, match=f"does not fit part '{part}'.*new run"):
        state.restore(SmallTraining().snapshot(), SmallTraining().parts() | {part: other})


@pytest.mark.parametrize(
    "tree", [{"$tensor": "gone"}, {"$float": "1.5"}, {"$tuple": 3}, {"$items": [[1]]}, {"$new": 1}]
)
def test_a_tree_that_means_nothing_is_refused(tree: Any) -> None:
    with pytest.raises(DataError, match=r"\$"):
        state.decode(tree, {})


def test_every_changed_byte_of_a_file_is_noticed() -> None:
    manifest, data = packed(SmallTraining().snapshot())
    for file in manifest.files:
        body = bytearray(data[file.name])
        body[random.randrange(len(body))] ^= 1
        for changed in (bytes(body), data[file.name][:-1], data[file.name] + b" "):
            with pytest.raises(DigestMismatch, match=file.name):
                files.verify(file, changed)


@pytest.mark.parametrize(
    ("name", "body"), [("state.safetensors", b"junk"), ("facts.json", b"[]"), ("facts.json", b"{}")]
)
def test_files_that_no_save_wrote_are_no_checkpoint(name: str, body: bytes) -> None:
    manifest, data = packed(SmallTraining().snapshot())

    with pytest.raises(ManifestInvalid, match="no checkpoint"):
        files.unpack(manifest, data | {name: body})


def test_a_fingerprint_changes_with_the_thread_count() -> None:
    one = state.fingerprint(torch.device("cpu"))
    torch.set_num_threads(2)
    two = state.fingerprint(torch.device("cpu"))
    torch.set_num_threads(1)

    assert one | {"threads": "2"} == two
    assert all(type(text) is str and text for text in one.values()), "they are stored"
