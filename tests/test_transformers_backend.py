"""The transformers backend on tiny random models: states, windows of tokens, hooks."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from _models import (
    CONTEXT,
    D_MODEL,
    N_LAYERS,
    N_VOCAB,
    prompt,
    push,
    steering,
    tiny_backend,
    tiny_model,
    tokens,
    turn,
    word_tokenizer,
)
from cogit import reference
from cogit.backends.transformers import TransformersBackend
from cogit.errors import InterventionError
from cogit.operators import Additive, registered
from cogit.positions import Positions
from cogit.sampling import SamplingOptions

if TYPE_CHECKING:
    from cogit.intervention import Intervention

# float32 through a few tiny blocks in two orders of summation: measured below 2e-6 of the states.
ORDER = {"rtol": 1e-4, "atol": 2e-5}
SAMPLING = SamplingOptions(max_tokens=12, temperature=0.8, seed=3)
WINDOWS = [
    (Positions(), range(1, 12)),
    (Positions(first_token=True), range(12)),
    (Positions("prompt"), range(1, 5)),
    (Positions("prompt", first_token=True), range(5)),
    (Positions("generated"), range(5, 12)),
    (Positions("range", 3, 6), range(3, 6)),
    (Positions("range", 0, 3), range(1, 3)),
    (Positions("range", 0, 1, first_token=True), range(1)),
    (Positions("range", 7), range(7, 12)),
]


@pytest.fixture(scope="module")
def backend() -> TransformersBackend:
    return tiny_backend()


@pytest.fixture(autouse=True)
def no_leftovers(backend: TransformersBackend) -> Any:
    """Every test leaves the shared backend unsteered and without hooks on its blocks."""
    yield
    assert backend.intervention is None
    assert hooks_of(backend) == 0


def hooks_of(backend: TransformersBackend) -> int:
    return sum(len(block._forward_hooks) for block in backend.model.model.layers)


# ---- what it is ----


def test_identity(backend: TransformersBackend) -> None:
    identity = backend.identity
    assert (identity.n_layers, identity.d_model, identity.vocab_size) == (
        N_LAYERS,
        D_MODEL,
        N_VOCAB,
    )
    assert identity.architecture == "llama"
    assert backend.context_length == CONTEXT
    assert backend.eos_ids == {2}
    assert backend.kernel == "compiled"
    assert backend.precision == torch.finfo(torch.float32).eps


def test_tokens_go_there_and_back(backend: TransformersBackend) -> None:
    ids = backend.tokenize("w5 w7 w5")
    assert ids == [1, 5, 7, 5]
    assert backend.detokenize(ids) == "w5 w7 w5"


def test_states_are_the_models_own(backend: TransformersBackend) -> None:
    """Layer i is Hugging Face's hidden_states[i + 1], before the final norm."""
    ids = tokens(9)
    probe = backend.probe([ids], range(N_LAYERS))[0]
    output = own_states(tiny_model(), ids)
    for layer in range(N_LAYERS - 1):  # the last entry has passed the final norm
        np.testing.assert_array_equal(
            probe.after[layer], output.hidden_states[layer + 1][0].numpy()
        )
    np.testing.assert_array_equal(probe.before, probe.after)
    np.testing.assert_array_equal(probe.logits, output.logits[0].numpy())
    normed = backend.model.model.norm(torch.tensor(probe.after[-1]))
    np.testing.assert_allclose(
        normed.detach().numpy(), output.hidden_states[-1][0].numpy(), **ORDER
    )


def own_states(model: Any, ids: list[int]) -> Any:
    """The model's own account of its states; it leaves hooks of its own behind."""
    with torch.inference_mode():
        return model(torch.tensor([ids]), output_hidden_states=True)


