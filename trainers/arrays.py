"""What every stage means by an array."""

from typing import Any

from numpy.typing import NDArray

Array = NDArray[Any]  # Any: string, integer and float arrays alike
