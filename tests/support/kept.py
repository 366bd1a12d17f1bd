"""A ledger that the keeper finds: two hours that closed a while ago, whole, priced by this release's book. And what it makes of it.

The hours are counted back from now, for a scheduled command asks the clock and nobody else.
"""

import contextlib
import time
from fractions import Fraction

from gateway.contract import layout, prices
from gateway.contract.ledger import Posting
from gateway.contract.prices import PICO_PER_USD
from gateway.errors import PreconditionFailed
from gateway.objectstore.opening import open_store
from tests.support import ledgers
from tests.support.ledgers import HOUR_NS, MEMORY, MEMORY_BYTES, VCPU, VCPU_MILLI, Ledger

MINUTE_NS = 60 * 10**9
MODEL, TENANT = "digits", "acme"
HOURS = 2


def ledger(now_ns: int) -> Ledger:
    """Each hour has one container, which lived for its first minute and answered two requests."""
    book = prices.load()
    made: Ledger = {layout.price_book(book.sha256): book.data}
    vcpu, memory = VCPU_MILLI * MINUTE_NS, MEMORY_BYTES * MINUTE_NS
    vcpu_picousd = _due(book, VCPU, Fraction(VCPU_MILLI, 1000))
    memory_picousd = _due(book, MEMORY, Fraction(MEMORY_BYTES, prices.BYTES_PER_GB))
    lines = [
        *ledgers.charges(vcpu_picousd, memory_picousd),
        Posting("infer", VCPU, vcpu_picousd, vcpu, MODEL, 1, TENANT, "ok", 2, 4),
        Posting("idle_mem", MEMORY, memory_picousd, memory),
    ]
    for back in range(1, HOURS + 1):
        boot_ns = (now_ns // HOUR_NS - 1 - back) * HOUR_NS
        made |= ledgers.container(f"kept-{back}", [lines], boot_ns=boot_ns, book=book.sha256)
    return made


def _due(book: prices.PriceBook, sku: str, held: Fraction) -> int:
    """A minute's bill, as the contract rounds it."""
    price = book.price(sku)
    assert price is not None
    return round(Fraction(price.usd) * held / 60 * PICO_PER_USD)


def budgets(url: str, *, secret_env: str = "", usd: str = "0.000001") -> str:
    """A file whose only budget is crossed by `ledger`."""
    signed = f'secret_env = "{secret_env}"\n' if secret_env else ""
    hook = f'[webhook]\nurl = "{url}"\n{signed}' if url else ""
    return f'[[budget]]\nid = "all"\nperiod = "hours:24"\nusd = "{usd}"\nthresholds = [1]\n{hook}'


async def put(url: str) -> None:
    """The ledger, into the store at `url`."""
    async with contextlib.aclosing(open_store(url)) as store:
        for key, body in ledger(time.time_ns()).items():
            with contextlib.suppress(PreconditionFailed):  # the price book may be there
                await store.put_if_absent(key, body)


async def keys(url: str, prefix: str) -> list[str]:
    """What lies in the store below `prefix`."""
    async with contextlib.aclosing(open_store(url)) as store:
        return [info.key async for info in store.list(prefix)]
