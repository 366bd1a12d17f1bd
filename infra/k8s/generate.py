"""What of the chart is made from the code; `make chart` writes it.

values.schema.json takes its `settings` from `gateway.settings`, its jobs from `trainers.spec.jobspec` and its budgets from
`gateway.budgets.budgetfile`: so Helm itself refuses an option that no program has. Everything else of it is in
values.schema.in.json. The jobs' template is `infra.k8s.jobtemplate`, and Envoy's file is `infra.k8s.envoytemplate`.
"""

import builtins
import json
import types
import typing
from pathlib import Path
from typing import Annotated, Any, Union, get_args, get_origin  # Any: a JSON schema is a tree of plain values

import msgspec
from msgspec import Meta
from msgspec.structs import FieldInfo

from gateway.budgets.budgetfile import THRESHOLDS_MAX, BudgetFile
from gateway.settings import Settings
from infra.k8s import envoytemplate, jobtemplate
from trainers.spec import cron
from trainers.spec.durations import Duration, Interval
from trainers.spec.jobspec import JobSpec

Tree = Any

HERE = Path(__file__).parent
CHART = HERE / "chart"
SCHEMA_IN = HERE / "values.schema.in.json"

OURS = {
    "": ("store",),
    "HttpOptions": ("host", "port"),
    "RepositoryOptions": ("cache_dir",),
    "LedgerOptions": ("spill_dir",),
    "AccountingOptions": ("container_id",),
}
"""What the chart sets or, as for what the ledger spills into the cache, counts on; nobody else may."""

TIMES = {
    "Settings": ("timeout_s", "server", "runtime", "ledger", "features", "repository"),
    "HttpOptions": ("linger_s", "drain_s"),
    "RuntimeOptions": ("stop_s",),
    "LedgerOptions": ("drain_s", "spill_bytes_max"),
    "FeatureOptions": ("drain_s",),
    "RepositoryOptions": ("cache_bytes_max",),
}
"""What the chart's own arithmetic needs: values.yaml has it, and `null` must not take it away."""

MADE = "{{/* Made by `make chart` from trainers/spec/cron.py: not to be edited. */}}\n"

TEXTS = {
    Duration: r"^([0-9]{1,9}d)?([0-9]{1,9}h)?([0-9]{1,9}m)?([0-9]{1,9}s)?$",
    Interval: r"^(auto|([0-9]{1,9}d)?([0-9]{1,9}h)?([0-9]{1,9}m)?([0-9]{1,9}s)?)$",
}
"""Lengths of time, as `trainers.spec.durations` reads them."""

REQUIRED_OF_A_JOB = ("name", "recipe", "image")


def main() -> None:
    """Write all of it."""
    for path, text in written().items():
        path.write_text(text)


def written() -> dict[Path, str]:
    """The files of the chart that are made, with what is in them."""
    return {
        CHART / "values.schema.json": json.dumps(schema(), indent=1) + "\n",
        CHART / "templates/_training.tpl": jobtemplate.templates(),
        CHART / "templates/_cron.tpl": cron_template(),
        CHART / "templates/_envoy.tpl": envoytemplate.templates(),
    }


def schema() -> Tree:
    """The whole of values.schema.json."""
    whole = json.loads(SCHEMA_IN.read_text())
    whole["$defs"] = settings_definitions() | budget_definitions() | job_definitions()
    return whole


def cron_template() -> str:
    """A regular expression of what `trainers.spec.cron` reads, but for ranges that run backwards and days that never come."""
    pattern = r"^\s*" + r"\s+".join(_cron_field(field) for field in cron.FIELDS) + r"\s*$"
    return f'{MADE}{{{{- define "steelyard.cron" -}}}}\n{pattern}\n{{{{- end -}}}}\n'


