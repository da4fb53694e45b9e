"""Proof of application: every way in which a real backend can be made to fail is named."""

from __future__ import annotations

import itertools
import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
import torch

from _models import D_MODEL, N_LAYERS, push, steering, tiny_backend, turn
from cogit.backends import hooks
from cogit.backends.hooks import SteeringHooks, hidden_of, with_hidden
from cogit.errors import InterventionError
from cogit.intervention import Intervention
from cogit.operators import Operator, Unitary, registered
from cogit.positions import Positions
from cogit.verify import verify_application

if TYPE_CHECKING:
    from cogit.affine import Affine
    from cogit.backends.transformers import TransformersBackend


@pytest.fixture
def backend() -> TransformersBackend:
    return tiny_backend()


def refusal(backend: TransformersBackend, intervention: Intervention) -> str:
    """The one line with which entering ``steer`` is refused."""
    with pytest.raises(InterventionError) as caught, backend.steer(intervention):
        pass
    message = str(caught.value)
    assert "\n" not in message
    assert backend.intervention is None
    assert all(not block._forward_hooks for block in backend._blocks)
    return message


def leak(backend: TransformersBackend, layer: int, position: int, size: float = 1e-3) -> Any:
    """A hook that changes one position at one block, as a broken backend would."""

    def change(module: Any, args: Any, output: Any) -> Any:
        hidden = hidden_of(output).clone()
        hidden[:, position] += size
        return with_hidden(output, hidden)

    return backend._blocks[layer].register_forward_hook(change)


# ---- what a sound backend proves ----


def test_what_is_found(backend: TransformersBackend) -> None:
    with backend.steer(steering(backend, [0, 2])) as found:
        assert found is not None
        assert verify_application(backend, backend.intervention) == found  # type: ignore[arg-type]
    assert set(found.relative_change) == {0, 2}
    assert all(0.05 < change < 2 for change in found.relative_change.values())
    assert found.n_positions == 11  # twelve tokens without the first
    # A handful of roundings of float32.
    assert found.worst_error < 1e-6
    assert found.logit_change > 1e-2
    assert re.fullmatch(
        r"verified: blocks 0, 2 steered, change \S+ of the residual norm, error \S+e-\d+, "
        r"logits moved by \S+",
        found.describe(),
    )


def test_norms_and_angles_are_reported(backend: TransformersBackend) -> None:
    """Row Q22: with a norm restore the norm stays within 2 %, without one it need not."""
    d_model = backend.identity.d_model
    turned = replace(Unitary.example(d_model, 3), amplitude=4.0)
    found = {}
    for restore in (True, False):
        operators = {1: replace(turned, restore=restore)}
        with backend.steer(Intervention(operators, backend.identity)) as proof:
            assert proof is not None
            found[restore] = proof
    assert 0.98 <= found[True].norm_ratio[1] <= 1.02
    assert not 0.98 <= found[False].norm_ratio[1] <= 1.02
    for proof in found.values():
        assert -1 <= proof.cosine[1] < 1
        # |change|² = 1 + r² − 2 r cos, which for tokens of about one ratio holds of the means.
        r, cosine = proof.norm_ratio[1], proof.cosine[1]
        assert proof.relative_change[1] ** 2 == pytest.approx(1 + r * r - 2 * r * cosine, rel=0.25)


@pytest.mark.parametrize("kind", registered())
@pytest.mark.parametrize("strength", [-1.5, 0.05, 1.0])
def test_every_operator_is_verified(
    backend: TransformersBackend, kind: str, strength: float
) -> None:
    operator = registered()[kind].example(D_MODEL, 0)
    with backend.steer(steering(backend, range(N_LAYERS), operator, strength=strength)) as found:
        assert found is not None
        assert set(found.relative_change) == {0, 1, 2}


@pytest.mark.parametrize(
    ("positions", "n_positions"),
    [
        (Positions("prompt"), 7),
        (Positions("generated"), 4),
        (Positions("range", 2, 5), 3),
        (Positions("range", 40), 4),
        (Positions("range", 40, 42), 2),
        (Positions("range", 0, 1, first_token=True), 1),
        (Positions(first_token=True), 12),
    ],
    ids=str,
)
def test_windows_are_reached(
    backend: TransformersBackend, positions: Positions, n_positions: int
) -> None:
    with backend.steer(steering(backend, [1], positions=positions)) as found:
        assert found is not None
        assert found.n_positions == n_positions


