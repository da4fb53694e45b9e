"""Layer sweep: at which block two classes differ, on held-out pairs, with permutation p-values.

At every block the mean difference of the training pairs is a direction, and the held-out pairs are
projected onto it; folds are drawn anew several times and the projections averaged. The score is
their mean over their standard deviation (the paired effect size d_z, Cohen 1988). The labels of
matched pairs are exchangeable where the classes are alike, so that swapping both texts of random
pairs gives the score's distribution under "no difference" (Fisher 1935), the whole of the fitting
included; the same swaps serve every block, which keeps their dependence.

All of it works in the pairs' Gram matrix: a swap is a sign, and thousands of swaps are one product.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from cogit.hook_points import HookPoint
from cogit.layers import LayerRange
from cogit.pair_groups import group_pairs, members
from cogit.progress import track
from cogit.separation import Overlaps, biased_statistics_of, statistics_of, swap_form
from cogit.sweep_result import LayerScore, Sweep

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from cogit.identity import ModelIdentity

    Floats = NDArray[np.float64]

# About eight matrices of twice as many rows are held at once: 1 GB at this number.
_MAX_PAIRS = 2000
_RESAMPLES = 1000
# A swapped score this close to the observed one counts as equal: the sums' order differs.
_TIE = 1e-9
# Spread below this part of the projections' size is rounding: scores stop at a million.
_NO_SPREAD = 1e-6


class LayerStates(Protocol):
    """What a sweep needs: ``Activations`` has it. Without a ``hook_point``, it is resid_post."""

    @property
    def layers(self) -> tuple[int, ...]: ...

    @property
    def identity(self) -> ModelIdentity: ...

    def at(self, layer: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]: ...


@dataclass(frozen=True)
class _Layer:
    """One block: row 0 of the two scores is observed, the others are swapped."""

    scores: Floats  # (1 + permutations,)
    gaps: Floats  # (1 + permutations,)
    projections: Floats  # (pair,) held-out projections of the differences
    d_prime: float
    gap: float
    biased_gap: float


def sweep_layers(
    states: LayerStates,
    layers: LayerRange | None = None,
    *,
    permutations: int = 2000,
    folds: int = 5,
    repeats: int = 5,
    seed: int = 0,
    alpha: float = 0.05,
    show_progress: bool = False,
) -> Sweep:
    """Score every recorded block, or those of ``layers``, and say whether any score is evidence.

    states: matched pairs, (pair, d_model) of both classes at each block. permutations: random
    swaps. folds: parts of a partition of the pairs, each held out once. repeats: partitions, whose
    projections are averaged. alpha: the level of the verdict.

    The verdict is "effect" where the best block's p-value by Holm (1979) is at most alpha. The
    p-value by the maximum over blocks is reported too; it errs in exactly alpha of the cases, where
    Holm, not knowing that neighbouring blocks repeat each other, errs less often. A block that does
    not exist costs more here than one that is missed.

    Pairs that share a text (see ``group_pairs``) are one group: swapped, held out and resampled
    together, and not compared with each other in the gap. Groups are taken as independent; texts
    that repeat each other with small changes are less evidence than their number says.

    Raises ValueError for unrecorded blocks, states that are not finite, a pair given twice, and
    where no result could reach alpha: too few groups of pairs, or permutations.
    """
    blocks = _choose(states.layers, layers, states.identity.n_layers)
    n_pairs = len(states.at(blocks[0])[0])
    _check(n_pairs, n_pairs, len(blocks), permutations, folds, repeats, alpha)
    _require_distinct(*states.at(blocks[-1]))
    groups = group_pairs(states.at(layer) for layer in states.layers)
    rows_of = members(groups)
    n_groups = len(rows_of)
    _check(n_groups, n_pairs, len(blocks), permutations, folds, repeats, alpha)
    rng = np.random.default_rng(seed)
    signs = _swaps(rng, groups, n_groups, permutations)
    partitions = [_partition(rng, rows_of, folds) for _ in range(repeats)]
    draws = rng.integers(0, n_groups, (_RESAMPLES, n_groups))
    found = []
    for block in track(blocks, "sweeping", show=show_progress):
        gram = _gram(block, *states.at(block))
        found.append(_measure(gram, signs, partitions, groups))
    scores = np.stack([layer.scores for layer in found], axis=1)
    p_values = np.array([_p_value(column) for column in scores.T])
    p_holm = holm(p_values)
    highest = scores.max(axis=1)
    rows = tuple(
        LayerScore(
            layer=block,
            score=float(layer.scores[0]),
            interval=_interval(layer.projections, draws, rows_of),
            null_band=_band(layer.scores[1:]),
            accuracy=float((layer.projections > 0).mean()),
            d_prime=layer.d_prime,
            p_value=float(p_values[i]),
            p_family=_p_value(np.append(layer.scores[0], highest[1:])),
            p_holm=float(p_holm[i]),
            gap=layer.gap,
            gap_p_value=_p_value(layer.gaps),
            biased_gap=layer.biased_gap,
        )
        for i, (block, layer) in enumerate(zip(blocks, found, strict=True))
    )
    return Sweep(
        layers=rows,
        family_threshold=float(np.quantile(highest, 1 - alpha, method="higher")),
        n_pairs=n_pairs,
        n_groups=n_groups,
        permutations=permutations,
        folds=folds,
        repeats=repeats,
        seed=seed,
        alpha=alpha,
        identity=states.identity,
        hook_point=getattr(states, "hook_point", HookPoint.RESID_POST.value),
    )


def holm(p_values: Floats) -> Floats:
    """Holm's step-down adjusted p-values, in the order given, at most 1 (Holm 1979)."""
    order = np.argsort(p_values, kind="stable")
    factors = np.arange(len(p_values), 0, -1)
    adjusted = np.minimum(1.0, np.maximum.accumulate(p_values[order] * factors))
    result = np.empty_like(adjusted)
    result[order] = adjusted
    return result


