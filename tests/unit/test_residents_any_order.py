"""Calls, decisions, looks, unloads and failures in any order and all at once: what is in memory is exactly what is served."""

import asyncio
import tempfile
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.errors import GatewayError, InvalidInput, ReleaseConflict, StoreUnavailable
from gateway.registry import releasing
from gateway.repository.memory import Resident
from gateway.repository.residents import Repository
from tests.support import models
from tests.support.memorystore import MemoryStore
from tests.support.repositories import Observed, WeighingLoader, Weight, until, weighing

NAMES = ("a", "b", "c")
WEIGHTS = {"a": 900, "b": 1000, "c": 1600}
BUDGET = 4000
AUTHOR = releasing.Author(actor="tests", reason="", now_ns=1)

STEPS = st.lists(
    st.tuples(
        st.sampled_from(
            ["call"] * 6
            + ["settle"] * 4
            + ["promote", "canary", "shadow", "rollback", "look", "look", "unload", "sleep", "break", "down"]
        ),
        st.sampled_from(NAMES),
        st.integers(1, 3),
        st.integers(0, 4),
    ),
    min_size=1,
    max_size=30,
)

STORE = MemoryStore()


async def published() -> MemoryStore:
    """Three versions of three models; made once, copied for each example."""
    if not STORE.objects:
        for name in NAMES:
            for seed in range(3):
                promote_to = "champion" if seed == 0 else None
                await models.publish_mlp(STORE, name, seed=seed, hidden=8, promote_to=promote_to)  # type: ignore[arg-type]
    store = MemoryStore()
    store.objects = dict(STORE.objects)
    return store


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(STEPS)
def test_memory_holds_what_is_served_and_nothing_else(steps: list[tuple[str, str, int, int]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(_play(steps, Path(folder)))


async def _play(steps: list[tuple[str, str, int, int]], folder: Path) -> None:
    store: Any = await published()
    loader = WeighingLoader(WEIGHTS)
    options = {"memory_bytes_max": BUDGET, "pinned_max": 2, "loads_max": 2, "wake_s": 60.0}
    async with weighing(store, folder, loader, **options) as (repository, _, observed):
        tasks: list[asyncio.Task[Any]] = []
        for what, name, version, pause in steps:
            tasks.append(asyncio.create_task(_step(store, repository, loader, what, name, version)))
            if what == "settle":
                await _settled(repository, tasks)
            for _ in range(pause):
                await asyncio.sleep(0)
            _require_consistent(repository, observed, loads_under_way=True)
        for outcome in await asyncio.gather(*tasks, return_exceptions=True):
            assert outcome is None or isinstance(outcome, GatewayError), outcome
        store.is_down = False
        loader.broken.clear()
        await _settled(repository, tasks)
        _require_consistent(repository, observed, loads_under_way=False)
        for name in NAMES:  # and everything still answers
            resident = await repository.ready(name)
            assert resident.name == name


async def _settled(repository: Repository[Weight], tasks: list[asyncio.Task[Any]]) -> None:
    """Nothing is under way any more."""
    await asyncio.wait(tasks)
    await until(lambda: not repository._follower._looks and not repository._memory._loading)
    await asyncio.sleep(0)


def _step(
    store: Any, repository: Repository[Weight], loader: WeighingLoader, what: str, name: str, version: int
) -> Coroutine[Any, Any, None]:
    asked = {"model": name, "alias": "champion", "author": AUTHOR}

    async def call() -> None:
        answered: Resident[Weight] = await repository.ready(name, None if version == 1 else str(version), "key")
        assert answered.name == name
        assert version in (answered.version, 1)

    async def decide(decision: Coroutine[Any, Any, Any]) -> None:
        try:
            await decision
        except (InvalidInput, ReleaseConflict, StoreUnavailable):
            return

    async def look() -> None:
        serving = repository._roster.following.get((name, "champion"))
        if serving is not None:
            await repository._follower.look(serving)

    async def now() -> None:
        serving = repository._roster.following.get((name, "champion"))
        if what == "unload":
            repository.unload(name)
        elif what == "sleep" and serving is not None:
            repository._roster.sleep(serving)
        elif what == "break":
            loader.broken ^= {name}
        elif what == "down":
            store.is_down = not store.is_down

    decisions = {
        "promote": lambda: releasing.promote(store, version=version, **asked),
        "canary": lambda: releasing.canary(store, version=version, weight_bp=3000, **asked),
        "shadow": lambda: releasing.shadow(store, version=version, sample_bp=3000, **asked),
        "rollback": lambda: releasing.rollback(store, **asked),
    }
    if what in decisions:
        return decide(decisions[what]())
    return {"call": call, "look": look}.get(what, now)()


def _require_consistent(repository: Repository[Weight], observed: Observed, *, loads_under_way: bool) -> None:
    held = set(repository._memory.held)
    assert held == observed.inside
    needed = {key for name in NAMES for key in repository._roster.needed(name)}
    assert needed <= held
    if not loads_under_way:
        assert needed == held
        assert not repository._memory._claims
        assert not repository._memory._reserved_bytes
    over = max(WEIGHTS.values())  # a new version stands beside the one it replaces
    assert repository.memory_bytes[0] <= BUDGET + over
    for serving in repository._roster.following.values():
        found = repository._roster.asked.get(serving.asked)
        assert found is (None if serving.is_asleep else serving)
    mirrored = [serving for serving in repository._roster.servings() if serving.shadow is not None]
    assert repository._roster.shadowed == set(mirrored)
    for serving in mirrored:
        assert serving.promotion is not None
        assert serving.promotion.shadow is not None
        assert serving.shadow is not None
        assert serving.shadow.version == serving.promotion.shadow.version