@pytest.mark.parametrize("operator", [turn(), None])
def test_controls_are_verified_to_change_nothing(
    backend: TransformersBackend, operator: Operator | None
) -> None:
    member = operator or registered()["unitary"].identity(D_MODEL)
    control = steering(backend, [0], member, strength=1.0 if operator is None else 0.0)
    with backend.steer(control, control=True) as found:
        assert found is not None
        assert found.relative_change == {}
        assert found.logit_change == 0.0


def test_zeros_that_nobody_declared_a_control_are_refused(backend: TransformersBackend) -> None:
    zeros = steering(backend, [0], registered()["unitary"].identity(D_MODEL))
    with (
        pytest.raises(InterventionError, match=r"expected operators that change something"),
        backend.steer(zeros, verify=False),
    ):
        pass
    assert backend.intervention is None


def test_small_changes_are_verified(backend: TransformersBackend) -> None:
    """Well below the allowance for rounding, and still told from nothing and from too much."""
    with backend.steer(steering(backend, [1], push(length=1e-4))) as found:
        assert found is not None
        assert found.relative_change[1] < 1e-4


def test_the_intervention_is_in_place_again_after_the_probe(backend: TransformersBackend) -> None:
    intervention = steering(backend, [1])
    with backend.steer(intervention):
        assert backend.intervention is intervention


# ---- what a broken backend is caught at ----


@pytest.mark.parametrize("layer", range(N_LAYERS))
def test_a_block_that_is_not_steered(
    backend: TransformersBackend, monkeypatch: pytest.MonkeyPatch, layer: int
) -> None:
    def partly(self: SteeringHooks, *args: Any) -> None:
        original(self, *args)
        if len(self._handles) > layer:
            self._handles[layer].remove()

    original = SteeringHooks.__init__
    monkeypatch.setattr(SteeringHooks, "__init__", partly)
    message = refusal(backend, steering(backend, range(N_LAYERS)))
    assert f"expected a change at block {layer}, got none on transformers" in message


@pytest.mark.parametrize("position", [0, 1, 11])
def test_a_change_at_another_block(backend: TransformersBackend, position: int) -> None:
    leak(backend, 2, position)
    with pytest.raises(InterventionError) as caught, backend.steer(steering(backend, [1])):
        pass
    assert "expected no change at block 2 outside the intervention, got one of " in str(
        caught.value
    )


@pytest.mark.parametrize(
    ("positions", "position"),
    [
        (Positions(), 0),
        (Positions("prompt"), 8),
        (Positions("prompt"), 11),
        (Positions("generated"), 7),
        (Positions("range", 2, 5), 5),
    ],
    ids=str,
)
def test_a_change_at_another_position(
    backend: TransformersBackend, positions: Positions, position: int
) -> None:
    leak(backend, 1, position, 1e-6)
    intervention = steering(backend, [1], positions=positions)
    with pytest.raises(InterventionError) as caught, backend.steer(intervention):
        pass
    assert "expected no change at block 1 outside the intervention" in str(caught.value)


@pytest.mark.parametrize("position", [3, 9])
def test_a_wrong_change_at_one_of_the_right_positions(
    backend: TransformersBackend, position: int
) -> None:
    leak(backend, 1, position)
    with pytest.raises(InterventionError) as caught, backend.steer(steering(backend, [1])):
        pass
    assert "expected the analytic change at block 1" in str(caught.value)


def altered(monkeypatch: pytest.MonkeyPatch, change: Any) -> None:
    """Let the backend apply another affine than the intervention's."""
    original = hooks.applier

    def applier(affine: Affine, device: torch.device, dtype: torch.dtype) -> Any:
        return original(change(affine), device, dtype)

    monkeypatch.setattr(hooks, "applier", applier)


@pytest.mark.parametrize(
    ("operator", "factor"),
    [
        *itertools.product((turn(restore=False), push()), (-1.0, 0.5, 0.99, 1.01, 2.0)),
        # A percent of this one is lost in rounding.
        *itertools.product((push(length=1e-4),), (-1.0, 0.4, 2.0)),
    ],
)
def test_a_wrong_strength(
    backend: TransformersBackend,
    monkeypatch: pytest.MonkeyPatch,
    operator: Operator,
    factor: float,
) -> None:
    altered(monkeypatch, lambda x: replace(x, B=factor * x.B, c=factor * x.c))
    message = refusal(backend, steering(backend, [0, 2], operator))
    assert "expected the analytic change at block 0 to within " in message
    assert "got a deviation of " in message


