"""Composition: operators one after the other, folded to one affine of the summed rank.

A norm restore is a scalar of the token and does not pass through a constant part. What follows is
exact, and everything else is refused: no operator restores; every one restores and all after the
first are linear (no constant part), so that the scalars merge into one; or none restores and the
composition itself does, once at the end.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np

from cogit.affine import Affine
from cogit.entries import entry
from cogit.operators import algebra
from cogit.operators.ablation import Ablation
from cogit.operators.additive import Additive
from cogit.operators.algebra import Factors
from cogit.operators.base import (
    ALWAYS,
    ControlSpace,
    Dial,
    Law,
    Operator,
    load_operator,
    register,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

_MAX_PARTS = 64


@register
@dataclass(frozen=True)
class Composed(Operator):
    """h' = (T_n ∘ … ∘ T_1)(h), each part at the strength λ times its own factor.

    parts: the operators, the first one applied first. strengths: a factor for each; 1 by default.
    restore: give every token its own norm back, once, after all of them.

    ``a @ b`` is Composed((b, a)). Raises ValueError for parts of different widths and for norm
    restores that do not fold into one affine (see the top of this file).
    """

    parts: tuple[Operator, ...]
    strengths: tuple[float, ...] = ()
    restore: bool = False

    kind: ClassVar[str] = "composed"
    formula: ClassVar[str] = "T_n(… T_1(h)), each at λ times its factor"
    source: ClassVar[str] = "cogit"
    dial: ClassVar[Dial] = "parts"

    def __post_init__(self) -> None:
        factors = tuple(map(float, self.strengths or (1.0,) * len(self.parts)))
        if not self.parts or len(factors) != len(self.parts):
            message = (
                f"[composed] expected at least one operator and as many strengths, got "
                f"{len(self.parts)} and {len(factors)}"
            )
            raise ValueError(message)
        parts, factors = _flattened(self.parts, factors)
        if len(parts) > _MAX_PARTS:
            message = f"[composed] expected at most {_MAX_PARTS} operators, got {len(parts)}"
            raise ValueError(message)
        widths = sorted({part.d_model for part in parts})
        if len(widths) > 1 or not np.isfinite(factors).all():
            message = (
                f"[composed] expected operators of one width at finite strengths, got widths "
                f"{widths} and strengths {factors}"
            )
            raise ValueError(message)
        object.__setattr__(self, "parts", parts)
        object.__setattr__(self, "strengths", factors)
        object.__setattr__(self, "restore", bool(self.restore))
        self._merged_restore([part.fold(x) for part, x in zip(parts, factors, strict=True)])

    @property
    def d_model(self) -> int:
        return self.parts[0].d_model

    def fold(self, strength: float) -> Affine:
        folds = [
            part.fold(strength * factor)
            for part, factor in zip(self.parts, self.strengths, strict=True)
        ]
        restore = self._merged_restore(folds)
        joined = functools.reduce(
            lambda inner, outer: algebra.compose(outer, inner), map(Factors.of, folds)
        )
        return joined.rounded(restore=restore)

    def span(self) -> NDArray[np.float64]:
        columns = np.concatenate([part.span() for part in self.parts], axis=1)
        if columns.shape[1] == 0:
            return columns
        left, sizes, _ = np.linalg.svd(columns, full_matrices=False)
        return np.asarray(left[:, sizes > 1e-12])

    def laws(self) -> frozenset[Law]:
        if self.restore or all("norm_preserving" in part.laws() for part in self.parts):
            return ALWAYS | {"norm_preserving"}
        return ALWAYS

    def randomised(self, seed: int, space: ControlSpace) -> Composed:
        """The control of every part, in the same order at the same strengths."""
        controls = tuple(part.randomised(seed + i, space) for i, part in enumerate(self.parts))
        return Composed(controls, self.strengths, self.restore)

    def tensors(self) -> dict[str, NDArray[Any]]:
        return {
            f"{i}.{name}": value
            for i, part in enumerate(self.parts)
            for name, value in part.tensors().items()
        }

    def parameters(self) -> dict[str, Any]:
        parts = [
            {"kind": part.kind, "tensors": sorted(part.tensors()), "parameters": part.parameters()}
            for part in self.parts
        ]
        return {"parts": parts, "strengths": list(self.strengths), "restore": self.restore}

    @classmethod
    def from_parts(cls, tensors: Mapping[str, NDArray[Any]], parameters: Mapping[str, Any]) -> Self:
        saved = entry(parameters, "parts", list)
        strengths = entry(parameters, "strengths", list)
        if len(saved) > _MAX_PARTS:
            message = f"at most {_MAX_PARTS} parts, got {len(saved)}"
            raise ValueError(message)
        parts: list[Operator] = []
        for i, one in enumerate(saved):
            kind = entry(one, "kind", str)
            if kind == cls.kind:
                message = "parts that are not composed themselves"
                raise ValueError(message)
            values = {name: tensors[f"{i}.{name}"] for name in entry(one, "tensors", list)}
            parts.append(load_operator(kind, values, entry(one, "parameters", dict)))
        factors = tuple(entry(strengths, i, float) for i in range(len(strengths)))
        return cls(tuple(parts), factors, entry(parameters, "restore", bool))

    @classmethod
    def example(cls, d_model: int, seed: int) -> Self:
        parts = (Additive.example(d_model, seed), Ablation.example(d_model, seed + 1))
        return cls(parts, (1.0, 0.6))

    @classmethod
    def identity(cls, d_model: int) -> Self:
        return cls((Additive.identity(d_model), Ablation.identity(d_model)), restore=True)

    def _merged_restore(self, folds: list[Affine]) -> bool:
        """Whether the one affine restores norms; ValueError where no one affine can."""
        restoring = [fold.restore for fold in folds]
        if not any(restoring):
            return self.restore
        shifted = any(Factors.of(fold).constant.any() for fold in folds[1:])
        if self.restore or not all(restoring) or shifted:
            kinds = ", then ".join(
                f"{part.kind}{' (restores)' if restores else ''}"
                for part, restores in zip(self.parts, restoring, strict=True)
            )
            message = (
                f"[composed] expected operators without a norm restore, or all with one and linear "
                f"after the first, got {kinds}: these are not one affine; drop their restores and "
                f"use Composed(…, restore=True), or steer successive blocks"
            )
            raise ValueError(message)
        return True


def _flattened(
    parts: tuple[Operator, ...], factors: tuple[float, ...]
) -> tuple[tuple[Operator, ...], tuple[float, ...]]:
    """Compositions without a restore of their own among the parts, taken apart."""
    flat: list[Operator] = []
    strengths: list[float] = []
    for part, factor in zip(parts, factors, strict=True):
        if isinstance(part, Composed) and not part.restore:
            flat += part.parts
            strengths += [factor * own for own in part.strengths]
        else:
            flat.append(part)
            strengths.append(factor)
    return tuple(flat), tuple(strengths)