@pytest.mark.parametrize("asked_before", [False, True])
def test_the_model_itself_reports_steered_states(asked_before: bool) -> None:
    backend = tiny_backend()
    ids = tokens(9)
    if asked_before:
        own_states(backend.model, ids)
    with backend.steer(steering(backend, [0, 1])):
        probe = backend.probe([ids], range(N_LAYERS))[0]
        output = own_states(backend.model, ids)
    for layer in (0, 1):
        states = output.hidden_states[layer + 1][0]
        np.testing.assert_allclose(states.numpy(), probe.after[layer], **ORDER)


def test_sequences_of_different_lengths(backend: TransformersBackend) -> None:
    sequences = [tokens(n, n) for n in (7, 1, 12, 4)]
    together = backend.probe(sequences, [0, 2])
    for ids, probe in zip(sequences, together, strict=True):
        alone = backend.probe([ids], [0, 2])[0]
        assert probe.after.shape == (2, len(ids), D_MODEL)
        assert probe.logits.shape == (len(ids), N_VOCAB)
        np.testing.assert_allclose(probe.after, alone.after, **ORDER)
        np.testing.assert_allclose(probe.logits, alone.logits, **ORDER)


def test_logits_are_those_of_the_probe(backend: TransformersBackend) -> None:
    sequences = [tokens(n, n) for n in (7, 3, 9)]
    for logits, probe in zip(backend.logits(sequences), backend.probe(sequences, ()), strict=True):
        np.testing.assert_allclose(logits, probe.logits, **ORDER)


@pytest.mark.parametrize("sequences", [[], [[]], [[3], []]])
def test_empty_sequences_are_refused(backend: TransformersBackend, sequences: Any) -> None:
    with pytest.raises(ValueError, match=r"^\[forward\] expected sequences of at least one token"):
        backend.probe(sequences, [0])


def test_too_long_sequences_are_refused(backend: TransformersBackend) -> None:
    with pytest.raises(ValueError, match=rf"^\[forward\] expected at most {CONTEXT} tokens"):
        backend.logits([tokens(CONTEXT + 1)])


# ---- steering ----


@pytest.mark.parametrize("kind", registered())
def test_what_lands_is_the_reference(backend: TransformersBackend, kind: str) -> None:
    operator = registered()[kind].example(D_MODEL, 1)
    intervention = steering(backend, [0, 2], operator, strength=0.6)
    ids = tokens(10)
    with backend.steer(intervention) as found:
        probe = backend.probe([ids], range(N_LAYERS))[0]
    assert found is not None
    assert found.relative_change.keys() == {0, 2}
    np.testing.assert_array_equal(probe.after[1], probe.before[1])
    for layer in (0, 2):
        before, after = probe.before[layer], probe.after[layer]
        np.testing.assert_array_equal(after[0], before[0])  # the first token
        expected = reference.affine_apply(intervention.folds()[layer], before[1:])
        np.testing.assert_allclose(after[1:], expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("positions", "steered"), WINDOWS, ids=str)
def test_windows(backend: TransformersBackend, positions: Positions, steered: range) -> None:
    """12 tokens, of which 5 are the prompt."""
    intervention = steering(backend, [1], positions=positions)
    with backend.steer(intervention, verify=False):
        probe = backend.probe([tokens(12)], [1], n_prompt=5)[0]
    changed = np.flatnonzero((probe.before != probe.after).any(axis=(0, 2)))
    assert changed.tolist() == list(steered)


@pytest.mark.parametrize(("positions", "steered"), WINDOWS, ids=str)
def test_windows_are_each_rows_own(
    backend: TransformersBackend, positions: Positions, steered: range
) -> None:
    """Right-padded rows of different lengths, with prompts of different lengths."""
    sequences = [tokens(12, 1), tokens(7, 2), tokens(9, 3)]
    lengths = [5, 3, 5]
    intervention = steering(backend, [0, 1], positions=positions)
    with backend.steer(intervention, verify=False):
        together = backend.logits(sequences, n_prompt=lengths)
        alone = [
            backend.logits([ids], n_prompt=[n])[0]
            for ids, n in zip(sequences, lengths, strict=True)
        ]
    for one, other in zip(together, alone, strict=True):
        np.testing.assert_allclose(one, other, **ORDER)