def test_a_lost_norm_restore(backend: TransformersBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    altered(monkeypatch, lambda x: replace(x, restore=False))
    assert "analytic change at block 1" in refusal(backend, steering(backend, [1]))


@pytest.mark.parametrize(
    ("shift", "words"),
    [(1, "expected a change at block 1, got none"), (-1, "expected no change at block 0 ")],
)
def test_the_wrong_block(
    backend: TransformersBackend, monkeypatch: pytest.MonkeyPatch, shift: int, words: str
) -> None:
    """Blocks counted from another number than 0."""

    def shifted(self: SteeringHooks, blocks: Any, clock: Any, intervention: Intervention) -> None:
        moved = {layer + shift: operator for layer, operator in intervention.operators.items()}
        original(self, blocks, clock, replace(intervention, operators=moved))

    original = SteeringHooks.__init__
    monkeypatch.setattr(SteeringHooks, "__init__", shifted)
    assert words in refusal(backend, steering(backend, [1]))


def test_every_position_or_none(
    backend: TransformersBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A backend that ignores the window of positions."""
    monkeypatch.setattr(SteeringHooks, "_steered_now", lambda self: True)
    message = refusal(backend, steering(backend, [0], positions=Positions("prompt")))
    assert "expected no change at block 0 outside the intervention" in message


def test_one_vector_for_all_positions(
    backend: TransformersBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Average the states, steer the average, broadcast it."""
    original = hooks.applier

    def applier(affine: Affine, device: torch.device, dtype: torch.dtype) -> Any:
        apply = original(affine, device, dtype)

        def averaged(hidden: torch.Tensor, strengths: torch.Tensor | None) -> Any:
            rows = hidden.flatten(0, -2)
            mean = rows.mean(dim=0, keepdim=True)
            steered = rows + apply(mean, None) - mean
            if strengths is not None:
                steered = torch.where(strengths[:, None] > 0, steered, rows)
            return steered.view_as(hidden)

        return averaged

    monkeypatch.setattr(hooks, "applier", applier)
    assert "analytic change at block 0" in refusal(backend, steering(backend, [0]))


def test_a_control_that_changes_something(backend: TransformersBackend) -> None:
    leak(backend, 0, 5)
    with (
        pytest.raises(InterventionError, match="expected no change at block 0"),
        backend.steer(steering(backend, [0], strength=0.0)),
    ):
        pass


def test_states_that_break_down(backend: TransformersBackend) -> None:
    leak(backend, 1, 4, float("nan"))
    with (
        pytest.raises(InterventionError, match=r"\[verify\] .* at block 1"),
        backend.steer(steering(backend, [1])),
    ):
        pass


# ---- interventions that change nothing ----


def test_a_change_below_rounding(backend: TransformersBackend) -> None:
    message = refusal(backend, steering(backend, [0], push(length=1e-9)))
    assert "expected a change at block 0, got none" in message
    assert "below the rounding" in message


def test_a_change_that_is_mostly_rounded_away() -> None:
    """In bfloat16 a few elements move by a whole unit, the others not at all."""
    backend = tiny_backend(dtype=torch.bfloat16)
    message = refusal(backend, steering(backend, [0], push(length=0.01)))
    assert "expected a change at block 0 that stands out from the rounding" in message
    assert message.endswith("raise the strength or use f32")


def test_a_change_that_no_logit_sees() -> None:
    """The last block is steered along a direction that the output layer cannot read."""
    backend = tiny_backend()
    with torch.no_grad():
        backend.model.lm_head.weight.zero_()
    message = refusal(backend, steering(backend, [2]))
    assert "to change the output, got the same logits; raise the strength" in message


def test_one_idle_operator_among_others_is_allowed(backend: TransformersBackend) -> None:
    idle = registered()["additive"].identity(D_MODEL)
    intervention = replace(steering(backend, [0]), operators={0: turn(), 1: idle})
    with backend.steer(intervention) as found:
        assert found is not None
        assert found.relative_change[1] == 0.0


def test_positions_beyond_the_context(backend: TransformersBackend) -> None:
    message = refusal(backend, steering(backend, [0], positions=Positions("range", 1000)))
    assert "expected positions within the context of 128 tokens, got 1000-" in message


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_huge_change_is_verified_at_its_own_precision(dtype: torch.dtype) -> None:
    """The rounding of a state a thousand times as long as the plain one is as much larger."""
    backend = tiny_backend(dtype=dtype)
    with backend.steer(steering(backend, [0], push(length=3000.0))) as found:
        assert found is not None
        assert found.relative_change[0] > 100


def test_the_probe_fits_a_tiny_vocabulary(backend: TransformersBackend) -> None:
    with backend.steer(steering(backend, [0])):
        backend.identity = replace(backend.identity, vocab_size=4)
        assert verify_application(backend, steering(backend, [0])).n_positions == 11
