"""Whether a loaded model computes here what it computed where it was published. Its first run, so it warms it too."""

from collections.abc import Awaitable, Callable, Iterator

import numpy as np

from gateway.contract.golden import DTYPES, Golden, GoldenTensor, Tolerance
from gateway.errors import DeadlineExceeded, GoldenMismatch, InvalidInput
from gateway.repository.outputs import Array, Tensors, apart

Run = Callable[[dict[str, Array]], Awaitable[Tensors]]
"""One run of the model, off the event loop."""


async def check(golden: Golden, variant: str, model: str, run: Run) -> bool:
    """Run the vectors as they were recorded, then one row alone: the commonest call should not be the one that warms up.

    False when the publisher recorded nothing for this variant. Raises `GoldenMismatch` naming the worst output.
    """
    expected = golden.of_variant(variant)
    if expected is None:
        return False
    inputs = {tensor.name: array(tensor) for tensor in golden.inputs}
    try:
        batches = [await run(batch) for batch in _batches(inputs, golden.rows, expected.batch_rows)]
        await run({name: values[:1] for name, values in inputs.items()})
    except (InvalidInput, DeadlineExceeded) as error:
        raise GoldenMismatch(f"model '{model}', variant '{variant}': its own golden inputs fail: {error}") from error
    for tensor in expected.outputs:
        parts = [batch[tensor.name] for batch in batches if tensor.name in batch]
        _require(tensor, parts, expected.tolerances[tensor.name], f"model '{model}', variant '{variant}'")
    return True


def array(tensor: GoldenTensor) -> Array:
    """As the runtime takes it: strings are object arrays."""
    if tensor.datatype == "BYTES":
        return np.array(tensor.strings, dtype=object).reshape(tensor.shape)
    return np.frombuffer(tensor.data, dtype=DTYPES[tensor.datatype]).reshape(tensor.shape)


def _batches(inputs: Tensors, rows: int, batch_rows: int) -> Iterator[dict[str, Array]]:
    for start in range(0, rows, batch_rows):
        yield {name: values[start : start + batch_rows] for name, values in inputs.items()}


def _require(tensor: GoldenTensor, parts: list[Array], tolerance: Tolerance, whose: str) -> None:
    if not parts:
        raise GoldenMismatch(f"{whose}: the graph has no output '{tensor.name}', which its golden vectors have")
    where = f"{whose}, output '{tensor.name}'"
    want = array(tensor)
    if any(part.shape[1:] != want.shape[1:] or not part.ndim for part in parts):
        shapes = " and ".join(dict.fromkeys(str(list(part.shape)) for part in parts))
        raise GoldenMismatch(f"{where}: has shape {shapes} here and had {list(want.shape)} where it was published")
    got = np.concatenate(parts)
    if got.dtype != want.dtype:
        raise GoldenMismatch(f"{where}: is {got.dtype} here and was {want.dtype} where it was published")
    if got.shape != want.shape:
        raise GoldenMismatch(
            f"{where}: has shape {list(got.shape)} here and had {list(want.shape)} where it was published"
        )
    if want.dtype.kind not in "fiu":
        wrong = int(np.count_nonzero(got != want))
        if wrong:
            raise GoldenMismatch(f"{where}: {wrong} of {want.size} values differ from those where it was published")
        return
    size = np.abs(np.nan_to_num(want.astype(np.float64), posinf=0.0, neginf=0.0))
    excess = apart(got, want) - (tolerance.absolute + tolerance.relative * size)
    if (excess > 0).any():
        worst = int(excess.argmax())
        raise GoldenMismatch(
            f"{where}: is {got.flat[worst]:.6g} here and was {want.flat[worst]:.6g} where it was published; at most "
            f"{tolerance.absolute:g} + {tolerance.relative:g} * |value| apart is allowed: is this CPU another kind?"
        )
