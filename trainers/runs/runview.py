"""How `steelyard runs` shows a run: tables for people, and everything for programs."""

import json
from collections.abc import Sequence
from decimal import Decimal
from typing import Any  # Any: JSON-like trees

import msgspec
from rich.console import Console
from rich.table import Table
from rich.text import Text

from gateway.contract.prices import PICO_PER_USD
from gateway.contract.runs import AttemptEnd, Heartbeat, MetricLine, StageRecord
from gateway.wording import moment
from trainers.runs import reading, settle
from trainers.runs.reading import RunView


class Details(msgspec.Struct, frozen=True):
    """What `show` knows beside the run's records. `decision` is whatever was stored."""

    view: RunView
    stages: tuple[StageRecord, ...]
    metrics: tuple[MetricLine, ...]
    decision: dict[str, Any] | None = None


def listing(console: Console, views: Sequence[RunView], now_ns: int) -> None:
    """A row for each run and one for their sum, which leaves out what has no price."""
    table = _table("run", "model", "state", "progress", right=("attempts", "cost", "wasted"))
    table.add_column("age")
    for view in views:
        ends = view.ends(now_ns)
        table.add_row(
            *map(_text, (view.run.run_id, view.run.model, _state(view, now_ns), _progress(view.beat))),
            str(len(view.tried)),
            _money(settle.total(end.cost_picousd for end in ends)),
            _money(settle.total(end.wasted_picousd for end in ends)),
            _ago(now_ns - view.run.created_ns),
        )
    every = [end for view in views for end in view.ends(now_ns)]
    priced = [end for end in every if end.cost_picousd is not None]
    table.add_row(
        f"{len(views)} runs",
        "",
        "",
        "",
        str(len(every)),
        _money(_sum(priced, "cost")),
        _money(_sum(priced, "wasted")),
        "",
    )
    console.print(table)
    if len(priced) < len(every):
        console.print(f"attempts without a known price, in no sum: {len(every) - len(priced)}", style="yellow")
    _note_unsettled(console, views, now_ns)


def details(console: Console, shown: Details, now_ns: int) -> None:
    """One run: what was asked, its attempts, stages, newest metrics, decision and cost."""
    view, run = shown.view, shown.view.run
    console.print(_text(f"{run.run_id}: {run.model} from recipe {run.recipe}, seed {run.seed}, {_state(view, now_ns)}"))
    console.print(_text(f"asked by {run.actor} at {moment(run.created_ns)}, spec {run.spec_sha256[:12]}"))
    if view.cancellation:
        asked = view.cancellation
        reason = f": {asked.reason}" if asked.reason else ""
        console.print(_text(f"cancelled by {asked.actor} at {moment(asked.requested_ns)}{reason}"))
    if view.beat and view.tried[-1].end is None:
        console.print(_text(_heart(view, now_ns)))
    console.print()
    console.print(_attempts(view, now_ns))
    for tried in view.tried:
        if tried.end and tried.end.message:
            console.print(_text(f"attempt {tried.attempt.attempt}: {tried.end.message}"))
    if shown.stages:
        console.print(_stages(shown.stages))
    if shown.metrics:
        console.print(_metrics(shown.metrics))
    if shown.decision is not None:
        console.print(_text(f"decision: {_decided(shown.decision)}"))
    ends = view.ends(now_ns)
    cost, wasted = settle.total(end.cost_picousd for end in ends), settle.total(end.wasted_picousd for end in ends)
    console.print(
        _text(f"cost: {_money(cost)}, of which wasted {_money(wasted)} on {sum(e.steps_lost for e in ends)} steps lost")
    )
    _note_unsettled(console, [view], now_ns)


def as_json(view: RunView, now_ns: int, shown: Details | None = None) -> dict[str, Any]:
    """Every record of a run as stored, its state and its sums; `show` has more."""
    ends = view.ends(now_ns)
    tree: dict[str, Any] = {
        "run": msgspec.to_builtins(view.run),
        "state": reading.state(view, now_ns),
        "attempts": [
            {**msgspec.to_builtins(tried.attempt), "end" if tried.end else "so_far": msgspec.to_builtins(end)}
            for tried, end in zip(view.tried, ends, strict=True)
        ],
        "heartbeat": msgspec.to_builtins(view.heartbeat),
        "cancellation": msgspec.to_builtins(view.cancellation),
        "cost_picousd": settle.total(end.cost_picousd for end in ends),
        "wasted_picousd": settle.total(end.wasted_picousd for end in ends),
    }
    if shown is not None:
        tree["stages"] = msgspec.to_builtins(shown.stages)
        tree["metrics"] = {name: value for name, (value, _) in _newest(shown.metrics).items()}
        tree["decision"] = shown.decision
    return tree


def dumped(tree: object) -> str:
    return json.dumps(tree, indent=2)


def printable(text: str) -> str:
    """What a store holds may not move the cursor or colour the terminal."""
    return "".join(character if character.isprintable() else "�" for character in text)


