"""How much memory is free: of this machine within its control group, or of a CUDA device."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_PROC, _CGROUP = Path("/proc"), Path("/sys/fs/cgroup")
# A control group without a limit shows a number near 2^63, rounded down to a page.
_NO_LIMIT = 2**60


@dataclass(frozen=True)
class Memory:
    """Bytes that are free and bytes in all; None where the machine does not say."""

    free: int | None
    total: int | None


def free_memory(device: str) -> Memory:
    """Of "cpu", or of "cuda" or "cuda:N" (which needs torch)."""
    return cuda_memory(device) if device.startswith("cuda") else cpu_memory()


def cuda_memory(device: str) -> Memory:
    """What the driver says: memory that other processes hold is not free."""
    import torch

    free, total = torch.cuda.mem_get_info(torch.device(device))
    return Memory(int(free), int(total))


def cpu_memory(proc: Path = _PROC, cgroup: Path = _CGROUP) -> Memory:
    """MemAvailable, or less where a control group (version 1 or 2) of this process allows less."""
    facts = _facts(proc / "meminfo")
    free, total = (
        1024 * facts[name] if name in facts else None for name in ("MemAvailable", "MemTotal")
    )
    for limit, used in _limits(proc, cgroup):
        total = limit if total is None else min(total, limit)
        left = max(0, limit - used)
        free = left if free is None else min(free, left)
    return Memory(free, total)


def resident(field: str = "VmRSS", proc: Path = _PROC) -> int:
    """VmRSS (now) or VmHWM (highest) of this process in bytes; 0 where the system does not say."""
    return 1024 * _facts(proc / "self" / "status").get(field, 0)


def _facts(path: Path) -> dict[str, int]:
    """Lines such as ``MemTotal:  24 kB``, those with a number."""
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return {}
    parts = [(name, rest.split()) for name, _, rest in (line.partition(":") for line in lines)]
    return {name: int(words[0]) for name, words in parts if words and words[0].isdecimal()}


def _limits(proc: Path, cgroup: Path) -> list[tuple[int, int]]:
    """(limit, used) of each control group of this process and those above it, where limited.

    Used is without the cache of files, which is given back when it is needed.
    """
    found = []
    for number, controllers, name in _groups(proc / "self" / "cgroup"):
        second = number == "0" and not controllers
        if not second and "memory" not in controllers.split(","):
            continue
        base = cgroup if second else cgroup / "memory"
        files = ("memory.max", "memory.current", "inactive_file")
        if not second:
            files = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
        relative = Path(name.lstrip("/"))
        if ".." in relative.parts:
            continue
        # Inside a container the named folder may be the root of what is mounted.
        for folder in (base / relative, *(base / part for part in relative.parents)):
            limit, used = (_number(folder / file) for file in files[:2])
            if limit is None or limit >= _NO_LIMIT:
                continue
            cache = _stat(folder / "memory.stat").get(files[2], 0)
            found.append((limit, max(0, (used or 0) - cache)))
    return found


def _groups(path: Path) -> list[tuple[str, str, str]]:
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
    parts = [line.split(":", 2) for line in lines]
    return [(a[0], a[1], a[2]) for a in parts if len(a) == 3]


def _number(path: Path) -> int | None:
    """The number in a file; None for none, and for "max"."""
    try:
        text = path.read_text(encoding="ascii", errors="replace").strip()
    except OSError:
        return None
    return int(text) if text.isdecimal() else None


def _stat(path: Path) -> dict[str, int]:
    try:
        lines = path.read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return {}
    pairs = [line.split() for line in lines]
    return {p[0]: int(p[1]) for p in pairs if len(p) == 2 and p[1].isdecimal()}


def loaded(module: str) -> Any | None:
    """A module that something has imported already, without importing it."""
    return sys.modules.get(module)
