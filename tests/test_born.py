"""The Born training, its controls, and the two directions."""

from __future__ import annotations

import logging
import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from _born import born, encoded, gaussian, planted_rotation, projection, residual_states
from cogit.training.born import NOTE, BornResult, train_born
from cogit.training.born_config import BornConfig
from cogit.training.born_pair import (
    BornFit,
    OperatorPair,
    fit_born,
)
from cogit.training.born_states import pair_states, split_rows
from cogit.training.cayley_module import FAMILIES, DenseCayley

if TYPE_CHECKING:
    from cogit.training.cayley_module import Family

FAST = BornConfig(epochs=40, learning_rate=2e-2)
RESIDUAL = BornConfig(epochs=40, learning_rate=5e-3)


@pytest.fixture(scope="module")
def planted() -> BornResult:
    source, target, _ = planted_rotation()
    return train_born(source, target, FAST)


@pytest.fixture(scope="module")
def residual() -> BornFit:
    """Both directions between classes of states like those of a residual stream."""
    return fit_born(*residual_states(), RESIDUAL, projection=projection())


# ---- the loss ----


def test_the_loss_falls_on_a_planted_rotation(planted: BornResult) -> None:
    """Row Q12: below 0.01, on held-out pairs too, where the identity has next to nothing."""
    assert planted.loss_history[0] > 0.4
    assert planted.loss_history[-1] < 0.01
    assert planted.fidelity.trained > 0.99
    assert planted.fidelity.identity < 0.6
    assert planted.fidelity.shuffled < 0.6
    assert planted.unitarity_deviation < 1e-4


def test_the_unitary_is_the_planted_one_up_to_a_phase(planted: BornResult) -> None:
    _, _, unitary = planted_rotation()
    found = planted.module.unitary().detach().numpy()
    overlap = np.trace(unitary.conj().T @ found) / len(unitary)
    assert abs(overlap) == pytest.approx(1.0, abs=0.01)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_trains(family: Family) -> None:
    """Each on a rotation of its own kind."""
    source, target, _ = planted_rotation()
    if family == "diagonal":
        phases = np.random.default_rng(1).uniform(-2, 2, source.shape[1])
        target = source * np.exp(1j * phases)
    config = replace(FAST, family=family, rank=6, epochs=60)
    result = train_born(source, target, config)
    assert result.loss_history[-1] < 0.01
    assert result.module.family == family


def test_curves_and_fidelity_are_what_they_say(planted: BornResult) -> None:
    """Row Q12: one entry an epoch; the fidelity against a plain definition in double precision."""
    assert len(planted.loss_history) == len(planted.fidelity_history) == FAST.epochs
    np.testing.assert_allclose(
        np.array(planted.fidelity_history), 1 - np.array(planted.loss_history), atol=1e-12
    )
    source, target, _ = planted_rotation()
    rows = planted.states.held_out_rows
    unitary = planted.module.unitary().detach().numpy().astype(np.complex128)
    # complex64 against complex128 over 12 terms.
    expected = born(unitary, source[rows], target[rows])
    assert planted.fidelity.trained == pytest.approx(expected, abs=1e-5)
    expected = born(np.eye(12), source[rows], target[rows])
    assert planted.fidelity.identity == pytest.approx(expected, abs=1e-5)


def test_double_precision() -> None:
    source, target, _ = planted_rotation()
    result = train_born(source, target, replace(FAST, precision="complex128", epochs=3))
    assert result.module.dtype == torch.complex128
    assert result.unitarity_deviation < 1e-12
    single = train_born(source, target, replace(FAST, epochs=3))
    # The same start and the same order of rows; float32 rounds.
    np.testing.assert_allclose(result.loss_history, single.loss_history, atol=1e-4)


def test_training_is_seeded(planted: BornResult) -> None:
    source, target, _ = planted_rotation()
    short = replace(FAST, epochs=2)
    one, same = (train_born(source, target, short) for _ in range(2))
    other = train_born(source, target, replace(short, seed=7))
    assert one.loss_history == same.loss_history
    assert torch.equal(one.module.unitary(), same.module.unitary())
    assert one.loss_history != other.loss_history
    as_tensors = train_born(torch.from_numpy(source), torch.from_numpy(target), short)
    assert as_tensors.loss_history == one.loss_history


def test_the_global_random_state_is_left_alone() -> None:
    source, target, _ = planted_rotation(n=8)
    before = torch.get_rng_state(), np.random.get_state()[1]  # noqa: NPY002
    train_born(source, target, replace(FAST, epochs=1))
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.array_equal(np.random.get_state()[1], before[1])  # noqa: NPY002


