"""`python -m tests.bench.unweighed serve ...`: the gateway without weighing, as the baseline of `tests.bench.accounting`.

No CPU clock is read, no receipt computed, no request kept for the ledger; everything else is as in production. Not a setting: a
gateway that cannot say what a request cost is not this product.
"""

import sys
from typing import Any

from gateway import dataplane
from gateway.accounting.meter import Meter
from gateway.cli.main import main
from gateway.opening import money


class Unweighed(Meter):
    """A meter that takes no notice."""

    def __init__(self, *arguments: Any, **named: Any) -> None:  # Any: the meter's own
        super().__init__(*arguments, **named)
        self.charge = _nothing  # type: ignore[assignment]
        self.quoted = _untold


def _nothing(*_: Any, **__: Any) -> int:  # Any: what a request used, unread
    return 0


def _untold(_: int) -> tuple[int | None, int | None]:
    return 0, None


if __name__ == "__main__":
    dataplane.thread_time_ns = int  # type: ignore[assignment]
    money.Meter = Unweighed  # type: ignore[misc]
    # As a prefix of `python -m gateway serve ...` (tests.support.gateways), of which only the arguments count.
    sys.argv = [sys.argv[0], *sys.argv[sys.argv.index("serve") :]]
    main()
