"""How many requests come when: a rate, a trace file, or the hours of a ledger. Counts in bins of equal length, silent ones too.

Pure: reading the file is the caller's. Arrivals for the simulation are Poisson within each bin, seeded.
"""

import csv
import io
import random
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from itertools import pairwise

import msgspec

from gateway.errors import InvalidInput

HOUR_S = 3600
MINUTE_S = 60
LINES_MAX = 5_000_000
"""Some 200 MB of trace: a longer one is better given as counts."""

BINS_MAX = 1_000_000
"""Two years of minutes."""

COUNT_MAX = 10**12
"""Of one step: more is a mistake in the file."""

SIMULATED_MAX = 30_000
"""Requests of one simulation: the 99th percentile of the busiest bin within some percent, in a fraction of a second."""


class Traffic(msgspec.Struct, frozen=True):
    """`counts[i]` requests in the i-th `bin_s` seconds. `source` says where from; `is_observed`: it really came."""

    source: str
    bin_s: int
    counts: tuple[float, ...]
    is_observed: bool

    @property
    def requests(self) -> float:
        return sum(self.counts)

    @property
    def seconds(self) -> int:
        return self.bin_s * len(self.counts)

    @property
    def mean_rps(self) -> float:
        return self.requests / self.seconds

    @property
    def peak_rps(self) -> float:
        """Of the busiest bin."""
        return max(self.counts) / self.bin_s

    @property
    def silent_share(self) -> float:
        return sum(not count for count in self.counts) / len(self.counts)

    @property
    def wakes(self) -> int:
        """How often traffic begins after a silent bin; the trace is taken to repeat."""
        return sum(not before and bool(after) for before, after in pairwise((self.counts[-1], *self.counts)))

    @property
    def simulated_s(self) -> int:
        """Over which `arrivals_ns` go."""
        first, end = self._around_the_peak()
        return (end - first) * self.bin_s

    def arrivals_ns(self, seed: int) -> list[int]:
        """As many as `SIMULATED_MAX` allows, around the busiest bin, as a Poisson process whose rate is each bin's."""
        rng = random.Random(seed)  # noqa: S311  a simulation, repeatable on purpose
        first, end = self._around_the_peak()
        times: list[int] = []
        for number in range(first, end):
            rate = self.counts[number] / self.bin_s
            at, until = float(number * self.bin_s), float((number + 1) * self.bin_s)
            while rate and len(times) < 2 * SIMULATED_MAX:
                at += rng.expovariate(rate)
                if at >= until:
                    break
                times.append(round((at - first * self.bin_s) * 1e9))
        return times

    def _around_the_peak(self) -> tuple[int, int]:
        peak = max(range(len(self.counts)), key=self.counts.__getitem__)
        first, end, total = peak, peak + 1, self.counts[peak]
        while (
            (first or end < len(self.counts)) and total < SIMULATED_MAX and end - first < 24 * HOUR_S // self.bin_s + 1
        ):
            if first:
                first -= 1
                total += self.counts[first]
            if end < len(self.counts):
                total += self.counts[end]
                end += 1
        return first, end


def at_rate(rps: float) -> Traffic:
    """The same all the time."""
    if not 0 < rps < 1e9:
        raise InvalidInput(f"--rps is {rps:g}; a rate is above 0 and below a thousand million")
    return Traffic(f"--rps {rps:g}", HOUR_S, (rps * HOUR_S,), is_observed=False)


def of_hours(source: str, hours: Mapping[int, int]) -> Traffic:
    """From requests by hour number (seconds since the epoch over 3600); hours between with none are silent.

    Raises `InvalidInput` when there is none at all.
    """
    if not any(hours.values()):
        raise InvalidInput(f"{source} has no request of this model; say --rps, or --trace FILE")
    return Traffic(source, HOUR_S, _filled(hours), is_observed=True)


def of_trace(name: str, text: str) -> Traffic:
    """A CSV of timestamps, one line per request, or of timestamps and counts; ISO (UTC unless it says otherwise) or Unix seconds.

    Counts are those from their timestamp until the next step, the smallest distance between two. A heading is allowed. Raises
    `InvalidInput` naming the line.
    """
    rows = list(_rows(name, text))
    if not rows:
        raise InvalidInput(f"{name} holds no request: one line per request (a timestamp), or timestamp,count")
    counted = [row for row in rows if row[1] is not None]
    if len(counted) not in {0, len(rows)}:
        raise InvalidInput(f"{name}: either every line has a count or none")
    if not counted:
        return Traffic(name, MINUTE_S, _filled(Counter(int(at // MINUTE_S) for at, _ in rows)), is_observed=True)
    step = _step(name, sorted({at for at, _ in rows}))
    bins: Counter[int] = Counter()
    for at, count in rows:
        bins[int(at // step)] += count or 0
    if not any(bins.values()):
        raise InvalidInput(f"{name}: all counts are 0")
    return Traffic(name, step, _filled(bins), is_observed=True)


def _step(name: str, times: Sequence[float]) -> int:
    if len(times) < 2:
        return HOUR_S
    step = min(b - a for a, b in pairwise(times))
    if step < 1:
        raise InvalidInput(f"{name}: counts closer than a second apart; sum them to seconds or longer")
    return round(step)


def _filled(counts: Mapping[int, int]) -> tuple[float, ...]:
    first, last = min(counts), max(counts)
    if last - first >= BINS_MAX:
        raise InvalidInput(f"the trace spans {last - first:,} steps; at most {BINS_MAX:,}: cut it, or sum it to hours")
    return tuple(float(counts.get(number, 0)) for number in range(first, last + 1))


def _rows(name: str, text: str) -> list[tuple[float, int | None]]:
    rows: list[tuple[float, int | None]] = []
    for number, row in _lines(name, text):
        if number > LINES_MAX:
            raise InvalidInput(f"{name} has more than {LINES_MAX:,} lines; give counts by minute or hour instead")
        if not row or not "".join(row).strip():
            continue
        try:
            at = _seconds(row[0])
        except (ValueError, OverflowError) as error:
            if number == 1:
                continue  # a heading
            raise InvalidInput(f"{name}, line {number}: {error}") from error
        try:
            rows.append((at, _count(row[1]) if len(row) > 1 and row[1].strip() else None))
        except ValueError as error:
            raise InvalidInput(f"{name}, line {number}: {error}") from error
    return rows


def _lines(name: str, text: str) -> Iterator[tuple[int, list[str]]]:
    reader = csv.reader(io.StringIO(text), strict=True)
    try:
        for row in reader:
            yield reader.line_num, row
    except csv.Error as error:
        raise InvalidInput(f"{name}, line {reader.line_num}: no CSV: {error}") from error


def _seconds(text: str) -> float:
    text = text.strip()
    try:
        at = float(text)
    except ValueError:
        try:
            parsed = datetime.fromisoformat(text)
        except ValueError:
            raise ValueError(f"{text[:40]!r} is no time, ISO or in seconds since 1970") from None
        at = (parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)).timestamp()
    if not 0 <= at < 1e10:
        raise ValueError(f"'{text[:40]}' is no time between 1970 and 2286, ISO or in seconds")
    return at


def _count(text: str) -> int:
    if not text.strip().isdecimal() or int(text) > COUNT_MAX:
        raise ValueError(f"{text[:40]!r} is no count: a whole number of requests, up to {COUNT_MAX:,}")
    return int(text)
