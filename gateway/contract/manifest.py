"""What a published model is: its files by digest, its variants, its signature, where it came from and what it cost.

The sha256 of a manifest's bytes is the identity of a model version. The trainer writes it, the gateway verifies every digest in
it before a session is made. It holds data only: nothing in an artifact is ever executed but the ONNX graph.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from gateway.contract.prices import Decimal
from gateway.contract.runs import MachineUse
from gateway.contract.words import Count, Datatype, FileName, Market, Name, Positive, Sha256

Role = Literal[
    "model", "labels", "tokenizer", "examples", "golden", "report", "plot", "card", "sbom", "profile", "evaluation"
]
Scalar = str | int | float | bool | None
Cell = Scalar | list[Any]  # Any: lists as deep as the tensor
"""One field of a row: a scalar, or for a tensor without columns nested lists for the axes after `batch`."""


class File(msgspec.Struct, frozen=True):
    """An OCI-style descriptor: which bytes, under which name inside the artifact."""

    name: FileName
    sha256: Sha256
    size: Count
    media_type: str
    role: Role


class Column(msgspec.Struct, frozen=True, omit_defaults=True):
    """What one element along a tensor's last axis means, so that a row of named values can become a tensor.

    `known` lists the categories seen in training (others are accepted and mapped to "other" inside the graph). `nullable` means
    that a missing number may be sent as null; it reaches the graph as NaN. Bounds are inclusive.
    """

    name: Annotated[str, Meta(min_length=1, max_length=128)]
    datatype: Literal["string", "number", "integer", "boolean"]
    description: str = ""
    unit: str = ""
    minimum: float | None = None
    maximum: float | None = None
    nullable: bool = False
    known: tuple[str, ...] = ()


class Tensor(msgspec.Struct, frozen=True):
    """One input or output. A string in `shape` is a symbolic dimension; the first one, `batch`, is the row axis.

    With `columns` the last axis has exactly one element per column.
    """

    name: Annotated[str, Meta(min_length=1)]
    datatype: Datatype
    shape: tuple[Positive | str, ...]
    columns: tuple[Column, ...] = ()

    def __post_init__(self) -> None:
        if not self.shape or self.shape[0] != "batch":
            raise ValueError(f"tensor '{self.name}': the first dimension must be 'batch', not {self.shape[:1]}")
        if self.columns and self.shape != ("batch", len(self.columns)):
            raise ValueError(f"tensor '{self.name}' has {len(self.columns)} columns and shape {self.shape}")


class Signature(msgspec.Struct, frozen=True):
    """What goes in and what comes out, for every variant alike."""

    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]

    def __post_init__(self) -> None:
        for side, tensors in (("inputs", self.inputs), ("outputs", self.outputs)):
            _refuse_duplicates(side, [tensor.name for tensor in tensors])
            if not tensors:
                raise ValueError(f"signature has no {side}")
        _refuse_duplicates("input columns", [column.name for tensor in self.inputs for column in tensor.columns])

    def length(self, shapes: Mapping[str, Sequence[int]]) -> int:
        """How long one row is, given the inputs' shapes: the product of the symbolic dimensions but `batch`, each counted once.

        `input_ids` and `attention_mask` of shape [batch, sequence] have length `sequence`; fixed shapes have length 1.
        """
        sizes: dict[str, int] = {}
        for tensor in self.inputs:
            for declared, size in zip(tensor.shape[1:], shapes[tensor.name][1:], strict=True):
                if isinstance(declared, str):
                    sizes.setdefault(declared, size)
        return math.prod(sizes.values())

    @property
    def has_length(self) -> bool:
        """Whether any axis but the rows varies."""
        return any(isinstance(dimension, str) for tensor in self.inputs for dimension in tensor.shape[1:])


class Ratio(msgspec.Struct, frozen=True):
    """CPU time as a share of fp32's, measured in the same turns, and the bounds of its 95 % bootstrap confidence interval."""

    median: float
    low: float
    high: float