def _attempts(view: RunView, now_ns: int) -> Table:
    numbers = ("$/h", "time", "steps", "lost", "cost", "wasted")
    table = _table("n", "machine", "bought", "began", "outcome", right=numbers)
    unsettled = view.unsettled(now_ns)
    for tried, end in zip(view.tried, view.ends(now_ns), strict=True):
        attempt = tried.attempt
        outcome = end.outcome if tried.end else "unsettled" if attempt.attempt in unsettled else "running"
        table.add_row(
            str(attempt.attempt),
            _text(attempt.instance or attempt.sku),
            _text(f"{attempt.market} {attempt.zone}".rstrip()),
            moment(attempt.started_ns)[:16].replace("T", " "),
            f"{outcome} {end.exit_code}" if tried.end and end.exit_code > 0 else outcome,
            attempt.usd_per_hour or "-",
            _duration(end.elapsed_ns),
            f"{end.progress.step_first}-{end.progress.step_last}",
            str(end.steps_lost),
            _money(end.cost_picousd),
            _money(end.wasted_picousd),
        )
    return table


def _stages(stages: Sequence[StageRecord]) -> Table:
    table = _table("stage", "key", right=("attempt", "time", "bytes"))
    table.add_column("files", overflow="fold")
    for record in stages:
        size = sum(file.size for file in record.files)
        names = ", ".join(file.name for file in record.files)
        table.add_row(
            record.stage, record.key[:12], str(record.attempt), _duration(record.elapsed_ns), f"{size:,}", names
        )
    return table


def _metrics(lines: Sequence[MetricLine]) -> Table:
    table = _table("metric", right=("newest", "step"))
    for name, (value, step) in _newest(lines).items():
        table.add_row(_text(name), "-" if value is None else f"{value:.6g}", str(step))
    return table


def _newest(lines: Sequence[MetricLine]) -> dict[str, tuple[float | None, int]]:
    return {name: (value, line.step) for line in lines for name, value in line.values.items()}


def _state(view: RunView, now_ns: int) -> str:
    state = reading.state(view, now_ns)
    return f"{state} for {_duration(now_ns - reading.seen_ns(view))}" if view.unsettled(now_ns) else state


def _progress(beat: Heartbeat | None) -> str:
    """The stage at work, and steps; `-` between stages without a step, as after a run that found every stage done."""
    if beat is None:
        return "-"
    stage = [] if beat.stage in {"start", "between"} else [beat.stage]
    steps = [f"{beat.step}/{beat.steps_total}"] if beat.steps_total else []
    return " ".join(stage + steps) or "-"


def _heart(view: RunView, now_ns: int) -> str:
    beat = view.beat
    assert beat is not None
    loss = "" if beat.loss is None else f", loss {beat.loss:.6g}"
    rate = "" if beat.examples_per_s is None else f", {beat.examples_per_s:,.0f} examples/s"
    age_s = (now_ns - beat.at_ns) / 1e9
    when = f"{age_s:.0f} s ago" if age_s >= 0 else f"{-age_s:.0f} s in the future: its clock and this one differ"
    return f"last sign of life {when}: attempt {beat.attempt}, {_progress(beat)}{loss}{rate}"


def _decided(decision: dict[str, Any]) -> str:
    """Its own word for itself where it has one; another part of the product says what is in it."""
    for key, why in (("verdict", "sentence"), ("decision", "reason")):
        word, reason = decision.get(key), decision.get(why)
        if isinstance(word, str):
            return f"{word}, {reason}" if isinstance(reason, str) and reason else word
    return json.dumps(decision)


def _note_unsettled(console: Console, views: Sequence[RunView], now_ns: int) -> None:
    names = [f"{view.run.run_id} {number}" for view in views for number in view.unsettled(now_ns)]
    if names:
        listed = ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
        console.print(_text(f"unsettled, counted up to the last heartbeat: {listed}"), style="yellow")


def _table(*left: str, right: Sequence[str]) -> Table:
    """Columns without rules: figures of ten columns fit an ordinary terminal, and a pipe gets what a program can split."""
    table = Table(box=None, pad_edge=False, padding=(0, 1), header_style="bold")
    for name in left:
        table.add_column(name, overflow="fold")
    for name in right:
        table.add_column(name, justify="right", no_wrap=True)
    return table


def _text(text: str) -> Text:
    return Text(printable(text))


def _sum(ends: Sequence[AttemptEnd], of: str) -> int:
    return sum((end.cost_picousd if of == "cost" else end.wasted_picousd) or 0 for end in ends)


def _money(picousd: int | None) -> str:
    """Four significant digits below a dollar: most runs of a small model cost less than a cent."""
    if picousd is None:
        return "unpriced"
    value = Decimal(picousd) / PICO_PER_USD
    if not picousd:
        return "$0"
    return f"${value:,.2f}" if value >= 1 else f"${value:.{3 - value.adjusted()}f}"


def _duration(ns: int) -> str:
    seconds = ns / 1e9
    if seconds < 120:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _ago(ns: int) -> str:
    hours = ns / 3.6e12
    if hours < 0:
        return "in the future"
    return f"{ns // 60_000_000_000} min" if hours < 2 else f"{hours:.0f} h" if hours < 48 else f"{hours / 24:.0f} d"
