"""How far a long command is: a bar where somebody looks, a line every few seconds where a log does.

On standard error, for the answer is on the other.
"""

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from typing import IO

LINE_EVERY_S = 5.0
"""In a log a line a second says nothing more than one every few."""

Note = Callable[[int, int, str], None]
"""Takes how many are done, of how many, and which is next ("" at the end)."""


@contextlib.contextmanager
def shown(
    what: str, unit: str, file: IO[str] | None = None, now_s: Callable[[], float] = time.monotonic
) -> Iterator[Note]:
    """`what` is done to every `unit`: "compacting", "hours". `file` is standard error where it is not given."""
    stream = sys.stderr if file is None else file
    if stream.isatty():
        with _bar(what, unit, stream) as note:
            yield note
        return
    last_s = now_s()

    def line(done: int, total: int, following: str) -> None:
        nonlocal last_s
        if following and now_s() - last_s >= LINE_EVERY_S:
            last_s = now_s()
            print(f"{what}: {done:,} of {total:,} {unit}, now {following}", file=stream, flush=True)

    yield line


@contextlib.contextmanager
def _bar(what: str, unit: str, stream: IO[str]) -> Iterator[Note]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), TextColumn(unit), TimeElapsedColumn())
    text = TextColumn("{task.fields[following]}", markup=False)
    with Progress(*columns, text, console=Console(file=stream), transient=True) as progress:
        task = progress.add_task(what, total=None, following="")
        yield lambda done, total, following: progress.update(task, completed=done, total=total, following=following)