def _swaps(
    rng: np.random.Generator, groups: NDArray[np.int64], n_groups: int, permutations: int
) -> Floats:
    """Signs (1 + permutations, pair), one a group: row 0 swaps nothing."""
    signs = np.ones((1 + permutations, n_groups))
    signs[1:] -= 2.0 * rng.integers(0, 2, (permutations, n_groups))
    return np.take(signs, groups, axis=1)


def _partition(
    rng: np.random.Generator, rows_of: list[NDArray[np.int64]], folds: int
) -> list[NDArray[np.int64]]:
    """The pairs of each fold: whole groups, as many in each."""
    order = np.array_split(rng.permutation(len(rows_of)), folds)
    return [np.concatenate([rows_of[i] for i in fold]) for fold in order]


def _choose(recorded: Sequence[int], layers: LayerRange | None, n_layers: int) -> tuple[int, ...]:
    wanted = tuple(recorded)
    if layers is not None and layers.blocks is not None:
        # Only a share of the depth asks how many blocks the model has.
        wanted = layers.resolve(n_layers) if layers.shares else layers.blocks
    missing = sorted(set(wanted) - set(recorded))
    if missing or not wanted:
        message = (
            f"[sweep] expected recorded blocks, among {LayerRange.of(recorded)}, got {layers}; "
            f"record the others first"
        )
        raise ValueError(message)
    return wanted


def _check(
    n_groups: int,
    n_pairs: int,
    n_layers: int,
    permutations: int,
    folds: int,
    repeats: int,
    alpha: float,
) -> None:
    """ValueError for settings under which no block could be found."""
    units = "pairs" if n_groups == n_pairs else "groups of pairs that share no text"
    whole = "" if n_groups == n_pairs else f" in {n_pairs} pairs"
    if not 0 < alpha < 1:
        message = f"[sweep] expected 0 < alpha < 1, got {alpha}"
        raise ValueError(message)
    if not 2 <= folds <= n_groups or repeats < 1:
        message = (
            f"[sweep] expected 2 <= folds <= {n_groups} {units} and repeats >= 1, got {folds} "
            f"folds and {repeats} repeats"
        )
        raise ValueError(message)
    # All groups swapped is the same data, so that n groups have 2^(n-1) different swaps.
    needed = 1 + math.ceil(math.log2(n_layers / alpha))
    if n_groups < needed or n_pairs > _MAX_PAIRS:
        message = (
            f"[sweep] expected {needed} to {_MAX_PAIRS} {units} for {n_layers} blocks at level "
            f"{alpha:g}, got {n_groups}{whole}; record "
            f"{'more' if n_groups < needed else 'fewer'} {units}"
        )
        raise ValueError(message)
    least = math.ceil(n_layers / alpha)
    if permutations < least:
        message = (
            f"[sweep] expected at least {least} permutations for {n_layers} blocks at level "
            f"{alpha:g}, got {permutations}: no smaller number can reach it"
        )
        raise ValueError(message)


def _require_distinct(positive: NDArray[np.float32], negative: NDArray[np.float32]) -> None:
    """ValueError for a pair that comes twice: swapped and held out apart, it is false evidence."""
    seen: dict[bytes, int] = {}
    for number, rows in enumerate(zip(positive, negative, strict=False)):
        digest = hashlib.sha256(b"".join(row.tobytes() for row in rows)).digest()
        first = seen.setdefault(digest, number)
        if first != number:
            message = (
                f"[sweep] expected different pairs, got one with equal states twice, as numbers "
                f"{first} and {number} from 0; leave out the repeats"
            )
            raise ValueError(message)


def _gram(block: int, positive: NDArray[np.float32], negative: NDArray[np.float32]) -> Floats:
    """Inner products (2n, 2n) of all states, positive ones first."""
    rows = np.concatenate([positive, negative]).astype(np.float64)
    if len(positive) != len(negative) or not np.isfinite(rows).all():
        message = (
            f"[sweep] expected finite states of matched pairs at block {block}, got "
            f"{positive.shape} and {negative.shape} or values that are not finite"
        )
        raise ValueError(message)
    return np.asarray(rows @ rows.T)


