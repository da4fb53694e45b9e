"""Trainable unitaries: values, powers, gradients, and a kept matrix that is never stale."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck

from _unitaries import EXACT, close, dense_cayley, gaussian, generator, with_angles
from cogit.cayley import geodesic_power, unitarity_deviation
from cogit.hermitian import hermitian
from cogit.training.cayley_module import (
    FAMILIES,
    DenseCayley,
    DiagonalPhases,
    LowRankUnitary,
    UnitaryModule,
    make_unitary,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from cogit.training.cayley_module import Family

# The figures of row Q9; rounding alone is 1e-6.
UNITARY_FLOAT32, UNITARY_TRAINED = 3e-5, 1e-4
DTYPES = {torch.float32: UNITARY_FLOAT32, torch.float64: EXACT}


def made(family: Family, q: int = 9, dtype: torch.dtype = torch.float64) -> UnitaryModule:
    """Far from the identity."""
    module = make_unitary(family, q, rank=2, spread=0.7, seed=1, dtype=dtype)
    if isinstance(module, LowRankUnitary):
        with torch.no_grad():
            module.y.copy_(0.8 * gaussian(*module.y.shape, seed=2, dtype=dtype) / q**0.5)
    return module


def states(module: UnitaryModule, n: int = 4, seed: int = 3) -> Tensor:
    return gaussian(n, module.q, seed=seed, dtype=module.dtype)


# ---- values ----


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("q", [1, 2, 9, 40])
def test_every_power_is_unitary(family: Family, dtype: torch.dtype, q: int) -> None:
    """Row Q9: max |UᴴU - I| below 3e-5 in float32."""
    module = made(family, q, dtype)
    for exponent in (1.0, -1.0, 0.0, 0.4, -2.3):
        assert unitarity_deviation(module.unitary(exponent)) < DTYPES[dtype]
    assert module.deviation() < DTYPES[dtype]
    assert torch.equal(module.unitary(0.0), torch.eye(q, dtype=module.dtype))


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("mode", ["train", "eval", "kept"])
def test_calling_is_the_matrix(family: Family, dtype: torch.dtype, mode: str) -> None:
    """Training solves for the states alone, evaluation forms U, no gradient keeps it."""
    module = made(family, dtype=dtype).train(mode == "train")
    rows = states(module)
    with torch.set_grad_enabled(mode != "kept"):
        for exponent in (1.0, -1.0, 0.0, 0.4, -2.3):
            matrix = module.unitary(exponent).detach()
            # ε times sums of 9 products and a condition of a few.
            tolerance = EXACT if dtype == torch.float64 else 1e-5
            close(module(rows, exponent), (rows @ matrix.T).numpy(), tolerance)
            close(module.adjoint(module(rows, exponent), exponent), rows.numpy(), tolerance)
            expected = geodesic_power(module.unitary().detach(), exponent)
            close(matrix, expected, tolerance)


@pytest.mark.parametrize("family", FAMILIES)
def test_shapes_of_states(family: Family) -> None:
    module = made(family)
    rows = states(module, 6)
    whole = module(rows)
    close(module(rows.reshape(2, 3, -1)).reshape(6, -1), whole)
    close(module(rows[0]), whole[0])
    assert module(rows[:0]).shape == (0, module.q)


def test_the_dense_module_is_its_definition() -> None:
    module = made("dense")
    assert isinstance(module, DenseCayley)
    close(module.unitary(), dense_cayley(module.generator().detach().numpy()))
    again = DenseCayley.from_generator(module.generator().detach())
    close(again.unitary(), module.unitary())
    # The inverse Cayley transform enlarges the rounding by 1 + |H|², which is below 100 here.
    back = DenseCayley.from_unitary(module.unitary().detach())
    close(back.unitary(), module.unitary(), 100 * EXACT)
    single = DenseCayley.from_unitary(module.unitary().detach().to(torch.complex64))
    close(single.unitary(), module.unitary().detach().numpy(), 1e-4)  # row Q9


def test_only_what_is_free_is_stored() -> None:
    counts = [make_unitary(family, 30, rank=3).free_parameters for family in FAMILIES]
    assert counts == [30**2, 4 * 30 * 3, 30]


def test_starts() -> None:
    low_rank = LowRankUnitary(7, 2)
    assert torch.equal(low_rank.unitary().detach(), torch.eye(7, dtype=torch.complex64))
    rows = states(low_rank)
    loss = (low_rank(rows) - rows.roll(1, 1)).abs().square().sum()
    loss.backward()
    assert low_rank.y.grad is not None
    assert float(low_rank.y.grad.abs().max()) > 0
    for family in FAMILIES:
        one, same = (make_unitary(family, 5, seed=3) for _ in range(2))
        other = make_unitary(family, 5, seed=4)
        double = make_unitary(family, 5, seed=3, dtype=torch.float64)
        for a, b, c, d in zip(*(m.parameters() for m in (one, same, other, double)), strict=True):
            assert torch.equal(a, b)
            assert not torch.equal(a, c) or not a.any()
            assert torch.equal(a, d.float())


def test_phases_turn_by_principal_angles() -> None:
    module = DiagonalPhases(4, dtype=torch.float64)
    with torch.no_grad():
        module.phases.copy_(torch.tensor([math.pi, -math.pi, 7.0, 0.5], dtype=torch.float64))
    half = module.unitary(0.5).diagonal()
    # Both half turns go the same way, and 7 is 7 - 2π.
    expected = np.exp(0.5j * np.array([math.pi, math.pi, 7 - 2 * math.pi, 0.5]))
    close(half, expected)


# ---- gradients ----


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("exponent", [1.0, -1.0, 0.6])
def test_gradients_are_differences(family: Family, exponent: float) -> None:
    """Row Q9: against finite differences in float64, of the states and of every parameter."""
    module = made(family, 4)
    names = [name for name, _ in module.named_parameters()]

    def call(rows: Tensor, *values: Tensor) -> Tensor:
        given = dict(zip(names, values, strict=True))
        result: Tensor = torch.func.functional_call(module, given, (rows, exponent))
        return result

    rows = states(module, 2).requires_grad_()
    values = [value.detach().clone().requires_grad_() for value in module.parameters()]
    assert gradcheck(call, (rows, *values))


def test_solving_for_the_states_has_the_gradient_of_the_matrix() -> None:
    module = made("dense", 12)
    rows, weight = states(module, 5), states(module, 5, seed=8)
    gradients = []
    for route in (lambda: module(rows), lambda: rows @ module.unitary().T):
        module.zero_grad()
        (route() - weight).abs().square().sum().backward()
        assert module.free.grad is not None  # type: ignore[union-attr]
        gradients.append(module.free.grad.clone())  # type: ignore[union-attr]
    close(gradients[0], gradients[1].numpy(), 1e-11)  # gradients reach 10


@pytest.mark.parametrize("family", FAMILIES)
def test_unitary_after_a_hundred_steps(family: Family) -> None:
    """Row Q9: below 1e-4 after 100 steps, gradients finite throughout."""
    module = made(family, 24, torch.float32)
    rows, target = states(module, 16), states(module, 16, seed=9)
    optimiser = torch.optim.Adam(module.parameters(), lr=0.05, weight_decay=1e-4)
    for _ in range(100):
        optimiser.zero_grad()
        (1 - (target.conj() * module(rows)).sum(dim=1).abs().square()).mean().backward()
        for parameter in module.parameters():
            assert parameter.grad is not None
            assert bool(torch.isfinite(parameter.grad).all())
        optimiser.step()
    assert module.deviation() < UNITARY_TRAINED


def test_it_trains_as_two_squares_do() -> None:
    """Row Q12: the same steps as with H from the upper triangles of two free squares A and B."""
    q = 10
    module = made("dense", q)
    free = module.free.detach()  # type: ignore[union-attr, operator]
    squares = [free.tril().T.clone(), free.triu(1).clone()]
    # What lies below the triangles is never used.
    squares = [(s + gaussian(q, q, dtype=s.dtype).tril(-1)).requires_grad_() for s in squares]
    source, target = states(module, 8), states(module, 8, seed=7)

    def of_squares(rows: Tensor) -> Tensor:
        a, b = squares
        matrix = torch.complex(a.triu() + a.triu(1).T, b.triu(1) - b.triu(1).T)
        eye = torch.eye(q, dtype=matrix.dtype)
        return rows @ torch.linalg.solve(eye - 1j * matrix, eye + 1j * matrix).T

    curves = []
    for turn, parameters in ((module, list(module.parameters())), (of_squares, squares)):
        optimiser = torch.optim.Adam(parameters, lr=1e-2, weight_decay=1e-4)
        curves.append([])
        for _ in range(30):
            overlaps = (target.conj() * turn(source)).sum(dim=1)
            loss = (1 - overlaps.abs().square()).mean()
            optimiser.zero_grad()
            loss.backward()
            # The unused halves have no gradient, so that the norms agree.
            torch.nn.utils.clip_grad_norm_(parameters, 1.0)
            optimiser.step()
            curves[-1].append(float(loss.detach()))
    # Adam divides by the gradients' size, which enlarges rounding a little at each of 30 steps.
    np.testing.assert_allclose(curves[0], curves[1], rtol=1e-8)


# ---- what is kept ----


def kept_calls(module: UnitaryModule, monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The exponents for which U was formed, from here on."""
    calls: list[float] = []
    form = type(module)._form

    def counted(self: UnitaryModule, exponent: float) -> tuple[Tensor, ...]:
        calls.append(exponent)
        return form(self, exponent)

    monkeypatch.setattr(type(module), "_form", counted)
    return calls


