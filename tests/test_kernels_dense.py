"""The dense complex kernel in its three storages against its complex128 definition."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from cogit import _core, kernels, reference
from cogit.kernels import DenseChange, Storage, plain, routes

VARIANTS = _core.info()["variants"]
STORAGES: list[Storage] = ["complex64", "bf16", "int8"]
SIZES = (1, 2, 3, 7, 37, 64, 130, 501)
pytestmark = pytest.mark.usefixtures("restore_variant")


def states(n: int, q: int, seed: int = 0) -> torch.Tensor:
    """(n, q) complex64 of unit norm."""
    generator = torch.Generator().manual_seed(seed)
    psi = torch.randn(n, q, dtype=torch.complex64, generator=generator)
    return psi / torch.linalg.vector_norm(psi, dim=-1, keepdim=True)


def unitary(q: int, angle: float, seed: int = 0) -> torch.Tensor:
    """exp(i·angle·H), with a random Hermitian H of norm about 1. (q, q) complex128."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(q, q, dtype=torch.complex128, generator=generator) / (2 * q) ** 0.5
    return torch.linalg.matrix_exp(0.5j * angle * (noise + noise.mH))


def exact(change: DenseChange, psi: torch.Tensor, a: float, b: float, normalise: bool) -> Any:
    """The definition applied to what is stored."""
    return reference.dense_apply(change.dense(), psi, a, b, normalise=normalise)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("storage", STORAGES)
def test_matches_reference(variant: str, storage: Storage) -> None:
    """At most twice the error of plain float32, and 2 ulp of the largest value."""
    _core.set_cpu_variant(variant)
    for q in SIZES:
        change = DenseChange.from_unitary(unitary(q, 1.0), storage)
        for n in (0, 1, 2, 3, 5, 8):
            psi = states(n, q)
            for a, b, normalise in ((1.0, 0.3, True), (0.5, -2.0, False), (0.0, 1.0, False)):
                out = torch.full_like(psi, torch.nan)
                _core.dense_apply(change.values, change.scales, psi, out, a, b, normalise, 1)
                want = exact(change, psi, a, b, normalise)
                if n == 0:
                    continue
                # Plain code's error over 32 states: in a single one it is tiny by luck.
                many = states(32, q, seed=1)
                rough = plain.dense_apply(many, change.values, change.scales, a, b, normalise)
                error = np.abs(rough.numpy() - exact(change, many, a, b, normalise)).max()
                allowed = 2 * error + 2 * np.spacing(np.float32(np.abs(want).max()))
                assert np.abs(out.numpy() - want).max() <= allowed


def test_fuzz() -> None:
    """Random sizes, strides of either sign, places, blends, threads and variants."""
    rng = np.random.default_rng(0)
    for round_ in range(150):
        _core.set_cpu_variant(str(rng.choice(VARIANTS)))
        q, n = int(rng.integers(1, 150)), int(rng.integers(0, 9))
        storage = STORAGES[int(rng.integers(3))]
        change = DenseChange.from_unitary(unitary(q, 1.0, round_), storage)
        wide = rng.normal(size=(3 * n, q + 5, 2)).astype(np.float32).view(np.complex64)[..., 0]
        psi = wide[:: int(rng.choice([-3, -1, 1, 2])), int(rng.integers(5)) :][:n, :q]
        values, scales = change.values, change.scales
        if storage == "complex64":
            values = values.numpy()  # both kinds of array serve together
        target = np.full((n, q + 4), np.nan, np.complex64)
        a, b = float(rng.normal()), float(rng.normal() * rng.integers(2))
        normalise, threads = bool(rng.integers(2)), int(rng.integers(1, 4))
        out = target[::-1, 1 : q + 1]
        _core.dense_apply(values, scales, psi, out, a, b, normalise, threads)
        want = reference.dense_apply(change.dense(), psi, a, b, normalise=normalise)
        # 150 products a sum, each rounded to 6e-8 of values below about 5.
        np.testing.assert_allclose(out, want, rtol=0, atol=2e-5)
        assert np.isnan(target[:, [0, *range(q + 1, q + 4)]]).all()


