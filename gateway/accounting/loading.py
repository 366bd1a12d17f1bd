"""How much dearer a request is with its share of everything nobody asked for: last window's bill over last window's receipts.

An estimate, for a caller who wants to know now; the report's full cost is exact and comes later. Integers only, on the hot path.
"""


class Loading:
    """The factor of the last whole window (aligned to the clock); until one has passed, of what has been closed of the first.

    It is `_numerator / _denominator`; a `_denominator` of 0 says that nothing is known.
    """

    __slots__ = (  # every answer passes here: attributes in a dict are cold memory
        "_bill_picousd",
        "_denominator",
        "_has_window",
        "_is_priced",
        "_numerator",
        "_receipts_picousd",
        "_window_ns",
    )

    def __init__(self, window_ns: int, *, is_priced: bool) -> None:
        """`is_priced`: all that the container is billed by has a price; without, nobody can say what anything costs in full."""
        self._window_ns = window_ns
        self._is_priced = is_priced
        self._has_window = False
        self._bill_picousd = self._receipts_picousd = 0
        self._numerator = self._denominator = 0

    def add(self, from_ns: int, to_ns: int, bill_picousd: int, receipts_picousd: int) -> None:
        """A closed interval: what the box cost in it, and the receipts given out."""
        self._bill_picousd += bill_picousd
        self._receipts_picousd += receipts_picousd
        is_over = from_ns // self._window_ns != to_ns // self._window_ns
        # A window in which nobody asked for anything has no factor: the one before it stays the best there is.
        if (is_over or not self._has_window) and self._is_priced and self._receipts_picousd:
            self._numerator, self._denominator = self._bill_picousd, self._receipts_picousd
        if is_over:
            self._has_window = self._has_window or self._denominator > 0
            self._bill_picousd = self._receipts_picousd = 0

    def quoted(self, direct_picousd: int) -> tuple[int, int | None]:
        """A receipt and the estimate of its full cost; None as long as nothing is known."""
        if not self._denominator:
            return direct_picousd, None
        return direct_picousd, direct_picousd * self._numerator // self._denominator
