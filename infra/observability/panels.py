"""What the dashboards show: sections of panels, each a title, a unit and expressions over the table of metrics.

How they look in Grafana is `infra.observability.dashboards`.
"""

import msgspec

from gateway.telemetry import definitions as d
from infra.observability.queries import SELECTED, increase, mean, quantile, rate, total, value

_WINDOW = "$__rate_interval"


class Panel(msgspec.Struct, frozen=True):
    """One plot. `lines` are pairs of expression and legend; `unit` is Grafana's; `floor`, `ceiling` fix the axis."""

    title: str
    unit: str
    lines: tuple[tuple[str, str], ...]
    about: str
    ceiling: float | None = None


class Section(msgspec.Struct, frozen=True):
    """A row of panels under a heading."""

    title: str
    panels: tuple[Panel, ...]


def _rate(metric: d.Metric, *by: str, where: str = SELECTED) -> str:
    return total(rate(metric, _WINDOW, where=where), *by)


def _value(metric: d.Metric) -> str:
    return value(metric, where=SELECTED)


def _quantile(share: float, metric: d.Metric, *by: str) -> str:
    return quantile(share, metric, _WINDOW, *by, where=SELECTED)


def _latency(title: str, metric: d.Metric, about: str) -> Panel:
    lines = tuple((_quantile(share, metric), f"p{share * 100:g}") for share in (0.5, 0.95, 0.99))
    return Panel(title, "s", lines, about)


TRAFFIC = Section(
    "Traffic",
    (
        Panel(
            "Answered",
            "reqps",
            ((_rate(d.REQUESTS, "model", "outcome"), "{{model}} {{outcome}}"),),
            "Prediction calls by model and how they ended.",
        ),
        Panel(
            "Refused",
            "reqps",
            ((_rate(d.REFUSALS, "reason"), "{{reason}}"),),
            "Calls answered with an error, by reason.",
        ),
        _latency("Latency", d.REQUEST_SECONDS, "From the arrival of a request to its encoded answer."),
        Panel(
            "Where a call spends its time",
            "s",
            tuple(
                (mean(metric, _WINDOW, where=SELECTED), name)
                for metric, name in (
                    (d.DECODE_SECONDS, "decode"),
                    (d.QUEUE_SECONDS, "wait"),
                    (d.RUN_SECONDS, "run"),
                    (d.ENCODE_SECONDS, "encode"),
                )
            ),
            "Means of the parts of an answered call.",
        ),
        Panel(
            "Rows per run",
            "none",
            ((mean(d.BATCH_ROWS, _WINDOW, "model", where=SELECTED), "{{model}}"),),
            "How large batches are; they form only while all workers are busy.",
        ),
        Panel(
            "Bytes",
            "Bps",
            ((_rate(d.BODY_IN_BYTES), "in"), (_rate(d.BODY_OUT_BYTES), "out")),
            "Bodies of prediction calls.",
        ),
    ),
)

CAPACITY = Section(
    "Capacity",
    (
        Panel(
            "Saturation",
            "percentunit",
            ((f"max({_value(d.SATURATION)})", "fullest"), (f"avg({_value(d.SATURATION)})", "mean")),
            "What autoscaling looks at: scale out before it reaches 1.",
            1.0,
        ),
        Panel(
            "What fills the gateways",
            "percentunit",
            ((f"max by (part) ({_value(d.SATURATION_PART)})", "{{part}}"),),
            "The fullest gateway's parts, each as used / limit.",
            1.0,
        ),
        Panel(
            "Gateways",
            "none",
            ((f"count({_value(d.BUILD)})", "running"), (f"sum({_value(d.READY)})", "ready")),
            "Processes that are scraped, and those that take requests.",
        ),
        Panel("CPU", "none", ((_rate(d.PROCESS_CPU_SECONDS, "instance"), "{{instance}}"),), "Cores in use."),
        Panel(
            "Memory", "bytes", ((_value(d.PROCESS_RESIDENT_BYTES), "{{instance}}"),), "Resident memory of each process."
        ),
        _latency("Event loop lag", d.LOOP_LAG_SECONDS, "How late the event loop runs what is due."),
        Panel(
            "Cold starts",
            "s",
            ((f"max by (phase) ({_value(d.COLD_START_SECONDS)})", "{{phase}}"),),
            "The slowest start among the running gateways, by phase.",
        ),
        Panel(
            "In flight",
            "none",
            ((f"sum({_value(d.IN_FLIGHT_REQUESTS)})", "requests"), (f"sum({_value(d.CONNECTIONS)})", "connections")),
            "Requests that wait for a load or a worker, and open connections.",
        ),
        Panel(
            "Bodies in flight",
            "bytes",
            ((f"sum({_value(d.IN_FLIGHT_BYTES)})", "bodies"),),
            "Bytes of bodies in flight.",
        ),
    ),
)

