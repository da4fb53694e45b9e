"""Where a pipeline trains its operators, by the memory of the device."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from cogit.pipeline import born_fit
from cogit.pipeline.plan import Plan

GB = 10**9


class Placed(Exception):
    """Carries the device that the training was given."""


@pytest.mark.parametrize(
    ("n_gpus", "free", "total", "device"),
    [(1, 2, 32, "cpu"), (1, 78, 80, "cuda"), (0, 0, 0, "cpu")],
)
def test_large_operators_go_where_they_fit(
    n_gpus: int, free: int, total: int, device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Row Q40: a full device of 32 GB gives the CPU, one of 80 GB CUDA, none the CPU."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: n_gpus > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: n_gpus)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda *_: "a device")
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda *_: (free * GB, total * GB))

    def trained(*_: Any, device: Any, **__: Any) -> Any:
        raise Placed(str(device))

    monkeypatch.setattr(born_fit, "fit_born_operators", trained)
    plan = Plan(preset="qwen_remote", method="born-adam")
    dims: Any = SimpleNamespace(q=9333, layers=(14,))
    nothing: Any = None
    with pytest.raises(Placed) as found:
        born_fit.train_both(plan, dims, nothing, nothing, nothing, show=False)
    assert str(found.value).startswith(device)
