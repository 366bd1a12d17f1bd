"""What is worth somebody's attention, as Prometheus alerting rules; each has a section of infra/runbook.md that says what to do.

`severity` is `page` where callers fail or money is lost while one waits, else `ticket`.
"""

from typing import Any, Literal

import msgspec

from gateway.telemetry import definitions as d
from infra.observability.queries import increase, quantile, rate, total, value

RUNBOOK = "infra/runbook.md"
"""Where the sections are, from the repository's root; put your own address in front of it where alerts are read."""


class Alert(msgspec.Struct, frozen=True):
    """One rule. `holds_for` is how long `expr` must be true; `summary` may use labels of `expr`; `why` is the limit's
    reason."""

    name: str
    expr: str
    holds_for: str
    severity: Literal["page", "ticket"]
    summary: str
    why: str

    @property
    def runbook(self) -> str:
        """The address of the section."""
        return f"{RUNBOOK}#{self.name.lower()}"

    def rule(self) -> dict[str, Any]:
        """As Prometheus reads it."""
        return {
            "alert": self.name,
            "expr": self.expr,
            "for": self.holds_for,
            "labels": {"severity": self.severity},
            "annotations": {"summary": self.summary, "description": self.why, "runbook_url": self.runbook},
        }


def _refused(*reasons: str) -> str:
    return total(rate(d.REFUSALS, "5m", where=f'{{reason=~"{"|".join(reasons)}"}}'))


def _errors(reason: str) -> str:
    return total(increase(d.REFUSALS, "10m", where=f'{{reason="{reason}"}}'))


_ANSWERED = total(rate(d.REQUESTS, "5m", where='{outcome="ok"}'))
_DROPPED = '{result="dropped"}'
_BY_LOAD = _refused("overloaded", "deadline", "not_ready")

SERVING = (
    Alert(
        "GatewayNotReady", f"{value(d.READY)} == 0", "10m", "page",
        "{{ $labels.instance }} runs and has not been ready for 10 minutes",
        "A start takes seconds and the load of a large model a minute; ten minutes are neither.",
    ),
    Alert(
        "GatewaysSaturated", f"avg({value(d.SATURATION)}) > 0.9", "10m", "page",
        "all gateways together are {{ $value | humanizePercentage }} full",
        "Scaling out begins below this: whoever scales has reached a limit, or does not scale.",
    ),
    Alert(
        "RequestsRefused", f"{_BY_LOAD} / ({_ANSWERED} + {_BY_LOAD}) > 0.05", "5m", "page",
        "{{ $value | humanizePercentage }} of all prediction calls are refused for want of capacity",
        "A burst may cost a few refusals while containers start; one call in twenty over five minutes is no burst.",
    ),
    Alert(
        "InternalErrors", f"{_errors('internal')} > 0", "0m", "page",
        "{{ $value | humanize }} calls in 10 minutes met an error that nobody foresaw",
        "Every foreseen error has a reason of its own; this one is a defect of the gateway or of a model's graph.",
    ),
    Alert(
        "StoreUnavailable", f"{_errors('store')} > 0", "5m", "page",
        "calls fail because the object store does not answer; models in memory still do",
        "The store is on the path of a model's first call only: whoever meets this waits for a model that is not loaded.",
    ),
    Alert(
        "WaitingForWorkers", f"{quantile(0.95, d.QUEUE_SECONDS, '10m', 'model')} > 0.1", "15m", "ticket",
        "one call in twenty of {{ $labels.model }} waits {{ $value | humanizeDuration }} for a worker",
        "telemetry.objective_ms is 100 by default: the wait from which a container counts as full.",
    ),
    Alert(
        "EventLoopLate", f"{quantile(0.99, d.LOOP_LAG_SECONDS, '10m', 'instance')} > 0.25", "15m", "ticket",
        "the event loop of {{ $labels.instance }} runs {{ $value | humanizeDuration }} late",
        "The loop answers every caller of a container: a quarter of a second late is in every latency.",
    ),
    Alert(
        "GatewayRestarts", f"changes({value(d.PROCESS_STARTED_SECONDS)}[1h]) > 3", "0m", "page",
        "{{ $labels.instance }} began {{ $value }} times anew within an hour",
        "A deployment restarts a container once; more is a crash, most often for want of memory.",
    ),
)  # fmt: skip