@pytest.mark.parametrize("family", FAMILIES)
def test_evaluation_forms_the_matrix_once(family: Family, monkeypatch: pytest.MonkeyPatch) -> None:
    """Row Q9: kept in evaluation, dropped by train()."""
    module = made(family).eval()
    calls = kept_calls(module, monkeypatch)
    rows = states(module)
    with torch.no_grad():
        for _ in range(3):
            module(rows)
            module.adjoint(rows)
            module.unitary()
        assert calls == [1.0]
        module(rows, 0.5)
        assert calls == [1.0, 0.5]
        module.train()
        module.eval()
        module(rows, 0.5)
        assert calls == [1.0, 0.5, 0.5]


def by_loading(module: UnitaryModule) -> None:
    module.load_state_dict({k: 0.5 * v for k, v in module.state_dict().items()})


def by_assigning(module: UnitaryModule) -> None:
    module.load_state_dict({k: 0.5 * v for k, v in module.state_dict().items()}, assign=True)


def by_step(module: UnitaryModule, **settings: Any) -> None:
    optimiser = torch.optim.Adam(module.parameters(), lr=0.1, **settings)
    with torch.enable_grad():
        target = states(module, seed=8)
        (module(states(module)) - target).abs().square().sum().backward()
    optimiser.step()


