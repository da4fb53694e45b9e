"""Width, depth and blocks of a run: read from the model, and the same for every phase.

A preset names the width of its own model. On another model the width is the model's, the dimension
of encoded states keeps the preset's ratio to it, and blocks keep their relative depth.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from cogit.entries import entry
from cogit.layers import LayerRange, describe_blocks

if TYPE_CHECKING:
    from cogit.identity import ModelIdentity
    from cogit.pipeline.plan import Plan


@dataclass(frozen=True)
class Dims:
    """d_model, n_layers: of the model. q: of encoded states. layers: the candidate blocks."""

    d_model: int
    n_layers: int
    q: int
    layers: tuple[int, ...]

    @property
    def ratio(self) -> float:
        """q / d_model."""
        return self.q / self.d_model

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "layers": list(self.layers)}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Dims:
        """KeyError, TypeError or ValueError for other entries."""
        layers = entry(data, "layers", list)
        return cls(
            d_model=entry(data, "d_model", int),
            n_layers=entry(data, "n_layers", int),
            q=entry(data, "q", int),
            layers=tuple(entry(layers, i, int) for i in range(len(layers))),
        )


def same_depth(block: int, n_from: int, n_to: int) -> int:
    """The block of a model of ``n_to`` blocks in which the middle of a block of another one lies.

    The middle of block i of n is at the share (i + 1/2) / n of the depth. ValueError for a block
    that is not there.
    """
    if not 0 <= block < n_from or n_to < 1:
        message = f"[layers] expected a block of 0..{n_from - 1}, got {block}"
        raise ValueError(message)
    return (2 * block + 1) * n_to // (2 * n_from)


def resolve_dims(plan: Plan, identity: ModelIdentity) -> tuple[Dims, list[str]]:
    """The dimensions of a plan on a model, and a line for each that is not the preset's.

    Raises ValueError for blocks that the model does not have.
    """
    base, notes = plan.base, []
    q = base.q if plan.q is None else plan.q
    if identity.d_model != base.d_model:
        notes.append(
            f"d_model is {identity.d_model}, the model's, not {base.d_model}, the preset's"
        )
        if plan.q is None:
            q = max(1, round(base.q / base.d_model * identity.d_model))
            notes.append(
                f"q is {q}, in the preset's ratio {base.q / base.d_model:.4g} to d_model, not "
                f"{base.q}"
            )
    if plan.layers is not None:
        layers = LayerRange.parse(plan.layers).resolve(identity.n_layers)
    elif plan.preset_layers or plan.trains:
        layers = _mapped(plan, identity, notes)
    else:
        layers = tuple(range(identity.n_layers))
    return Dims(identity.d_model, identity.n_layers, q, layers), notes


def _mapped(plan: Plan, identity: ModelIdentity, notes: list[str]) -> tuple[int, ...]:
    base, depth = plan.base, identity.n_layers
    if depth == base.n_layers:
        return base.layers
    found = tuple(sorted({same_depth(one, base.n_layers, depth) for one in base.layers}))
    notes.append(
        f"{describe_blocks(base.layers)} of {base.n_layers} are {describe_blocks(found)} of "
        f"{depth} here, at the same relative depth"
    )
    return found
