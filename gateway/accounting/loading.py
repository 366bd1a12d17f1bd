"""How much dearer a request is with its share of everything nobody asked for: last window's bill over last window's receipts.

An estimate, for a caller who wants to know now; the report's full cost is exact and comes later. Integers only, on the hot path.
"""


class Loading:
    """The factor of the last whole window (aligned to the clock); until one has passed, of what has been closed of the first.

    It is `numerator / denominator`; a `denominator` of 0 says that nothing is known.
    """

    def __init__(self, window_ns: int, *, is_priced: bool) -> None:
        """`is_priced`: all that the container is billed by has a price; without, nobody can say what anything costs in full."""
        self._window_ns = window_ns
        self._is_priced = is_priced
        self._has_window = False
        self._bill_picousd = self._receipts_picousd = 0
        self.numerator = self.denominator = 0

    def add(self, from_ns: int, to_ns: int, bill_picousd: int, receipts_picousd: int) -> None:
        """A closed interval: what the box cost in it, and the receipts given out."""
        self._bill_picousd += bill_picousd
        self._receipts_picousd += receipts_picousd
        is_over = from_ns // self._window_ns != to_ns // self._window_ns
        # A window in which nobody asked for anything has no factor: the one before it stays the best there is.
        if (is_over or not self._has_window) and self._is_priced and self._receipts_picousd:
            self.numerator, self.denominator = self._bill_picousd, self._receipts_picousd
        if is_over:
            self._has_window = self._has_window or self.denominator > 0
            self._bill_picousd = self._receipts_picousd = 0

    def full_picousd(self, direct_picousd: int) -> int | None:
        """The estimate; None as long as nothing is known. 0.1 us."""
        if not self.denominator:
            return None
        return direct_picousd * self.numerator // self.denominator
