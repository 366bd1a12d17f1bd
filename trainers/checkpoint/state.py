"""A training run's state as named tensors and plain JSON, and back, to the last bit. Never pickle. Touches no store.

A part is whatever has `state_dict` and `load_state_dict`: modules, optimizers, schedulers, gradient scalers. The state of the
random number generators always belongs to it. Called by the fit loop; `trainers.checkpoint.store` keeps the result.
"""

import math
import platform
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol  # Any: state dicts are trees of anything until they are encoded

import msgspec
import numpy as np
import torch

from trainers.errors import DataError, SpecError

RANDOM = "random"
"""The part that holds the random number generators; no other part can have this name."""


class Stateful(Protocol):
    def state_dict(self) -> Any: ...

    def load_state_dict(self, state_dict: Any, /) -> Any: ...


class Snapshot(msgspec.Struct, frozen=True):
    """State after `step` steps. `tensors` by name; `parts` is the JSON tree that refers to them; `facts` is the caller's own.

    `facts` holds what JSON can say, and besides: tuples, numbers that are not finite, keys that are no strings.
    """

    step: int
    tensors: Mapping[str, torch.Tensor]
    parts: Mapping[str, Any]
    facts: Mapping[str, Any]


def capture(step: int, parts: Mapping[str, Stateful], facts: Mapping[str, Any]) -> Snapshot:
    """The state of all parts and of the random number generators.

    The tensors are the living ones: copy them (`copied`) before the next step; the rest is copied here. Raises `SpecError` naming a
    value that is neither a tensor nor plain data.
    """
    tensors: dict[str, torch.Tensor] = {}
    trees = {name: encode(part.state_dict(), name, tensors) for name, part in _with_random(parts).items()}
    plain = decode(
        facts_json(facts), {}
    )  # refused now, not when the save has begun; a history may grow while it is saved
    return Snapshot(step=step, tensors=tensors, parts=trees, facts=plain)


def copied(snapshot: Snapshot, into: dict[str, torch.Tensor] | None = None) -> Snapshot:
    """The same with tensors of its own in main memory, in the buffers `into` where they fit (left-overs of an earlier snapshot)."""
    buffers = {} if into is None else into
    for name, tensor in snapshot.tensors.items():
        kept = buffers.get(name)
        if kept is None or kept.shape != tensor.shape or kept.dtype != tensor.dtype:
            buffers[name] = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=tensor.is_cuda)
        buffers[name].copy_(tensor.detach(), non_blocking=tensor.is_cuda)
    if any(tensor.is_cuda for tensor in snapshot.tensors.values()):
        torch.cuda.synchronize()
    return msgspec.structs.replace(snapshot, tensors={name: buffers[name] for name in snapshot.tensors})


def restore(snapshot: Snapshot, parts: Mapping[str, Stateful]) -> None:
    """Load the state into new parts, made as the saved ones were, and set the random number generators.

    Raises `SpecError` when the parts are others, or of another shape.
    """
    wanted = _with_random(parts)
    if wanted.keys() != snapshot.parts.keys():
        raise SpecError(
            f"the checkpoint of step {snapshot.step} has the parts {sorted(snapshot.parts)}, this code has {sorted(wanted)}; "
            "resume with the code that made it, or start a new run"
        )
    for name, part in wanted.items():
        state = decode(snapshot.parts[name], snapshot.tensors)
        try:
            part.load_state_dict(_as_module_state(part, state))
        except (RuntimeError, ValueError, KeyError, TypeError) as error:
            raise SpecError(
                f"the checkpoint of step {snapshot.step} does not fit part '{name}': {' '.join(str(error).split())}; "
                "resume with the code that made it, or start a new run"
            ) from error


