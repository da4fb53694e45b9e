"""Matched states for the Born training: checked, split, centred where asked, of unit norm."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from cogit import artefact

if TYPE_CHECKING:
    from typing import Any, TypeAlias

    from numpy.typing import NDArray

    States: TypeAlias = NDArray[np.complexfloating[Any, Any]] | Tensor

_MIN_ROWS = 2


@dataclass(frozen=True, eq=False)
class PairedStates:
    """Unit states of matched pairs, complex.

    source, target: (n, q), to train on. held_source, held_target: (m, q), never trained on.
    train_rows, held_out_rows: which of the given rows they are.
    mean: (q,), what was taken out of every state before its norm was set to 1; None if nothing was.
    """

    source: Tensor
    target: Tensor
    held_source: Tensor
    held_target: Tensor
    train_rows: NDArray[np.int64]
    held_out_rows: NDArray[np.int64]
    mean: Tensor | None

    def shuffled(self, seed: int) -> PairedStates:
        """Half of the training pairs, drawn at random, with their classes exchanged."""
        order = np.random.default_rng([seed, 1]).permutation(len(self.source))
        swap = torch.from_numpy(order % 2 == 0)[:, None]
        return replace(
            self,
            source=torch.where(swap, self.target, self.source),
            target=torch.where(swap, self.source, self.target),
        )

    def fingerprint(self) -> str:
        """A digest of the training states."""
        tensors = {"source": self.source.numpy(), "target": self.target.numpy()}
        return artefact.content_hash(tensors, {})


def pair_states(
    source: States,
    target: States,
    *,
    held_out: float,
    seed: int,
    centred: bool,
    dtype: torch.dtype,
) -> PairedStates:
    """Split matched rows (n, q) by a seed, centre by the training rows, and normalise.

    Raises TypeError for states that are not complex, ValueError for other shapes, values that are
    not finite, states of zero length and too few pairs.
    """
    first, second = _complex_rows(source, "source"), _complex_rows(target, "target")
    if first.shape != second.shape:
        message = (
            f"[born] expected source and target states of one shape, rows matched, got "
            f"{tuple(first.shape)} and {tuple(second.shape)}"
        )
        raise ValueError(message)
    train_rows, held_rows = split_rows(len(first), held_out, seed)
    mean = None
    if centred:
        mean = torch.cat([first[train_rows], second[train_rows]]).mean(dim=0)
        first, second = first - mean, second - mean
    first, second = (_unit(rows).to(dtype) for rows in (first, second))
    return PairedStates(
        source=first[train_rows],
        target=second[train_rows],
        held_source=first[held_rows],
        held_target=second[held_rows],
        train_rows=train_rows,
        held_out_rows=held_rows,
        mean=None if mean is None else mean.to(dtype),
    )


def split_rows(n_rows: int, share: float, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Row numbers to train on and to hold out, each in order; at least two of either."""
    held = max(_MIN_ROWS, round(share * n_rows))
    if n_rows - held < _MIN_ROWS:
        message = (
            f"[born] expected at least {2 * _MIN_ROWS} pairs, two to train on and two to hold "
            f"out, got {n_rows}"
        )
        raise ValueError(message)
    order = np.random.default_rng([seed, 0]).permutation(n_rows)
    return np.sort(order[held:]), np.sort(order[:held])


def _complex_rows(states: States, name: str) -> Tensor:
    """complex128 rows on the CPU, so that centring loses nothing."""
    rows = (
        states.detach().cpu()
        if isinstance(states, Tensor)
        else torch.from_numpy(np.asarray(states))
    )
    if not rows.is_complex():
        message = (
            f"[born] expected complex {name} states, got {rows.dtype}; encode them by a complex "
            f"projection first"
        )
        raise TypeError(message)
    if rows.ndim != 2 or not rows.numel():
        message = f"[born] expected {name} states (n, q), got {tuple(rows.shape)}"
        raise ValueError(message)
    rows = rows.resolve_conj().to(torch.complex128)
    if not bool(torch.isfinite(torch.view_as_real(rows)).all()):
        message = f"[born] expected finite {name} states, got NaN or infinity; record them again"
        raise ValueError(message)
    return rows


def _unit(rows: Tensor) -> Tensor:
    norms: Tensor = rows.norm(dim=1, keepdim=True)
    if float(norms.min()) == 0.0:
        message = "[born] expected states of a length above zero, got a row of zeros; leave it out"
        raise ValueError(message)
    unit: Tensor = rows / norms
    return unit
