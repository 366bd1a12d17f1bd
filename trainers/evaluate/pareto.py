"""Which variants no other one beats: in cost, load and size at once. Pure; `choice` decides among them, `paretoplot` draws them."""

from collections.abc import Mapping

Figures = tuple[float, ...]
"""Whatever is better the smaller it is."""


def front(figures: Mapping[str, Figures]) -> frozenset[str]:
    """The names that nobody dominates: no other is smaller in one figure and no larger in all others."""
    return frozenset(
        name for name, own in figures.items() if not any(_dominates(other, own) for other in figures.values())
    )


def _dominates(other: Figures, own: Figures) -> bool:
    return other != own and all(theirs <= ours for theirs, ours in zip(other, own, strict=True))