def test_nothing_before_the_window_changes(backend: TransformersBackend) -> None:
    """Logits before the first steered token are those of the plain model, bit for bit."""
    ids = tokens(12)
    plain = backend.logits([ids])[0]
    with backend.steer(steering(backend, [0], positions=Positions("range", 6)), verify=False):
        steered = backend.logits([ids])[0]
    np.testing.assert_array_equal(steered[:6], plain[:6])
    assert (np.abs(steered[6:] - plain[6:]).max(axis=1) > 1e-3).all()


def test_strength_zero_is_the_plain_model_bit_for_bit(backend: TransformersBackend) -> None:
    sequences = [tokens(9, 1), tokens(5, 2)]
    plain, sampled = backend.logits(sequences), backend.generate([prompt(4)], SAMPLING)
    with backend.steer(steering(backend, range(N_LAYERS), strength=0.0)) as found:
        assert found is not None
        assert found.describe() == "verified: nothing is steered (control)"
        for one, other in zip(backend.logits(sequences), plain, strict=True):
            np.testing.assert_array_equal(one, other)
        assert backend.generate([prompt(4)], SAMPLING) == sampled


def test_opposite_strengths_of_a_vector_cancel(backend: TransformersBackend) -> None:
    ids = tokens(8)
    both = Additive(push().vector - push().vector)
    plain = backend.logits([ids])[0]
    with backend.steer(steering(backend, [1], both), control=True):
        np.testing.assert_array_equal(backend.logits([ids])[0], plain)


def test_only_later_blocks_see_it(backend: TransformersBackend) -> None:
    ids = tokens(8)
    plain = backend.residuals([ids], range(N_LAYERS))[0]
    with backend.steer(steering(backend, [1])):
        steered = backend.residuals([ids], range(N_LAYERS))[0]
    np.testing.assert_array_equal(steered[0], plain[0])
    for layer in (1, 2):
        assert (np.abs(steered[layer, 1:] - plain[layer, 1:]).max(axis=-1) > 1e-3).all()
    np.testing.assert_array_equal(steered[:, 0], plain[:, 0])  # causal: the first token sees itself


# ---- entering and leaving ----


def test_hooks_are_removed(backend: TransformersBackend) -> None:
    ids = tokens(6)
    plain = backend.logits([ids])[0]
    with backend.steer(steering(backend, [0, 2])):
        assert hooks_of(backend) == 2
        assert backend.intervention is not None
    assert hooks_of(backend) == 0
    np.testing.assert_array_equal(backend.logits([ids])[0], plain)


def test_hooks_are_removed_after_an_exception(backend: TransformersBackend) -> None:
    def fail() -> None:
        with backend.steer(steering(backend, [0])):
            message = "inside"
            raise RuntimeError(message)

    with pytest.raises(RuntimeError, match="inside"):
        fail()
    assert hooks_of(backend) == 0
    assert backend.intervention is None


def test_hooks_are_removed_when_the_forward_pass_fails(backend: TransformersBackend) -> None:
    with backend.steer(steering(backend, [0])), pytest.raises(IndexError):
        backend.probe([[N_VOCAB + 5]], [0, 1])
    assert hooks_of(backend) == 0


def test_a_model_that_breaks_down_is_noticed() -> None:
    backend = tiny_backend()
    with torch.no_grad():
        backend.model.lm_head.weight[5] = torch.nan
    with pytest.raises(ValueError, match="finite logits"), backend.steer(steering(backend, [0])):
        backend.generate([prompt(3)], SAMPLING)
    assert hooks_of(backend) == 0


def test_nesting_is_refused(backend: TransformersBackend) -> None:
    intervention = steering(backend, [0])
    with (
        backend.steer(intervention),
        pytest.raises(
            ValueError, match=r"^\[steer\] expected an unsteered backend, got one under "
        ),
        backend.steer(intervention),
    ):
        pass
    with backend.steer(intervention):  # afterwards it is free again
        pass