@pytest.mark.parametrize("storage", STORAGES)
def test_any_number_of_threads_gives_the_same_bits(storage: Storage) -> None:
    change = DenseChange.from_unitary(unitary(700, 0.5), storage)
    psi = states(5, 700)
    results = []
    for threads in (1, 2, 3, 7):
        out = torch.empty_like(psi)
        _core.dense_apply(change.values, change.scales, psi, out, 1.0, 0.4, True, threads)
        results.append(out)
    assert all(torch.equal(results[0], x) for x in results[1:])


@pytest.mark.parametrize("storage", STORAGES)
def test_identity_zero_and_nan(storage: Storage) -> None:
    psi = states(4, 33)
    still = DenseChange.from_unitary(torch.eye(33, dtype=torch.complex64), storage)
    assert torch.equal(still.apply(psi, 0.7, normalise=False), psi)
    change = DenseChange.from_unitary(unitary(33, 1.0), storage)
    psi[1, 3] = complex(-0.0, -0.0)
    off = change.apply(psi, 0.0, normalise=False)
    assert torch.equal(torch.view_as_real(off).view(torch.int32), bits(psi))
    clean = change.apply(psi)
    psi[2, 5] = torch.nan
    got = change.apply(psi)
    assert torch.isnan(torch.view_as_real(got)[2]).all()
    others = torch.tensor([0, 1, 3])
    assert torch.equal(got[others], clean[others])
    zero = torch.zeros(1, 33, dtype=torch.complex64)
    assert torch.equal(change.apply(zero), zero)


def bits(psi: torch.Tensor) -> torch.Tensor:
    return torch.view_as_real(psi).contiguous().view(torch.int32)


@pytest.mark.parametrize(
    ("storage", "angle", "limit"), [("bf16", 1.5, 3e-3), ("bf16", 0.05, 3e-3), ("int8", 0.05, 2e-2)]
)
def test_error_of_the_stored_change(storage: Storage, angle: float, limit: float) -> None:
    """The limits that the class promises, and that storing U itself would miss by far."""
    u = unitary(300, angle)
    psi = states(20, 300)
    change = psi.numpy() @ (u.numpy() - np.eye(300)).T

    def error(stored: Any) -> float:
        return float(np.linalg.norm(stored - change) / np.linalg.norm(change))

    kept = DenseChange.from_unitary(u, storage)
    moved = kept.apply(psi, normalise=False) - psi
    assert error(moved.numpy()) < limit
    assert kept.nbytes <= (4 if storage == "bf16" else 2.1) * 300**2
    if storage == "int8":
        whole = DenseChange.from_change(u, storage)
        _core.dense_apply(whole.values, whole.scales, psi, moved, 0.0, 1.0, False, 1)
        assert error((moved - psi).numpy()) > 5 * limit


def test_many_states_go_to_blas() -> None:
    assert routes.dense_by_blas(states(256, 2000))
    assert routes.dense_by_blas(states(32, 64).reshape(2, 16, 64))
    assert not routes.dense_by_blas(states(255, 2000))
    assert not routes.dense_by_blas(states(31, 64))
    assert not routes.dense_by_blas(states(1, 64)[0])
    assert not routes.dense_by_blas(torch.empty(64, 0, dtype=torch.complex64))
    assert not routes.dense_by_blas(states(4096, 64).to("meta"))
    for storage in STORAGES:
        change = DenseChange.from_unitary(unitary(40, 1.0), storage)
        psi = states(64, 40).reshape(2, 32, 40)
        got = change.apply(psi, 0.5)
        # Both are float32 sums of 40 products of values below 1.
        np.testing.assert_allclose(got, exact(change, psi, 1.0, 0.5, True), rtol=0, atol=2e-6)


def test_arrays_leading_axes_and_out() -> None:
    change = DenseChange.from_unitary(unitary(20, 1.0))
    psi = states(6, 20)
    want = change.apply(psi, 0.5)
    assert torch.equal(change.apply(psi.reshape(2, 3, 20), 0.5).reshape(6, 20), want)
    array = kernels.dense_apply(change.values.numpy(), psi.numpy(), b=0.5, normalise=True)
    np.testing.assert_array_equal(array, want.numpy())
    out = torch.empty_like(psi)
    assert change.apply(psi, 0.5, out=out) is out
    assert torch.equal(out, want)
    saved = torch.ones(6, 20, dtype=torch.complex64)
    loss = (torch.ones(20, requires_grad=True) * saved).sum().real
    change.apply(psi, out=saved)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        torch.autograd.backward(loss)


