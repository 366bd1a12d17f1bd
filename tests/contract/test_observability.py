"""Dashboards, alerts and the runbook against the table of metrics: none may speak of what the gateway does not show."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import promql_parser
import pytest
import yaml

from gateway.cli.main import steelyard
from gateway.settings import Settings
from gateway.telemetry import definitions as d
from infra.observability import __main__ as writing
from infra.observability import alerts, dashboards
from infra.observability.queries import quantile, rate, value

ROOT = Path(__file__).parent.parent.parent
ALERTS = [alert for group in alerts.GROUPS.values() for alert in group]
FROM_PROMETHEUS = {"job", "instance", "le", "__name__"}
SUFFIXES = {"counter": ("_total",), "gauge": ("",), "histogram": ("_bucket", "_sum", "_count")}
SAMPLES = {metric.name + suffix: metric for metric in d.METRICS for suffix in SUFFIXES[metric.kind]}


def drawn() -> list[str]:
    """Every expression of the generated dashboards, with Grafana's variables filled in."""
    boards = [json.loads(path.read_text()) for path in sorted((writing.HERE / "grafana").glob("*.json"))]
    return [
        target["expr"].replace("$__rate_interval", "1m")
        for board in boards
        for panel in board["panels"]
        for target in panel.get("targets", ())
    ]


def selectors(expr: Any) -> Iterator[Any]:
    """Every vector selector below this node."""
    if isinstance(expr, promql_parser.VectorSelector):
        yield expr
    for name in ("lhs", "rhs", "expr", "vector_selector", "param"):
        if (child := getattr(expr, name, None)) is not None:
            yield from selectors(child)
    for child in getattr(expr, "args", None) or ():
        yield from selectors(child)


EXPRESSIONS = [*drawn(), *(alert.expr for alert in ALERTS)]


def test_what_is_committed_is_what_the_definitions_say() -> None:
    assert writing.main(["--check"]) == 0


def test_a_stale_file_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    here = tmp_path / "infra" / "observability"
    shutil.copytree(writing.HERE, here)
    monkeypatch.setattr(writing, "HERE", here)
    assert writing.main(["--check"]) == 0
    (here / "alerts.yaml").write_text("groups: []\n")
    assert writing.main(["--check"]) == 1
    assert "infra/observability/alerts.yaml is not" in capsys.readouterr().out
    writing.main([])
    assert writing.main(["--check"]) == 0


@pytest.mark.parametrize("expr", EXPRESSIONS)
def test_every_expression_is_promql_over_metrics_and_labels_that_exist(expr: str) -> None:
    found = list(selectors(promql_parser.parse(expr)))
    assert found
    for selector in found:
        metric = SAMPLES[selector.name]
        assert {matcher.name for matcher in selector.matchers.matchers} <= FROM_PROMETHEUS | set(metric.labels)


@pytest.mark.parametrize("expr", EXPRESSIONS)
def test_what_is_grouped_by_is_a_label_of_the_metric(expr: str) -> None:
    labels = {label for selector in selectors(promql_parser.parse(expr)) for label in SAMPLES[selector.name].labels}
    grouped = {label.strip() for listed in re.findall(r"\bby\s*\(([^)]*)\)", expr) for label in listed.split(",")}
    assert grouped <= labels | FROM_PROMETHEUS


def test_every_metric_is_drawn_or_alerted_on() -> None:
    used = {SAMPLES[selector.name] for expr in EXPRESSIONS for selector in selectors(promql_parser.parse(expr))}
    shown_elsewhere = {
        d.RESIDENT_BYTES,  # by version and variant: too many lines for a plot, and in /v1/loaded
        d.COST_PICODOLLARS,  # the exact form of the cost that is drawn in dollars
        d.FEATURE_PROFILES,  # how many versions are counted: the rows are drawn
    }
    assert set(d.METRICS) - used == shown_elsewhere


def test_a_query_knows_its_metric_kind() -> None:
    for wrong in (lambda: rate(d.READY, "5m"), lambda: value(d.REQUESTS), lambda: quantile(0.5, d.READY, "5m")):
        with pytest.raises(ValueError, match="not a"):
            wrong()


def test_panels_do_not_overlap_and_have_ids_of_their_own() -> None:
    for board in (dashboards.gateways(), dashboards.costs()):
        panels = [panel for panel in board.panels or () if getattr(panel, "targets", None)]
        cells = [
            (panel.grid_pos.x + x, panel.grid_pos.y + y)
            for panel in panels
            for x in range(panel.grid_pos.w)
            for y in range(panel.grid_pos.h)
        ]
        assert len(cells) == len(set(cells))
        assert max(x for x, _ in cells) < 24
        for panel in panels:
            assert len({target.ref_id for target in panel.targets}) == len(panel.targets)


def test_every_alert_has_its_page_and_every_page_its_alert() -> None:
    text = (ROOT / alerts.RUNBOOK).read_text()
    pages = dict(re.findall(r"^### (\w+)\n(.*?)(?=^##|\Z)", text, re.MULTILINE | re.DOTALL))
    assert set(pages) == {alert.name for alert in ALERTS}
    for name, page in pages.items():
        assert "- Symptom: " in page, name
        assert "- Cure: " in page, name
        assert "- First look: " in page or "- Cause: " in page, name


