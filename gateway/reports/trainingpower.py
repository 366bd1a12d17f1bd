"""Energy and carbon of training: of attempts, as their records say what they used, and of a version in the portions of its money.

What NVML counted is taken as it is, with the building's on top; all else is modelled from published curves, like serving. An
attempt whose record does not say enough is unknown, and in no sum. `training` reads the records, `amortizing` makes the portions.
"""

from collections.abc import Callable, Iterable, Sequence
from functools import reduce
from operator import add

import msgspec
from msgspec import UNSET

from gateway.contract import energy
from gateway.contract.energy import (
    ENDS,
    NG_PER_G,
    NJ_PER_KWH,
    NOTHING,
    ZERO,
    Coefficients,
    Footprint,
    Gpu,
    Span,
    Use,
    sci_per_thousand_ng,
    weakest,
)
from gateway.contract.runs import MachineUse, TrainingCharge
from gateway.errors import SettingsError
from gateway.reports.figures import printable


class Took(msgspec.Struct, frozen=True):
    """`counted_nj` is what NVML counted of it at the GPUs, without the building's; `notes` say what was assumed."""

    footprint: Footprint
    counted_nj: int = 0
    notes: tuple[str, ...] = ()


class Begun(msgspec.Struct, frozen=True):
    """All attempts that began in the report's period, beside its rows. `unknown` of them are in no sum."""

    runs: int
    attempts: int
    unknown: int
    footprint: Footprint
    counted_nj: int
    notes: tuple[str, ...]


class Portions(msgspec.Struct, frozen=True):
    """`earlier + expensed + remaining == whole`, each figure of them; `written_off` is part of `expensed`; the rest as in `Took`.

    Each figure is rounded down by itself, as the money is, so a low end may be one above the value of the same portion. `rows` are
    the predictions answered in the period: what SCI (ISO/IEC 21031:2024) is of, for `expensed` alone, for serving, and for both.
    """

    whole: Footprint
    earlier: Footprint
    expensed: Footprint
    remaining: Footprint
    written_off: Footprint
    counted_nj: int
    notes: tuple[str, ...] = ()
    rows: int = 0
    training_sci_per_1000_rows_ng: Span | None = None
    serving_sci_per_1000_rows_ng: Span | None = None
    sci_per_1000_rows_ng: Span | None = None


FIGURES = ("energy_nj", "operational_ng", "embodied_ng")
Divided = tuple[int, int, int, int]
"""Earlier, expensed, remaining, written off."""


def of_attempts(uses: Iterable[MachineUse], coefficients: Coefficients) -> Took:
    """Their sum. Raises `SettingsError` for a GPU without coefficients."""
    took = [of_attempt(use, coefficients) for use in uses]
    notes = dict.fromkeys(note for one in took for note in one.notes)
    return Took(_sum([one.footprint for one in took]), sum(one.counted_nj for one in took), tuple(notes))


def of_attempt(use: MachineUse, coefficients: Coefficients) -> Took:
    """Its CPUs and memory, and its GPUs: as counted, else by how busy they were. Raises as `of_attempts`."""
    here, notes = _where(use, coefficients)
    allotted = use.allotted
    held = Use(allotted.processor or "x86", allotted.vcpu_milli, allotted.memory_bytes, use.held_ns, use.cpu_ns)
    parts = [energy.idle(held, here), energy.working(held, here)]
    if use.gpus:
        parts += _gpus(use, here, notes)
    footprint = _sum(parts)
    if notes:
        footprint = msgspec.structs.replace(footprint, tier="assumed")
    return Took(footprint, use.gpu_energy_nj or 0, tuple(notes))


def counted(energy_nj: int, coefficients: Coefficients) -> Footprint:
    """What a counter in the machine says, with the building's on top; making the machine is not in it."""
    pue, grid = coefficients.pue, coefficients.grid_g_per_kwh
    ng_per_nj = {end: pue.at(end) * grid.at(end) * NG_PER_G / NJ_PER_KWH for end in ENDS}
    return Footprint(
        energy_nj=Span(*(round(energy_nj * pue.at(end)) for end in ENDS)),
        operational_ng=Span(*(round(energy_nj * ng_per_nj[end]) for end in ENDS)),
        embodied_ng=ZERO,
        tier=weakest(("measured", pue.tier, grid.tier)),
    )


