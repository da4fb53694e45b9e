"""Which device a model or an operator goes to, why, and whether it has room."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from cogit.memory import megabytes
from cogit.memory_free import cuda_memory
from cogit.memory_operators import OperatorNeed, need_of, total_need

if TYPE_CHECKING:
    import torch

_LOG = logging.getLogger("cogit.memory")
MARGIN = 1.2

Movable = TypeVar("Movable")


@dataclass(frozen=True)
class DeviceChoice:
    """A torch device by name, and why it was taken."""

    name: str
    reason: str

    def describe(self) -> str:
        """As in ``cpu (no CUDA device is visible: torch 2.13.0+cpu is a CPU build)``."""
        return f"{self.name} ({self.reason})"


@dataclass(frozen=True)
class Placement:
    """Where operators go. need, free: bytes; free is None where there is no CUDA device."""

    device: str
    need: int
    free: int | None
    reason: str


def choose_device(device: str) -> DeviceChoice:
    """``auto`` takes CUDA if there is one, else the CPU; anything else is as asked.

    ValueError for a name that is none, and for a CUDA device that is not there.
    """
    import torch

    if device == "auto":
        if torch.cuda.is_available():
            return DeviceChoice("cuda", f"auto: {torch.cuda.get_device_name(0)}")
        return DeviceChoice("cpu", f"no CUDA device is visible: {_build()}")
    try:
        target = torch.device(device)
    except RuntimeError as error:
        message = f"[device] expected auto, cpu, cuda or cuda:N, got {device!r}"
        raise ValueError(message) from error
    if target.type not in ("cpu", "cuda", "mps"):
        message = f"[device] expected auto, cpu, cuda or cuda:N, got {device!r}"
        raise ValueError(message)
    if target.type == "cuda":
        if not torch.cuda.is_available():
            message = "[device] expected a CUDA device, got none on this machine; use --device cpu"
            raise ValueError(message)
        count = torch.cuda.device_count()
        if target.index is not None and target.index >= count:
            message = f"[device] expected cuda:0..cuda:{count - 1}, got {device}"
            raise ValueError(message)
    return DeviceChoice(str(target), "as asked for")


def resolve_device(device: str) -> torch.device:
    """A torch device by name; ``auto`` takes CUDA if there is one. ValueError if it is absent."""
    import torch

    return torch.device(choose_device(device).name)


def plan_placement(
    needs: Sequence[OperatorNeed], want: str | torch.device, *, free: int | None = None
) -> Placement:
    """Where operators that are loaded together go: all to CUDA, or all to the CPU.

    CUDA where its free memory exceeds 1.2 times what all of them need: what is stored, what is
    formed from it and kept, and the workspace of the largest. want: auto, cpu, cuda or cuda:N; a
    CUDA device that is asked for by name is taken only if there is room as well. free: bytes, read
    from the driver where it is not given. ValueError as `choose_device`.
    """
    need = total_need(needs)
    chosen = choose_device(str(want))
    if not chosen.name.startswith("cuda"):
        return Placement(chosen.name, need, None, chosen.reason)
    room = cuda_memory(chosen.name).free if free is None else free
    enough = room is not None and room > MARGIN * need
    numbers = (
        f"{len(needs)} operators need {megabytes(need)}, with a margin {megabytes(MARGIN * need)}, "
        f"of {megabytes(room or 0)} free on {chosen.name}"
    )
    if enough:
        return Placement(chosen.name, need, room, numbers)
    return Placement("cpu", need, room, f"{numbers}: too little, so they go to the CPU")


def place_operators(
    operators: Sequence[Movable],
    want: str | torch.device,
    *,
    free: int | None = None,
    beside: Sequence[OperatorNeed] = (),
) -> tuple[list[Movable], torch.device]:
    """Move operators to where they fit, all to the same device, and say where and why.

    operators: anything with ``to(device)`` whose size `need_of` knows. beside: what else will be
    needed there. Returns the moved operators and the device.
    """
    import torch

    placed = plan_placement([*map(need_of, operators), *beside], want, free=free)
    _LOG.info("operators on %s: %s", placed.device, placed.reason)
    device = torch.device(placed.device)
    movable: Sequence[Any] = operators
    return [operator.to(device) for operator in movable], device


def place_operator(
    operator: Movable,
    want: str | torch.device,
    *,
    free: int | None = None,
    beside: Sequence[Any] = (),
) -> tuple[Movable, torch.device]:
    """One operator and its device; see `place_operators`.

    beside: operators placed before. What they have not taken yet, their cached form and workspace,
    counts too, and what they have stored where ``free`` was read before they were placed, that is
    where it is given.
    """
    others = [need_of(one) for one in beside]
    if free is None:
        others = [OperatorNeed(0, need.cached, need.workspace) for need in others]
    moved, device = place_operators([operator], want, free=free, beside=others)
    return moved[0], device


def _build() -> str:
    import torch

    built = torch.version.cuda
    kind = "a CPU build" if built is None else f"built for CUDA {built}, but no driver or device"
    return f"torch {torch.__version__} is {kind}"