def test_the_runbook_names_files_settings_and_commands_that_exist() -> None:
    text = (ROOT / alerts.RUNBOOK).read_text()
    for path in re.findall(r"\b(?:tests|infra)/[\w./-]+\.\w+", text):
        assert (ROOT / path).exists(), path
    settings = Settings()
    named = re.findall(r"`(\w+)\.(\w+)`", text)
    assert len(named) > 5
    for section, key in named:
        assert hasattr(getattr(settings, section), key), f"{section}.{key}"
    for words in re.findall(r"`steelyard ([a-z]+(?: [a-z]+)?)", text):
        command: click.Command = steelyard
        for word in words.split():
            if isinstance(command, click.Group):
                found = command.get_command(click.Context(command), word)
                assert found is not None, words
                command = found


# One container in trouble of every kind, then one in none; `promtool` runs the rules over both.
_TROUBLE = {
    "steelyard_ready{instance='a'}": "0x200",
    "steelyard_saturation_ratio{instance='a'}": "0.95x200",
    "steelyard_requests_total{outcome='ok',model='m',version='1'}": "0+60x200",
    "steelyard_refusals_total{reason='overloaded'}": "0+60x200",
    "steelyard_refusals_total{reason='internal'}": "0+1x200",
    "steelyard_refusals_total{reason='store'}": "0+1x200",
    "steelyard_refusals_total{reason='artifact'}": "0+1x200",
    "steelyard_queue_seconds_bucket{model='m',le='0.1'}": "0+1x200",
    "steelyard_queue_seconds_bucket{model='m',le='1'}": "0+60x200",
    "steelyard_queue_seconds_bucket{model='m',le='+Inf'}": "0+60x200",
    "steelyard_event_loop_lag_seconds_bucket{instance='a',le='0.1'}": "0+1x200",
    "steelyard_event_loop_lag_seconds_bucket{instance='a',le='1'}": "0+60x200",
    "steelyard_event_loop_lag_seconds_bucket{instance='a',le='+Inf'}": "0+60x200",
    "steelyard_process_started_seconds{instance='a'}": "0+60x200",
    "steelyard_release_problem{model='m'}": "1x200",
    "steelyard_load_failures_total{instance='a'}": "0+1x200",
    "steelyard_evictions_total{instance='a'}": "0+10x200",
    "steelyard_resident_versions{instance='a'}": "5x200",
    "steelyard_feature_rows_total{result='dropped'}": "0+1x200",
    "steelyard_ledger_unwritten_picodollars{instance='a'}": "1000x200",
    "steelyard_ledger_segments_total{instance='a'}": "7x200",
    "steelyard_ledger_conflicts_total{instance='a'}": "0+1x200",
    "steelyard_ledger_collapsed_requests_total{instance='a'}": "0+1x200",
    "steelyard_ledger_unpriced_skus{instance='a'}": "1x200",
    "steelyard_ledger_capped_receipts_total{instance='a'}": "0+1x200",
    "steelyard_cost_dollars_total{model='m',version='1'}": "0+1x1440 1500+100x200",
}
_CALM = {
    name: {"steelyard_ready{instance='a'}": "1x200", "steelyard_saturation_ratio{instance='a'}": "0.5x200"}.get(
        name, text
    )
    for name, text in {
        series: "0x1700" if "_total" in series or "problem" in series or "unpriced" in series else values
        for series, values in _TROUBLE.items()
    }.items()
} | {
    "steelyard_requests_total{outcome='ok',model='m',version='1'}": "0+60x200",
    "steelyard_queue_seconds_bucket{model='m',le='0.1'}": "0+60x200",
    "steelyard_event_loop_lag_seconds_bucket{instance='a',le='0.1'}": "0+60x200",
    "steelyard_process_started_seconds{instance='a'}": "1700000000x200",
    "steelyard_ledger_segments_total{instance='a'}": "0+1x200",
}


def _case(series: dict[str, str], at: str, firing: list[str]) -> dict[str, Any]:
    return {
        "interval": "1m",
        "input_series": [{"series": name, "values": values} for name, values in series.items()],
        "promql_expr_test": [
            {
                "expr": 'count by (alertname) (ALERTS{alertstate="firing"})',
                "eval_time": at,
                "exp_samples": [{"labels": f'{{alertname="{name}"}}', "value": 1} for name in sorted(firing)],
            }
        ],
    }


def test_every_rule_fires_in_trouble_and_is_silent_in_calm(tmp_path: Path) -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not here (Debian's package `prometheus` has it): rules are parsed, not run")
    rules = writing.HERE / "alerts.yaml"
    checked = subprocess.run([promtool, "check", "rules", str(rules)], capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    others = [alert.name for alert in ALERTS if alert.name != "CostSurge"]
    surge = {name: values for name, values in _TROUBLE.items() if "cost_dollars" in name}
    rest = {name: values for name, values in _TROUBLE.items() if name not in surge}
    cases = [_case(rest, "3h", others), _case(surge, "26h30m", ["CostSurge"]), _case(_CALM, "3h", [])]
    path = tmp_path / "test.yaml"
    path.write_text(yaml.safe_dump({"rule_files": [str(rules)], "evaluation_interval": "1m", "tests": cases}))
    done = subprocess.run([promtool, "test", "rules", str(path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
