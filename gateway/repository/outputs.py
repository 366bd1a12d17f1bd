"""What two runs answered, compared: for golden vectors, which allow a tolerance, and for shadows, which report the distance."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]  # Any: the element type is data
Tensors = Mapping[str, Array]


def apart(a: Array, b: Array) -> NDArray[np.float64]:
    """How far numbers are from each other, in their common shape: 0 for the same, NaN or infinite too; infinite if only one is."""
    ours, theirs = a.astype(np.float64), b.astype(np.float64)
    same = (ours == theirs) | (np.isnan(ours) & np.isnan(theirs))
    with np.errstate(invalid="ignore"):
        distance = np.where(same, 0.0, np.abs(ours - theirs))
    return np.where(np.isnan(distance), np.inf, distance)
