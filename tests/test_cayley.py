"""Cayley unitaries against their definitions in NumPy: values, gradients, powers, training."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck

from _unitaries import (
    EXACT,
    GENERATORS,
    PAIRS,
    close,
    dense_cayley,
    dense_low_rank,
    gaussian,
    generator,
    low_rank_generator,
    with_angles,
)
from cogit.cayley import (
    LowRankCayley,
    cayley,
    cayley_power,
    geodesic_power,
    inverse_cayley,
    unitarity_deviation,
)
from cogit.hermitian import hermitian, hermitian_function, hermitian_parameters
from cogit.operators.unitary_fits import polar, power

if TYPE_CHECKING:
    from collections.abc import Callable

EXPONENTS = (-2.5, -1.0, -0.3, 0.37, 1.0, 1.9)
# The float32 figure of the systems that this follows; rounding alone is 1e-6.
UNITARY_FLOAT32 = 3e-5
TURN = complex(np.exp(2.5j))


# ---- Hermitian matrices and their functions ----


def test_parameters_are_the_triangles() -> None:
    parameters = gaussian(5, 5, dtype=torch.float64)
    matrix = hermitian(parameters)
    assert torch.equal(matrix, matrix.mH)
    for i in range(5):
        for j in range(i):
            assert matrix[i, j] == complex(parameters[i, j], -parameters[j, i])
    assert torch.equal(matrix.diagonal(), parameters.diagonal().to(torch.complex128))
    assert torch.equal(hermitian_parameters(matrix), parameters)
    assert hermitian(parameters.float()).dtype == torch.complex64


def exponential(matrix: Tensor) -> Tensor:
    def divided(x: Tensor, y: Tensor) -> Tensor:
        half = (x - y) / 2
        ratio = torch.where(half == 0, 1.0, torch.sinh(half) / torch.where(half == 0, 1.0, half))
        return torch.exp((x + y) / 2) * ratio

    return hermitian_function(matrix, torch.exp, divided)


@pytest.mark.parametrize("name", GENERATORS)
def test_a_function_and_its_gradient(name: str) -> None:
    """The matrix exponential, whose own gradient in torch does not use eigenvectors."""
    weight = gaussian(4, 4, seed=9)
    gradients = []
    for function in (exponential, torch.matrix_exp):
        matrix = GENERATORS[name].clone().requires_grad_()
        value = function((matrix + matrix.mH) / 2)
        close(value, torch.matrix_exp(GENERATORS[name]), EXACT * 20)  # up to e³
        (value * weight).sum().abs().backward()
        assert matrix.grad is not None
        gradients.append(matrix.grad)
    # Entries reach e³; matrix_exp scales and squares, which costs a digit or two.
    close(gradients[0], gradients[1], 1e-10)
    # The Hermitian part counts, so entries may be moved one by one.
    skewed = (GENERATORS[name] + 0.1 * weight).requires_grad_()
    assert gradcheck(exponential, skewed)


# ---- the dense transform ----


@pytest.mark.parametrize("norm", [0.0, 0.1, 1.0, 30.0])
def test_cayley_is_its_definition(norm: float) -> None:
    matrix = generator(40, norm=norm)
    close(cayley(matrix), dense_cayley(matrix.numpy()), EXACT * max(norm, 1.0))
    assert unitarity_deviation(cayley(matrix)) < EXACT
    assert unitarity_deviation(cayley(matrix.to(torch.complex64))) < UNITARY_FLOAT32


def test_zero_gives_the_identity_exactly() -> None:
    assert torch.equal(cayley(GENERATORS["zero"]), GENERATORS["identity"])


@pytest.mark.parametrize("norm", [0.0, 0.3, 3.0, 30.0])
def test_inverse_cayley(norm: float) -> None:
    matrix = generator(20, norm=norm)
    # The rounding of U is enlarged by 1 + h² in H.
    close(inverse_cayley(cayley(matrix)), matrix, EXACT * (1 + norm**2))
    single = cayley(matrix.to(torch.complex64))
    close(cayley(inverse_cayley(single)), single.numpy(), 1e-4)
    if norm <= 3:
        close(inverse_cayley(single), matrix, 1e-4)  # ε h² is 1e-6
    eye, unitary = np.eye(20), cayley(matrix).numpy()
    definition = -1j * (unitary - eye) @ np.linalg.inv(unitary + eye)
    close(inverse_cayley(cayley(matrix)), definition, EXACT * (1 + norm**2))


@pytest.mark.parametrize("dtype", [torch.complex64, torch.complex128])
def test_inverse_cayley_up_to_its_limit(dtype: torch.dtype) -> None:
    """Just inside h = ε^(-1/3) the round trip holds; just outside it is refused."""
    limit = torch.finfo(dtype).eps ** (-1 / 3)
    angles = [2 * np.arctan(h) for h in (0.8 * limit, -0.8 * limit, 0.5, 0.0)]
    unitary = with_angles(angles).to(dtype)
    close(cayley(inverse_cayley(unitary)), unitary, 1e-4)
    for beyond in (2 * np.arctan(1.5 * limit), np.pi):
        with pytest.raises(ValueError, match=r"^\[inverse_cayley\] .*eigenvalue at -1, got .*°;"):
            inverse_cayley(with_angles([beyond, 0.5, 0.0]).to(dtype))


@pytest.mark.parametrize("name", GENERATORS)
def test_dense_gradients(name: str) -> None:
    parameters = hermitian_parameters(GENERATORS[name]).requires_grad_()
    assert gradcheck(lambda p: cayley(hermitian(p)), parameters)
    assert gradcheck(lambda p: inverse_cayley(cayley(hermitian(p))), parameters)
    for exponent in (-0.6, 0.0, 2.3):
        assert gradcheck(lambda p, e=exponent: cayley_power(hermitian(p), e), parameters)
        # Turned by a phase, so that some angles wrap around and none lies on the branch at π.
        assert gradcheck(
            lambda p, e=exponent: geodesic_power(TURN * cayley(hermitian(p)), e), parameters
        )


# ---- powers of a dense unitary ----


@pytest.mark.parametrize("size", [1, 2, 7, 60])
@pytest.mark.parametrize("exponent", EXPONENTS)
def test_geodesic_power_is_the_schur_one(size: int, exponent: float) -> None:
    unitary = torch.from_numpy(polar(gaussian(size, size, seed=size).numpy()))
    close(geodesic_power(unitary, exponent), power(unitary.numpy(), exponent))
    matrix = inverse_cayley(unitary)
    # The rounding of U is enlarged by h² in H.
    scale = 1 + float(torch.linalg.matrix_norm(matrix, 2)) ** 2
    close(cayley_power(matrix, exponent), power(unitary.numpy(), exponent), 1e-14 * scale + EXACT)


@pytest.mark.parametrize(
    "angles",
    [
        [np.pi, 0.0, 0.0],
        [np.pi, np.pi, 1.0],
        [1.0, 1.0, -2.0, -2.0],
        [0.0] * 4,
        [np.pi] * 3,
        list(np.linspace(-3, 3, 9)),
    ],
)
@pytest.mark.parametrize("dtype", [torch.complex64, torch.complex128])
def test_powers_at_a_half_turn_and_repeated_angles(angles: list[float], dtype: torch.dtype) -> None:
    unitary = with_angles(angles).to(dtype)
    tolerance = UNITARY_FLOAT32 if dtype == torch.complex64 else EXACT
    assert torch.equal(geodesic_power(unitary, 0.0), torch.eye(len(angles), dtype=dtype))
    close(geodesic_power(unitary, 1.0), unitary, tolerance)
    close(geodesic_power(unitary, -1.0), unitary.mH.resolve_conj(), tolerance)
    for exponent in EXPONENTS:
        turned = geodesic_power(unitary, exponent)
        assert unitarity_deviation(turned) < tolerance
        # The angle of -1 is +π whatever the rounding, so no power depends on it.
        close(turned, with_angles([exponent * a for a in angles]).to(dtype), tolerance)
        both = geodesic_power(unitary, exponent + 0.25)
        close(turned @ geodesic_power(unitary, 0.25), both, tolerance)


def test_eigenvalues_within_rounding_of_minus_one_turn_the_same_way() -> None:
    off = 1e-10  # below √ε = 1.5e-8
    unitary = with_angles([np.pi - off, -np.pi + off, 1.0])
    expected = with_angles([0.5 * np.pi, 0.5 * np.pi, 0.5])
    close(geodesic_power(unitary, 0.5), expected, 2 * off)
    apart = with_angles([np.pi - 1e-6, -np.pi + 1e-6, 1.0])
    close(geodesic_power(apart, 0.5), with_angles([0.5 * np.pi, -0.5 * np.pi, 0.5]), 2e-6)


# ---- low rank ----


@pytest.mark.parametrize("name", PAIRS)
def test_low_rank_is_its_definition(name: str) -> None:
    x, y = PAIRS[name]()
    operator = LowRankCayley(x, y)
    expected = dense_low_rank(x.numpy(), y.numpy())
    states = gaussian(6, len(x), seed=5)
    close(operator.dense(), expected)
    close(operator.apply(states), states.numpy() @ expected.T)
    close(operator.adjoint(states), states.numpy() @ expected.conj())
    left, right = operator.change()
    assert left.shape == right.shape == (len(x), 2 * x.shape[1])
    close(left @ right.mH, expected - np.eye(len(x)))
    close(cayley(low_rank_generator(x, y)), expected)  # the dense transform of the same K


@pytest.mark.parametrize("name", PAIRS)
def test_low_rank_powers(name: str) -> None:
    x, y = PAIRS[name]()
    operator, states = LowRankCayley(x, y), gaussian(6, len(x), seed=5)
    assert torch.equal(operator.apply(states, 0.0), states)
    assert torch.equal(operator.dense(0.0), torch.eye(len(x), dtype=x.dtype))
    unitary = dense_low_rank(x.numpy(), y.numpy())
    for exponent in EXPONENTS:
        close(operator.dense(exponent), power(unitary, exponent))
        assert unitarity_deviation(operator.dense(exponent)) < EXACT
        close(operator.apply(operator.apply(states, exponent), -exponent), states)
        both = operator.apply(states, exponent + 0.3)
        close(operator.apply(operator.apply(states, 0.3), exponent), both)
        width = 2 * x.shape[1] if abs(exponent) == 1 else min(2 * x.shape[1], len(x))
        left, right = operator.change(exponent)
        assert left.shape == right.shape == (len(x), width)
    # Two formulas meet at λ = 1.
    close(operator.dense(1.0 - 1e-14), operator.dense(1.0))


@pytest.mark.parametrize("name", PAIRS)
@pytest.mark.parametrize("exponent", [1.0, -1.0, 0.0, 0.6, -1.7])
def test_low_rank_gradients_are_those_of_the_dense_route(name: str, exponent: float) -> None:
    weight = gaussian(6, len(PAIRS[name]()[0]), seed=8)

    def dense(x: Tensor, y: Tensor, states: Tensor) -> Tensor:
        eye = torch.eye(len(x), dtype=x.dtype)
        skew = exponent * (x @ y.mH - y @ x.mH)
        if abs(exponent) == 1.0:  # the definition, differentiated by torch
            return states @ (torch.linalg.inv(eye + skew / 2) @ (eye - skew / 2)).T
        return states @ cayley_power(low_rank_generator(x, y), exponent).T

    def low_rank(x: Tensor, y: Tensor, states: Tensor) -> Tensor:
        return LowRankCayley(x, y).apply(states, exponent)

    results = []
    for route in (dense, low_rank):
        inputs = [*PAIRS[name](), gaussian(6, weight.shape[1], seed=5)]
        inputs = [value.clone().requires_grad_() for value in inputs]
        value = route(*inputs)
        (value - weight).abs().square().sum().backward()
        results.append([value, *(entry.grad for entry in inputs)])
    for expected, found in zip(*results, strict=True):
        assert torch.isfinite(found.abs()).all()
        # Gradients reach 30, through inverses of condition 10.
        close(found, expected, 1e-10)


@pytest.mark.parametrize("name", PAIRS)
def test_low_rank_gradients_are_differences(name: str) -> None:
    x, y = (value.requires_grad_() for value in map(torch.clone, PAIRS[name]()))
    states = gaussian(2, len(x), seed=5).requires_grad_()
    for exponent in (1.0, 0.6):
        assert gradcheck(
            lambda x, y, psi, e=exponent: LowRankCayley(x, y).apply(psi, e), (x, y, states)
        )


def test_nothing_of_size_q_by_q_is_formed() -> None:
    """At this q one (q, q) matrix takes 80 GB."""
    x, y = (gaussian(100_000, 1, seed=s, dtype=torch.complex64) / 300 for s in (1, 2))
    x.requires_grad_()
    y.requires_grad_()
    states = gaussian(2, 100_000, seed=3, dtype=torch.complex64)
    for exponent in (1.0, 0.5):
        LowRankCayley(x, y).apply(states, exponent).abs().sum().backward()
    assert x.grad is not None
    assert torch.isfinite(x.grad.abs()).all()


def test_nan_stays_in_its_row() -> None:
    operator, states = LowRankCayley(*PAIRS["plain"]()), gaussian(3, 9)
    clean = operator.apply(states, 0.5)
    states[1, 4] = torch.nan
    assert torch.equal(operator.apply(states, 0.5)[[0, 2]], clean[[0, 2]])


# ---- training ----


def train(
    parameters: list[Tensor], turn: Callable[[Tensor], Tensor], source: Tensor, target: Tensor
) -> float:
    """100 steps of Adam on the Born loss 1 - |<t|Us>|²; the last loss."""
    optimiser = torch.optim.Adam(parameters, lr=0.05, weight_decay=1e-4)
    loss = torch.tensor(torch.inf)
    for _ in range(100):
        optimiser.zero_grad()
        overlap = (target.conj() * turn(source)).sum(dim=1)
        loss = (1 - overlap.abs().square()).mean()
        loss.backward()
        assert all(torch.isfinite(entry.grad.abs()).all() for entry in parameters)  # type: ignore[union-attr]
        optimiser.step()
    return float(loss.detach())


@pytest.mark.parametrize("seed", range(3))
def test_training_finds_a_planted_rotation(seed: int) -> None:
    """Dense and low rank, in float32; unitary still, and U then Uᴴ is the identity on states."""
    size, rank = 12, 2
    axes = [gaussian(size, rank, seed=seed + s) / size**0.5 for s in (10, 20)]
    planted = torch.from_numpy(dense_low_rank(axes[0].numpy(), axes[1].numpy()))
    source = gaussian(128, size, seed=seed, dtype=torch.complex64)
    source = source / source.norm(dim=1, keepdim=True)
    target = source @ planted.to(torch.complex64).T
    start = float((1 - (target.conj() * source).sum(dim=1).abs().square()).mean())

    free = torch.zeros(size, size, requires_grad=True)
    x = (gaussian(size, rank, seed=seed, dtype=torch.complex64) / size**0.5).requires_grad_()
    y = torch.zeros(size, rank, dtype=torch.complex64, requires_grad=True)
    losses = [
        train([free], lambda states: states @ cayley(hermitian(free)).T, source, target),
        train([x, y], lambda states: LowRankCayley(x, y).apply(states), source, target),
    ]
    assert start > 0.1  # the identity is no near-optimum
    assert max(losses) < 0.01, losses

    with torch.no_grad():
        dense, operator = cayley(hermitian(free)), LowRankCayley(x, y)
        for unitary in (dense, operator.dense(), operator.dense(0.5), geodesic_power(dense, 0.5)):
            assert unitarity_deviation(unitary) < UNITARY_FLOAT32
        # Both fidelities to the target exceed 0.99, so the two agree up to a phase.
        overlap = (operator.apply(source).conj() * (source @ dense.T)).sum(dim=1)
        assert float(overlap.abs().square().mean()) > 0.96
        back = operator.adjoint(operator.apply(source)), source @ dense.T @ dense.conj()
        for states in back:
            fidelity = (source.conj() * states).sum(dim=1).abs().square()
            # Rounding of the norm and the overlap is 1e-6 in float32.
            np.testing.assert_allclose(fidelity.numpy(), 1.0, rtol=0, atol=1e-5)


# ---- what is refused ----

EYE = torch.eye(3, dtype=torch.complex64)
TALL = torch.ones(4, 2, dtype=torch.complex64)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: hermitian(EYE), TypeError, r"hermitian\] expected float32 or float64, got comp"),
        (lambda: hermitian(torch.ones(2, 3)), ValueError, r"hermitian\] .*\(q, q\), got \(2, 3\)"),
        (lambda: hermitian(torch.tensor([[np.nan]])), ValueError, r"hermitian\] .*got NaN"),
        (lambda: cayley(EYE.real), TypeError, r"cayley\] .*complex128, got float32; convert"),
        (lambda: cayley(EYE.numpy()), TypeError, r"cayley\] expected a torch tensor, got ndarray"),
        (lambda: cayley(EYE[None]), ValueError, r"cayley\] expected a square .*got \(1, 3, 3\)"),
        (lambda: cayley(EYE[:0, :0]), ValueError, r"cayley\] expected a square .*got \(0, 0\)"),
        (lambda: cayley(EYE * torch.inf), ValueError, r"cayley\] expected finite values"),
        (lambda: cayley(1j * EYE), ValueError, r"cayley\] expected a Hermitian .* = 2\.0e\+00; "),
        (lambda: cayley_power(1j * EYE, 0.5), ValueError, r"cayley_power\] expected a Hermitian"),
        (lambda: cayley_power(EYE, np.nan), ValueError, r"cayley_power\] expected a finite exp"),
        (lambda: inverse_cayley(2 * EYE), ValueError, r"inverse_cayley\] expected a unitary"),
        (lambda: inverse_cayley(-EYE), ValueError, r"inverse_cayley\] .* at an angle of 180\.000°"),
        (lambda: geodesic_power(0.9 * EYE, 1.0), ValueError, r"geodesic_power\] .* = 1\.9e-01"),
        (lambda: geodesic_power(EYE, np.inf), ValueError, r"geodesic_power\] .*got inf"),
        (lambda: unitarity_deviation(TALL), ValueError, r"unitarity_deviation\] .*got \(4, 2\)"),
        (lambda: LowRankCayley(TALL, TALL[:3]), ValueError, r"LowRankCayley\] .*and \(3, 2\)"),
        (lambda: LowRankCayley(TALL.real, TALL), TypeError, r"LowRankCayley\] .*got float32"),
        (lambda: LowRankCayley(TALL, TALL.cdouble()), TypeError, r"expected complex64, got com"),
        (lambda: LowRankCayley(TALL, TALL * np.nan), ValueError, r"LowRankCayley\] .*finite"),
        (lambda: LowRankCayley(TALL, TALL).apply(EYE), ValueError, r"rows \(batch, 4\), got \(3,"),
        (lambda: LowRankCayley(TALL, TALL).apply(TALL.T.real), TypeError, r"apply\] .*got float32"),
        (lambda: LowRankCayley(TALL, TALL).change(np.nan), ValueError, r"finite exponent"),
    ],
)
def test_refusals(call: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message) as caught:
        call()
    assert str(caught.value).startswith("[")
    assert "\n" not in str(caught.value)


def test_what_training_leaves_is_accepted() -> None:
    """Deviations of a float32 unitary after many products are not mistaken for errors."""
    noisy = EYE + UNITARY_FLOAT32 * gaussian(3, 3, dtype=torch.complex64) / 3
    assert unitarity_deviation(geodesic_power(noisy, 0.5)) < UNITARY_FLOAT32
    inverse_cayley(noisy)
    cayley((noisy + noisy.mH) / 2 + 1e-6j * EYE)
