"""Two directions between two classes: two trained unitaries, or one and its exact inverse."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor

from cogit.training.born import BornResult, OnEpoch, train_born
from cogit.training.born_config import BornConfig
from cogit.training.born_measures import born_fidelity, centroid, transport
from cogit.training.cayley_module import UnitaryModule

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from cogit.training.born_states import States

Direction = Literal["negative_to_positive", "positive_to_negative"]
DIRECTIONS: tuple[Direction, Direction] = ("negative_to_positive", "positive_to_negative")
# Transport is in units of the distance of the centroids: less than this is no direction. A rotation
# by θ between them has 2 (1 + cos θ) more by its own names than exchanged.
_CLEAR, _MARGIN = 0.01, 0.1


@dataclass(frozen=True, eq=False)
class OperatorPair:
    """A unitary for each direction.

    positive_to_negative: None where the other one's exact inverse, its adjoint, serves.
    """

    negative_to_positive: UnitaryModule
    positive_to_negative: UnitaryModule | None = None

    @property
    def exact_inverse(self) -> bool:
        """Whether one direction is the adjoint of the other."""
        return self.positive_to_negative is None

    def turn(self, direction: Direction, states: Tensor) -> Tensor:
        """Carry states (n, q) in one direction."""
        return self._turn(direction)(states)

    def unitary(self, direction: Direction) -> NDArray[np.complexfloating[Any, Any]]:
        """The matrix (q, q) of one direction, complex, on the CPU."""
        _require_direction(direction)
        with torch.no_grad():
            if direction == "negative_to_positive":
                matrix = self.negative_to_positive.unitary()
            elif self.positive_to_negative is not None:
                matrix = self.positive_to_negative.unitary()
            else:
                matrix = self.negative_to_positive.unitary(-1.0)
        return np.asarray(matrix.cpu().resolve_conj().numpy())

    def round_trip(self, states: Tensor) -> float:
        """Mean |<ψ|V U ψ>|² of going there and back, for unit states (n, q): 1 if V inverts U.

        The identity has it too: it says that nothing is lost, not that anything is done.
        """
        there, back = (self._turn(direction) for direction in DIRECTIONS)
        return born_fidelity(lambda rows: back(there(rows)), states, states)

    def _turn(self, direction: Direction) -> Callable[[Tensor], Tensor]:
        _require_direction(direction)
        if direction == "negative_to_positive":
            return self.negative_to_positive
        if self.positive_to_negative is None:
            return self.negative_to_positive.adjoint
        return self.positive_to_negative


@dataclass(frozen=True)
class Polarity:
    """Where each operator carries the held-out states of the class that it claims to start from.

    own: mean transport towards the class that it claims to reach, in centroid distances, of both
    directions in the order of DIRECTIONS. other: of the operator of the other direction on the same
    states. error: twice the standard error of each entry of ``own``; margin_error: of the sum of
    the paired differences, own - other.
    """

    own: tuple[float, float]
    other: tuple[float, float]
    error: tuple[float, float]
    margin_error: float

    @property
    def margin(self) -> float:
        """By how much the names do better than exchanged, both directions added."""
        return sum(self.own) - sum(self.other)

    @property
    def verdict(self) -> Literal["right", "swapped", "unclear"]:
        """Right where each approaches, swapped where each would if the names were exchanged.

        Unclear where an operator does next to nothing, and near a half turn between the centroids,
        which both do alike: centred classes lie opposite each other, and there it is what the Born
        loss finds.
        """
        enough = max(_MARGIN, self.margin_error)
        if self.margin < -enough and min(self.other) > _CLEAR:
            return "swapped"
        approaches = all(
            value > max(_CLEAR, error) for value, error in zip(self.own, self.error, strict=True)
        )
        return "right" if approaches and self.margin > enough else "unclear"

    def to_json(self) -> dict[str, Any]:
        rows = zip(DIRECTIONS, self.own, self.other, self.error, strict=True)
        head = {"verdict": self.verdict, "margin": self.margin}
        return head | {
            name: {"own": own, "other": other, "two_standard_errors": error}
            for name, own, other, error in rows
        }


def polarity(
    pair: OperatorPair, train: tuple[Tensor, Tensor], held_out: tuple[Tensor, Tensor]
) -> Polarity:
    """Measure which way each operator goes.

    train, held_out: (negative, positive) unit states (n, q); the centroids and the global phase
    come from the first, the transport is measured on the second.
    """
    centroids = centroid(train[0]), centroid(train[1])
    reference = torch.cat(train)
    own, other, error, variance = [], [], [], 0.0
    for start, direction in enumerate(DIRECTIONS):
        measure = partial(
            transport,
            states=held_out[start],
            start=centroids[start],
            end=centroids[1 - start],
            reference=reference,
        )
        moved = measure(partial(pair.turn, direction)).double()
        exchanged = measure(partial(pair.turn, DIRECTIONS[1 - start])).double()
        own.append(float(moved.mean()))
        other.append(float(exchanged.mean()))
        error.append(2 * float(moved.std()) / len(moved) ** 0.5)
        variance += float((moved - exchanged).var()) / len(moved)
    return Polarity(
        own=(own[0], own[1]),
        other=(other[0], other[1]),
        error=(error[0], error[1]),
        margin_error=2 * variance**0.5,
    )


def check_polarity(
    pair: OperatorPair, train: tuple[Tensor, Tensor], held_out: tuple[Tensor, Tensor]
) -> Polarity:
    """As `polarity`; ValueError where the names are swapped, or neither direction is clear."""
    found = polarity(pair, train, held_out)
    told = (
        f"transport {found.own[0]:+.3f} of negative and {found.own[1]:+.3f} of positive states, "
        f"exchanged {found.other[0]:+.3f} and {found.other[1]:+.3f}"
    )
    if found.verdict == "swapped":
        message = (
            f"[polarity] expected each operator to carry its own class towards the other, got the "
            f"two names swapped ({told}); exchange negative_to_positive and positive_to_negative"
        )
        raise ValueError(message)
    if found.verdict == "unclear":
        message = (
            f"[polarity] expected each operator to carry its own class towards the other, got no "
            f"clear direction ({told}); train longer, on more pairs, and not on centred states"
        )
        raise ValueError(message)
    return found


@dataclass(frozen=True, eq=False)
class BornFit:
    """What `fit_born` found.

    results: by direction; one alone where the other is its exact inverse. projection: (d, q).
    states are those of negative_to_positive: its source is the negative class.
    """

    pair: OperatorPair
    results: dict[Direction, BornResult]
    polarity: Polarity
    round_trip: float
    projection: NDArray[np.complexfloating[Any, Any]] | None

    @property
    def mean(self) -> NDArray[np.complexfloating[Any, Any]] | None:
        """(q,): what was taken out of every encoded state, where states were centred."""
        mean = self.results["negative_to_positive"].states.mean
        return None if mean is None else np.asarray(mean.numpy())

    def to_json(self) -> dict[str, Any]:
        return {
            "exact_inverse": self.pair.exact_inverse,
            "polarity": self.polarity.to_json(),
            "round_trip_fidelity": self.round_trip,
            "directions": {name: result.to_json() for name, result in self.results.items()},
        }


def fit_born(
    negative: States | NDArray[np.floating[Any]],
    positive: States | NDArray[np.floating[Any]],
    config: BornConfig | None = None,
    *,
    projection: NDArray[np.complexfloating[Any, Any]] | None = None,
    exact_inverse: bool = False,
    checkpoint: str | Path | None = None,
    checkpoint_every: int = 10,
    resume: bool = False,
    device: str | torch.device = "cpu",
    show: bool = True,
    on_epoch: OnEpoch | None = None,
) -> BornFit:
    """Fit unitaries between two classes of matched states by the Born loss with Adam.

    negative, positive: residual-stream states (n, d), float, rows matched, with a ``projection``
    (d, q), complex: they are encoded as h @ projection. Or encoded states (n, q), complex, without
    one. Either is centred, if the config says so, and brought to unit norm.
    exact_inverse: train negative → positive alone and use its adjoint for the way back, instead
    of a second training. checkpoint and the rest: see `train_born`; each direction has a folder of
    its own in it.

    Both directions share the split into training and held-out pairs. The polarity is measured on
    the held-out ones and reported; `check_polarity` makes an error of it. **A high fidelity is no
    success** (see `cogit.training.born`).

    Raises as `train_born` does, and ValueError where projection and states do not fit.
    """
    config = config or BornConfig()
    states = _encode(negative, projection, "negative"), _encode(positive, projection, "positive")
    folder = None if checkpoint is None else Path(checkpoint)
    results: dict[Direction, BornResult] = {}
    for number, direction in enumerate(DIRECTIONS[: 1 if exact_inverse else 2]):
        own = None if folder is None else folder / direction
        # The second direction begins when the first has ended: it may have nothing to resume.
        going_on = resume and (number == 0 or own is None or (own / "born.safetensors").exists())
        results[direction] = train_born(
            states[number],
            states[1 - number],
            config,
            checkpoint=own,
            checkpoint_every=checkpoint_every,
            resume=going_on,
            device=device,
            show=show,
            on_epoch=on_epoch,
        )
    there = results["negative_to_positive"]
    back = results.get("positive_to_negative")
    pair = OperatorPair(there.module, None if back is None else back.module)
    used = there.states
    train = used.source.to(device), used.target.to(device)
    held_out = used.held_source.to(device), used.held_target.to(device)
    return BornFit(
        pair=pair,
        results=results,
        polarity=polarity(pair, train, held_out),
        round_trip=pair.round_trip(torch.cat(held_out)),
        projection=projection,
    )


def _encode(
    states: Any, projection: NDArray[np.complexfloating[Any, Any]] | None, name: str
) -> States:
    """(n, q) complex, not normalised."""
    if projection is None:
        encoded: States = states
        return encoded
    rows = states.detach().cpu().numpy() if isinstance(states, Tensor) else np.asarray(states)
    if np.iscomplexobj(rows) or rows.ndim != 2 or projection.ndim != 2:
        message = (
            f"[born] expected real {name} states (n, d) with a projection (d, q), got "
            f"{rows.dtype} {rows.shape} and {projection.shape}; leave the projection out for "
            f"encoded states"
        )
        raise ValueError(message)
    if rows.shape[1] != len(projection):
        message = (
            f"[born] expected {name} states of width {len(projection)}, that of the projection, "
            f"got {rows.shape[1]}"
        )
        raise ValueError(message)
    return np.asarray(rows.astype(np.float64) @ projection.astype(np.complex128))


def _require_direction(direction: str) -> None:
    if direction not in DIRECTIONS:
        message = f"[born] expected a direction of {', '.join(DIRECTIONS)}; got {direction!r}"
        raise ValueError(message)