MODELS = (
    Alert(
        "ReleaseRefused", f"max by (model) ({value(d.RELEASE_PROBLEM)}) == 1", "10m", "page",
        "{{ $labels.model }} does not answer as its alias says",
        "A release loads within minutes; a poll that failed once is over by then.",
    ),
    Alert(
        "ArtifactRefused", f"{_errors('artifact')} > 0", "0m", "page",
        "a published artifact failed verification and is not served",
        "A digest, a signature or a golden vector does not match: a damaged upload at best.",
    ),
    Alert(
        "LoadsFail", f"{total(increase(d.LOAD_FAILURES, '15m'), 'instance')} > 3", "0m", "ticket",
        "{{ $labels.instance }} failed to load a version {{ $value | humanize }} times in 15 minutes",
        "Each is repeated with growing pauses; more than three is not a passing fault.",
    ),
    Alert(
        "ModelsThrash",
        f"{total(increase(d.EVICTIONS, '15m'), 'instance')} > 2 * max by (instance) ({value(d.RESIDENT_VERSIONS)})",
        "15m", "ticket",
        "{{ $labels.instance }} reloads its models again and again",
        "Every version left memory twice in a quarter of an hour: they do not fit, and each first call pays for a load.",
    ),
    Alert(
        "RowsNotCounted", f"{total(increase(d.FEATURE_ROWS, '1h', where=_DROPPED))} > 0", "1h", "ticket",
        "rows of the drift sample are dropped",
        "Counting is behind or the store is away: what drift is judged by becomes thinner, answers are not touched.",
    ),
)  # fmt: skip

MONEY = (
    Alert(
        "LedgerBehind",
        f"{value(d.LEDGER_UNWRITTEN)} > 0 and {increase(d.LEDGER_SEGMENTS, '15m')} == 0", "15m", "page",
        "{{ $labels.instance }} has written no ledger segment for 15 minutes",
        "Segments are written every ten seconds; a container that dies now loses its attribution, not its bill.",
    ),
    Alert(
        "LedgerConflict", f"{increase(d.LEDGER_CONFLICTS, '15m')} > 0", "0m", "page",
        "another process writes the ledger as {{ $labels.instance }}",
        "Two processes with one container's identity: neither bill can be trusted until one is gone.",
    ),
    Alert(
        "LedgerDetailLost", f"{increase(d.LEDGER_COLLAPSED, '1h')} > 0", "0m", "ticket",
        "{{ $labels.instance }} keeps {{ $value | humanize }} requests as sums only",
        "The store was away for longer than there was room for detail; sums and bill are exact all the same.",
    ),
    Alert(
        "PriceMissing", f"max({value(d.LEDGER_UNPRICED)}) > 0", "0m", "page",
        "the price book knows no price for what the containers are billed by",
        "Their cost is missing from every report, under `unpriced`, until the book has it.",
    ),
    Alert(
        "ReceiptsCapped", f"{increase(d.LEDGER_CAPPED, '1h')} > 0", "0m", "ticket",
        "receipts of {{ $labels.instance }} were cut to what the container can have cost",
        "Clocks or CPU counters went wrong: measured work exceeded what the container has.",
    ),
    Alert(
        "CostSurge",
        f"{total(rate(d.COST_DOLLARS, '1h'))} > 3 * {total(rate(d.COST_DOLLARS, '1h', ago='1d'))}", "1h", "ticket",
        "direct cost is {{ $value | humanize }} dollars a second, more than three times yesterday's",
        "A caller in a loop, a larger model, or success: costs by tenant and by version tell which.",
    ),
)  # fmt: skip

GROUPS: dict[str, tuple[Alert, ...]] = {
    "steelyard-serving": SERVING,
    "steelyard-models": MODELS,
    "steelyard-money": MONEY,
}
