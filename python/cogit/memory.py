"""How much memory a run will need, part by part, and the question before it starts.

An estimate is made before anything is loaded, from headers alone (`cogit.memory_estimate`), and
compared with what is free. docs/memory.md says what is counted and how far off it was measured.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextvars import ContextVar
from dataclasses import asdict, dataclass
from typing import Any, Literal

from cogit.errors import MemoryRefusedError

Phase = Literal["always", "load", "run"]

GB = 1e9
REMEDIES = "use a smaller batch, fewer or shorter texts, --dtype bf16 or f16, or another --device"
# What refuses an allocation, where it is not a MemoryError: torch on the CPU, then libllama.
_SIGNS = (
    "defaultcpuallocator",
    "not enough memory",
    "failed to allocate",
    "unable to allocate",
    "cuda out of memory",
)


@dataclass(frozen=True)
class Part:
    """One thing that takes memory.

    bytes: its size. phase: "load" and "run" do not meet, so that a peak has the larger of the two;
    "always" is there in both. note: how it was found, where that is not plain. reclaimable: pages
    of a mapped file, which count in the resident size but are given back when memory runs short.
    """

    name: str
    bytes: int
    phase: Phase = "always"
    note: str = ""
    reclaimable: bool = False

    def __post_init__(self) -> None:
        if self.bytes < 0:
            message = f"[memory] expected 0 bytes or more for {self.name}, got {self.bytes}"
            raise ValueError(message)


@dataclass(frozen=True)
class Estimate:
    """The memory that a run will need on one device, all in bytes.

    device: "cpu" or "cuda:N". free, total_device: of that device, None where they cannot be read.
    resident: what this process holds already; the parts include it, free memory does not.
    unknown: what could not be found out and is in no part; where it is not empty the total is only
    a lower bound.
    """

    parts: tuple[Part, ...]
    device: str = "cpu"
    free: int | None = None
    total_device: int | None = None
    resident: int = 0
    unknown: tuple[str, ...] = ()

    @property
    def total(self) -> int:
        """The peak: what is always there, and the larger of loading and running."""
        return self._sum("always") + max(self._sum("load"), self._sum("run"))

    @property
    def needed(self) -> int:
        """What must be free now: the peak without mapped pages and what the process holds."""
        load = sum(p.bytes for p in self.parts if p.phase == "load" and not p.reclaimable)
        peak = self._sum("always") + max(load, self._sum("run"))
        return max(0, peak - self.resident)

    @property
    def fits(self) -> bool | None:
        """Whether it fits; None where one of the two sides is not known."""
        if self.free is None:
            return None
        if self.needed > self.free:
            return False
        return None if self.unknown else True

    def describe(self) -> str:
        """A table of the parts with free and total memory, for people."""
        width = max([len(part.name) for part in self.parts] + [len("free of total")])
        lines = []
        for part in self.parts:
            when = {"load": "while loading", "run": "while running"}.get(part.phase, "")
            notes = "; ".join(text for text in (when, part.note) if text)
            lines.append(f"{part.name:<{width}}  {megabytes(part.bytes):>12}  {notes}".rstrip())
        lines += [f"{'unknown':<{width}}  {'':>12}  {text}" for text in self.unknown]
        lines.append(f"{'peak':<{width}}  {megabytes(self.total):>12}  on {self.device}")
        if self.resident:
            held = megabytes(self.resident)
            lines.append(f"{'held already':<{width}}  {held:>12}  by this process")
        lines.append(f"{'still needed':<{width}}  {megabytes(self.needed):>12}")
        lines.append(f"{'free of total':<{width}}  {self._free()}")
        return "\n".join(lines)

    def to_json(self) -> dict[str, Any]:
        """Parts, peak, what must be free and what is, in bytes."""
        return {
            "device": self.device,
            "parts": [asdict(part) for part in self.parts],
            "unknown": list(self.unknown),
            "total": self.total,
            "needed": self.needed,
            "resident": self.resident,
            "free": self.free,
            "total_device": self.total_device,
            "fits": self.fits,
        }

    def summary(self) -> str:
        """One line: what is needed of what is free."""
        least = "at least " if self.unknown else "about "
        line = f"{least}{megabytes(self.needed)} more of {self._free()} free on {self.device}"
        return f"{line}; not known: {', '.join(self.unknown)}" if self.unknown else line

    def parts_line(self) -> str:
        """The parts in one line, for errors."""
        return ", ".join(f"{part.name} {megabytes(part.bytes)}" for part in self.parts)

    def _sum(self, phase: Phase) -> int:
        return sum(part.bytes for part in self.parts if part.phase == phase)

    def _free(self) -> str:
        free = "an unknown amount" if self.free is None else megabytes(self.free)
        return free if self.total_device is None else f"{free} of {megabytes(self.total_device)}"


def megabytes(count: float) -> str:
    """Bytes for people: GB (10⁹) from one on, else MB."""
    return f"{count / GB:.2f} GB" if count >= GB else f"{count / 1e6:.1f} MB"


def require_memory(
    estimate: Estimate,
    *,
    ask: Callable[[str], bool] | None = None,
    assume_yes: bool = False,
    say: Callable[[str], None] | None = None,
) -> None:
    """Say in one line that memory suffices; else show the parts and ask whether to go on.

    ask: puts a question to a person and returns the answer; None where nobody is there to answer.
    assume_yes: go on without asking. say: takes the lines for people.

    Raises MemoryRefusedError where it does not fit and nobody said to go on. Where free memory or
    a size is not known, that is said and nothing is refused.
    """
    tell = say or (lambda _: None)
    if estimate.fits is not False:
        tell(estimate.summary())
        return
    for line in estimate.describe().splitlines():
        tell(line)
    if assume_yes:
        tell("not enough, going on as told (--yes)")
        return
    if ask is not None and ask("memory may not suffice; go on all the same?"):
        return
    why = "refused" if ask is not None else "and no terminal to ask at"
    message = (
        f"[memory] expected {megabytes(estimate.needed)} free on {estimate.device} "
        f"({estimate.parts_line()}), got {estimate.summary().partition(' more of ')[2]}, {why}; "
        f"{REMEDIES}, or --yes to try"
    )
    raise MemoryRefusedError(message)


_LATEST: ContextVar[Estimate | None] = ContextVar("cogit_latest_estimate", default=None)


def remember(estimate: Estimate | None) -> None:
    """Keep the estimate of the present run, for the message when memory runs out after all."""
    _LATEST.set(estimate)


def is_out_of_memory(error: BaseException) -> bool:
    """True for every way in which Python, torch, CUDA and libllama say that memory ran out."""
    if isinstance(error, MemoryRefusedError):
        return False
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    text = str(error).lower()
    expected = isinstance(error, RuntimeError | ValueError)
    return expected and any(sign in text for sign in _SIGNS)


def explain_out_of_memory(error: BaseException) -> str:
    """One line for people: what failed, what had been estimated, what can be done."""
    first: Sequence[str] = str(error).strip().splitlines() or [type(error).__name__]
    estimate = _LATEST.get()
    foreseen = "nothing was estimated beforehand"
    if estimate is not None:
        foreseen = (
            f"the estimate was a peak of {megabytes(estimate.total)} on {estimate.device} "
            f"({estimate.parts_line()})"
        )
    return f"[memory] expected enough memory, got: {first[0][:200]}; {foreseen}; {REMEDIES}"