def test_the_outer_intervention_survives_a_refused_inner_one(backend: TransformersBackend) -> None:
    ids = tokens(6)
    intervention = steering(backend, [0])
    with backend.steer(intervention):
        steered = backend.logits([ids])[0]
        with pytest.raises(ValueError, match="unsteered"), backend.steer(intervention):
            pass
        np.testing.assert_array_equal(backend.logits([ids])[0], steered)


def test_dialling(backend: TransformersBackend) -> None:
    ids = tokens(6)
    intervention = steering(backend, [1])
    with backend.steer(intervention):
        first = backend.logits([ids])[0]
        backend.dial(intervention.at_strength(2.0))
        stronger = backend.logits([ids])[0]
        backend.dial(intervention)
        np.testing.assert_array_equal(backend.logits([ids])[0], first)
    assert np.abs(stronger - first).max() > 1e-3
    with backend.steer(intervention.at_strength(2.0)):
        np.testing.assert_array_equal(backend.logits([ids])[0], stronger)


def test_another_models_intervention_is_refused(backend: TransformersBackend) -> None:
    other = tiny_backend("GPT2")
    narrow = steering(other, [0])  # the same shape: the same model in another format is welcome
    with backend.steer(narrow):
        pass
    for identity, operator in (
        (replace(backend.identity, d_model=32), turn(32)),
        (replace(backend.identity, n_layers=12), turn()),
    ):
        wrong: Intervention = replace(narrow, identity=identity, operators={0: operator})
        message = r"^\[intervention\] expected a model with "
        with pytest.raises(InterventionError, match=message), backend.steer(wrong):
            pass
        assert backend.intervention is None


def test_an_intervention_without_effect_is_refused(backend: TransformersBackend) -> None:
    tiny = Additive(np.full(D_MODEL, 1e-12))  # below the rounding of the states
    with (
        pytest.raises(
            InterventionError, match=r"^\[verify\] expected a change at block 1, got none"
        ),
        backend.steer(steering(backend, [1], tiny)),
    ):
        pass


def test_close_leaves_the_model_as_it_was() -> None:
    model = tiny_model()
    ids = torch.tensor([tokens(6)])
    with torch.inference_mode():
        plain = model(ids).logits
    with TransformersBackend(model, word_tokenizer(), name="m") as backend:
        backend.generate([prompt(3)], SAMPLING)
    backend.close()
    assert not model._forward_pre_hooks
    with torch.inference_mode():
        assert torch.equal(model(ids).logits, plain)


# ---- the steered model in the user's own hands ----


def test_a_users_own_call_is_steered_alike(backend: TransformersBackend) -> None:
    ids = tokens(7)
    with backend.steer(steering(backend, [0, 1])):
        expected = backend.logits([ids])[0]
        with torch.inference_mode():
            without_mask = backend.model(torch.tensor([ids])).logits[0].numpy()
            embedded = backend.model.get_input_embeddings()(torch.tensor([ids]))
            by_embedding = backend.model(inputs_embeds=embedded).logits[0].numpy()
            first = backend.model(torch.tensor([ids[:4]]), use_cache=True)
            later = backend.model(torch.tensor([ids[4:]]), past_key_values=first.past_key_values)
    np.testing.assert_allclose(without_mask, expected, **ORDER)
    np.testing.assert_allclose(by_embedding, expected, **ORDER)
    np.testing.assert_allclose(later.logits[0].numpy(), expected[4:], **ORDER)


def test_blocks_called_without_the_model_are_refused() -> None:
    """Without the whole model's call nobody knows where the tokens stand."""
    backend = tiny_backend()
    with backend.steer(steering(backend, [0]), verify=False):
        with (
            torch.inference_mode(),
            pytest.raises(ValueError, match=r"^\[steer\] expected a call of"),
        ):
            backend.model.model(torch.tensor([tokens(5)]))
        backend.logits([tokens(9)])
        with (
            torch.inference_mode(),
            pytest.raises(ValueError, match=r"^\[steer\] expected a call of"),
        ):
            backend.model.model(torch.tensor([tokens(5)]))
