"""The one table of what `/metrics` can show: name, type, unit, labels, help.

Whatever is exposed is defined here, so that dashboards and alerts can be generated from this table and tested against it. Names
follow Prometheus: base units at the end, and a counter's sample is its name with `_total`.
"""

from typing import Literal

import msgspec

Kind = Literal["counter", "gauge", "histogram"]
Unit = Literal["seconds", "bytes", "dollars", "picodollars", "rows", "ratio", ""]

PREFIX = "steelyard_"
VERSION_LABELS = ("model", "version")
SHADOW_LABELS = ("model", "alias", "version")


class Metric(msgspec.Struct, frozen=True):
    """One family. `unit` is the last word of `name`, or "" where it counts things."""

    name: str
    kind: Kind
    unit: Unit
    labels: tuple[str, ...]
    help: str

    @property
    def sample(self) -> str:
        """The name of a counter's or gauge's sample."""
        return f"{self.name}_total" if self.kind == "counter" else self.name


def _counter(name: str, help_: str, *labels: str, unit: Unit = "") -> Metric:
    return Metric(PREFIX + name, "counter", unit, labels, help_)


def _gauge(name: str, help_: str, *labels: str, unit: Unit = "") -> Metric:
    return Metric(PREFIX + name, "gauge", unit, labels, help_)


def _histogram(name: str, help_: str, *labels: str, unit: Unit = "seconds") -> Metric:
    return Metric(PREFIX + name, "histogram", unit, labels, help_)


# Requests, by the version that answered. The model `_other` is the sum of versions that had to make room (telemetry.versions_max).
REQUESTS = _counter(
    "requests", "Prediction calls whose model was there, by how they ended.", *VERSION_LABELS, "outcome"
)
REQUEST_SECONDS = _histogram(
    "request_seconds", "From the arrival of a request to its encoded answer; answered requests only.", *VERSION_LABELS
)
DECODE_SECONDS = _histogram("decode_seconds", "Reading the body into tensors.", *VERSION_LABELS)
QUEUE_SECONDS = _histogram("queue_seconds", "Waiting for a worker.", *VERSION_LABELS)
RUN_SECONDS = _histogram("run_seconds", "The run of the batch that a request was part of.", *VERSION_LABELS)
ENCODE_SECONDS = _histogram("encode_seconds", "Writing tensors into the body.", *VERSION_LABELS)
BATCH_ROWS = _histogram("batch_rows", "Rows per run of the model; its count is the runs.", *VERSION_LABELS, unit="rows")
CPU_SECONDS = _counter("cpu_seconds", "CPU time that receipts were written for.", *VERSION_LABELS, unit="seconds")
COST_PICODOLLARS = _counter(
    "cost_picodollars", "Direct cost, exact: the sum of the receipts in 1e-12 USD.", *VERSION_LABELS, unit="picodollars"
)
COST_DOLLARS = _counter("cost_dollars", "Direct cost: the sum of the receipts.", *VERSION_LABELS, unit="dollars")
BODY_IN_BYTES = _counter("body_in_bytes", "Bodies read, decompressed.", *VERSION_LABELS, unit="bytes")
BODY_OUT_BYTES = _counter("body_out_bytes", "Predictions written, receipts excluded.", *VERSION_LABELS, unit="bytes")
TENANT_REQUESTS = _counter("tenant_requests", "Prediction calls by tenant (telemetry.tenants_max).", "tenant")
TENANT_COST_PICODOLLARS = _counter(
    "tenant_cost_picodollars", "Direct cost by tenant, exact.", "tenant", unit="picodollars"
)
REFUSALS = _counter("refusals", "Requests that were answered with an error, by reason.", "reason")

# Models in memory and releases.
RESIDENT_BYTES = _gauge("resident_bytes", "Memory of a loaded version.", *VERSION_LABELS, "variant", unit="bytes")
RESIDENT_VERSIONS = _gauge("resident_versions", "Versions in memory.")
MODELS_BYTES = _gauge("models_bytes", "Memory of all loaded versions.", unit="bytes")
MODELS_LIMIT_BYTES = _gauge(
    "models_limit_bytes", "What all loaded versions together may hold; 0 is no bound.", unit="bytes"
)
LOADS = _counter("loads", "Versions that were loaded.")
LOAD_FAILURES = _counter("load_failures", "Loads that ended in an error.")
UNCHECKED_LOADS = _counter("unchecked_loads", "Loads of artifacts that carry no golden vectors to check.")
EVICTIONS = _counter("evictions", "Versions that left memory to make room.")
LOAD_PHASE_SECONDS = _counter("load_phase_seconds", "Elapsed time of loads by phase.", "phase", unit="seconds")
RELEASE_PROBLEM = _gauge(
    "release_problem",
    "1 while a model does not answer as its alias says: a refused release, or a poll that fails.",
    "model",
)
ALIAS_VERSION = _gauge("alias_version", "The version that answers for an alias.", "model", "alias")
SHADOW_REQUESTS = _counter(
    "shadow_requests", "Requests that a shadow version was to answer too: same, different, failed or dropped.",
    *SHADOW_LABELS, "result",
)  # fmt: skip
SHADOW_CPU_SECONDS = _counter("shadow_cpu_seconds", "What shadows cost.", *SHADOW_LABELS, unit="seconds")
SHADOW_RUN_SECONDS = _counter("shadow_run_seconds", "Runs of a shadow.", *SHADOW_LABELS, unit="seconds")
SHADOWED_RUN_SECONDS = _counter(
    "shadowed_run_seconds", "Runs of the champion for the same requests.", *SHADOW_LABELS, unit="seconds"
)

