"""Runs a job spec in this process: makes its job, keeps the schedule's lease, shows progress and the result.

Called by the `train` command when nothing else has to be started. Returns exit codes; errors leave as they are.
"""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Iterator
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.console import Console

from gateway.contract.prices import PICO_PER_USD
from gateway.objectstore.opening import open_store
from gateway.objectstore.protocol import ObjectStore
from gateway.whoami import user_name
from trainers import exits
from trainers.cli.bars import Bars
from trainers.cli.here import Here
from trainers.errors import SpecError
from trainers.launch import claim
from trainers.launch.environment import Assignment
from trainers.spec.jobspec import JobSpec

if TYPE_CHECKING:
    from trainers.fit.world import World
    from trainers.job import TrainJob
    from trainers.run import Result, Run
    from trainers.safety import Safety
    from trainers.signing import Signer

RUNS = Path(".steelyard/runs")


def run(spec: JobSpec, here: Here, assigned: Assignment | None) -> int:
    """0, or 73 when the cost cap ended it. What every other error means, `trainers.exits` says."""
    job = job_of(spec)
    # A second more of imports, which a misspelt recipe need not wait for.
    from trainers.fit import device as places
    from trainers.fit.world import joined
    from trainers.run import follow

    asked = _run(spec, here, job)
    with joined(places.choose(here.device)) as world:
        if not world.is_first:
            follow(job, here.device, world)
            return exits.DONE
        result = asyncio.run(_conducted(job, asked, here, assigned, world))
    if result is None:
        return exits.DONE
    from trainers import summary

    summary.show(Console(), result, is_quiet=here.is_quiet)
    return exits.BUDGET if result.is_cut_short else exits.DONE


def job_of(spec: JobSpec) -> "TrainJob":
    """The recipe's job with the spec's parameters; `seed` and `epochs` are the run's own."""
    from trainers.recipes import registry

    parameters = dict(spec.params)
    seed, epochs = (_whole(name, parameters.pop(name, None)) for name in ("seed", "epochs"))
    job = registry.job(spec.recipe, parameters).fitted_with(seed=seed, epochs=epochs)
    return job.served_by(spec.target.weights) if spec.target != type(spec.target)() else job


async def _conducted(
    job: "TrainJob", asked: "Run", here: Here, assigned: Assignment | None, world: "World"
) -> "Result | None":
    """None when a doubled event or another run of the schedule leaves nothing to do."""
    from trainers.run import run

    async with contextlib.aclosing(open_store(here.store, create=True)) as store, _entered(store, assigned) as refusal:
        if refusal:
            click.echo(refusal, err=True)
            return None
        with Bars(is_shown=not here.is_quiet) as bars, _told_on_stderr():
            return await run(job, asked, store, bars, world)


@contextlib.asynccontextmanager
async def _entered(store: ObjectStore, assigned: Assignment | None) -> AsyncIterator[str]:
    """A sentence when nothing may begin. A lease that is lost later cancels the run."""
    if assigned is None:
        yield ""
        return
    task = asyncio.current_task()
    lost: list[Exception] = []

    def stop(error: Exception) -> None:
        lost.append(error)
        if task:
            task.cancel()

    try:
        async with claim.held(store, assigned, lost=stop) as entry:
            yield entry.refusal
    except asyncio.CancelledError:
        if lost:
            raise lost[0] from None
        raise


def _run(spec: JobSpec, here: Here, job: "TrainJob") -> "Run":
    from trainers.run import Run

    wanted = None if spec.promote.to == "none" or spec.promote.require_manual else spec.promote.to
    cost_usd = spec.limits.max_cost_usd
    return Run(
        recipe=spec.recipe,
        run_id=here.run_id,
        folder=RUNS / here.run_id,
        actor=user_name(),
        promote_to=wanted,
        priced_as=here.priced_as,
        device=here.device,
        safety=_safety(spec),
        pins=spec.data,
        image=spec.image or "",
        attempt_s=spec.limits.attempt.seconds,
        max_cost_picousd=None if cost_usd is None else round(Fraction(str(cost_usd)) * PICO_PER_USD),
        signer=_signer(here.sign_key),
        arguments=_again(spec, here),
    )


def _again(spec: JobSpec, here: Here) -> tuple[str, ...]:
    """The options that ask for the same run again, whoever does and from wherever."""
    cost_usd = spec.limits.max_cost_usd
    given: list[tuple[str, str]] = [("--promote", spec.promote.to)]
    given += [("--set", f"{name}={value}") for name, value in spec.params.items() if name not in {"seed", "epochs"}]
    given += [(f"--{name}", str(spec.params[name])) for name in ("seed", "epochs") if name in spec.params]
    given += [] if cost_usd is None else [("--max-cost", str(cost_usd))]
    given += [] if here.priced_as is None else [("--priced-as", here.priced_as)]
    given += [] if here.device is None else [("--device", here.device)]
    return tuple(word for pair in given for word in pair)


def _safety(spec: JobSpec) -> "Safety":
    from trainers.checkpoint.interval import DEFAULT, Interval
    from trainers.safety import Safety

    every_s = spec.checkpoint.every.seconds
    return Safety(
        interval=DEFAULT if every_s is None else Interval(min_s=every_s, max_s=every_s),
        keep=spec.checkpoint.keep,
        strict_resume=spec.checkpoint.strict_resume,
        grace_s=spec.checkpoint.grace.seconds,
    )


def _signer(key: Path | None) -> "Signer | None":
    """Read now: a key that cannot sign should not be found out after hours of training."""
    if key is None:
        return None
    from trainers import signing

    return signing.signer(key)


def _whole(name: str, value: object) -> int | None:
    if value is None:
        return None
    if isinstance(value, str) and value.isascii() and value.removeprefix("-").isdigit():  # of --set
        return int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise SpecError(f"params.{name} is {value!r}, not a whole number")
    return value


@contextlib.contextmanager
def _told_on_stderr() -> Iterator[None]:
    """What a run wants people to know: where it goes on, which save failed."""
    logger = logging.getLogger("trainers")
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(message)s"))
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(handler)
