"""Progress bars on standard error for long work; silent where nobody looks."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sized
from typing import TypeVar

T = TypeVar("T")


def track(items: Iterable[T], label: str, *, show: bool = True) -> Iterator[T]:
    """Iterate with a bar when standard error is a terminal."""
    if not show or not sys.stderr.isatty():
        yield from items
        return
    from rich.console import Console
    from rich.progress import track as rich_track

    total = len(items) if isinstance(items, Sized) else None
    console = Console(stderr=True)
    yield from rich_track(items, label, total=total, console=console, transient=True)
