"""The golden vectors of an artifact: a few held-out rows and what every variant answers here, for the gateway to compare there.

Outputs come from the graphs that are published, run in batches as the gateway will run them. How far another host may be from
them: a float graph differs by rounding only, a quantized one may also round to another step.
"""

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from gateway.contract.golden import DTYPES, Expected, Golden, GoldenTensor, Tolerance
from gateway.contract.manifest import Signature, Tensor, Variant
from trainers.arrays import Array
from trainers.evaluate import serving
from trainers.job import Candidate, Data, Terms, trimmed

ROWS = 8
FLOAT = Tolerance(absolute=1e-4, relative=1e-4)
"""Ten times what `trainers.export` allows between torch and onnxruntime on one machine: rounding, in another order."""

QUANTIZED_SPREAD = 5.0
"""The limit is for 99 of 100 values and these are a few out of all: the one in a hundred may be among them."""


def vectors(candidates: Sequence[Candidate], variants: Sequence[Variant], data: Data, terms: Terms) -> Golden:
    """Rows from all over the split, and one row alone per batch where a variant's answers depend on its batch.

    A quantized variant may differ between two hosts as much as it was allowed to differ from fp32: whatever is further away would
    not have passed its gates.
    """
    split, signature = data.test.thinned(ROWS), data.signature
    inputs = trimmed(split.inputs, signature, data.mask)
    by_id = {variant.id: variant for variant in variants}
    return Golden(
        rows=split.rows,
        inputs=tuple(_tensor(tensor, inputs[tensor.name]) for tensor in signature.inputs),
        expected=tuple(
            _expected(
                candidate,
                by_id[candidate.id],
                signature,
                inputs,
                None if candidate is candidates[0] else terms,
            )
            for candidate in candidates
        ),
    )


def _expected(
    candidate: Candidate,
    variant: Variant,
    signature: Signature,
    inputs: Mapping[str, Array],
    quantized_for: Terms | None,
) -> Expected:
    rows = len(next(iter(inputs.values())))
    batch_rows = min(rows, variant.max_batch) if variant.batch_invariant else 1
    names = [tensor.name for tensor in signature.outputs]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / variant.file
        path.write_bytes(candidate.graph)
        session = serving.open_session(
            path, optimized_by=variant.optimized_by or "", only_rows_vary=not signature.has_length
        )
        parts = [
            session.run(names, {name: values[start : start + batch_rows] for name, values in inputs.items()})
            for start in range(0, rows, batch_rows)
        ]
    outputs = [np.concatenate(column) for column in zip(*parts, strict=True)]
    return Expected(
        variant=candidate.id,
        batch_rows=batch_rows,
        outputs=tuple(_tensor(tensor, got) for tensor, got in zip(signature.outputs, outputs, strict=True)),
        tolerances={name: _tolerance(values, quantized_for) for name, values in zip(names, outputs, strict=True)},
    )


def _tolerance(values: Array, quantized_for: Terms | None) -> Tolerance:
    if quantized_for is None or values.dtype.kind != "f":
        return FLOAT
    limits, head = quantized_for.limits, quantized_for.objective.head
    if head != "identity":
        return Tolerance(absolute=limits.probability_drift_p99_max, relative=0.0)
    return Tolerance(absolute=QUANTIZED_SPREAD * limits.value_drift_p99_max * float(np.std(values)), relative=0.0)


def _tensor(tensor: Tensor, values: Array) -> GoldenTensor:
    if tensor.datatype == "BYTES":
        return GoldenTensor(
            name=tensor.name, datatype="BYTES", shape=values.shape, strings=tuple(str(v) for v in values.ravel())
        )
    data = np.ascontiguousarray(values, DTYPES[tensor.datatype]).tobytes()
    return GoldenTensor(name=tensor.name, datatype=tensor.datatype, shape=values.shape, data=data)
