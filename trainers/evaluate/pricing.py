"""What a thousand predictions cost: CPU time at the price book's list price of the target's vCPU. Neither memory nor idle time."""

from gateway.contract.prices import PriceBook
from gateway.errors import SettingsError
from trainers.errors import SpecError

MILLI_VCPU = 1000
PREDICTIONS = 1000


def thousand_picousd(book: PriceBook, platform: str, row_cpu_ns: float) -> int | None:
    """Pico-dollars of the CPU for a thousand rows. Raises `SpecError` naming the platforms there are."""
    try:
        price = book.price(book.platform(platform).vcpu_sku)
    except SettingsError as error:
        raise SpecError(f"the job's target: {error}") from error
    return None if price is None else round(price.rate * MILLI_VCPU * PREDICTIONS * round(row_cpu_ns * 1000) / 1000)