MODELS = Section(
    "Models",
    (
        Panel("Versions in memory", "none", ((_value(d.RESIDENT_VERSIONS), "{{instance}}"),), "By gateway."),
        Panel(
            "Memory of models",
            "bytes",
            ((f"sum({_value(d.MODELS_BYTES)})", "held"), (f"sum({_value(d.MODELS_LIMIT_BYTES)})", "limit")),
            "All gateways together; a limit of 0 is none.",
        ),
        Panel(
            "Loads and evictions",
            "cpm",
            tuple(
                (f"60 * {_rate(metric)}", name)
                for metric, name in (
                    (d.LOADS, "loads"),
                    (d.LOAD_FAILURES, "failed"),
                    (d.EVICTIONS, "evictions"),
                    (d.UNCHECKED_LOADS, "without golden vectors"),
                )
            ),
            "Per minute. Many evictions: the models do not fit.",
        ),
        Panel(
            "Time of a load",
            "s",
            (
                (
                    f"{_rate(d.LOAD_PHASE_SECONDS, 'phase')} / ignoring (phase) group_left () {_rate(d.LOADS)}",
                    "{{phase}}",
                ),
            ),
            "Mean by phase.",
        ),
        Panel(
            "Which version answers",
            "none",
            ((f"max by (model, alias) ({_value(d.ALIAS_VERSION)})", "{{model}} {{alias}}"),),
            "A step is a release; two gateways apart is one that has not followed.",
        ),
        Panel(
            "Release problems",
            "none",
            ((f"max by (model) ({_value(d.RELEASE_PROBLEM)})", "{{model}}"),),
            "1 while a model does not answer as its alias says.",
            1.0,
        ),
        Panel(
            "Shadows",
            "reqps",
            ((_rate(d.SHADOW_REQUESTS, "model", "alias", "result"), "{{model}} {{alias}} {{result}}"),),
            "What shadows answered, compared with the champion.",
        ),
        Panel(
            "A shadow's runs against the champion's",
            "percentunit",
            (
                (
                    f"{_rate(d.SHADOW_RUN_SECONDS, 'model', 'alias')} / {_rate(d.SHADOWED_RUN_SECONDS, 'model', 'alias')}",
                    "{{model}} {{alias}}",
                ),
            ),
            "Over 100 %: the shadow is slower.",
        ),
        Panel(
            "Rows counted for drift",
            "rowsps",
            ((_rate(d.FEATURE_ROWS, "result"), "{{result}}"),),
            "Rows of the sample.",
        ),
    ),
)

