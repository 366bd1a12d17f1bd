"""PromQL over the gateway's own table of metrics: an expression is built from a `Metric`, never from a name in a string.

A metric that is renamed or dropped in `gateway/telemetry/definitions.py` therefore breaks the import of whoever draws it or
alerts on it. Dashboards and alerts are written from here; nothing at run time imports it.
"""

from gateway.telemetry.definitions import Metric

SELECTED = '{job=~"$job",instance=~"$instance"}'
"""What a dashboard's variables choose."""


def rate(metric: Metric, window: str, *, where: str = "", ago: str = "") -> str:
    """What a counter grows by per second, of each series; with `ago` what it was then."""
    return f"rate({_counter(metric)}{where}[{window}]{f' offset {ago}' if ago else ''})"


def increase(metric: Metric, window: str, *, where: str = "") -> str:
    """What a counter grew by in the window, of each series."""
    return f"increase({_counter(metric)}{where}[{window}])"


def value(metric: Metric, *, where: str = "") -> str:
    """A gauge."""
    if metric.kind != "gauge":
        raise ValueError(f"{metric.name} is a {metric.kind}, not a gauge")
    return f"{metric.sample}{where}"


def quantile(share: float, metric: Metric, window: str, *by: str, where: str = "") -> str:
    """The value below which `share` of a histogram's observations lie, over all containers; `by` keeps labels apart."""
    if metric.kind != "histogram":
        raise ValueError(f"{metric.name} is a {metric.kind}, not a histogram")
    labels = ", ".join(("le", *by))
    return f"histogram_quantile({share}, sum by ({labels}) (rate({metric.name}_bucket{where}[{window}])))"


def mean(metric: Metric, window: str, *by: str, where: str = "") -> str:
    """A histogram's mean over all containers."""
    if metric.kind != "histogram":
        raise ValueError(f"{metric.name} is a {metric.kind}, not a histogram")
    of = f"by ({', '.join(by)}) " if by else ""
    return f"sum {of}(rate({metric.name}_sum{where}[{window}])) / sum {of}(rate({metric.name}_count{where}[{window}]))"


def total(expression: str, *by: str) -> str:
    """The sum over all containers; `by` keeps labels apart."""
    return f"sum by ({', '.join(by)}) ({expression})" if by else f"sum({expression})"


def _counter(metric: Metric) -> str:
    if metric.kind != "counter":
        raise ValueError(f"{metric.name} is a {metric.kind}, not a counter")
    return metric.sample
