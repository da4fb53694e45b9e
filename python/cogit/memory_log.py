"""Lines that say what memory is in use at the stages of a run, on the logger ``cogit.memory``.

The exact forms, sizes in GB of 10⁹ bytes with two digits:

    [GPU Memory <stage>] Allocated 1.98 GB, Reserved 2.10 GB, Free 60.00 / 80.00 GB
    [CPU Memory <stage>] RSS 1.98 GB, Peak 2.10 GB, Free 20.00 / 24.00 GB

Allocated and reserved are torch's, free and total the driver's. RSS and peak are of this process,
free and total of the machine or its control group. The stages are "after model", "after operators"
and "during generation".
"""

from __future__ import annotations

import logging

from cogit.memory import GB
from cogit.memory_free import free_memory, resident

LOG = logging.getLogger("cogit.memory")
# A stage that comes again is only told again where so much more is in use.
_RISE = 1.1


def memory_line(stage: str, device: str) -> str:
    """The line of one stage for "cpu", "cuda" or "cuda:N"."""
    memory = free_memory(device)
    free, total = (f"{(x or 0) / GB:.2f}" for x in (memory.free, memory.total))
    if device.startswith("cuda"):
        import torch

        used, kept = (
            read(torch.device(device)) / GB
            for read in (torch.cuda.memory_allocated, torch.cuda.memory_reserved)
        )
        first = f"[GPU Memory {stage}] Allocated {used:.2f} GB, Reserved {kept:.2f} GB"
    else:
        now, peak = resident("VmRSS") / GB, resident("VmHWM") / GB
        first = f"[CPU Memory {stage}] RSS {now:.2f} GB, Peak {peak:.2f} GB"
    return f"{first}, Free {free} / {total} GB"


class StageLog:
    """Tells the stages of one loaded model: each once, and again where much more is in use."""

    def __init__(self, device: str) -> None:
        self.device = device
        self._told: dict[str, int] = {}

    def tell(self, stage: str) -> None:
        """Log the line of a stage at level info."""
        if not LOG.isEnabledFor(logging.INFO):
            return
        used = self._used()
        if used > _RISE * self._told.get(stage, -1):
            self._told[stage] = used
            LOG.info("%s", memory_line(stage, self.device))

    def _used(self) -> int:
        if self.device.startswith("cuda"):
            import torch

            return int(torch.cuda.memory_allocated(torch.device(self.device)))
        return resident("VmRSS")