def fingerprint(device: torch.device) -> dict[str, str]:
    """What must be equal for training to go on to the same bits: device, threads, versions. Names no host and no path.

    PyTorch promises equal results on nothing else (pytorch.org/docs, notes/randomness); even the thread count changes sums.
    """
    facts = {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else _processor(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "threads": str(torch.get_num_threads()),
        "torch": str(torch.__version__),  # a class of its own
        "numpy": np.__version__,
        "python": platform.python_version(),
    }
    if device.type == "cuda":
        cudnn = torch.backends.cudnn.version()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        facts |= {"cuda": str(torch.version.cuda), "cudnn": str(cudnn)}
    return facts


def facts_json(facts: Mapping[str, Any]) -> Any:
    """The caller's facts as a JSON tree. Raises `SpecError` for what is no plain data, tensors among it."""
    tensors: dict[str, torch.Tensor] = {}
    tree = encode(facts, "facts", tensors)
    if tensors:
        raise SpecError(f"{sorted(tensors)} are tensors; a checkpoint's facts are plain data, so keep them in a part")
    return tree


def encode(value: Any, name: str, tensors: dict[str, torch.Tensor]) -> Any:
    """`value` as a JSON tree; its tensors go into `tensors` under names that begin with `name`. `decode` is the inverse.

    What JSON cannot say is an object with one key that begins with '$'. Finite floats stay numbers: their shortest decimal form
    reads back as the same bits. Raises `SpecError` for anything that is no data.
    """
    if isinstance(value, torch.Tensor):
        return {"$tensor": _keep(value, name, tensors)}
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else {"$float": repr(value)}
    if isinstance(value, list | tuple):
        items = [encode(item, f"{name}/{i}", tensors) for i, item in enumerate(value)]
        return {"$tuple": items} if isinstance(value, tuple) else items
    if isinstance(value, Mapping):
        return _encode_mapping(value, name, tensors)
    raise SpecError(
        f"'{name}' is a {type(value).__name__}, which no checkpoint can hold; make it a tensor or plain data"
    )


def decode(tree: Any, tensors: Mapping[str, torch.Tensor]) -> Any:
    """The value that `encode` was given. Raises `DataError` for a tree that `encode` did not make."""
    if isinstance(tree, list):
        return [decode(item, tensors) for item in tree]
    if not isinstance(tree, dict):
        return tree
    if len(tree) == 1 and (tag := next(iter(tree))).startswith("$"):
        return _decode_tagged(tag, tree[tag], tensors)
    return {key: decode(item, tensors) for key, item in tree.items()}


class RandomState:
    """The generators of torch (CPU and every CUDA device), numpy's global one and Python's, as one part."""

    def state_dict(self) -> dict[str, Any]:
        generator = np.random.get_state(legacy=False)
        assert isinstance(generator, dict)  # what legacy=False means
        key = torch.from_numpy(generator["state"]["key"].astype(np.int64))  # of 32 bits, unsigned
        return {
            "torch": torch.get_rng_state(),
            "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
            "numpy": generator | {"state": generator["state"] | {"key": key}},
            "python": random.getstate(),
        }

    def load_state_dict(self, state: dict[str, Any], /) -> None:
        inner = state["numpy"]["state"]
        torch.set_rng_state(state["torch"])
        np.random.set_state(state["numpy"] | {"state": inner | {"key": inner["key"].numpy().astype(np.uint32)}})
        random.setstate(state["python"])
        # Fewer devices than were saved is possible only without strict resume, which compares the hosts first.
        for device, of_device in zip(range(torch.cuda.device_count()), state["cuda"], strict=False):
            torch.cuda.set_rng_state(of_device, device)


def _encode_mapping(value: Mapping[Any, Any], name: str, tensors: dict[str, torch.Tensor]) -> Any:
    if all(isinstance(key, str) and not key.startswith("$") for key in value):
        return {key: encode(item, f"{name}/{key}", tensors) for key, item in value.items()}
    return {
        "$items": [[encode(key, name, tensors), encode(item, f"{name}/{key}", tensors)] for key, item in value.items()]
    }


def _decode_tagged(tag: str, content: Any, tensors: Mapping[str, torch.Tensor]) -> Any:
    match tag, content:
        case "$tensor", str(name) if name in tensors:
            return tensors[name].clone()  # an optimizer keeps what it is given, and goes on to change it
        case "$float", "nan" | "inf" | "-inf":
            return float(content)
        case "$tuple", list(items):
            return tuple(decode(items, tensors))
        case "$items", list(pairs) if all(isinstance(pair, list) and len(pair) == 2 for pair in pairs):
            return {decode(key, tensors): decode(item, tensors) for key, item in pairs}
    raise DataError(f"a checkpoint's facts hold a '{tag}' that means nothing")


def _with_random(parts: Mapping[str, Stateful]) -> dict[str, Stateful]:
    if RANDOM in parts:
        raise SpecError(f"a part cannot be called '{RANDOM}': the random number generators are")
    return {**parts, RANDOM: RandomState()}


def _keep(tensor: torch.Tensor, name: str, tensors: dict[str, torch.Tensor]) -> str:
    if tensor.layout is not torch.strided:
        raise SpecError(f"'{name}' is a {tensor.layout} tensor, which no checkpoint can hold; make it dense")
    while name in tensors:  # a key 0 and a key '0' of one mapping
        name += "'"
    tensors[name] = tensor.detach()
    return name


def _as_module_state(part: Stateful, state: Any) -> Any:
    """A module's state dict carries versions of its classes beside its entries; without them, old formats are assumed."""
    if isinstance(part, torch.nn.Module):
        state = type(own := part.state_dict())(state)
        state._metadata = own._metadata  # type: ignore[attr-defined]  # noqa: SLF001 - where torch itself looks for it
    return state


def _processor() -> str:
    """The processor's name: kernels choose block sizes, and with them the order of sums, by its model."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