def _measure(
    gram: Floats,
    signs: Floats,
    partitions: list[list[NDArray[np.int64]]],
    groups: NDArray[np.int64],
) -> _Layer:
    n_pairs = signs.shape[1]
    # Inner products of the differences D = P - N with P, N and D.
    with_positive = gram[:n_pairs, :n_pairs] - gram[:n_pairs, n_pairs:]
    with_negative = gram[n_pairs:, :n_pairs] - gram[n_pairs:, n_pairs:]
    differences = with_positive - with_negative
    projections = _held_out(signs, differences, partitions)
    overlaps = Overlaps.of_gram(gram)
    form, compared = swap_form(overlaps, groups)
    gaps = np.einsum("bi,bi->b", signs @ form, signs) / compared
    return _Layer(
        scores=_effect_size(projections),
        gaps=gaps,
        projections=projections[0],
        d_prime=_unpaired(with_positive, with_negative, partitions),
        gap=statistics_of(overlaps, groups=groups).separation_gap,
        biased_gap=biased_statistics_of(overlaps).separation_gap,
    )


def _held_out(signs: Floats, gram: Floats, partitions: list[list[NDArray[np.int64]]]) -> Floats:
    """Projections (row of signs, pair) of differences on the direction of the other folds.

    The direction of a training set T is Σ sᵢDᵢ / |Σ sᵢDᵢ|. Its products with every Dⱼ are those of
    all pairs less those of the held-out fold, so that a fold costs only its own block of the Gram.
    """
    aligned = signs * (signs @ gram)  # sⱼ ⟨Dⱼ, Σ sᵢDᵢ⟩ over all pairs
    total = aligned.sum(axis=1)
    smallest = np.finfo(np.float64).eps * np.trace(gram)
    result = np.zeros_like(signs)
    for partition in partitions:
        for fold in partition:
            own = signs[:, fold] * (signs[:, fold] @ gram[np.ix_(fold, fold)])
            square = total - 2 * aligned[:, fold].sum(axis=1) + own.sum(axis=1)
            clear = square > smallest
            length = np.sqrt(np.where(clear, square, 1.0))
            projected = (aligned[:, fold] - own) / length[:, None]
            result[:, fold] += np.where(clear[:, None], projected, 0.0)
    return result / len(partitions)


def _unpaired(
    with_positive: Floats, with_negative: Floats, partitions: list[list[NDArray[np.int64]]]
) -> float:
    """d' of single held-out states: what pairs share counts as noise here.

    with_positive, with_negative: (state, pair) products of states and differences. Each fold's
    projections are measured from the middle of its training classes.
    """
    n_pairs = len(with_positive)
    both = np.stack([with_positive, with_negative])
    differences = with_positive - with_negative
    smallest = np.finfo(np.float64).eps * max(float(np.trace(differences)), 0.0)
    result = np.zeros((2, n_pairs))
    for partition in partitions:
        for fold in partition:
            train = np.setdiff1d(np.arange(n_pairs), fold)
            square = differences[np.ix_(train, train)].sum()
            if square > smallest:
                along = both[:, :, train].sum(axis=2)
                result[:, fold] += (along[:, fold] - along[:, train].mean()) / np.sqrt(square)
    spread = np.sqrt(result.var(axis=1, ddof=1).mean())
    gap = float(result[0].mean() - result[1].mean())
    floor = _NO_SPREAD * float(np.abs(result).max())
    return gap / max(float(spread), floor) if floor > 0 else 0.0


def _effect_size(projections: Floats) -> Floats:
    """Mean over standard deviation along the last axis; 0 where all are zero."""
    mean = projections.mean(axis=-1)
    spread = projections.std(axis=-1, ddof=1)
    floor = _NO_SPREAD * np.sqrt((projections**2).mean(axis=-1))
    divisor = np.maximum(spread, floor)
    return np.asarray(np.where(divisor > 0, mean / np.where(divisor > 0, divisor, 1.0), 0.0))


def _p_value(scores: Floats) -> float:
    """Share of scores at least the first, which counts itself: valid (Phipson & Smyth 2010)."""
    bound = scores[0] - _TIE * abs(scores[0])
    return float((1 + (scores[1:] >= bound).sum()) / len(scores))


def _interval(
    projections: Floats, draws: NDArray[np.int64], rows_of: list[NDArray[np.int64]]
) -> tuple[float, float]:
    """95 % percentile bootstrap over groups of pairs, the directions as they are."""
    if len(rows_of) == len(projections):
        sizes = _effect_size(projections[draws])
    else:
        # Groups differ in size, so that draws differ in pairs.
        picked = (np.concatenate([rows_of[i] for i in draw]) for draw in draws)
        sizes = np.array([float(_effect_size(projections[rows])) for rows in picked])
    low, high = np.quantile(sizes, [0.025, 0.975])
    return float(low), float(high)


def _band(swapped: Floats) -> tuple[float, float]:
    """The central 90 % of the scores with swapped labels."""
    low, high = np.quantile(swapped, [0.05, 0.95])
    return float(low), float(high)