class Latency(msgspec.Struct, frozen=True, omit_defaults=True):
    """Measured time of one `session.run` at one batch size, one onnxruntime thread, in the serving configuration.

    `length` is `Signature.length` of the inputs it was measured with, left out where it is 1. `ratio` is left out for fp32 itself.
    """

    batch_rows: Positive
    p50_ns: Count
    p99_ns: Count
    runs: Positive
    length: Positive = 1
    ratio: Ratio | None = None

    @property
    def batch(self) -> str:
        """What was run, for people: rows, and their length where they have one."""
        return f"{self.batch_rows}" if self.length == 1 else f"{self.batch_rows} x {self.length}"


class BatchCost(msgspec.Struct, frozen=True, omit_defaults=True):
    """The cost model of a batch, fitted over the measured latencies.

    A run takes `base_ns + row_ns * rows + row_length_ps * rows * length / 1000` nanoseconds. `length` is `Signature.length` of one
    row. Picoseconds, because a sample of audio costs less than a nanosecond or two. Left out where no axis but the rows varies.
    """

    base_ns: Count
    row_ns: Count
    row_length_ps: Count = 0


def optimizer(onnxruntime_version: str) -> str:
    """`Variant.optimized_by` of a graph that this version saved at its level EXTENDED, and that its higher levels leave alone."""
    return f"onnxruntime {onnxruntime_version} extended"


class Tradeoff(msgspec.Struct, frozen=True, omit_defaults=True):
    """One line of the table from which a variant was chosen: what it costs at the mix of batches that its target expects.

    `row_ns` and `row_cpu_ns` are of one row; `thousand_picousd` is the list price of the CPU that a thousand take on the target's
    platform, None where the price book has none. `is_pareto`: no other variant that passed its gates is better in one of cost, load
    and size and no worse in the others. `is_noisy`: two passes over everything disagreed by more than a tenth. `saturated` is the
    share of sums that CPUs which add in 16 bits get wrong.
    """

    row_ns: float
    row_cpu_ns: float
    thousand_picousd: Count | None
    ratio: Ratio
    is_pareto: bool = False
    is_noisy: bool = False
    saturated: float = 0.0
    notes: str = ""


class Variant(msgspec.Struct, frozen=True):
    """One graph that computes the signature. `requires` are CPU flags as in /proc/cpuinfo; a host without them skips it.

    A gateway that runs the very version `optimized_by` names loads the graph as it is; any other optimizes it again.
    `resident_bytes` is what a loaded session holds between runs, measured in a process of its own.
    """

    id: Name
    recipe: str
    file: FileName
    opset: Positive
    max_batch: Positive
    batch_invariant: bool
    requires: tuple[str, ...] = ()
    recipe_args: dict[str, str | float | bool] = {}
    metrics: dict[str, float] = {}
    latency: tuple[Latency, ...] = ()
    batch_cost: BatchCost | None = None
    load_ns: Count | None = None
    resident_bytes: Count | None = None
    optimized_by: str | UnsetType = UNSET  # unset in manifests of before it existed, which must keep their bytes
    tradeoff: Tradeoff | UnsetType = UNSET  # as above


class Evaluation(msgspec.Struct, frozen=True):
    """Metrics of one subject (`fp32`, `int8`, `baseline:logistic`) on one held-out split.

    `intervals`: where each metric lies with 95 % confidence, given how few rows were judged. `gains`: likewise how much better than
    the baseline the subject is on the same rows, positive being better; both ends above 0 say that it is.
    """

    subject: str
    split: str
    rows: Positive
    metrics: dict[str, float]
    intervals: dict[str, tuple[float, float]] | UnsetType = UNSET
    gains: dict[str, tuple[float, float]] | UnsetType = UNSET


class Gate(msgspec.Struct, frozen=True):
    """One check a variant had to pass: `measured` against `limit`; `passed` is the recorded decision."""

    name: str
    variant: str
    passed: bool
    measured: float
    limit: float
    detail: str = ""


class DataSource(msgspec.Struct, frozen=True):
    """Which data: the digest of the source bytes, the rows used and the period they span (ISO dates, inclusive)."""

    name: str
    sha256: Sha256
    rows: Count
    first: str = ""
    last: str = ""