def test_the_first_step_is_adam_with_decay_and_a_clipped_norm() -> None:
    """Row Q12: against torch's own pieces put together by hand."""
    source, target, _ = planted_rotation(n=10)
    config = BornConfig(epochs=2, batch_size=100, clip=1e-3, weight_decay=0.1)
    found = train_born(source, target, config)
    states = pair_states(
        source, target, held_out=0.2, seed=42, centred=False, dtype=torch.complex64
    )
    module = DenseCayley(12, seed=42)
    optimiser = torch.optim.Adam([module.free], lr=1e-3, weight_decay=0.1)  # type: ignore[list-item]
    generator = torch.Generator().manual_seed(42)
    for _ in range(2):
        rows = torch.randperm(8, generator=generator)
        output = module(states.source[rows])
        loss = (1 - (states.target[rows].conj() * output).sum(1).abs() ** 2).mean()
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_([module.free], 1e-3)  # type: ignore[list-item]
        optimiser.step()
    assert float(loss.detach()) == pytest.approx(found.loss_history[-1], abs=1e-6)
    difference = module.free.detach() - found.module.free.detach()  # type: ignore[union-attr, operator]
    assert float(difference.abs().max()) < 1e-6


def test_the_learning_rate_falls_on_a_plateau() -> None:
    """Row Q12: half after 20 epochs without a better loss, by a count of our own."""
    rng = np.random.default_rng(0)
    source, target = gaussian(rng, 12, 4), gaussian(rng, 12, 4)
    # Steps of this size jump about the optimum.
    result = train_born(source, target, BornConfig(epochs=150, learning_rate=0.5))
    rate, best, bad = 0.5, np.inf, 0
    for loss in result.loss_history:
        better = loss < best * (1 - 1e-4)
        best, bad = (loss, 0) if better else (best, bad + 1)
        if bad > 20:
            rate, bad = rate / 2, 0
    assert result.learning_rate == rate < 0.5


def test_progress_is_logged_each_20_epochs(caplog: pytest.LogCaptureFixture) -> None:
    """Row Q12."""
    source, target, _ = planted_rotation(n=8, q=4)
    seen: list[tuple[str, int]] = []
    with caplog.at_level(logging.INFO, "cogit"):
        train_born(
            source, target, FAST, on_epoch=lambda name, number, _: seen.append((name, number))
        )
    lines = [record.getMessage() for record in caplog.records]
    assert [line.split(",")[0] for line in lines] == [
        f"{name}: epoch {number} of 40" for name in ("born", "shuffled") for number in (20, 40)
    ]
    assert seen == [(name, n) for name in ("born", "shuffled") for n in range(1, 41)]


def test_a_unitary_that_is_none_stops_the_training() -> None:
    """Row Q12: the check can fail. Here it must: no float32 product is unitary to 1e-9."""
    source, target, _ = planted_rotation()
    config = replace(FAST, tolerance=1e-9, check_every=3)
    seen: list[int] = []
    with pytest.raises(ValueError, match=r"^\[born\] expected max \|UᴴU - I\| .* in epoch 3; "):
        train_born(source, target, config, on_epoch=lambda *facts: seen.append(facts[1]))
    assert seen == [1, 2]


def test_what_is_not_finite_stops_the_training(monkeypatch: pytest.MonkeyPatch) -> None:
    source, target, _ = planted_rotation()
    with pytest.raises(ValueError, match=r"^\[hermitian\] expected finite values"):
        train_born(source, target, replace(FAST, spread=1e39))
    monkeypatch.setattr(DenseCayley, "forward", lambda self, rows: rows * torch.nan)
    with pytest.raises(ValueError, match=r"^\[born\] expected a finite loss, got nan in epoch 1; "):
        train_born(source, target, FAST)


# ---- what is reported beside it ----


def test_fidelity_is_no_success(residual: BornFit) -> None:
    """Row Q12: on states with a large common mean the shuffled control reaches the same fidelity,
    and the identity nearly; only the antisymmetric transport tells them apart."""
    result = residual.results["negative_to_positive"]
    fidelity, carried = result.fidelity, result.transport
    assert abs(fidelity.trained - fidelity.shuffled) < 0.03
    assert abs(fidelity.trained - fidelity.identity) < 0.12
    assert carried.identity == 0.0
    assert carried.trained > 0.4
    assert abs(carried.shuffled) < 0.15
    report = result.to_json()
    assert set(report["held_out_fidelity"]) == {"trained", "identity", "shuffled"}
    assert set(report["held_out_transport"]) == {"trained", "identity", "shuffled"}
    assert report["note"] == NOTE
    assert "no measure of success" in NOTE