# The ledger's writer.
LEDGER_SEGMENTS = _counter("ledger_segments", "Ledger segments that are in the store.")
LEDGER_PENDING_BYTES = _gauge("ledger_pending_bytes", "Ledger objects waiting for the store.", unit="bytes")
LEDGER_SPILLED_BYTES = _gauge(
    "ledger_spilled_bytes", "Of these, what is on local disk too or only, where the next start finds it.", unit="bytes"
)
LEDGER_SPILL_FAILURES = _counter(
    "ledger_spill_failures", "Writes to local disk that did not succeed: full, read-only or broken. Then memory only."
)
LEDGER_RECOVERED = _counter(
    "ledger_recovered_segments", "Segments that an earlier life left on local disk, now in the store."
)
LEDGER_SET_ASIDE = _counter(
    "ledger_set_aside_files", "Files on local disk that are no whole ledger objects, or not to be written: see the log."
)
LEDGER_FAILURES = _counter("ledger_failures", "Attempts to write the ledger that must be repeated.")
LEDGER_CONFLICTS = _counter("ledger_conflicts", "1 when another process writes as this container.")
LEDGER_COLLAPSED = _counter(
    "ledger_collapsed_requests", "Requests that are in the ledger's sums only, for want of room."
)
LEDGER_CAPPED = _counter("ledger_capped_receipts", "Receipts cut to what the container can have cost.")
LEDGER_SKEWED = _counter(
    "ledger_clock_skews", "Intervals in which weighed work came to add up to more CPU than the process has used."
)
LEDGER_UNPRICED = _gauge(
    "ledger_unpriced_skus",
    "What the container is billed by and no price is known for: its costs are missing, not zero.",
)
LEDGER_UNWRITTEN = _gauge(
    "ledger_unwritten_picodollars", "The bill of closed intervals that are not in the store.", unit="picodollars"
)

# The object store, as this process asks it; the cost page's own process is not in here.
STORE_ATTEMPTS = _counter(
    "store_attempts",
    "Requests sent to the object store, each retry for itself, by operation: ok, refused, failed, or abandoned by the caller.",
    "op",
    "outcome",
)

# Rows counted for drift.
FEATURE_PROFILES = _gauge("feature_profiles", "Versions in memory whose rows are counted.")
FEATURE_ROWS = _counter(
    "feature_rows",
    "Rows of the sample: counted, or dropped because counting or the store was behind.",
    "result",
    unit="rows",
)
FEATURE_WINDOWS = _counter("feature_windows", "Windows of counted rows that are in the store.")
FEATURE_FAILURES = _counter("feature_failures", "Attempts to write counted rows that must be repeated.")

# The process.
SATURATION = _gauge(
    "saturation_ratio",
    "How full this container is, 0 idle to 1 and more: scale out before it reaches 1. The largest of its parts.",
    unit="ratio",
)
SATURATION_PART = _gauge(
    "saturation_part_ratio", "What fills this container, each as used / limit.", "part", unit="ratio"
)
LOOP_LAG_SECONDS = _histogram("event_loop_lag_seconds", "How late the event loop runs what is due.")
COLD_START_SECONDS = _gauge(
    "cold_start_seconds",
    "Start of this process by phase, and until ready and first prediction.",
    "phase",
    unit="seconds",
)
CONNECTIONS = _gauge("connections", "Open client connections.")
IN_FLIGHT_REQUESTS = _gauge("in_flight_requests", "Requests that wait for a load or a worker.")
IN_FLIGHT_BYTES = _gauge("in_flight_bytes", "Bytes of bodies in flight.", unit="bytes")
TRACES_DROPPED = _counter("traces_dropped", "Calls without a trace because tracing was behind: sample less of them.")
READY = _gauge("ready", "1 while requests may be sent here.")
PROCESS_CPU_SECONDS = _counter("process_cpu_seconds", "CPU time of the process, all threads.", unit="seconds")
PROCESS_RESIDENT_BYTES = _gauge("process_resident_bytes", "Resident memory of the process.", unit="bytes")
PROCESS_STARTED_SECONDS = _gauge("process_started_seconds", "When the process began, Unix time.", unit="seconds")
BUILD = _gauge("build", "1, labelled with the version of Steelyard.", "version")

METRICS: tuple[Metric, ...] = tuple(value for value in list(globals().values()) if isinstance(value, Metric))