def begun(found: Sequence[TrainingCharge], coefficients: Coefficients) -> Begun | None:
    """Of these attempts; None without any."""
    if not found:
        return None
    took: list[Took] = []
    notes: dict[str, None] = {}
    for charge in found:
        try:
            took.append(_of_charge(charge, coefficients))
        except SettingsError as error:
            notes[f"training of {printable(charge.model)} is partly unknown: {error}"] = None
    notes |= dict.fromkeys(note for one in took for note in one.notes)
    return Begun(
        runs=len({charge.run_id for charge in found}),
        attempts=len(found),
        unknown=len(found) - len(took),
        footprint=_sum([one.footprint for one in took]),
        counted_nj=sum(one.counted_nj for one in took),
        notes=tuple(notes),
    )


def _of_charge(charge: TrainingCharge, coefficients: Coefficients) -> Took:
    if charge.use is UNSET:
        raise SettingsError("attempts did not record what they used")
    return of_attempt(charge.use, coefficients)


def portions(took: Took, divided: Callable[[int], Divided]) -> Portions:
    """`divided` makes an amount's portions, as it makes the money's."""
    whole = took.footprint
    figures = [[divided(getattr(getattr(whole, name), end)) for end in ENDS] for name in FIGURES]

    def footprint(portion: int) -> Footprint:
        energy_nj, operational_ng, embodied_ng = (Span(*(end[portion] for end in ends)) for ends in figures)
        return Footprint(energy_nj, operational_ng, embodied_ng, whole.tier)

    earlier, expensed, remaining, written_off = map(footprint, range(4))
    return Portions(whole, earlier, expensed, remaining, written_off, took.counted_nj, took.notes)


def with_sci(of: Portions, serving: Footprint, rows: int) -> Portions:
    """With SCI scores for the predictions answered in the period; None where there was none."""
    return msgspec.structs.replace(
        of,
        rows=rows,
        training_sci_per_1000_rows_ng=sci_per_thousand_ng(of.expensed, rows),
        serving_sci_per_1000_rows_ng=sci_per_thousand_ng(serving, rows),
        sci_per_1000_rows_ng=sci_per_thousand_ng(of.expensed + serving, rows),
    )


def _gpus(use: MachineUse, coefficients: Coefficients, notes: list[str]) -> list[Footprint]:
    gpu = _gpu(use.gpu, coefficients)
    if use.gpu_energy_nj is not None:
        held = energy.idle(_of_gpus(use, gpu), coefficients)
        making = Footprint(ZERO, ZERO, held.embodied_ng, gpu.embodied_g_per_hour.tier)
        return [counted(use.gpu_energy_nj, coefficients), making]
    holding = energy.idle(_of_gpus(use, gpu), coefficients)
    if use.gpu_busy_ns is not None:
        return [holding, energy.working(_of_gpus(use, gpu, use.gpu_busy_ns), coefficients)]
    notes.append("training is assumed: nobody measured how busy its GPUs were; taken for half, from idle to fully busy")
    full = use.gpus * use.held_ns
    low, value, high = (energy.working(_of_gpus(use, gpu, busy), coefficients) for busy in (0, full // 2, full))
    return [holding, _between(low, value, high)]


def _of_gpus(use: MachineUse, gpu: Gpu, busy_ns: int = 0) -> Use:
    """Nothing but the GPUs: CPUs and memory are counted by themselves."""
    return Use("x86", 0, 0, use.held_ns, 0, gpu.name, use.gpus, busy_ns)


def _gpu(title: str, coefficients: Coefficients) -> Gpu:
    """`NVIDIA A100-SXM4-40GB` is A100. Raises `SettingsError`."""
    words = title.replace("-", " ").split()
    for gpu in coefficients.gpu:
        if gpu.name in words:
            return gpu
    known = ", ".join(gpu.name for gpu in coefficients.gpu)
    raise SettingsError(f"no energy coefficients for GPU '{printable(title)}' (there are: {known}); see --energy-book")


def _where(use: MachineUse, coefficients: Coefficients) -> tuple[Coefficients, list[str]]:
    """The coefficients of the region where it ran, and what had to be assumed."""
    notes, region, own = [], use.allotted.region, coefficients.region
    here = coefficients.in_region(region)
    if here is None:
        where = f"in {printable(region)}" if region else "nobody knows where"
        notes.append(f"training is assumed: it ran {where}; the grid is taken for that of {printable(own)}")
    if not use.allotted.processor:
        notes.append("training is assumed: its processor is not known; taken for x86")
    return here or coefficients, notes


def _between(low: Footprint, value: Footprint, high: Footprint) -> Footprint:
    """The low end of the first, the value of the second, the high end of the third."""
    energy_nj, operational_ng, embodied_ng = (
        Span(getattr(low, name).low, getattr(value, name).value, getattr(high, name).high) for name in FIGURES
    )
    return Footprint(energy_nj, operational_ng, embodied_ng, "assumed")


def _sum(parts: Sequence[Footprint]) -> Footprint:
    return reduce(add, parts, NOTHING)