def test_held_out_pairs_are_never_trained_on(residual: BornFit) -> None:
    for result in residual.results.values():
        train, held = result.states.train_rows, result.states.held_out_rows
        assert sorted([*train, *held]) == list(range(40))
        assert len(held) == 8
    first, second = residual.results.values()
    assert np.array_equal(first.states.held_out_rows, second.states.held_out_rows)
    negative, positive = (encoded(rows, projection()) for rows in residual_states())
    train, held = first.states.train_rows, first.states.held_out_rows
    for tensor, rows in (
        (first.states.source, negative[train]),
        (first.states.target, positive[train]),
        (first.states.held_source, negative[held]),
        (first.states.held_target, positive[held]),
    ):
        np.testing.assert_allclose(tensor.numpy(), rows, atol=1e-6)  # float32


def test_centred_states(residual: BornFit) -> None:
    """The identity is no near-optimum, and the loss finds a half turn: it sees no sign."""
    fit = fit_born(
        *residual_states(separation=0.6),
        replace(RESIDUAL, centred=True),
        projection=projection(),
        exact_inverse=True,
    )
    result = fit.results["negative_to_positive"]
    assert result.fidelity.identity < 0.3 < result.fidelity.trained
    assert abs(result.transport.trained) < 0.05
    assert fit.polarity.verdict == "unclear"
    assert fit.mean is not None
    train = result.states.train_rows
    rows = [x[train] @ projection() for x in residual_states(separation=0.6)]
    np.testing.assert_allclose(fit.mean, np.concatenate(rows).mean(axis=0), atol=1e-5)
    assert residual.mean is None


# ---- what is refused ----

SOURCE, TARGET, _ = planted_rotation(n=8, q=4)


def changed(rows: Any, value: Any) -> Any:
    rows = rows.copy()
    rows[2] = value
    return rows


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: BornConfig(epochs=0), ValueError, r"\[born\] expected epochs above 0, got 0"),
        (lambda: BornConfig(epochs=True), ValueError, r"expected epochs"),
        (lambda: BornConfig(learning_rate=np.nan), ValueError, r"expected learning_rate above 0"),
        (lambda: BornConfig(factor=1.0), ValueError, r"expected factor between 0 and 1, got 1"),
        (lambda: BornConfig(held_out=0.0), ValueError, r"expected held_out above 0, at most"),
        (lambda: BornConfig(family="mlp"), ValueError, r"expected family dense"),  # type: ignore[arg-type]
        (lambda: BornConfig(precision="half"), ValueError, r"expected precision complex64"),  # type: ignore[arg-type]
        (lambda: train_born(SOURCE.real, TARGET), TypeError, r"expected complex source states"),
        (lambda: train_born(SOURCE, TARGET[:5]), ValueError, r"of one shape, rows matched"),
        (lambda: train_born(SOURCE[0], TARGET[0]), ValueError, r"source states \(n, q\), got \(4"),
        (lambda: train_born(SOURCE[:3], TARGET[:3]), ValueError, r"at least 4 pairs, .*got 3"),
        (lambda: train_born(changed(SOURCE, np.nan), TARGET), ValueError, r"finite source states"),
        (lambda: train_born(SOURCE, changed(TARGET, 0)), ValueError, r"a row of zeros"),
        (lambda: train_born(SOURCE, TARGET, checkpoint_every=0), ValueError, r"checkpoint_every"),
        (lambda: train_born(SOURCE, TARGET, resume=True), ValueError, r"\[resume\] .*got none"),
        (
            lambda: fit_born(SOURCE, TARGET, projection=projection()),
            ValueError,
            r"expected real negative states",
        ),
        (
            lambda: fit_born(SOURCE.real, TARGET.real, projection=projection()),
            ValueError,
            r"negative states of width 16, that of the projection, got 4",
        ),
        (lambda: fit_born(SOURCE.real, TARGET.real), TypeError, r"expected complex source states"),
        (
            lambda: OperatorPair(DenseCayley(3)).unitary("up"),  # type: ignore[arg-type]
            ValueError,
            r"expected a direction of negative_to_positive, positive_to_negative; got 'up'",
        ),
    ],
)
def test_refusals(call: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message) as caught:
        call()
    assert re.match(r"\[(born|resume)\] [^\n]*$", str(caught.value))


def test_splits_keep_two_of_either() -> None:
    for n in (4, 5, 10, 50):
        train, held = split_rows(n, 0.2, seed=1)
        assert len(held) == max(2, round(0.2 * n))
        assert sorted([*train, *held]) == list(range(n))
    assert not np.array_equal(split_rows(50, 0.2, 1)[0], split_rows(50, 0.2, 2)[0])
