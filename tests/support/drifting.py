"""Rows counted in memory by the gateway's own counting, a published model with a profile, and what gateways logged of it."""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from gateway.contract import codec, layout
from gateway.contract.features import PROFILE_FILE, FeatureProfile, FeatureWindow
from gateway.contract.manifest import Manifest, Signature
from gateway.features.counting import Plan, Rows
from gateway.objectstore.protocol import ObjectStore
from tests.support import models
from trainers import publish
from trainers.drift.profile import profile
from trainers.drift.windows import Window

Array = NDArray[Any]  # Any: numbers and texts


def window(
    of: FeatureProfile,
    signature: Signature,
    inputs: Mapping[str, Array],
    outputs: Mapping[str, Array] | None = None,
    *,
    from_ns: int = 0,
) -> Window:
    """All these rows as one window of a day."""
    plan = Plan(of, signature)
    arrays = tuple([inputs[name] for name in plan.inputs] + [(outputs or {})[name] for name in plan.outputs])
    rows = len(arrays[0])
    counts = plan.empty()
    plan.add(counts, [Rows(arrays, rows)])
    return Window(
        from_ns,
        from_ns + 86_400 * 10**9,
        rows,
        rows,
        tuple(each[:-1].astype(np.float64) for each in counts),
        tuple(int(each[-1]) for each in counts),
    )


def reference_rows(count: int = 2000, seed: int = 0) -> dict[str, Array]:
    """Inputs of the tiny model, as in training."""
    rng = np.random.default_rng(seed)
    numbers = np.stack([rng.integers(0, 24, count), rng.gamma(4, 250, count), rng.gamma(2, 5, count)], axis=1)
    numbers[rng.random(count) < 0.1, 2] = np.nan
    categories = np.stack([rng.choice(models.CARRIERS, count), rng.choice(models.ORIGINS, count)], axis=1)
    return {"categories": categories.astype(object), "numbers": numbers.astype(np.float32)}


def tiny_profile() -> FeatureProfile:
    """Outcomes included."""
    rng = np.random.default_rng(1)
    answers = rng.random((2000, 1)).astype(np.float32)
    outcomes = rng.random(2000) < answers[:, 0]
    return profile(models.TINY_SIGNATURE, reference_rows(), {"probability": answers}, outcomes.astype(np.float32))


def with_profile(body: bytes | None = None) -> tuple[Manifest, dict[str, bytes]]:
    """The tiny model's artifact with its profile, or with whatever `body` is in its place."""
    manifest, contents = models.manifest_of("tiny", models.TINY_SIGNATURE, {"fp32": models.tiny_graph(0)})
    body = codec.encode(tiny_profile()) if body is None else body
    file = publish.describe(PROFILE_FILE, body, "profile")
    manifest = msgspec.structs.replace(manifest, files=(*manifest.files, file))
    return manifest, contents | {file.name: body}


async def windows_of(store: ObjectStore, model: str = "tiny") -> list[FeatureWindow]:
    """Everything that was logged of a model, in the order of its keys."""
    keys = [info.key async for info in store.list(f"{layout.FEATURES}{model}/")]
    return [codec.decode((await store.get(key)).body, FeatureWindow) for key in keys]


def added(windows: Sequence[FeatureWindow]) -> dict[str, tuple[list[int], int]]:
    """Counts and missing values by column, over all windows."""
    return {
        column.name: (
            np.sum([window.columns[at].counts for window in windows], axis=0).tolist(),
            sum(window.columns[at].missing for window in windows),
        )
        for at, column in enumerate(windows[0].columns)
    }
