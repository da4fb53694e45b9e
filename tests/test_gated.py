"""Gated interventions at work: exact closure, the cache and batches, the proof of application."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from _gates import CLOSED, OPEN, gate, generated, probe_ids, split
from _models import N_LAYERS, prompt, push, steering, tiny_backend, tokens, turn
from cogit.backends import hooks
from cogit.backends.gate_hook import PlacedGate
from cogit.backends.llamacpp import LlamaCppBackend
from cogit.errors import InterventionError
from cogit.intervention import Intervention
from cogit.positions import Positions
from cogit.sampling import SamplingOptions


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["f32", "bf16"])
@pytest.mark.parametrize("width", [0.0, 1.0], ids=["hard", "smooth"])
@pytest.mark.parametrize("scope", ["token", "prompt"])
def test_a_closed_gate_is_bit_identical_to_the_unsteered_model(
    dtype: torch.dtype, width: float, scope: str
) -> None:
    """N11: logits and generated tokens, in batches with padding."""
    backend = tiny_backend(dtype=dtype)
    sequences = [tokens(4 + 3 * i, i) for i in range(4)]
    logits, ids = backend.logits(sequences), generated(backend)
    closed = steering(backend, range(N_LAYERS), turn()).gated(
        gate(CLOSED, width=width, scope=scope)
    )
    with backend.steer(closed) as found:
        assert found is not None
        assert found.gate_open == {0: 0, 1: 0, 2: 0}
        assert found.logit_change == 0.0
        for one, other in zip(backend.logits(sequences), logits, strict=True):
            assert one.tobytes() == other.tobytes()
        assert generated(backend) == ids
    # The same operators without the gate do change both.
    with backend.steer(closed.ungated()):
        assert backend.logits(sequences)[0].tobytes() != logits[0].tobytes()
        assert generated(backend) != ids


@pytest.mark.parametrize("positions", [Positions(), Positions("generated")], ids=str)
@pytest.mark.parametrize("scope", ["token", "prompt"])
def test_an_open_gate_is_the_operator(positions: Positions, scope: str) -> None:
    backend = tiny_backend()
    bare = steering(backend, [0, 2], positions=positions)
    sequences = [tokens(4 + 3 * i, i) for i in range(4)]
    with backend.steer(bare):
        logits = backend.logits(sequences, n_prompt=[2] * 4)
        ids = generated(backend)
    with backend.steer(bare.gated(gate(OPEN, scope=scope))) as found:
        assert found is not None
        assert set(found.gate_open.values()) == {found.n_positions}
        for one, other in zip(backend.logits(sequences, n_prompt=[2] * 4), logits, strict=True):
            assert one.tobytes() == other.tobytes()
        assert generated(backend) == ids


@pytest.mark.parametrize("scope", ["token", "prompt"])
def test_generation_agrees_with_scoring_its_own_text(scope: str) -> None:
    """Cache, left padding and batches decide as one pass over each whole text does."""
    backend = tiny_backend()
    prompts = [prompt(3 + i, i) for i in range(6)]
    ids = [backend.tokenize(text) for text in prompts]
    gated = steering(backend, [1], push(length=6.0)).gated(split(backend, 1, ids, scope=scope))
    options = SamplingOptions(max_tokens=8, temperature=0.0, stop_at_eos=False)
    with backend.steer(gated):
        together = [sample.ids for sample in backend.generate(prompts, options)]
        alone = [backend.generate([text], options)[0].ids for text in prompts]
        assert together == alone
        for own, made in zip(ids, together, strict=True):
            (scored,) = backend.logits([[*own, *made]], n_prompt=[len(own)])
            assert [int(i) for i in scored[len(own) - 1 : -1].argmax(axis=-1)] == list(made)
        shares = []
        for own, probe in zip(ids, backend.probe(ids, [1]), strict=True):
            changed = (probe.before[0] != probe.after[0]).any(axis=-1)[1:]
            expected = gated.gates[1].factors(probe.before[0], len(own))[1:] > 0
            assert (changed == expected).all()
            shares.append(changed.mean())
    # Some tokens are steered and some are not; by prompts, all of a sequence or none.
    assert 0 < np.mean(shares) < 1
    assert scope == "token" or set(shares) == {0.0, 1.0}
    with backend.steer(gated.ungated()):
        assert [sample.ids for sample in backend.generate(prompts, options)] != together


def test_a_prompt_gate_decides_for_each_sequence_of_a_batch() -> None:
    """A row that its prompt closes stays plain to the last token beside one that opens."""
    backend = tiny_backend()
    prompts = [prompt(3 + i % 4, i) for i in range(8)]
    ids = [backend.tokenize(text) for text in prompts]
    means = np.stack([s[0, 1:].mean(axis=0) for s in backend.residuals(ids, [1])])
    score = gate().score(means)
    at = float(np.median(score))
    options = SamplingOptions(max_tokens=8, temperature=0.0, stop_at_eos=False)
    plain = [sample.ids for sample in backend.generate(prompts, options)]
    gated = steering(backend, [1], push(length=20.0)).gated(gate(at, scope="prompt"))
    with backend.steer(gated, verify=False):
        some = [sample.ids for sample in backend.generate(prompts, options)]
    with backend.steer(gated.ungated(), verify=False):
        every = [sample.ids for sample in backend.generate(prompts, options)]
    assert some == [every[i] if score[i] >= at else plain[i] for i in range(8)]
    assert plain != some != every


# ---- the proof of application ----


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["f32", "bf16"])
@pytest.mark.parametrize("name", ["hard", "cosine", "smooth", "floored"])
@pytest.mark.parametrize("scope", ["token", "prompt"])
def test_gated_changes_are_verified(dtype: torch.dtype, name: str, scope: Any) -> None:
    forms: dict[str, dict[str, Any]] = {
        "hard": {},
        "cosine": {"measure": "cosine"},
        "smooth": {"width": 3.0},
        "floored": {"width": 3.0, "floor": 0.5},
    }
    options = forms[name]
    backend = tiny_backend(dtype=dtype)
    made = split(backend, 0, [probe_ids(backend)], **options)
    gated = steering(backend, range(N_LAYERS)).gated(replace(made, scope=scope))
    with backend.steer(gated) as found:
        assert found is not None
        assert found.gate_undecided == 0
        assert set(found.gate_open) == {0, 1, 2}
        if scope == "token":
            assert 0 < found.gate_open[0] < found.n_positions
        # A smooth factor may be off by what float32 loses in a score, all else by a few roundings.
        assert found.worst_error < (1e-5 if dtype == torch.float32 else 1e-2)
        assert "where the gate opens" in found.describe() or found.without_gates is not None


def test_a_gate_closed_on_all_probe_tokens_is_no_error_and_the_operator_is_proven() -> None:
    backend = tiny_backend()
    gated = steering(backend, [1]).gated(gate(CLOSED))
    with backend.steer(gated) as found:
        assert found is not None
        assert backend.intervention is gated
        assert found.relative_change == {1: 0.0}
        assert found.without_gates is not None
        assert found.without_gates.relative_change[1] > 0.05
        assert found.describe().startswith(
            "verified: gate closed on all probe tokens at block 1, logits moved by 0; without the "
            "gate block 1 steered, change "
        )


def test_a_gate_that_can_never_open_is_an_error() -> None:
    backend = tiny_backend()
    shut = gate(1.5, measure="cosine")
    mixed = steering(backend, [0, 1]).gated({1: shut})
    with (
        pytest.raises(InterventionError, match=r"gates that some state can open.* at block 1, whi"),
        backend.steer(mixed),
    ):
        pass
    assert backend.intervention is None
    alone = steering(backend, [1]).gated(shut)
    assert alone.changes_nothing()
    assert not mixed.changes_nothing()
    with backend.steer(alone, control=True) as found:
        assert found is not None
        assert found.logit_change == 0.0
    with backend.steer(mixed.at_strength(0.0)):
        pass


def test_tokens_on_the_threshold_are_left_out_and_counted() -> None:
    """A threshold put on the score of one probe token: rounding decides about it."""
    backend = tiny_backend()
    (probe,) = backend.probe([probe_ids(backend)], [1])
    score = gate().score(probe.before[0])
    for flip in (0.0, 3e-7, -3e-7):
        gated = steering(backend, [1]).gated(gate(float(score[5]) * (1 + flip)))
        with backend.steer(gated) as found:
            assert found is not None
            assert found.gate_undecided == 1
            assert "1 more within rounding of its threshold left out" in found.describe()


@contextmanager
def broken(monkeypatch: pytest.MonkeyPatch, change: Any) -> Iterator[None]:
    original = PlacedGate.strengths

    def strengths(self: PlacedGate, hidden: Any, active: Any) -> Any:
        return change(original(self, hidden, active))

    with monkeypatch.context() as patch:
        patch.setattr(PlacedGate, "strengths", strengths)
        yield


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda f: torch.ones_like(f), "expected no change at block 1 outside"),
        (lambda f: 1 - f, "expected no change at block 1 outside"),
        (lambda f: f.roll(1), "expected no change at block 1 outside"),
        (lambda f: 0.9 * f, "expected the analytic change at block 1"),
        (lambda f: torch.zeros_like(f), "expected a change at block 1, got none"),
        (lambda f: f + 1e-6, "expected no change at block 1 outside"),
    ],
)
def test_a_backend_that_gates_wrongly_is_caught(
    monkeypatch: pytest.MonkeyPatch, change: Any, words: str
) -> None:
    backend = tiny_backend()
    gated = steering(backend, [1]).gated(split(backend, 1, [probe_ids(backend)]))
    with backend.steer(gated) as found:
        assert found is not None
        assert 0 < found.gate_open[1] < found.n_positions
    with (
        broken(monkeypatch, change),
        pytest.raises(InterventionError) as caught,
        backend.steer(gated),
    ):
        pass
    assert words in str(caught.value)


@pytest.mark.parametrize("factor", [0.98, 1.02])
def test_a_smooth_factor_that_is_wrong_by_two_percent_is_caught(
    monkeypatch: pytest.MonkeyPatch, factor: float
) -> None:
    backend = tiny_backend()
    gated = steering(backend, [1], push()).gated(gate(width=3.0))
    with (
        broken(monkeypatch, lambda f: factor * f),
        pytest.raises(InterventionError) as caught,
        backend.steer(gated),
    ):
        pass
    assert "expected the analytic change at block 1" in str(caught.value)


def test_a_backend_that_forgets_the_gate_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    backend = tiny_backend()
    original = hooks.SteeringHooks.__init__

    def forgetful(self: Any, blocks: Any, clock: Any, intervention: Intervention) -> None:
        original(self, blocks, clock, intervention.ungated())

    monkeypatch.setattr(hooks.SteeringHooks, "__init__", forgetful)
    with (
        pytest.raises(InterventionError, match="expected no change at block 2 outside"),
        backend.steer(steering(backend, [2]).gated(gate(CLOSED))),
    ):
        pass


@pytest.mark.llamacpp
def test_llamacpp_refuses_gates_by_name(tiny_gguf: Path) -> None:
    with LlamaCppBackend(tiny_gguf, threads=1) as backend:
        bare = Intervention({1: push(backend.identity.d_model)}, backend.identity)
        with (
            pytest.raises(
                InterventionError, match=r"^\[llamacpp\] expected an .*\bblock 1: .*use "
            ),
            backend.steer(bare.gated(gate(OPEN))),
        ):
            pass
        assert backend.intervention is None
        with backend.steer(bare) as found:
            assert found is not None
