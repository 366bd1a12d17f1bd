"""Records when a killed container's bill ended, from what its platform says: `steelyard ledger end`.

Without this a killed life ends with its last sign of life or with the next life in the same container. What lies between its last
segment and that end is nobody's, and reports show it as unattributed.
"""

from gateway.contract import codec, layout, ledgerkeys
from gateway.contract.ledger import Ended, Open
from gateway.errors import PreconditionFailed, SettingsError
from gateway.objectstore.protocol import ObjectStore
from gateway.wording import moment


async def end(
    store: ObjectStore, container: str, *, ended_ns: int, evidence: str, now_ns: int, boot_ns: int | None = None
) -> Ended:
    """End the container's newest life, or the one that booted at `boot_ns`. Saying the same again changes nothing.

    Raises `SettingsError` when there is no such life, it closed by itself, began later, another end is recorded, or the end is
    yet to come: what is recorded stays, and bills all the time until then.
    """
    if ended_ns > now_ns:
        raise SettingsError(f"{moment(ended_ns)} is yet to come: say when the container's bill ended (UTC)")
    kinds: dict[int, set[str]] = {}
    async for info in store.list(f"{layout.containers()}{container}/"):
        named = ledgerkeys.parse(info.key)
        if named is not None and named.container == container:
            kinds.setdefault(named.boot_ns, set()).add(named.kind)
    opened = sorted(boot for boot, found in kinds.items() if "open" in found and boot_ns in {None, boot})
    if not opened:
        raise SettingsError(f"the ledger has no container '{container}'{'' if boot_ns is None else ' with this boot'}")
    if "close" in kinds[opened[-1]]:
        raise SettingsError(f"container '{container}' closed by itself: its bill needs no other word")
    key = layout.container_open(container, opened[-1])
    record = codec.decode((await store.get(key)).body, Open, what=key)
    if ended_ns < record.opened_ns:
        raise SettingsError(
            f"container '{container}' was opened at {moment(record.opened_ns)}: it cannot have ended before"
        )
    return await _write(store, Ended(container, record.boot_ns, ended_ns, evidence))


async def _write(store: ObjectStore, ended: Ended) -> Ended:
    key = layout.container_ended(ended.container, ended.boot_ns)
    try:
        await store.put_if_absent(key, codec.encode(ended))
    except PreconditionFailed:
        known = codec.decode((await store.get(key)).body, Ended, what=key)
        if known.ended_ns != ended.ended_ns:
            raise SettingsError(
                f"'{known.evidence}' says already that container '{ended.container}' ended at {moment(known.ended_ns)}"
            ) from None
        return known
    return ended
