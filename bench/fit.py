"""Closed-form unitary fit against 100 epochs of Adam, dense Cayley: python -m bench.fit [--quick].

The task: a unitary on C^q that carries the states of one class to their partners of the other.
q = 2666 is what a width of 1024 gives. 50 pairs to fit, 50 held out; the states share a large
common mean and most of their variation, as residual streams do, and go to C^q by a random complex
projection.

Ours: polar factors in the span of the states (a QR and one small SVD), Procrustes with a pull to
the identity; beside it the ascent of the Born fidelity.
Baseline: A and B free real matrices, H their Hermitian part, U = (I - iH)⁻¹ (I + iH) in complex64,
loss 1 - |<t|U s>|², Adam with lr 1e-3, weight decay 1e-4, clip 1. One step an epoch on all pairs,
which favours it: batches of ten would take five. Only U s is solved for, which takes a fraction of
forming U; forming it is the naive row, one step of which is timed. The two are compared before any
clock runs. Adam starts from small random matrices and, in a second run, from the identity; the
better of the two counts.

Two results on held-out pairs, both at most 1. The Born fidelity |<t|U s>|² is passed by the
identity. The flip rate is not: the share of held-out negatives that U brings closer to the positive
centroid than to the negative one, after a phase, which the Born loss leaves free, is fixed by the
common mean. A fit on pairs with shuffled classes is the control.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import torch

from bench.rows import Row, arguments, finish
from bench.timing import WALL, compare, once
from cogit.operators.unitary_fits import polar

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray
    from torch import Tensor

    States = NDArray[np.complex128]

Q, EPOCHS = 2666, 100
QUICK_Q, QUICK_EPOCHS = 400, 10
RATIO = 2.604  # q / d
PAIRS, SHARED = 50, 40
PULL, BORN_STEPS, BORN_GAIN = 0.2, 200, 1e-9
RATE, DECAY, CLIP, SPREAD = 1e-3, 1e-4, 1.0, 0.01


@dataclass(frozen=True)
class Pairs:
    """Unit states (pair, q) of both classes, rows matched."""

    negative: States
    positive: States

    def shuffled(self, seed: int = 0) -> Pairs:
        """Half of the pairs, drawn at random, with their classes exchanged."""
        swap = np.random.default_rng(seed).permutation(len(self.negative)) % 2 == 0
        negative = np.where(swap[:, None], self.positive, self.negative)
        return Pairs(negative, np.where(swap[:, None], self.negative, self.positive))


@dataclass(frozen=True)
class LowRankUnitary:
    """U = I + S (u - I) Sᴴ with orthonormal columns S (q, m) and a unitary u (m, m)."""

    basis: States
    small: States

    def __call__(self, states: States) -> States:
        inside = states @ self.basis.conj()
        return np.asarray(states + (inside @ self.small.T - inside) @ self.basis.T)

    def deviation(self) -> float:
        """max |uᴴu - I| and |SᴴS - I|, which bound what U lacks of being unitary."""
        parts = (x.conj().T @ x - np.eye(x.shape[1]) for x in (self.basis, self.small))
        return max(float(np.abs(part).max()) for part in parts)


def make_pairs(q: int, seed: int = 3) -> tuple[Pairs, Pairs]:
    """Pairs to fit and pairs held out."""
    d = round(q / RATIO)
    rng = np.random.default_rng(seed)
    mean, half = rng.standard_normal((2, d))
    mean *= 1.6 * d**0.5 / np.linalg.norm(mean)
    half *= 0.09 * d**0.5 / np.linalg.norm(half)
    mixing = 0.05 * rng.standard_normal((SHARED, d))
    projection = rng.standard_normal((d, q)) + 1j * rng.standard_normal((d, q))
    projection /= np.linalg.norm(projection, axis=0)

    def encode(states: NDArray[np.float64]) -> States:
        encoded = states @ projection
        return np.asarray(encoded / np.linalg.norm(encoded, axis=1, keepdims=True))

    def draw() -> Pairs:
        common = mean + rng.standard_normal((PAIRS, SHARED)) @ mixing
        own = 0.35 * rng.standard_normal((2, PAIRS, d))
        return Pairs(encode(common - half + own[0]), encode(common + half + own[1]))

    return draw(), draw()


def fit_closed(pairs: Pairs, small_fit: Callable[[States, States], States]) -> LowRankUnitary:
    """Fit in the span of all states, where alone the closed forms differ from the identity."""
    basis = np.linalg.qr(np.concatenate([pairs.negative, pairs.positive]).T)[0]
    source, target = pairs.negative @ basis.conj(), pairs.positive @ basis.conj()
    return LowRankUnitary(basis, small_fit(source, target))


def procrustes(source: States, target: States) -> States:
    """polar(ΦΨᴴ / n + pull·I)."""
    overlap = target.T @ source.conj() / len(source)
    return polar(overlap + PULL * np.eye(len(overlap)))


def born(source: States, target: States) -> States:
    """U ← polar(Σ aᵢ φᵢ ψᵢᴴ / n), aᵢ = <φᵢ|Uψᵢ>; the identity where the states say nothing."""
    size = source.shape[1]
    matrix = np.eye(size, dtype=np.complex128)
    last = -1.0
    for _ in range(BORN_STEPS):
        overlaps = (target.conj() * (source @ matrix.T)).sum(axis=1)
        fidelity = float((np.abs(overlaps) ** 2).mean())
        if fidelity - last < BORN_GAIN:
            break
        last = fidelity
        sums = (target * overlaps[:, None]).T @ source.conj() / len(source)
        matrix = polar(sums + 1e-6 * np.eye(size))
    return matrix


class CayleyAdam:
    """The baseline: a dense Cayley operator trained by Adam on the Born loss."""

    def __init__(self, pairs: Pairs, spread: float, seed: int = 1) -> None:
        q = pairs.negative.shape[1]
        generator = torch.Generator().manual_seed(seed)
        self.free = [(spread * torch.randn(q, q, generator=generator)) for _ in range(2)]
        for matrix in self.free:
            matrix.requires_grad_()
        self.source = torch.from_numpy(pairs.negative.astype(np.complex64)).T.contiguous()
        self.target = torch.from_numpy(pairs.positive.astype(np.complex64)).T.contiguous()
        self.eye = torch.eye(q, dtype=torch.complex64)
        self.optimiser = torch.optim.Adam(self.free, lr=RATE, weight_decay=DECAY)

    def turn(self) -> Tensor:
        """iH (q, q), skew-Hermitian."""
        a, b = self.free
        return 1j * torch.complex((a + a.T) / 2, (b - b.T) / 2)

    def carried(self, states: Tensor, *, dense: bool = False) -> Tensor:
        """U s for columns s: by one solve for them, or by forming all of U."""
        turn = self.turn()
        left = self.eye - turn
        if dense:
            unitary: Tensor = torch.linalg.solve(left, self.eye + turn)
            return unitary @ states
        carried: Tensor = torch.linalg.solve(left, states + turn @ states)
        return carried

    def loss(self, *, dense: bool = False) -> Tensor:
        overlaps = (self.target.conj() * self.carried(self.source, dense=dense)).sum(dim=0)
        return 1 - overlaps.abs().square().mean()

    def step(self, *, dense: bool = False) -> float:
        self.optimiser.zero_grad()
        loss = self.loss(dense=dense)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.free, CLIP)
        self.optimiser.step()
        return float(loss.detach())

    def train(self, epochs: int, what: str) -> None:
        for epoch in range(1, epochs + 1):
            loss = self.step()
            if epoch % max(1, epochs // 10) == 0:
                print(f"  {what}: epoch {epoch} of {epochs}, loss {loss:.4f}", flush=True)

    @torch.no_grad()
    def __call__(self, states: States) -> States:
        columns = torch.from_numpy(states.astype(np.complex64)).T
        return np.asarray(self.carried(columns).T.numpy().astype(np.complex128))


def check_forms() -> None:
    """Both forms of the baseline give one loss and one gradient."""
    trained, _ = make_pairs(96)
    forms = [CayleyAdam(trained, SPREAD * 5) for _ in range(2)]
    losses = [form.loss(dense=dense) for form, dense in zip(forms, (False, True), strict=True)]
    for loss in losses:
        loss.backward()  # type: ignore[no-untyped-call]
    torch.testing.assert_close(losses[0], losses[1], rtol=1e-4, atol=1e-5)
    for one, other in zip(forms[0].free, forms[1].free, strict=True):
        torch.testing.assert_close(one.grad, other.grad, rtol=1e-3, atol=1e-5)


def held_out(carry: Callable[[States], States], trained: Pairs, test: Pairs) -> dict[str, float]:
    """Mean Born fidelity and flip rate on pairs that no fit has seen."""
    carried = carry(test.negative)
    overlaps = (test.positive.conj() * carried).sum(axis=1)
    low, high = trained.negative.mean(axis=0), trained.positive.mean(axis=0)
    phases = carried @ ((low + high) / 2).conj()
    fixed = carried * (phases.conj() / np.abs(phases))[:, None]
    nearer = np.linalg.norm(fixed - high, axis=1) < np.linalg.norm(fixed - low, axis=1)
    return {
        "fidelity": float((np.abs(overlaps) ** 2).mean()),
        "flip": float(nearer.mean()),
    }


def require_unitary(name: str, fitted: LowRankUnitary) -> None:
    deviation = fitted.deviation()
    if not deviation < 1e-10:
        message = f"[bench] expected a unitary from {name}, got a deviation of {deviation:.1e}"
        raise RuntimeError(message)


def measure(q: int, epochs: int, quick: bool) -> list[Row]:
    trained, test = make_pairs(q)
    fits = {"closed": procrustes, "born": born}
    fitted = {name: fit_closed(trained, fit) for name, fit in fits.items()}
    fitted["shuffled"] = fit_closed(trained.shuffled(), procrustes)
    for name, one in fitted.items():
        require_unitary(name, one)
    results = {name: held_out(one, trained, test) for name, one in fitted.items()}
    results["identity"] = held_out(lambda states: states, trained, test)

    taken = {}
    for name, spread in (("adam", SPREAD), ("adam_from_identity", 0.0)):
        model = CayleyAdam(trained, spread)
        _, taken[name] = once(partial(model.train, epochs, name))
        results[name] = held_out(model, trained, test)
    print("  naive: two steps", flush=True)
    naive_model = CayleyAdam(trained, SPREAD)
    naive_step = min(once(lambda: naive_model.step(dense=True))[1] for _ in range(2))
    timing = compare(
        {name: partial(fit_closed, trained, fit) for name, fit in fits.items()},
        check=lambda: None,
        rounds=3 if quick else 9,
        seconds=0.2,
        clock=WALL,
    )
    adam = min(taken.values())
    rows = []
    for name in fits:
        ours = timing.median(name)
        rows.append(
            Row(f"fit.{name}.q{q}", ours, "s", adam, adam / ours, note=f"Adam, {epochs} epochs")
        )
    ours, naive = timing.median("closed"), naive_step * epochs
    note = f"Adam forming U, the better of two steps, times {epochs}"
    rows.append(Row(f"fit.closed.q{q}.naive", ours, "s", naive, naive / ours, note=note))
    return rows + quality_rows(q, results)


def quality_rows(q: int, results: dict[str, dict[str, float]]) -> list[Row]:
    """Held-out results; the baseline is the better of Adam's two runs."""
    rows = []
    for measure_name in ("fidelity", "flip"):
        best = max(results[name][measure_name] for name in ("adam", "adam_from_identity"))
        for name, result in results.items():
            value = result[measure_name]
            ratio = value / best if best > 0 else None
            row_id = f"fit.{name}.q{q}.{measure_name}"
            rows.append(Row(row_id, value, "share", best, ratio, 1.0, value, "held out; best Adam"))
    return rows


def main() -> None:
    options = arguments(__doc__)
    check_forms()
    q, epochs = (QUICK_Q, QUICK_EPOCHS) if options.quick else (Q, EPOCHS)
    finish("fit", measure(q, epochs, options.quick), options, threads=torch.get_num_threads())


if __name__ == "__main__":
    main()
