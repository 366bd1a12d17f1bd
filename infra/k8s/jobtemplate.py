"""The chart's template of training Jobs and CronJobs, made from the manifests that `trainers.launch.manifests` prints.

The launcher is asked for every combination of what a spec may or may not have, with marks in place of values. What differs between
the answers becomes a condition, a mark becomes an expression. Nothing of a manifest is written here. `infra.k8s.generate` calls it.
"""

import itertools
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple  # Any: a manifest is a tree of plain values

from trainers.launch import manifests, policy, yamltext
from trainers.launch.site import KubernetesSite
from trainers.spec import jobspec
from trainers.spec.durations import Duration
from trainers.spec.jobspec import JobSpec, Limits, Market, Resources, Schedule

Tree = Any

FEATURES = {
    "gpu": "$spec.resources.gpu",
    "gpu_memory": "$spec.resources.gpu_memory_gb",
    "disk": "$spec.resources.disk_gb",
    "spot": '(eq $spec.market.prefer "spot")',
    "service_account": ".serviceAccount",
    "secret": ".secret",
}
"""What a spec or a site may have, each with the template's way of asking for it."""

EXPRESSIONS: dict[str | int, str] = {
    "mark-namespace": ".root.Release.Namespace",
    "mark-name": ".name",
    "mark-job": "$spec.name",
    "mark-image@sha256:0": "$spec.image",
    "mark-store": ".store",
    "mark-account": ".serviceAccount",
    "mark-secret": ".secret",
    "mark-cron": "$spec.schedule.cron",
    "mark-zone": f'(default "{Schedule(cron="").timezone}" $spec.schedule.timezone)',
    "311": "($spec.resources.cpu | int | toString)",
    "13": "($spec.resources.gpu | int | toString)",
    "307200Mi": '(include "steelyard.mebibytes" $spec.resources.memory_gb)',
    "103424Mi": '(include "steelyard.mebibytes" $spec.resources.shm_gb)',
    "513024Mi": '(include "steelyard.mebibytes" $spec.resources.disk_gb)',
    "109770": '(include "steelyard.gpuMebibytes" $spec.resources.gpu_memory_gb)',
    7_000_001: "$wall",
    11_000: "$killed",
}
"""Marks and what stands for them. A number is a mark too: 300 GB of memory are 307200Mi, which no default is."""

LIMITS = Limits(wall=Duration("7000001s"), attempt=Duration("10000s"))
assert policy.killed_after_s(LIMITS.attempt.seconds) == 11_000

PRELUDE = """\
{{{{- $spec := mergeOverwrite (fromJson {defaults}) (deepCopy .spec) }}}}
{{{{- $wall := include "steelyard.seconds" $spec.limits.wall | int64 }}}}
{{{{- $attempt := include "steelyard.seconds" $spec.limits.attempt | int64 }}}}
{{{{- $killed := add $attempt (div (add $attempt {below}) {tenths}) }}}}
"""


class Case(NamedTuple):
    """One combination of features, and what the launcher printed for it."""

    has: frozenset[str]
    tree: Tree


def templates() -> str:
    """Both definitions, as one file of the chart."""
    cases = [frozenset(some) for n in range(len(FEATURES) + 1) for some in itertools.combinations(FEATURES, n)]
    made = {
        "steelyard.job": [Case(has, _job(has)) for has in cases],
        "steelyard.cronjob": [Case(has, _cron_job(has)) for has in cases],
    }
    head = "{{/* Made by `make chart` from trainers/launch/manifests.py: not to be edited. */}}\n"
    return head + "".join(
        f'\n{{{{- define "{name}" -}}}}\n{_prelude()}' + "\n".join(_entries(cases, "", cases)) + "\n{{- end -}}\n"
        for name, cases in made.items()
    )


def _prelude() -> str:
    """What a spec may leave out and the manifest needs. Not the rest: the job itself knows the defaults."""
    plain = json.loads(jobspec.canonical(JobSpec(name="x", recipe="x")))
    defaults = {section: plain[section] for section in ("resources", "market", "limits")}
    tenths = round(1 / policy.ATTEMPT_HEADROOM)
    text = json.dumps(_without_nulls(defaults), separators=(",", ":"))
    return PRELUDE.format(defaults=f"`{text}`", below=tenths - 1, tenths=tenths)


def _without_nulls(tree: Tree) -> Tree:
    if isinstance(tree, dict):
        return {key: _without_nulls(value) for key, value in tree.items() if value is not None}
    return tree


