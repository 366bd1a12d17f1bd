"""Two Grafana dashboards: what the gateways do, and what it costs. Built with Grafana's own SDK, which types every field.

What they show is `infra.observability.panels`.
"""

from collections.abc import Sequence

from grafana_foundation_sdk.builders import common, dashboard, prometheus, timeseries
from grafana_foundation_sdk.models.common import LegendDisplayMode, LegendPlacement
from grafana_foundation_sdk.models.dashboard import Dashboard, DashboardCursorSync, DataSourceRef, VariableRefresh

from gateway.telemetry import definitions as d
from infra.observability.panels import CAPACITY, COSTS, LEDGER, MODELS, TRAFFIC, Panel, Section

_SOURCE = DataSourceRef(type_val="prometheus", uid="${datasource}")
_PANEL_WIDTH, _PANEL_HEIGHT = 8, 8  # of Grafana's 24 columns: three in a line


def gateways() -> Dashboard:
    """Traffic, capacity and models: what to look at first."""
    return _dashboard("steelyard-gateways", "Steelyard: gateways", (TRAFFIC, CAPACITY, MODELS))


def costs() -> Dashboard:
    """Receipts and the ledger's writer; the whole bill is `steelyard costs`."""
    return _dashboard("steelyard-costs", "Steelyard: costs", (COSTS, LEDGER))


def _dashboard(uid: str, title: str, sections: Sequence[Section]) -> Dashboard:
    board = (
        dashboard.Dashboard(title).uid(uid).tags(["steelyard"]).timezone("browser").time("now-6h", "now").refresh("30s")
        .tooltip(DashboardCursorSync.CROSSHAIR)
        .with_variable(dashboard.DatasourceVariable("datasource").label("Prometheus").type("prometheus"))
        .with_variable(_choice("job", f"label_values({d.BUILD.sample}, job)"))
        .with_variable(_choice("instance", f'label_values({d.BUILD.sample}{{job=~"$job"}}, instance)'))
    )  # fmt: skip
    for section in sections:
        board = board.with_row(dashboard.Row(section.title))
        for panel in section.panels:
            board = board.with_panel(_timeseries(panel))
    return board.build()


def _choice(name: str, query: str) -> dashboard.QueryVariable:
    return (
        dashboard.QueryVariable(name).label(name).query(query).datasource(_SOURCE)
        .refresh(VariableRefresh.ON_TIME_RANGE_CHANGED).multi(True).include_all(True).all_value(".*")
    )  # fmt: skip


def _timeseries(panel: Panel) -> timeseries.Panel:
    legend = (
        common.VizLegendOptions()
        .display_mode(LegendDisplayMode.LIST)
        .placement(LegendPlacement.BOTTOM)
        .show_legend(True)
    )
    built = (
        timeseries.Panel().title(panel.title).description(panel.about).unit(panel.unit).datasource(_SOURCE).min(0)
        .span(_PANEL_WIDTH).height(_PANEL_HEIGHT).legend(legend).fill_opacity(10)
    )  # fmt: skip
    if panel.ceiling is not None:
        built = built.max(panel.ceiling)
    for number, (expr, name) in enumerate(panel.lines):
        built = built.with_target(prometheus.Dataquery().expr(expr).legend_format(name).ref_id(chr(ord("A") + number)))
    return built
