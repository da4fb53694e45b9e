"""Which device is taken and why; operators go where they fit, and steer where the states are."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from _models import steering, tiny_backend, tokens
from cogit import devices
from cogit.backends.hooks import applier, require_room
from cogit.devices import choose_device, place_operator, place_operators, plan_placement
from cogit.errors import MemoryRefusedError
from cogit.memory_operators import dense_need, total_need, training_need, training_needs
from cogit.presets import PRESETS

GIB = 2**30
Q = 9333


class Big:
    """An operator of the largest presets, without its numbers."""

    family, q = "dense", Q

    def __init__(self) -> None:
        self.device = "nowhere"

    def to(self, device: torch.device) -> Big:
        self.device = str(device)
        return self


def fake_gpu(monkeypatch: pytest.MonkeyPatch, free: float, total: float) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "a fake device")
    info = int(free * GIB), int(total * GIB)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: info)


def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


def test_auto_on_a_cpu_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    """Q3: the chosen device and the reason."""
    no_gpu(monkeypatch)
    chosen = choose_device("auto")
    assert chosen.name == "cpu"
    assert chosen.describe().startswith("cpu (no CUDA device is visible: torch ")
    assert choose_device("cpu").describe() == "cpu (as asked for)"


def test_cuda_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Q3: an explicit device is never replaced by another."""
    no_gpu(monkeypatch)
    for name in ("cuda", "cuda:0"):
        with pytest.raises(ValueError, match=r"^\[device\] expected a CUDA device, got none"):
            choose_device(name)
    fake_gpu(monkeypatch, 1, 2)
    assert choose_device("auto").describe() == "cuda (auto: a fake device)"
    with pytest.raises(ValueError, match=r"^\[device\] expected cuda:0\.\.cuda:0, got cuda:3"):
        choose_device("cuda:3")
    with pytest.raises(ValueError, match=r"^\[device\] expected auto, cpu, cuda or cuda:N"):
        choose_device("meta")  # a device of torch that computes nothing
    with pytest.raises(ValueError, match=r"^\[device\] expected auto, cpu, cuda or cuda:N"):
        choose_device("abacus")


def test_no_preset_pins_a_device() -> None:
    """Q3: the presets of the source system pinned cpu or cuda."""
    assert {preset.device for preset in PRESETS.values()} == {"auto"}


def test_the_need_of_a_dense_operator_is_more_than_its_parameters() -> None:
    """Q40: 0.697 GB of stored U in the largest preset; 4.5 times that to form and apply it."""
    stored = 8 * Q * Q
    assert stored == pytest.approx(0.697e9, rel=1e-3)
    assert dense_need(Q).total / stored == pytest.approx(4.5, rel=0.01)
    assert training_need(Q).total / stored == pytest.approx(6.1, rel=0.01)


@pytest.mark.parametrize(
    ("free", "total", "device"), [(1.0, 32, "cpu"), (70.0, 80, "cuda"), (4.0, 32, "cpu")]
)
def test_two_large_operators_go_where_they_fit(
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    free: float,
    total: float,
    device: str,
) -> None:
    """Q40: a full 32 GB device gives the CPU, an 80 GB one CUDA; both operators count."""
    fake_gpu(monkeypatch, free, total)
    pair = [Big(), Big()]
    with caplog.at_level("INFO", "cogit.memory"):
        moved, where = place_operators(pair, "auto")
    assert where.type == device
    assert [str(one.device) for one in moved] == [device] * 2
    need = 2 * (dense_need(Q).stored + dense_need(Q).cached) + dense_need(Q).workspace
    placed = plan_placement([dense_need(Q)] * 2, "auto")
    assert placed.need == need
    assert f"{need / 1e9:.2f} GB" in caplog.text
    assert f"{free * GIB / 1e9:.2f} GB free on cuda" in caplog.text


def test_without_cuda_operators_go_to_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Q40."""
    no_gpu(monkeypatch)
    operator, device = place_operator(Big(), "auto")
    assert (operator.device, device.type) == ("cpu", "cpu")


def test_the_margin_and_the_first_operator_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """Q40: free must exceed 1.2 times the need, of what is placed beside as well."""
    fake_gpu(monkeypatch, 1, 80)
    need = dense_need(Q).total
    just, less = int(1.2 * need) + 2, int(1.2 * need) - 2
    assert place_operator(Big(), "cuda", free=just)[1].type == "cuda"
    assert place_operator(Big(), "cuda", free=less)[1].type == "cpu"
    assert place_operator(Big(), "cuda", free=just, beside=[Big()])[1].type == "cpu"
    # Free memory that the driver tells is less already by what the first has stored.
    both = 2 * need - dense_need(Q).workspace - dense_need(Q).stored
    monkeypatch.setattr(devices, "cuda_memory", lambda _: type("M", (), {"free": 1.3 * both}))
    assert place_operator(Big(), "cuda", beside=[Big()])[1].type == "cuda"


@pytest.mark.parametrize(("free", "total", "device"), [(2.0, 32, "cpu"), (70.0, 80, "cuda")])
def test_training_of_the_largest_preset(
    monkeypatch: pytest.MonkeyPatch, free: float, total: float, device: str
) -> None:
    """Q40: the training, and what it keeps, count together."""
    fake_gpu(monkeypatch, free, total)
    placed = plan_placement(training_needs("dense", Q, batch=16), "auto")
    assert placed.device == device
    assert placed.need > 113 * Q * Q
    small = training_needs("diagonal", Q)
    assert total_need(small) < placed.need / 4


def test_folds_need_room_beside_the_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """Q41: an operator that does not fit beside its block is refused, never run elsewhere."""
    fold = steering(tiny_backend(), [0]).folds()
    cuda = {0: torch.device("cuda")}
    fake_gpu(monkeypatch, 10, 32)
    require_room(fold, cuda)
    require_room(fold, {0: torch.device("cpu")})
    fake_gpu(monkeypatch, 0, 32)
    with pytest.raises(MemoryRefusedError, match=r"^\[steer\] expected room .* every state would"):
        require_room(fold, cuda)


def test_steering_follows_the_state_without_a_round_trip(monkeypatch: pytest.MonkeyPatch) -> None:
    """Q41: once attached, a steered forward pass moves no tensor to another device."""
    backend = tiny_backend()
    ids = torch.tensor([tokens(9)])
    moved: list[str] = []

    def counting(name: str) -> Any:
        original = getattr(torch.Tensor, name)

        def call(self: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
            found = original(self, *args, **kwargs)
            target = [a for a in (*args, *kwargs.values()) if isinstance(a, str | torch.device)]
            if name in ("cpu", "numpy", "cuda") or target:
                moved.append(f"{name} {tuple(self.shape)} {target}")
            return found

        return call

    def forward() -> list[str]:
        moved.clear()
        with torch.inference_mode():
            backend.model(ids)
        return list(moved)

    for name in ("cpu", "cuda", "numpy", "to"):
        monkeypatch.setattr(torch.Tensor, name, counting(name))
    plain = forward()
    with backend.steer(steering(backend, [0, 2]), verify=False):
        assert forward() == plain
    # The counter does see a round trip.
    torch.ones(2).to("cpu").numpy()
    assert len(moved) > len(plain)


def test_folded_tensors_live_where_the_state_does() -> None:
    """Q41: on a device that is not the CPU (meta has shapes alone) states stay there."""
    affine = steering(tiny_backend(), [0]).folds()[0]
    meta = torch.device("meta")
    state = torch.empty(1, 5, affine.d_model, device=meta)
    assert applier(affine, meta, torch.float32)(state, None).device == meta
