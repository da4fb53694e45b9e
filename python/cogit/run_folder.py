"""A run folder appears whole or not at all."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def new_run_folder(target: Path) -> Iterator[Path]:
    """Yield a folder to fill; it becomes ``target`` if the block ends well, and is gone if not.

    Raises FileExistsError, before anything is made, when ``target`` holds something already.
    """
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        message = f"[run] expected an empty or new folder, got {target}, which exists; name another"
        raise FileExistsError(message)
    made = [parent for parent in target.absolute().parents if not parent.exists()]
    target.absolute().parent.mkdir(parents=True, exist_ok=True)
    working = Path(tempfile.mkdtemp(dir=target.absolute().parent, prefix=f".{target.name}."))
    try:
        yield working
        working.chmod(0o755)
        working.replace(target)
    except BaseException:
        shutil.rmtree(working, ignore_errors=True)
        for parent in made:
            parent.rmdir()
        raise