class Lineage(msgspec.Struct, frozen=True):
    """Enough to answer "where did this come from" and to train it again.

    `spec_sha256` is the run's; `attempts` how many it took, `resumed_at` the steps from which they went on, `bit_exact` whether the
    weights are provably those of an uninterrupted run. `evaluation_sha256` is the digest of the rows that judged it, `parent` the
    version that answered as champion when it was made (0: none), `image` the container's digest where the job's spec named one.
    """

    run_id: str
    recipe: str
    seed: int
    data: tuple[DataSource, ...]
    code: dict[str, str] = {}
    environment: dict[str, str] = {}
    parameters: dict[str, str | float | bool] = {}
    spec_sha256: Sha256 | UnsetType = UNSET
    attempts: Positive | UnsetType = UNSET
    resumed_at: tuple[Count, ...] | UnsetType = UNSET
    bit_exact: Literal["proven", "best_effort"] | UnsetType = UNSET
    evaluation_sha256: Sha256 | UnsetType = UNSET
    parent: Count | UnsetType = UNSET
    image: str | UnsetType = UNSET


class AttemptCost(msgspec.Struct, frozen=True):
    """One attempt at the run: where, for how long, and how many of its steps were or had to be done twice.

    `usd_per_hour` is a decimal string, None where no price is known. `use` is unset where the attempt did not record it.
    """

    instance: str
    zone: str
    market: Market
    usd_per_hour: Decimal | None
    seconds: float
    steps_done: Count
    steps_lost: Count
    use: MachineUse | UnsetType = UNSET


TOKENIZER_RESIDENT_RATIO_MAX = 60
"""Bytes in memory for each byte of a tokenizer.json, at most. Measured in processes of their own with tokenizers 0.23.3: 20 for the
WordPiece of MiniLM, 23 for a BPE of 50,000 tokens, 59 for a Unigram of 60,000."""


class TextInput(msgspec.Struct, frozen=True, omit_defaults=True):
    """The graph takes tokens, and callers send text: what they call it, and which tensors it becomes.

    `file` is a tokenizer.json of Hugging Face's `tokenizers` (role `tokenizer`), which is data. A text is cut after `length_max`
    tokens, special ones included. `ids`, `mask` (1 for a token, 0 for padding) and `type_ids` name inputs of the signature, INT64
    or INT32 of shape [batch, tokens]; a graph without `mask` cannot be padded.
    """

    column: Annotated[str, Meta(min_length=1, max_length=128)]
    file: FileName
    length_max: Positive
    ids: str
    mask: str = ""
    type_ids: str = ""
    description: str = ""

    @property
    def tensors(self) -> tuple[str, ...]:
        """The inputs that a text becomes."""
        return tuple(filter(None, (self.ids, self.mask, self.type_ids)))


class TrainingCost(msgspec.Struct, frozen=True):
    """Billed seconds of the job's machines times their prices. `cost_picousd` is None when one of them has no price.

    `sku` is the last attempt's machine. `wasted_picousd` is what interruptions cost of it. The last fields are unset in manifests
    of before they existed, which must keep their bytes; `energy_nj`, of GPUs as NVML counted it, also where nobody counted.
    """

    sku: str
    seconds: float
    cost_picousd: Count | None
    price_book_sha256: Sha256
    wasted_picousd: Count | UnsetType | None = UNSET
    attempts: tuple[AttemptCost, ...] | UnsetType = UNSET
    energy_nj: Count | UnsetType = UNSET


class GpuFigure(msgspec.Struct, frozen=True, omit_defaults=True):
    """The exported graph on the GPU of the training job: how many rows a second one GPU answers in batches of `batch_rows`.

    `gpu` is its name as offers carry it (T4, L4, A10G, A100, H100); `p99_ns` of one such batch; `energy_nj` of one row as NVML
    counted it, None where it counts none. `runtime` is what ran it: onnxruntime the graph, or torch the module that it came from.
    """

    gpu: str
    datatype: Literal["fp32", "fp16"]
    batch_rows: Positive
    rows_per_s: Annotated[float, Meta(gt=0)]
    p99_ns: Count
    runs: Positive
    energy_nj: Count | None = None
    runtime: str = ""


