"""One run at a time in a folder: a lock file with the process that holds it.

The lock is the kernel's (``flock``), which ends with its process however that ends. The file also
names the process and when it started, for a folder on a file system that shares no locks, and to
say who holds it. A number that another process has got since is told apart by the start time.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

FILE = ".lock"
_TRIES = 20
_MOST_BYTES = 4096
_STARTED = 19  # field 22 of /proc/PID/stat, counted after the name's closing bracket


@contextmanager
def run_lock(folder: Path, say: Callable[[str], None]) -> Iterator[None]:
    """Hold a folder for this process. BlockingIOError, an OSError, names the process that has it.

    say: is told when the lock of a process that is gone is cleared.
    """
    path = folder / FILE
    handle = _open_locked(path)
    try:
        _clear(handle, path, say)
        mine = {
            "pid": os.getpid(),
            "started": start_time(os.getpid()),
            "host": socket.gethostname(),
        }
        os.ftruncate(handle, 0)
        os.pwrite(handle, json.dumps(mine).encode(), 0)
        try:
            yield
        finally:
            # While it is locked: whoever waits sees that the name is gone and makes a new one.
            path.unlink(missing_ok=True)
    finally:
        os.close(handle)


def start_time(pid: int) -> int | None:
    """When a process started, in clock ticks since boot; None where none runs or none can tell."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
        return int(text.rpartition(")")[2].split()[_STARTED])
    except (OSError, ValueError, IndexError):
        return None


def _open_locked(path: Path) -> int:
    for _ in range(_TRIES):
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            holder = _read(handle)
            os.close(handle)
            raise _held(path, holder.get("pid")) from None
        if _still_named(handle, path):
            return handle
        os.close(handle)
    message = f"[lock] expected to lock {path}, which others keep replacing; try again"
    raise BlockingIOError(message)


def _still_named(handle: int, path: Path) -> bool:
    """Whether the locked file is the one of that name: its holder may have removed it just now."""
    try:
        return os.path.samestat(os.fstat(handle), path.stat())
    except FileNotFoundError:
        return False


def _clear(handle: int, path: Path, say: Callable[[str], None]) -> None:
    """What an earlier holder left: refused where it runs, else said and overwritten."""
    left = _read(handle)
    pid = left.get("pid")
    if not isinstance(pid, int) or pid <= 0:
        return
    if left.get("host") != socket.gethostname():
        message = (
            f"[lock] expected a free folder, got {path.parent}, which process {pid} on "
            f"{left.get('host')} holds; if it is gone, remove {path}"
        )
        raise BlockingIOError(message)
    started = start_time(pid)
    if pid != os.getpid() and started is not None and started == left.get("started"):
        raise _held(path, pid)
    gone = "is gone" if started is None else "is another process now"
    say(f"cleared the lock of process {pid}, which {gone}")


def _held(path: Path, pid: object) -> BlockingIOError:
    who = f"process {pid}" if isinstance(pid, int) else "another process"
    message = (
        f"[lock] expected a free folder, got {path.parent}, where {who} runs a pipeline; wait for "
        f"it or name another folder"
    )
    return BlockingIOError(message)


def _read(handle: int) -> dict[str, Any]:
    try:
        found = json.loads(os.pread(handle, _MOST_BYTES, 0) or b"{}")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
