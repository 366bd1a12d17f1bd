"""What a gateway answers with: workers, the loader, the repository, and who is told when a model comes and goes.

`gateway.bootstrap` calls these in its order.
"""

import itertools
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

import msgspec

from gateway import cgroup
from gateway.accounting.usage import Usage
from gateway.contract.ledger import Phases
from gateway.errors import SettingsError
from gateway.features.recorder import Recorder
from gateway.objectstore.protocol import ObjectStore
from gateway.opening import folders
from gateway.opening.money import Scales
from gateway.repository.residents import Repository, Resident
from gateway.runtime.model import LoadedModel, Loader, RuntimeOptions
from gateway.runtime.session import cpu_flags
from gateway.runtime.workers import Workers
from gateway.settings import Settings

if TYPE_CHECKING:
    from gateway.registry.signatures import PinnedKeys


class Wanted(msgspec.Struct, frozen=True):
    """What the settings ask for, found good before anything is opened. `keys`: without any, unsigned versions are loaded too."""

    keys: "PinnedKeys | None"
    workers: int


class Models(msgspec.Struct, frozen=True):
    """The models of one process and the threads that run them."""

    repository: Repository[LoadedModel]
    workers: Workers


def wanted(settings: Settings) -> Wanted:
    """Raises `SettingsError`."""
    return Wanted(_pinned(settings.repository.public_keys), _workers(settings.runtime))


def opened(
    stack: AsyncExitStack,
    store: ObjectStore,
    settings: Settings,
    asked: Wanted,
    observer: "Residency",
    *,
    container_bytes: int,
) -> Models:
    """`container_bytes`: the container's memory limit, 0 for none."""
    runtime = settings.runtime
    workers = stack.enter_context(
        Workers(
            asked.workers,
            levels=runtime.priority_levels,
            ageing_ns=runtime.ageing_ms * 1_000_000,
            stop_s=runtime.stop_s,
        )
    )
    builder = ThreadPoolExecutor(1, thread_name_prefix="build")  # a load takes no worker
    loader = stack.enter_context(Loader(workers, builder, runtime, cpu_flags=cpu_flags()))
    repository = Repository(
        store,
        loader,
        observer,
        settings.repository,
        cache_dir=folders.cache(settings.repository.cache_dir),
        container_bytes=container_bytes,
        kept=settings.preload,
        pinned=asked.keys,
    )
    stack.push_async_callback(repository.aclose)
    return Models(repository, workers)


class Residency:
    """The repository's view of the meter and of the recorder of rows."""

    def __init__(self, scales: Scales, recorder: Recorder | None, *told: Callable[[Phases], None]) -> None:
        """`told` hear what each load took."""
        meter = self._meter = scales.meter
        self._recorder = recorder
        self._shadow_ids = (f"{scales.here.id}-{meter.boot_ns:x}-shadow-{number:x}" for number in itertools.count(1))
        self._told = told

    def loaded(self, resident: Resident[LoadedModel], cpu_ns: int, spent: Phases) -> None:
        for tell in self._told:
            tell(spent)
        self._meter.note_load(resident.name, resident.version, cpu_ns, spent)
        self._meter.note_resident(resident.name, resident.version, resident.model.resident_bytes)
        if self._recorder:
            self._recorder.loaded(resident.name, resident.version, resident.manifest)

    def unloaded(self, resident: Resident[LoadedModel]) -> None:
        self._meter.note_unloaded(resident.name, resident.version)
        if self._recorder:
            self._recorder.unloaded(resident.name, resident.version)

    def shadowed(self, resident: Resident[LoadedModel], rows: int, cpu_ns: int, run_ns: int) -> None:
        """A receipt that nobody gets: so that the bill shows what a shadow costs."""
        self._meter.charge(
            request_id=next(self._shadow_ids),
            model=resident.name,
            version=resident.version,
            variant=resident.variant.id,
            door="shadow",
            outcome="ok",
            usage=Usage(cpu_ns=cpu_ns, run_ns=run_ns, rows=rows, batch_rows=rows),
            is_request=False,
        )


def _pinned(sources: Sequence[str]) -> "PinnedKeys | None":
    if not sources:
        return None
    # 12 ms and 8 MB that a gateway without pinned keys need not pay.
    from gateway.registry.signatures import PinnedKeys  # noqa: PLC0415

    return PinnedKeys(sources)


def _workers(options: RuntimeOptions) -> int:
    """As many as keep every CPU busy, unless told otherwise. More threads than CPUs in one run would only take turns."""
    cpus = cgroup.cpus()
    if options.threads_per_run > cpus:
        raise SettingsError(f"runtime.threads_per_run is {options.threads_per_run}, and this container has {cpus} CPUs")
    return options.workers or cpus // options.threads_per_run
