"""What every operator is: a map on the residual stream that folds to one low-rank affine."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol, Self, TypeVar, runtime_checkable

import numpy as np

from cogit.errors import ArtefactError
from cogit.operators import algebra
from cogit.operators.algebra import Factors
from cogit.operators.inverse import Inverse

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from cogit.affine import Affine

Law = Literal["strength_zero", "rowwise", "identity", "outside_untouched", "norm_preserving"]
ALWAYS: frozenset[Law] = frozenset({"strength_zero", "rowwise", "identity", "outside_untouched"})
ControlSpace = Literal["subspace", "space"]
Dial = Literal["geodesic", "lifted", "linear", "parts"]


class Operator(ABC):
    """A map on the residual stream at one block, applied to each token on its own.

    A new operator is one file: a frozen dataclass with the members below, ``@register``, and a
    line in ``operators/__init__.py``. tests/test_laws.py then runs it.
    """

    kind: ClassVar[str]
    formula: ClassVar[str]
    source: ClassVar[str]
    dial: ClassVar[Dial]
    """What the strength λ is, before any norm restore.

    geodesic: a real power: strengths add on the residual stream, and -λ is the inverse. lifted: a
    real power of a unitary on the lifted state, inverse there at -λ, but not on the residual
    stream. linear: a factor of the change; λ = 1 done twice is not λ = 2. parts: each part's own.
    """

    @property
    @abstractmethod
    def d_model(self) -> int:
        """Width of the residual stream."""

    @abstractmethod
    def fold(self, strength: float) -> Affine:
        """The affine that applies this operator at a strength; the zero map at strength 0."""

    @abstractmethod
    def span(self) -> NDArray[np.float64]:
        """An orthonormal basis (d_model, m) outside which nothing changes (before a restore)."""

    @abstractmethod
    def randomised(self, seed: int, space: ControlSpace) -> Operator:
        """A control of the same size: another map in the same subspace, or in a random one."""

    @abstractmethod
    def tensors(self) -> dict[str, NDArray[Any]]:
        """The arrays to save."""

    def parameters(self) -> dict[str, Any]:
        """The JSON values to save beside them."""
        return {}

    @classmethod
    @abstractmethod
    def from_parts(cls, tensors: Mapping[str, NDArray[Any]], parameters: Mapping[str, Any]) -> Self:
        """The inverse of ``tensors`` and ``parameters``; KeyError or ValueError if they misfit."""

    @classmethod
    @abstractmethod
    def example(cls, d_model: int, seed: int) -> Self:
        """A random member of the family, for the laws."""

    @classmethod
    @abstractmethod
    def identity(cls, d_model: int) -> Self:
        """The member of the family that changes nothing."""

    def laws(self) -> frozenset[Law]:
        """Which of the five laws hold for this operator."""
        return ALWAYS

    def inverse(self, strength: float = 1.0) -> Inverse:
        """The exact inverse of what this does to the residual stream at a strength, row by row.

        Raises ValueError where there is none: at a clamp (a rotation by 90°) or a full ablation.
        """
        return Inverse(self.fold(strength), f"{self.kind} at strength {strength:g}")

    def inverse_operator(self, strength: float = 1.0) -> Operator:
        """The inverse as a ``lowrank`` operator, which a model can hold; apply it at strength 1.

        Raises ValueError as ``inverse``, and for an operator that restores norms: its inverse is a
        scalar for each token, no affine; use ``inverse(strength).apply`` on states instead.
        """
        undo = self.inverse(strength)
        if undo.forward.restore:
            message = (
                f"[inverse] expected an operator without a norm restore, got {self.kind} with one: "
                f"its inverse is no affine; use inverse().apply() on states"
            )
            raise ValueError(message)
        return load_operator("lowrank", undo.back.lowrank(), {})

    def power(self, exponent: float) -> Operator:
        """The operator that does at strength 1 the ``exponent``-th real power of this one at 1.

        Unless a kind says otherwise this is the power of the affine map on the residual stream, as
        a ``lowrank`` operator; power(-1) is the inverse. For kinds whose dial is ``geodesic`` or
        ``lifted`` it folds to what this one folds to at strength ``exponent``.

        Raises ValueError for an exponent that is not finite, with a norm restore (no affine), and
        where no real power exists (an eigenvalue that is zero or negative, such as a reflection's).
        """
        check_exponent(exponent)
        forward = self.fold(1.0)
        if forward.restore:
            message = (
                f"[power] expected an operator without a norm restore, got {self.kind} with one: "
                f"its powers are no affines"
            )
            raise ValueError(message)
        return load_operator("lowrank", algebra.power(Factors.of(forward), exponent).lowrank(), {})

    def __matmul__(self, first: Operator) -> Operator:
        """``a @ b``: apply b, then a. See ``operators/composed.py`` for what a restore allows."""
        if not isinstance(first, Operator):
            return NotImplemented
        composed: Any = _REGISTRY["composed"]  # its file imports this one
        joined: Operator = composed((first, self))
        return joined


@runtime_checkable
class Lifted(Protocol):
    """An operator that is a unitary on complex states made of residual-stream rows."""

    def states(self, h: NDArray[np.floating[Any]]) -> NDArray[np.complex128]:
        """Unit states (n, q) of rows (n, d_model)."""

    def unitary(self, strength: float) -> NDArray[np.complex128]:
        """U^λ, (q, q)."""


T = TypeVar("T", bound=Operator)
_REGISTRY: dict[str, type[Operator]] = {}


def register(cls: type[T]) -> type[T]:
    """Make an operator class known by its ``kind``."""
    if cls.kind in _REGISTRY:
        message = f"[operators] expected a new kind, got {cls.kind!r} twice"
        raise ValueError(message)
    _REGISTRY[cls.kind] = cls
    return cls


def registered() -> dict[str, type[Operator]]:
    """All operator classes by kind."""
    return dict(_REGISTRY)


def load_operator(
    kind: str, tensors: Mapping[str, NDArray[Any]], parameters: Mapping[str, Any]
) -> Operator:
    """Rebuild a saved operator. ArtefactError if the kind is unknown or its parts misfit."""
    if kind not in _REGISTRY:
        message = f"[load] expected an operator kind among {sorted(_REGISTRY)}, got {kind!r}"
        raise ArtefactError(message)
    try:
        return _REGISTRY[kind].from_parts(tensors, parameters)
    except (KeyError, ValueError, TypeError) as error:
        message = f"[load] expected the parts of a {kind} operator, got {error}"
        raise ArtefactError(message) from error


def as_vector(name: str, value: ArrayLike) -> NDArray[np.float64]:
    """A finite float64 vector, or ValueError."""
    vector = np.asarray(value, dtype=np.float64)
    if vector.ndim != 1 or vector.size == 0:
        message = f"[operators] expected {name} of shape (d_model,), got {vector.shape}"
        raise ValueError(message)
    if not np.isfinite(vector).all():
        message = f"[operators] expected finite values in {name}, got NaN or infinity"
        raise ValueError(message)
    return vector


def as_basis(name: str, value: ArrayLike) -> NDArray[np.float64]:
    """A (d_model, m) float64 matrix with orthonormal columns, or ValueError."""
    basis = np.asarray(value, dtype=np.float64)
    if basis.ndim != 2 or basis.shape[1] > basis.shape[0]:
        message = f"[operators] expected {name} of shape (d_model, m), got {basis.shape}"
        raise ValueError(message)
    # 1e-6: float32 files hold orthonormal columns to about 1e-7.
    if not np.allclose(basis.T @ basis, np.eye(basis.shape[1]), atol=1e-6):
        message = f"[operators] expected orthonormal columns in {name}, got others"
        raise ValueError(message)
    return basis


def check_exponent(exponent: float) -> None:
    """ValueError where an exponent is not finite."""
    if not np.isfinite(exponent):
        message = f"[power] expected a finite exponent, got {exponent}"
        raise ValueError(message)


def projection_power(operator: T, exponent: float) -> T:
    """The powers of an affine projection: itself for t > 0, the identity for t = 0, no other."""
    check_exponent(exponent)
    if exponent < 0:
        message = (
            f"[power] expected an exponent of zero or more of {operator.kind}, got {exponent:g}: "
            f"a projection has no inverse"
        )
        raise ValueError(message)
    return operator if exponent > 0 else operator.identity(operator.d_model)


def same_width(kind: str, mean: NDArray[np.float64], columns: NDArray[np.float64]) -> None:
    """ValueError unless the columns (d_model, m) are as long as the mean (d_model,)."""
    if columns.shape[0] != mean.size:
        message = (
            f"[{kind}] expected columns of the mean's width {mean.size}, got {columns.shape[0]}"
        )
        raise ValueError(message)


def random_basis(d_model: int, m: int, seed: int) -> NDArray[np.float64]:
    """Orthonormal columns (d_model, m), uniform over all such frames."""
    gaussian = np.random.default_rng(seed).standard_normal((d_model, m))
    q, r = np.linalg.qr(gaussian)
    return np.asarray(q * np.where(np.diag(r) < 0, -1.0, 1.0))


def random_direction(d_model: int, seed: int) -> NDArray[np.float64]:
    """A unit vector, uniform over the sphere. (d_model,)"""
    return np.asarray(random_basis(d_model, 1, seed)[:, 0])