def by_data(module: UnitaryModule) -> None:
    for parameter in module.parameters():
        parameter.data.mul_(0.5)


def by_new_data(module: UnitaryModule) -> None:
    for parameter in module.parameters():
        parameter.data = parameter.data * 0.5


def by_numpy(module: UnitaryModule) -> None:
    for parameter in module.parameters():
        parameter.detach().numpy()[...] *= 0.5


CHANGES: dict[str, Callable[[UnitaryModule], None]] = {
    "load_state_dict": by_loading,
    "load_state_dict_assign": by_assigning,
    "step": by_step,
    "fused_step": lambda module: by_step(module, fused=True),
    "step_one_by_one": lambda module: by_step(module, foreach=False),
    "data": by_data,
    "new_data": by_new_data,
    "numpy": by_numpy,
}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("change", CHANGES)
def test_nothing_kept_is_stale(family: Family, change: str) -> None:
    """Row Q9: whatever changes the parameters after a forward in evaluation is seen at the next."""
    module = made(family).eval()
    rows = states(module)
    with torch.no_grad():
        before = module(rows)
        CHANGES[change](module)
        after, matrix = module(rows), module.unitary()
        fresh = made(family)
        fresh.load_state_dict(module.state_dict())
        assert float((after - before).abs().max()) > 1e-3
        close(after, fresh.eval()(rows))
        close(matrix, fresh.unitary())


