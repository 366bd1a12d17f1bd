"""Who is served in this process: aliases that are followed, versions asked for by number, and the residents all that needs.

Only state and the questions about it; `following` moves aliases, `residents` loads and answers. All on the event loop.
"""

from collections.abc import Collection, Iterator, Sequence
from itertools import chain
from typing import Generic

from gateway.contract import layout
from gateway.repository.loading import M
from gateway.repository.memory import Key, Resident
from gateway.repository.serving import Serving
from gateway.repository.shadows import ShadowRun

Asked = tuple[str, str]
"""A model's name and what was asked for: an alias, or a version's number."""


class Roster(Generic[M]):
    """`champions` and `asked` are the two look-ups of the hot path; an alias that sleeps is in neither, only in `following`."""

    def __init__(self, kept: Collection[str]) -> None:
        self.kept = frozenset(kept)
        self.champions: dict[str, Serving[M]] = {}
        self.asked: dict[Asked, Serving[M]] = {}
        self.following: dict[Asked, Serving[M]] = {}
        self.shadowed: set[Serving[M]] = set()
        """Aliases with a shadow: that there are none is all that most requests ask."""

    def follow(self, serving: Serving[M]) -> None:
        """An alias is served from now on."""
        self.following[serving.asked] = serving
        self.wake(serving)

    def pin(self, serving: Serving[M]) -> None:
        """A version is served by its number from now on."""
        self.asked[serving.asked] = serving

    def wake(self, serving: Serving[M]) -> None:
        """Found by the hot path; nothing happens to one that was dropped meanwhile."""
        if self.following.get(serving.asked) is not serving:
            return
        serving.is_asleep = False
        self.asked[serving.asked] = serving
        if serving.alias == layout.CHAMPION:
            self.champions[serving.name] = serving

    def sleep(self, serving: Serving[M]) -> None:
        """Found by the slow path only, which looks at the alias first."""
        serving.is_asleep = True
        self.asked.pop(serving.asked, None)
        if serving.alias == layout.CHAMPION:
            self.champions.pop(serving.name, None)

    def drop(self, serving: Serving[M]) -> None:
        """Not served any more; requests in flight keep what they hold."""
        self.set_shadow(serving, None)
        self.sleep(serving)
        self.following.pop(serving.asked, None)

    def forget(self, champion: Resident[M]) -> None:
        """Drop all that this resident answered for."""
        for serving in [serving for serving in self.servings() if serving.champion is champion]:
            self.drop(serving)

    def is_served(self, serving: Serving[M]) -> bool:
        return self.following.get(serving.asked) is serving

    def servings(self) -> Iterator[Serving[M]]:
        """Each once: aliases, then numbers from the least recently used on."""
        return chain(self.following.values(), self.pinned())

    def pinned(self) -> list[Serving[M]]:
        return [serving for serving in self.asked.values() if serving.promotion is None]

    def needed(self, name: str, *, besides: Serving[M] | None = None) -> set[Key]:
        """The residents of this model that somebody is served with."""
        return {
            key
            for serving in self.servings()
            if serving.name == name and serving is not besides
            for key in serving.resident_keys()
        }

    def evictable(self) -> list[Sequence[Resident[M]]]:
        """What may leave memory, by groups that go together: residents that somebody is served with at once. Not what is kept."""
        groups: dict[str, list[dict[Key, Resident[M]]]] = {}
        kept: set[Key] = set()
        for serving in self.servings():
            group = {resident.key: resident for resident in (serving.champion, *serving.followers())}
            if serving.alias == layout.CHAMPION and serving.name in self.kept:
                kept |= group.keys()
            apart = []
            for other in groups.get(serving.name, ()):
                if group.keys().isdisjoint(other):
                    apart.append(other)
                else:
                    group |= other
            groups[serving.name] = [*apart, group]
        return [[*group.values()] for found in groups.values() for group in found if kept.isdisjoint(group)]

    def set_shadow(self, serving: Serving[M], resident: Resident[M] | None, run: ShadowRun | None = None) -> None:
        """Mirror what this alias's champion answers to another version, or to none."""
        if serving.shadow is not None:
            serving.shadow.close()
        serving.shadow_resident = resident
        serving.shadow = run
        if run is not None:
            self.shadowed.add(serving)
        else:
            self.shadowed.discard(serving)