COSTS = Section(
    "Direct cost",
    (
        Panel(
            "Cost",
            "currencyUSD",
            ((f"3600 * {_rate(d.COST_DOLLARS, 'model')}", "{{model}}"),),
            "Dollars per hour, direct: what receipts say. Idle and boot are in `steelyard costs`.",
        ),
        Panel(
            "Cost of a million requests",
            "currencyUSD",
            ((f"1e6 * {_rate(d.COST_DOLLARS, 'model')} / {_rate(d.REQUESTS, 'model')}", "{{model}}"),),
            "Direct, by model.",
        ),
        Panel(
            "CPU of a request",
            "s",
            ((f"{_rate(d.CPU_SECONDS, 'model')} / {_rate(d.REQUESTS, 'model')}", "{{model}}"),),
            "What receipts were written for, failed requests included.",
        ),
        Panel(
            "Cost of versions side by side",
            "currencyUSD",
            (
                (
                    f"1e6 * {_rate(d.COST_DOLLARS, 'model', 'version')} / {_rate(d.REQUESTS, 'model', 'version')}",
                    "{{model}}@{{version}}",
                ),
            ),
            "A million requests of each version: a canary's price before it is promoted.",
        ),
        Panel(
            "Cost by tenant",
            "currencyUSD",
            ((f"3600e-12 * {_rate(d.TENANT_COST_PICODOLLARS, 'tenant')}", "{{tenant}}"),),
            "Dollars per hour; shown if telemetry.tenants_max is set.",
        ),
        Panel("Requests by tenant", "reqps", ((_rate(d.TENANT_REQUESTS, "tenant"), "{{tenant}}"),), "As above."),
        Panel(
            "CPU that is paid for and not in receipts",
            "percentunit",
            ((f"1 - {_rate(d.CPU_SECONDS)} / {_rate(d.PROCESS_CPU_SECONDS)}", "share"),),
            "Overhead, loads and the ledger itself, as a share of the CPU used.",
            1.0,
        ),
        Panel(
            "Shadows",
            "none",
            ((_rate(d.SHADOW_CPU_SECONDS, "model", "alias"), "{{model}} {{alias}}"),),
            "Cores that shadows use.",
        ),
    ),
)

LEDGER = Section(
    "Ledger",
    (
        Panel(
            "Not in the store yet",
            "bytes",
            (
                (_value(d.LEDGER_PENDING_BYTES), "{{instance}}"),
                (_value(d.LEDGER_SPILLED_BYTES), "{{instance}}, of it on local disk"),
            ),
            "Grows while the store is away. What is on local disk survives a restart in place.",
        ),
        Panel(
            "Bill not in the store yet",
            "currencyUSD",
            ((f"1e-12 * {_value(d.LEDGER_UNWRITTEN)}", "{{instance}}"),),
            "What a container that dies now leaves unattributed.",
        ),
        Panel(
            "Segments and failures",
            "cpm",
            tuple(
                (f"60 * {_rate(metric)}", name)
                for metric, name in (
                    (d.LEDGER_SEGMENTS, "segments"),
                    (d.LEDGER_RECOVERED, "recovered from disk"),
                    (d.LEDGER_FAILURES, "repeated"),
                    (d.FEATURE_WINDOWS, "windows"),
                    (d.FEATURE_FAILURES, "windows repeated"),
                )
            ),
            "Per minute.",
        ),
        Panel(
            "Requests to the store",
            "cpm",
            ((f"60 * {_rate(d.STORE_ATTEMPTS, 'op', 'outcome')}", "{{op}} {{outcome}}"),),
            "Per minute, each retry for itself. A provider bills those that reach it.",
        ),
        Panel(
            "What should be 0",
            "none",
            (
                (f"max({_value(d.LEDGER_UNPRICED)})", "SKUs without a price"),
                *(
                    (total(increase(metric, "1h", where=SELECTED)), name)
                    for metric, name in (
                        (d.LEDGER_CONFLICTS, "conflicts"),
                        (d.LEDGER_CAPPED, "capped receipts"),
                        (d.LEDGER_SKEWED, "clock skews"),
                        (d.LEDGER_COLLAPSED, "detail lost"),
                        (d.LEDGER_SPILL_FAILURES, "not taken by local disk"),
                        (d.LEDGER_SET_ASIDE, "files set aside"),
                        (d.TRACES_DROPPED, "traces lost"),
                    )
                ),
            ),
            "Over the last hour.",
        ),
        Panel(
            "Process age",
            "s",
            ((f"time() - {_value(d.PROCESS_STARTED_SECONDS)}", "{{instance}}"),),
            "A drop to 0 is a restart.",
        ),
    ),
)
