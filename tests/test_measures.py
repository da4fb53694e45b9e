"""Costs of steering: likelihoods against torch, and closed forms of perplexity and divergence."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from _planted import FACTS, PLAIN, planted_backend, sampling, texts
from cogit.evaluation import measures
from cogit.sampling import Sample

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from cogit.backends.transformers import TransformersBackend


class FixedLogits:
    """Stands in for a backend that gives every position the same logits."""

    def __init__(self, row: Sequence[float]) -> None:
        self._row = np.array(row, np.float32)

    def logits(self, sequences: Sequence[Sequence[int]]) -> list[NDArray[np.float32]]:
        return [np.tile(self._row, (len(ids), 1)) for ids in sequences]


def fixed(row: Sequence[float]) -> Any:
    return FixedLogits(row)


def sample(ids: Sequence[int], prompt_ids: Sequence[int] = (1, 2)) -> Sample:
    return Sample("", tuple(prompt_ids), tuple(ids), "", "length")


def two_tokens(probability: float, n: int = 1) -> NDArray[np.float32]:
    """Logits (n, 2) whose first token has the given probability."""
    row = [np.log(probability), np.log1p(-probability)]
    return np.tile(np.array(row, np.float32), (n, 1))


@pytest.fixture(scope="module")
def backend() -> TransformersBackend:
    return planted_backend()


def test_log_likelihoods_are_torch_cross_entropies(backend: TransformersBackend) -> None:
    sequences = [backend.tokenize(text) for n in (3, 7) for text in texts(4, n, PLAIN, n)]
    found = measures.log_likelihoods(backend, sequences)
    for ids, values in zip(sequences, found, strict=True):
        with torch.inference_mode():
            logits = backend.model(torch.tensor([ids])).logits[0, :-1].double()
        losses = torch.nn.functional.cross_entropy(logits, torch.tensor(ids[1:]), reduction="none")
        assert values.dtype == np.float64
        # The softmax is float64 on both sides; the float32 logits differ by the order of sums in
        # a padded batch, 1e-6 of logits of at most about 20.
        np.testing.assert_allclose(values, -losses.numpy(), rtol=0, atol=1e-4)


def test_log_likelihoods_skip_the_first_token_only() -> None:
    (values,) = measures.log_likelihoods(fixed([0.0, np.log(3.0)]), [[0, 1, 0, 1]])
    # float32 holds log 3 to 1e-7.
    np.testing.assert_allclose(values, np.log([0.75, 0.25, 0.75]), rtol=1e-6)


def test_perplexity_of_a_uniform_model_is_its_vocabulary() -> None:
    samples = [sample([0, 3, 4]), sample([2])]
    nll = measures.negative_log_likelihood(fixed([0.0] * 5), samples)
    assert np.exp(nll) == pytest.approx(5.0, rel=1e-12)


def test_perplexity_counts_generated_tokens_alone_and_each_once() -> None:
    # Token 0 costs log 4 and token 1 log(4/3); the prompts of token 0 must not count.
    samples = [sample([1, 1, 1], [0, 0, 0]), sample([0], [0])]
    nll = measures.negative_log_likelihood(fixed([0.0, np.log(3.0)]), samples)
    # float32 holds log 3 to 1e-7.
    assert nll == pytest.approx((3 * np.log(4 / 3) + np.log(4.0)) / 4, rel=1e-6)


def test_perplexity_leaves_out_empty_continuations() -> None:
    model = fixed([0.0, 1.0, 2.0])
    one = measures.negative_log_likelihood(model, [sample([1])])
    assert measures.negative_log_likelihood(model, [sample([1]), sample([])]) == one
    with pytest.raises(ValueError, match=r"^\[perplexity\] expected generated tokens"):
        measures.negative_log_likelihood(model, [sample([])])


def test_perplexity_of_greedy_text_is_lower_than_of_sampled_text(
    backend: TransformersBackend,
) -> None:
    prompts = texts(12, 2, PLAIN, 3)
    options = sampling()
    greedy = type(options)(max_tokens=options.max_tokens, temperature=0.0)
    costs = [
        measures.negative_log_likelihood(backend, backend.generate(prompts, chosen))
        for chosen in (greedy, options)
    ]
    assert costs[0] < costs[1]


def test_divergence_of_equal_logits_is_exactly_zero(backend: TransformersBackend) -> None:
    logits = backend.logits([backend.tokenize(text) for text in texts(4, 3, FACTS, 5)])
    assert measures.token_divergence(logits, logits) == 0.0


@pytest.mark.parametrize(("p", "q"), [(0.5, 0.25), (0.9, 0.1), (0.01, 0.02)])
def test_divergence_of_two_tokens_has_a_closed_form(p: float, q: float) -> None:
    expected = p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q))
    found = measures.token_divergence([two_tokens(p)], [two_tokens(q)])
    # The logits are rounded to float32: 1e-7 of at most 5, against divergences above 0.004.
    assert found == pytest.approx(expected, rel=1e-4)


def test_divergence_is_a_mean_over_tokens_of_all_sequences() -> None:
    plain = [two_tokens(0.5, 3), two_tokens(0.5, 1)]
    steered = [two_tokens(0.5, 3), two_tokens(0.25, 1)]
    one = measures.token_divergence([two_tokens(0.5)], [two_tokens(0.25)])
    assert measures.token_divergence(plain, steered) == pytest.approx(one / 4, rel=1e-12)


def test_divergence_is_never_negative_and_ignores_a_shift() -> None:
    rng = np.random.default_rng(0)
    for scale in (1e-4, 1.0, 30.0):
        a = (scale * rng.standard_normal((20, 50))).astype(np.float32)
        b = a + (scale * rng.standard_normal((20, 50))).astype(np.float32)
        assert measures.token_divergence([a], [b]) >= 0.0
        # A constant added to a row of logits changes no probability; 64 costs float32 4e-6.
        assert measures.token_divergence([a], [a + np.float32(64.0)]) < 1e-9


def test_divergence_where_a_token_is_ruled_out() -> None:
    never = np.array([[0.0, 0.0, -np.inf]], np.float32)
    possible = np.array([[0.0, 0.0, 0.0]], np.float32)
    # The masked token adds nothing: log of (1/2) over (1/3).
    assert measures.token_divergence([never], [possible]) == pytest.approx(np.log(1.5), rel=1e-12)
    assert measures.token_divergence([never], [never]) == 0.0
    assert measures.token_divergence([possible], [never]) == np.inf


def test_divergence_of_broken_logits_is_an_error() -> None:
    good, bad = two_tokens(0.5, 2), np.full((2, 2), np.nan, np.float32)
    for pair in (([good], [bad]), ([bad], [good]), ([good], [good[:1]]), ([], [])):
        with pytest.raises(ValueError, match=r"^\[divergence\] expected logits of"):
            measures.token_divergence(*pair)


@pytest.mark.parametrize(
    ("ids", "share"),
    [
        ([1, 2, 3, 4, 5], 0.0),
        ([1, 1, 1, 1, 1], 2 / 3),  # one distinct of three
        ([1, 2, 1, 2, 1, 2], 0.5),  # two distinct of four
        ([1, 2, 3, 1, 2, 3], 0.25),  # three distinct of four
    ],
)
def test_repetition_is_the_share_of_used_trigrams(ids: list[int], share: float) -> None:
    assert measures.repetition([sample(ids)]) == pytest.approx(share, abs=1e-15)


def test_repetition_is_a_mean_over_samples_that_are_long_enough() -> None:
    samples = [sample([1, 1, 1, 1]), sample([1, 2, 3, 4]), sample([1, 2]), sample([])]
    assert measures.repetition(samples) == pytest.approx(0.25, abs=1e-15)
    assert measures.repetition([sample([1, 2])]) == 0.0
    assert measures.repetition([]) == 0.0