def core_call(**changes: Any) -> None:
    pairs = torch.zeros(4, 4, 2, dtype=torch.int8)
    call: dict[str, Any] = {"D": pairs, "scales": torch.ones(4), "psi": states(3, 4)}
    call |= {"out": states(3, 4), "a": 1.0, "b": 1.0, "normalise": True} | changes
    _core.dense_apply(**call)


REFUSED = [
    ({"D": torch.zeros(4, 4)}, TypeError, "expected D of dtype complex64 or bfloat16 or int8"),
    ({"D": torch.zeros(4, 5, 2, dtype=torch.int8)}, ValueError, r"D of shape \(q, q, 2\)"),
    ({"D": torch.zeros(4, 4, dtype=torch.int8)}, ValueError, r"D of shape \(q, q, 2\)"),
    ({"D": states(4, 5)}, ValueError, r"expected D of shape \(q, q\).*, got \(4, 5\)"),
    ({"D": states(4, 8)[:, ::2]}, ValueError, "expected D with adjacent elements"),
    ({"D": states(4, 8)[:, :4]}, ValueError, "expected D with adjacent rows"),
    ({"D": states(4, 4)}, ValueError, "expected no scales with a D that is not int8"),
    ({"scales": None}, ValueError, "expected scales with an int8 D, got none"),
    ({"scales": torch.ones(3)}, ValueError, r"expected scales of shape \(4,\), got \(3,\)"),
    ({"psi": torch.ones(3, 4)}, TypeError, "expected psi of dtype complex64, got torch.float32"),
    ({"psi": states(3, 5)}, ValueError, r"expected psi of shape \(..., n, 4\), got \(3, 5\)"),
    ({"psi": states(3, 4)[0]}, ValueError, r"expected psi of shape \(..., n, 4\), got \(4,\)"),
    ({"psi": states(3, 4).conj()}, TypeError, "without a conjugate or negative bit"),
    ({"psi": states(4, 3).T}, ValueError, "expected psi with adjacent elements"),
    ({"psi": states(3, 4).to_sparse()}, TypeError, "expected psi a dense tensor"),
    ({"psi": states(3, 4).to("meta")}, TypeError, "expected psi on the CPU or a CUDA device"),
    ({"psi": states(3, 4).requires_grad_()}, ValueError, "expected psi without gradient"),
    ({"out": states(2, 4)}, ValueError, r"expected out of psi's shape \(3, 4\), got \(2, 4\)"),
    ({"out": states(1, 4).expand(3, 4)}, ValueError, "expected out with rows of their own memory"),
]


@pytest.mark.parametrize(("changes", "kind", "message"), REFUSED)
def test_refuses(changes: dict[str, Any], kind: type[Exception], message: str) -> None:
    core_call()
    with pytest.raises(kind, match=rf"^\[dense_apply\] .*{message}") as caught:
        core_call(**changes)
    assert "\n" not in str(caught.value)
    assert "; " in str(caught.value)


def test_refuses_shared_memory() -> None:
    store = states(8, 4)
    with pytest.raises(ValueError, match="an overlap with psi;"):
        core_call(psi=store[:3], out=store[:3])
    with pytest.raises(ValueError, match="an overlap with psi;"):
        core_call(psi=store[:3], out=store[2:5])
    core_call(psi=store[:3], out=store[3:6])
    with pytest.raises(ValueError, match="an overlap with D;"):
        core_call(D=store[:4], scales=None, out=store[3:6])


def test_refuses_to_store() -> None:
    with pytest.raises(ValueError, match=r"expected a storage among complex64, bf16, int8"):
        DenseChange.from_unitary(unitary(3, 1.0), "int4")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"expected unitary as a complex \(q, q\) matrix"):
        DenseChange.from_unitary(torch.eye(3))
    with pytest.raises(ValueError, match=r"expected change as a complex \(q, q\) matrix"):
        DenseChange.from_change(states(3, 4))
    with pytest.raises(ValueError, match="expected finite values in the change"):
        DenseChange.from_change(states(3, 3) * torch.nan)
