"""Rows counted in memory, by the gateway's own counting, for tests of what is concluded from them."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gateway.contract.features import FeatureProfile
from gateway.contract.manifest import Signature
from gateway.features.counting import Plan, Rows
from trainers.drift.windows import Window

Array = NDArray[Any]  # Any: numbers and texts


def window(
    profile: FeatureProfile,
    signature: Signature,
    inputs: Mapping[str, Array],
    outputs: Mapping[str, Array] | None = None,
    *,
    from_ns: int = 0,
) -> Window:
    """All these rows as one window of a day."""
    plan = Plan(profile, signature)
    arrays = [inputs[name] for name in plan.inputs] + [(outputs or {})[name] for name in plan.outputs]
    rows = len(arrays[0])
    counts = plan.empty()
    plan.add(counts, [Rows(arrays, np.arange(rows))])
    return Window(
        from_ns,
        from_ns + 86_400 * 10**9,
        rows,
        rows,
        tuple(each[:-1].astype(np.float64) for each in counts),
        tuple(int(each[-1]) for each in counts),
    )