def _spec(has: frozenset[str], schedule: Schedule | None) -> JobSpec:
    return JobSpec(
        name="mark-job",
        recipe="mark-recipe",
        image="mark-image@sha256:0",
        schedule=schedule,
        limits=LIMITS,
        market=Market(prefer="spot" if "spot" in has else "on_demand"),
        resources=Resources(
            cpu=311,
            memory_gb=300,
            shm_gb=101,
            gpu=13 if "gpu" in has else 0,
            gpu_memory_gb=119.109375 if "gpu_memory" in has else None,
            disk_gb=501 if "disk" in has else None,
        ),
    )


def _site(has: frozenset[str]) -> KubernetesSite:
    return KubernetesSite(
        namespace="mark-namespace",
        service_account="mark-account" if "service_account" in has else "",
        secret="mark-secret" if "secret" in has else "",
    )


def _job(has: frozenset[str]) -> Tree:
    return manifests.job(_spec(has, None), _site(has), run_id="mark-name", store="mark-store")


def _cron_job(has: frozenset[str]) -> Tree:
    when = Schedule(cron="mark-cron", timezone="mark-zone")
    return manifests.cron_job(_spec(has, when), _site(has), schedule="mark-name", when=when, store="mark-store")


def _entries(cases: Sequence[Case], indent: str, everyone: Sequence[Case]) -> list[str]:
    """A mapping's lines. `cases` are those that have it; each key is asked for in those only."""
    lines: list[str] = []
    for key in dict.fromkeys(key for case in reversed(cases) for key in case.tree):
        having = [Case(case.has, case.tree[key]) for case in cases if key in case.tree]
        body = _entry(key, having, indent, everyone)
        lines += body if len(having) == len(cases) else [_if(having, cases), *body, "{{- end }}"]
    return lines


def _entry(key: str, cases: Sequence[Case], indent: str, everyone: Sequence[Case]) -> list[str]:
    head = f"{indent}{_plain(key)}:"
    first = cases[-1].tree
    if isinstance(first, Mapping):
        filled = [case for case in cases if case.tree]
        if not filled:
            return [f"{head} {{}}"]
        inner = [head, *_entries(filled, indent + "  ", everyone)]
        return (
            inner
            if len(filled) == len(cases)
            else [_if(filled, cases), *inner, "{{- else }}", f"{head} {{}}", "{{- end }}"]
        )
    if isinstance(first, list):
        return [head, *_items(cases, indent + "  ", everyone)]
    return [f"{head} {_scalar(key, cases)}"]


def _items(cases: Sequence[Case], indent: str, everyone: Sequence[Case]) -> list[str]:
    assert len({len(case.tree) for case in cases}) == 1, "lists that differ in length need a condition of their own"
    lines = []
    for index in range(len(cases[0].tree)):
        inner = [Case(case.has, case.tree[index]) for case in cases]
        if isinstance(inner[0].tree, Mapping):
            body = _entries(inner, indent + "  ", everyone)
            lines += [f"{indent}- {body[0].lstrip()}", *body[1:]]
        else:
            lines.append(f"{indent}- {_scalar('', inner)}")
    return lines


def _scalar(key: str, cases: Sequence[Case]) -> str:
    values = {json.dumps(case.tree) for case in cases}
    if all(_is_spec(case.tree) for case in cases):
        return "{{ $spec | toJson | toJson }}"
    assert len(values) == 1, f"'{key}' has a value of its own in some cases: {values}"
    value = cases[0].tree
    if not isinstance(value, bool) and value in EXPRESSIONS:
        return f"{{{{ {EXPRESSIONS[value]}{' | toJson' if isinstance(value, str) else ''} }}}}"
    text = _plain(value)
    for mark, expression in EXPRESSIONS.items():
        if isinstance(mark, str) and mark.startswith("mark-"):
            text = text.replace(mark, f"{{{{ {expression} }}}}")
    return text


def _plain(value: Tree) -> str:
    return yamltext.document(value).rstrip("\n")


def _is_spec(value: Tree) -> bool:
    """The job's own spec: found by what it is, for `env` has it as one value among others."""
    return isinstance(value, str) and value.startswith("{") and '"recipe":"mark-recipe"' in value


def _if(having: Sequence[Case], among: Sequence[Case]) -> str:
    """The shortest condition that is true for `having` and false for the others."""
    wanted = {case.has for case in having}
    tests: dict[str, Callable[..., bool]] = {"and": all, "or": any}
    for size in range(1, len(FEATURES) + 1):
        for some in itertools.combinations(FEATURES, size):
            for word, holds in tests.items():
                if {case.has for case in among if holds(one in case.has for one in some)} == wanted:
                    asked = " ".join(FEATURES[one] for one in some)
                    return f"{{{{- if {asked if size == 1 else f'{word} {asked}'} }}}}"
    raise AssertionError("this part of the manifest depends on the spec in a way that no condition here says")
