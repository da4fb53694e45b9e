"""Fair timing: results are checked first, then the candidates run interleaved and medians count."""

from __future__ import annotations

import time
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_NANO = 1e-9


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

    def fastest(self, *names: str) -> str:
        return min(names, key=self.median)


def compare(
    candidates: Mapping[str, Callable[[], object]],
    *,
    check: Callable[[], None],
    rounds: int = 15,
    seconds: float = 0.01,
) -> Timing:
    """Time the candidates on this thread.

    check: raises if the candidates disagree; runs before any clock. seconds: how long each
    candidate runs per round. CPU time of the thread is counted, so single-threaded code only: on a
    shared machine it is steadier than the time on the wall.
    """
    check()
    calls = {name: _calls_in(run, seconds) for name, run in candidates.items()}
    measured: dict[str, list[float]] = {name: [] for name in candidates}
    for _ in range(rounds):
        for name, run in candidates.items():
            measured[name].append(_per_call(run, calls[name]))
    return Timing(measured)


def _calls_in(run: Callable[[], object], seconds: float) -> int:
    """How many calls fill the time; finding out is the warm-up."""
    calls = 1
    while (taken := _per_call(run, calls) * calls) < seconds / 4:
        calls *= 2
    return max(1, round(calls * seconds / taken))


def _per_call(run: Callable[[], object], calls: int) -> float:
    start = time.thread_time_ns()
    for _ in range(calls):
        run()
    return (time.thread_time_ns() - start) * _NANO / calls
