"""Fair timing: results are checked first, then the candidates run interleaved and medians count."""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Mapping

Result = TypeVar("Result")
Clock = Callable[[], int]
"""Nanoseconds since some moment."""

THREAD: Clock = time.thread_time_ns
WALL: Clock = time.perf_counter_ns
_NANO = 1e-9


# mallopt's parameters, from malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4


def keep_freed_memory() -> bool:
    """Let freed memory stay with this process; False where the C library cannot.

    A fresh result of some MiB otherwise costs a page fault for every 4 KiB or none at all, by what
    was freed before it: a third of a large call, at random on either side of a comparison.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except AttributeError:
        return False
    return bool(mallopt(_M_MMAP_MAX, 0) and mallopt(_M_TRIM_THRESHOLD, 2**31 - 1))


@dataclass(frozen=True)
class Timing:
    """Seconds per call of each candidate, one entry a round; equal rounds ran side by side."""

    seconds: dict[str, list[float]]

    def median(self, name: str) -> float:
        return median(self.seconds[name])

    def ratio(self, slower: str, faster: str) -> float:
        """How many times longer ``slower`` takes: the median over rounds, so that drift cancels."""
        pairs = zip(self.seconds[slower], self.seconds[faster], strict=True)
        return median(a / b for a, b in pairs)

    def difference(self, longer: str, shorter: str) -> float:
        """How many seconds more ``longer`` takes: the median over rounds."""
        pairs = zip(self.seconds[longer], self.seconds[shorter], strict=True)
        return median(a - b for a, b in pairs)

    def fastest(self, *names: str) -> str:
        return min(names, key=self.median)


def compare(
    candidates: Mapping[str, Callable[[], object]],
    *,
    check: Callable[[], None],
    rounds: int = 15,
    seconds: float = 0.01,
    clock: Clock = THREAD,
) -> Timing:
    """Time the candidates against each other.

    check: raises if the candidates disagree; runs before any clock. seconds: how long each
    candidate runs per round. clock: THREAD counts CPU time of this thread, so single-threaded code
    only, and is steadier on a shared machine; WALL is for code with several threads.
    """
    check()
    calls = {name: _calls_in(run, seconds, clock) for name, run in candidates.items()}
    measured: dict[str, list[float]] = {name: [] for name in candidates}
    names = list(candidates)
    for turn in range(rounds):
        # Each goes first in some rounds: what ran before leaves caches and clocks as it likes.
        first = turn % len(names)
        for name in names[first:] + names[:first]:
            measured[name].append(_per_call(candidates[name], calls[name], clock))
    return Timing(measured)


def once(run: Callable[[], Result], clock: Clock = WALL) -> tuple[Result, float]:
    """The result and the seconds of one call, for what takes too long to repeat."""
    start = clock()
    result = run()
    return result, (clock() - start) * _NANO


def _calls_in(run: Callable[[], object], seconds: float, clock: Clock) -> int:
    """How many calls fill the time; finding out is the warm-up."""
    calls = 1
    while (taken := _per_call(run, calls, clock) * calls) < seconds / 4:
        calls *= 2
    return max(1, round(calls * seconds / taken))


def _per_call(run: Callable[[], object], calls: int, clock: Clock) -> float:
    start = clock()
    for _ in range(calls):
        run()
    return (clock() - start) * _NANO / calls
