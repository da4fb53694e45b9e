"""The memory check of the commands: device and estimate before a model is loaded."""

from __future__ import annotations

import sys
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Protocol

from cogit.cli.console import say
from cogit.memory import Estimate, Part, remember, require_memory

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cogit.memory_estimate import Workload


class Checked(Protocol):
    """What the check needs of a runtime."""

    @property
    def device(self) -> str: ...
    @property
    def dtype(self) -> str: ...
    @property
    def n_ctx(self) -> int | None: ...
    @property
    def n_parallel(self) -> int: ...
    @property
    def assume_yes(self) -> bool: ...
    @property
    def check_memory(self) -> bool: ...


def check_model(backend: str, model: str, runtime: Checked, workload: Workload | None) -> str:
    """Say the device and why, and check the memory of the model on it; returns the device's name.

    Raises as `choose_device`, `estimate_memory` and `require_memory`. What cannot be read as a
    model is left to the load, whose message says what was expected.
    """
    from cogit.memory_estimate import Workload, estimate_memory

    device = "cpu"
    if backend == "transformers":
        from cogit.devices import choose_device

        chosen = choose_device(runtime.device)
        device = chosen.name
        say("device", chosen.describe())
    remember(None)
    if not runtime.check_memory:
        say("memory", "not checked (--no-memory-check)")
        return device
    work = replace(workload or Workload(), n_ctx=runtime.n_ctx, n_parallel=runtime.n_parallel)
    if backend == "transformers":
        import cogit.backends.transformers  # noqa: F401, so that its memory is measured
    try:
        estimate = estimate_memory(
            backend, model, dtype=str(runtime.dtype), device=device, workload=work
        )
    except (OSError, ValueError):
        return device
    _require(estimate, runtime)
    return device


def check_host(parts: Sequence[Part], runtime: Checked) -> None:
    """Check parts that come on top of what this process holds, on the CPU."""
    from cogit.memory_free import free_memory

    if runtime.check_memory:
        memory = free_memory("cpu")
        _require(Estimate(tuple(parts), "cpu", memory.free, memory.total), runtime)


def _require(estimate: Estimate, runtime: Checked) -> None:
    remember(estimate)
    terminal = sys.stdin is not None and sys.stdin.isatty() and sys.stderr.isatty()
    require_memory(
        estimate,
        ask=_ask if terminal else None,
        assume_yes=runtime.assume_yes,
        say=partial(say, "memory"),
    )


def _ask(question: str) -> bool:
    sys.stderr.write(f"{question} [y/N] ")
    sys.stderr.flush()
    return sys.stdin.readline().strip().lower() in ("y", "yes")