@pytest.mark.parametrize("family", FAMILIES)
def test_evaluation_with_gradients_still_has_them(family: Family) -> None:
    module = made(family).eval()
    rows = states(module)
    with torch.no_grad():
        module(rows)
    module(rows).abs().square()[:, 0].sum().backward()
    for parameter in module.parameters():
        assert parameter.grad is not None
        assert float(parameter.grad.abs().max()) > 0


def test_a_matrix_kept_in_inference_mode_serves_gradients_of_the_states() -> None:
    module = made("dense").eval().requires_grad_(False)
    with torch.inference_mode():
        module(states(module))
    rows = states(module).requires_grad_()
    module(rows).real.sum().backward()
    assert rows.grad is not None


def test_the_kept_matrix_cannot_be_changed_from_outside() -> None:
    for family in FAMILIES:
        module = made(family).eval()
        with torch.no_grad():
            expected = module.unitary().clone()
            for exponent in (1.0, -1.0):
                module.unitary(exponent).zero_()
            assert torch.equal(module.unitary(), expected)


def test_conversion_drops_what_is_kept() -> None:
    module = made("dense", dtype=torch.float32).eval()
    with torch.no_grad():
        module(states(module))
        module.double()
        assert module.dtype == torch.complex128
        assert module.unitary().dtype == torch.complex128
        assert module.deviation() < EXACT
    assert set(module.state_dict()) == {"free"}


# ---- what is refused ----


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: DenseCayley(0), ValueError, r"\[DenseCayley\] expected a dimension q"),
        (lambda: LowRankUnitary(3, 0), ValueError, r"expected a rank of 1"),
        (lambda: make_unitary("mlp", 3), ValueError, r"dense, lowrank, diagonal; got 'mlp'"),  # type: ignore[arg-type]
        (lambda: DenseCayley(3, dtype=torch.float16), TypeError, r"float32 or float64"),
        (lambda: DenseCayley(3).half().dtype, TypeError, r"float32 or float64, got float16"),
        (lambda: DenseCayley(3)(torch.ones(2, 3)), TypeError, r"complex64, got float32"),
        (lambda: DenseCayley(3)(torch.ones(2, 3).cdouble()), TypeError, r"complex64, got complex"),
        (lambda: DenseCayley(3)(torch.ones(2, 4).cfloat()), ValueError, r"\(\.\.\., 3\), got"),
        (lambda: DenseCayley(3).unitary(math.nan), ValueError, r"finite exponent"),
        (lambda: DiagonalPhases(3, spread=math.inf).unitary(), ValueError, r"finite phases"),
        (lambda: DenseCayley(3, spread=math.inf).unitary(), ValueError, r"expected finite values"),
        (lambda: DenseCayley.from_unitary(2 * torch.eye(3).cfloat()), ValueError, r"a unitary"),
        (lambda: DenseCayley.from_unitary(-torch.eye(3).cfloat()), ValueError, r"at -1"),
        (lambda: DenseCayley.from_generator(1j * torch.eye(3)), ValueError, r"a Hermitian"),
    ],
)
def test_refusals(call: Callable[[], object], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message) as caught:
        call()
    assert str(caught.value).startswith("[")
    assert "\n" not in str(caught.value)


def test_helpers_agree() -> None:
    """The planted generators that these tests use are what the module stores."""
    matrix = generator(6)
    module = DenseCayley.from_generator(matrix)
    assert torch.equal(hermitian(module.free).detach(), matrix)
    assert with_angles([0.1, 0.2]).shape == (2, 2)
