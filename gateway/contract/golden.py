"""Golden vectors: a few real inputs and the outputs each variant gave for them where it was published.

Stored in the artifact under the role `golden`, as canonical JSON with raw tensors in base64: data only, nothing to execute. The
gateway runs them when it loads a model and refuses one that computes something else here, as int8 graphs may do on another
CPU (onnxruntime issue 14642: u8s8 products saturate on AVX2 and not with VNNI). It is also the first, warming run.
"""

import math
from collections.abc import Mapping
from typing import Annotated

import msgspec
from msgspec import Meta

from gateway.contract.words import Count, Datatype, Name, Positive

DTYPES: Mapping[Datatype, str] = {
    "BOOL": "|b1",
    "UINT8": "|u1",
    "UINT16": "<u2",
    "UINT32": "<u4",
    "UINT64": "<u8",
    "INT8": "|i1",
    "INT16": "<i2",
    "INT32": "<i4",
    "INT64": "<i8",
    "FP16": "<f2",
    "FP32": "<f4",
    "FP64": "<f8",
}
"""The numpy type string of each datatype's raw bytes; BYTES has none, its elements are `strings`."""

ROWS_MAX = 64
"""Every load runs them: more would be a benchmark."""


class GoldenTensor(msgspec.Struct, frozen=True, omit_defaults=True):
    """One tensor, row-major: `data` little-endian, or for BYTES the elements as `strings`."""

    name: Annotated[str, Meta(min_length=1)]
    datatype: Datatype
    shape: tuple[Count, ...]
    data: bytes = b""
    strings: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        elements = math.prod(self.shape)
        if self.datatype == "BYTES":
            if len(self.strings) != elements or self.data:
                raise ValueError(f"tensor '{self.name}' has {len(self.strings)} strings and shape {self.shape}")
        elif len(self.data) != elements * int(DTYPES[self.datatype][2:]) or self.strings:
            raise ValueError(f"tensor '{self.name}' has {len(self.data)} bytes, shape {self.shape}, {self.datatype}")


class Tolerance(msgspec.Struct, frozen=True):
    """A number passes when it is within `absolute + relative * |expected|`; NaN passes for NaN, text and booleans only if equal."""

    absolute: Annotated[float, Meta(ge=0)]
    relative: Annotated[float, Meta(ge=0)]


class Expected(msgspec.Struct, frozen=True):
    """What one variant answered, run in batches of `batch_rows`, and how far another host may be from it, by output."""

    variant: Name
    batch_rows: Positive
    outputs: tuple[GoldenTensor, ...]
    tolerances: dict[str, Tolerance]

    def __post_init__(self) -> None:
        if {output.name for output in self.outputs} != self.tolerances.keys():
            raise ValueError(f"variant '{self.variant}': every output needs a tolerance, and nothing else has one")


class Golden(msgspec.Struct, frozen=True):
    """`inputs` have `rows` rows each; `expected` has an entry for each variant that may be served."""

    rows: Annotated[int, Meta(ge=1, le=ROWS_MAX)]
    inputs: tuple[GoldenTensor, ...]
    expected: tuple[Expected, ...]
    schema_version: int = 1

    def __post_init__(self) -> None:
        outputs = [output for expected in self.expected for output in expected.outputs]
        for tensor in (*self.inputs, *outputs):
            if tensor.shape[:1] != (self.rows,):
                raise ValueError(
                    f"tensor '{tensor.name}' has shape {tensor.shape}; its first dimension must be {self.rows}"
                )

    def of_variant(self, variant: str) -> Expected | None:
        """What this variant must answer, or None when the publisher recorded nothing for it."""
        return next((expected for expected in self.expected if expected.variant == variant), None)
