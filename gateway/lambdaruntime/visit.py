"""What Lambda bills of an invocation: from when it is handed out until its answer is taken, and not only our listener's part of it.

The loop opens and closes it, the listener's connection begins and ends within: the meter is told once, by whichever ends last.
"""

from collections.abc import Callable


class Visit:
    """One invocation at a time. `begin` and `end` stand before the meter's own, and take what those take."""

    def __init__(self, begin: Callable[[], int], end: Callable[[int, str], None]) -> None:
        self._begin = begin
        self._end = end
        self._began_ns = -1  # no invocation is open
        self._request_id = ""
        self._is_within = False
        self._is_over = False

    # What the loop calls.

    def open(self) -> None:
        self._began_ns = self._begin()
        self._request_id = ""
        self._is_within = self._is_over = False

    def close(self) -> None:
        """The answer is taken, or given up: then the connection has yet to notice that nobody waits for it."""
        self._is_over = True
        if not self._is_within:
            self._finish()

    # What the listener calls, for requests of this process's own loop; others have visits of their own.

    def begin(self) -> int:
        if self._began_ns < 0 or self._is_within or self._is_over:
            return self._begin()
        self._is_within = True
        return self._began_ns

    def end(self, began_ns: int, request_id: str) -> None:
        if began_ns != self._began_ns:
            self._end(began_ns, request_id)
            return
        self._is_within = False
        self._request_id = request_id
        if self._is_over:
            self._finish()

    def _finish(self) -> None:
        self._end(self._began_ns, self._request_id)
        self._began_ns = -1