class Manifest(msgspec.Struct, frozen=True):
    """See the module. `serve` names the variant chosen by measurement; the others stay for comparison and for other CPUs, the next
    best first. `skipped` says of quantization recipes that made no variant why.
    """

    model: Name
    task: Literal["classify", "regress", "embed", "custom"]
    description: str
    created_ns: Count
    files: tuple[File, ...]
    variants: tuple[Variant, ...]
    serve: str
    choice: str
    signature: Signature
    lineage: Lineage
    training_cost: TrainingCost
    evaluations: tuple[Evaluation, ...] = ()
    gates: tuple[Gate, ...] = ()
    labels: tuple[str, ...] = ()
    schema_version: int = 1
    text: TextInput | UnsetType = UNSET  # unset in manifests of before it existed, which must keep their bytes
    skipped: dict[str, str] | UnsetType = UNSET  # unset in manifests of before it existed, which must keep their bytes
    gpu: tuple[GpuFigure, ...] | UnsetType = UNSET  # as above, and where no GPU was there to measure on

    def __post_init__(self) -> None:
        _refuse_duplicates("files", [file.name.lower() for file in self.files])
        _refuse_duplicates("variants", [variant.id for variant in self.variants])
        models = {file.name for file in self.files if file.role == "model"}
        for variant in self.variants:
            if variant.file not in models:
                raise ValueError(f"variant '{variant.id}' needs '{variant.file}', which is not among the model files")
        if self.serve not in {variant.id for variant in self.variants}:
            raise ValueError(f"'serve' names variant '{self.serve}', which does not exist")
        if self.text is not UNSET:
            _check_text(self, self.text)

    def file(self, name: str) -> File:
        return next(file for file in self.files if file.name == name)

    def variant(self, variant_id: str) -> Variant:
        return next(variant for variant in self.variants if variant.id == variant_id)

    @property
    def tokenizer(self) -> File | None:
        """What its text is read with; None where callers send the graph's tensors."""
        return None if self.text is UNSET else self.file(self.text.file)

    @property
    def tokenizer_bytes_max(self) -> int:
        """What the tokenizer takes in memory at most; 0 without one."""
        return 0 if self.tokenizer is None else TOKENIZER_RESIDENT_RATIO_MAX * self.tokenizer.size


class Examples(msgspec.Struct, frozen=True):
    """Real held-out rows with what truly happened, stored in the artifact under the role `examples`."""

    rows: tuple[dict[str, Cell], ...]
    outcomes: tuple[Scalar, ...]
    schema_version: int = 1


def _check_text(manifest: Manifest, text: TextInput) -> None:
    """Raises `ValueError` where the text cannot become the signature's tensors, or an answer would depend on its padding."""
    if not any(file.name == text.file and file.role == "tokenizer" for file in manifest.files):
        raise ValueError(f"'text' needs '{text.file}', which is not among the files of role 'tokenizer'")
    _refuse_duplicates("'text'", list(text.tensors))
    inputs = {tensor.name: tensor for tensor in manifest.signature.inputs}
    shapes = set()
    for name in text.tensors:
        if name not in inputs:
            raise ValueError(f"'text' becomes '{name}', which is not among the inputs")
        tensor = inputs.pop(name)
        shapes.add(tensor.shape)
        if tensor.datatype not in {"INT64", "INT32"} or len(tensor.shape) != 2 or not isinstance(tensor.shape[1], str):
            raise ValueError(
                f"input '{name}' is {tensor.datatype} {tensor.shape}; tokens are INT64 or INT32 [batch, tokens]"
            )
    if len(shapes) > 1:
        raise ValueError(f"the tensors of 'text' differ in shape: {', '.join(map(str, sorted(shapes)))}")
    for tensor in (*inputs.values(), *manifest.signature.outputs):
        if not all(isinstance(dimension, int) for dimension in tensor.shape[1:]):
            raise ValueError(f"tensor '{tensor.name}' has shape {tensor.shape}; beside a text only the rows may vary")
    others = [column.name for tensor in inputs.values() for column in tensor.columns or (tensor,)]
    _refuse_duplicates("columns beside the text", [text.column, *others])


def _refuse_duplicates(what: str, names: list[str]) -> None:
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"{what}: '{name}' appears twice")
