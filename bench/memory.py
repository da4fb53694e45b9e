"""Peak memory of a piece of work, in a process of its own.

The work is named ``module:function``. That function, called with words, prepares everything (loads
a model, draws data) and returns what to run; only the rise above the prepared state counts. Linux
keeps the mark of the highest resident size and lets a process reset its own.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

from bench.rows import FOLDER

_STATUS, _RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def peak_rise(work: str, *words: str) -> float:
    """Bytes that the work needed beyond what was resident when it began."""
    command = [sys.executable, "-m", "bench.memory", work, *words]
    run = subprocess.run(
        command, cwd=FOLDER.parent, env=os.environ, capture_output=True, text=True, check=False
    )
    if run.returncode != 0:
        last = (run.stderr.strip().splitlines() or ["no message"])[-1]
        message = f"[bench] expected {work} to run in a process of its own, got {last!r}"
        raise RuntimeError(message)
    return float(json.loads(run.stdout.splitlines()[-1]))


def resident(field: str) -> int:
    """VmRSS or VmHWM of this process in bytes."""
    lines = _STATUS.read_text(encoding="utf-8").splitlines()
    return 1024 * next(int(x.split()[1]) for x in lines if x.startswith(field + ":"))


def main() -> None:
    module, function = sys.argv[1].split(":")
    prepared = getattr(importlib.import_module(module), function)(*sys.argv[2:])
    gc.collect()
    _RESET.write_text("5", encoding="utf-8")
    before = resident("VmRSS")
    prepared()
    print(json.dumps(resident("VmHWM") - before))


if __name__ == "__main__":
    main()