def _cron_field(field: cron.Field) -> str:
    numbers = "|".join([*(f"0?{n}" if n < 10 else str(n) for n in range(field.low, field.high + 1)), *field.words])
    steps = "|".join(f"0?{n}" if n < 10 else str(n) for n in range(1, field.high + 1))
    one = rf"(?:(?:\*|(?:{numbers})-(?:{numbers}))(?:/(?:{steps}))?|(?:{numbers}))"
    return f"{one}(?:,{one})*"


def settings_definitions() -> dict[str, Tree]:
    """`Settings` and its sections, without what the chart sets."""
    (_, found) = msgspec.json.schema_components([Settings], ref_template="#/$defs/{name}")
    for name, fields in OURS.items():
        for field in fields:
            del found[name or "Settings"]["properties"][field]
    for name, needed in TIMES.items():
        found[name]["required"] = list(needed)
    return {name: _tidy(one) for name, one in found.items()}


def job_definitions() -> dict[str, Tree]:
    """`JobSpec` and its sections, closed: the reader of a spec refuses unknown keys too."""
    (_, found) = msgspec.json.schema_components([_twin(JobSpec)], ref_template="#/$defs/{name}")
    job = found["JobSpec"]
    job["required"] = list(REQUIRED_OF_A_JOB)
    # Names of runs, schedules and jobs become labels and DNS names as they are.
    job["properties"]["name"] = {"$ref": "#/$defs/DnsName"}
    found["DnsName"] = {"type": "string", "pattern": "^[a-z0-9]([a-z0-9-]*[a-z0-9])?$", "maxLength": 40}
    return {name: _tidy(one) for name, one in found.items()}


def budget_definitions() -> dict[str, Tree]:
    """`BudgetFile` and its sections, closed. An empty list of budgets is none to check: the chart makes no job of it."""
    (_, found) = msgspec.json.schema_components([_twin(BudgetFile)], ref_template="#/$defs/{name}")
    del found["BudgetFile"]["properties"]["schema_version"]
    factors = {"type": "array", "maxItems": THRESHOLDS_MAX, "items": {"type": "number", "exclusiveMinimum": 0}}
    period = {"type": "string", "pattern": "^(day|month|hours:[1-9][0-9]{0,2})$"}
    found["Budget"]["properties"] |= {"period": period, "thresholds": factors, "forecast": factors}
    return {name: _tidy(one) for name, one in found.items()}


def _twin(kind: Any) -> Any:  # Any: a type, of which there is no common one
    """The same type with plain texts in place of times, and without defaults: msgspec cannot write those that are times."""
    if kind in TEXTS:
        return Annotated[str, Meta(pattern=TEXTS[kind], min_length=2)]
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        fields = [_twin_field(field) for field in msgspec.structs.fields(kind)]
        return msgspec.defstruct(
            kind.__name__, fields, kw_only=True, forbid_unknown_fields=True, namespace={"__doc__": kind.__doc__}
        )
    match get_origin(kind):
        case types.UnionType | typing.Union:
            # Left out or given: a `null` between would be a third thing for the template to know.
            return Union[*(_twin(one) for one in get_args(kind) if one is not types.NoneType)]
        case typing.Annotated:
            inner, *meta = get_args(kind)
            return Annotated[_twin(inner), *meta]
        case builtins.tuple:
            return tuple[*(_twin(one) for one in get_args(kind))]
    return kind


def _twin_field(field: FieldInfo) -> tuple[Any, ...]:
    twin = _twin(field.type)
    return (field.name, twin) if field.required else (field.name, twin | msgspec.UnsetType, msgspec.UNSET)


def _tidy(tree: Tree) -> Tree:
    """Without titles, and without what Go's regular expressions do not have: the end of the text is `$` there already."""
    if isinstance(tree, dict):
        return {key: _tidy(value) for key, value in tree.items() if key != "title" or not isinstance(value, str)}
    if isinstance(tree, list):
        return [_tidy(value) for value in tree]
    return tree.replace(r"(?!\n)", "") if isinstance(tree, str) else tree


if __name__ == "__main__":
    main()
