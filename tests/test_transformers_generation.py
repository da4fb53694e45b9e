"""Generation by transformers: batches, the cache, seeds, ends, and text cut by token ids."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch

from _models import (
    CONTEXT,
    N_LAYERS,
    prompt,
    push,
    steering,
    tiny_backend,
)
from cogit.backends.transformers import TransformersBackend
from cogit.positions import Positions
from cogit.sampling import Sample, Sampler, SamplingOptions

if TYPE_CHECKING:
    pass

SAMPLING = SamplingOptions(max_tokens=12, temperature=0.8, seed=3)


@pytest.fixture(scope="module")
def backend() -> TransformersBackend:
    return tiny_backend()


def texts(samples: list[Sample]) -> list[tuple[int, ...]]:
    return [sample.ids for sample in samples]


def test_batches_equal_single_prompts(backend: TransformersBackend) -> None:
    """Left-padded rows of different lengths, at temperature 0.8: same noise, same tokens."""
    prompts = [prompt(n, n) for n in (9, 2, 5, 1, 7)]
    ids = [backend.tokenize(text) for text in prompts]
    for positions in (
        Positions(),
        Positions("prompt"),
        Positions("generated"),
        Positions("range", 2, 8),
    ):
        with backend.steer(steering(backend, [0, 2], push(), positions=positions)):
            together = backend.generate(prompts, SAMPLING)
            for row, prompt_ids in enumerate(ids):
                alone = backend._generate([prompt_ids], [row], Sampler(SAMPLING, [row]))[0]
                expected = alone[:-1] if alone[-1] in backend.eos_ids else alone
                assert list(together[row].ids) == expected


def test_batch_size_does_not_matter(backend: TransformersBackend) -> None:
    prompts = [prompt(n, n) for n in (9, 2, 5, 1, 7)]
    with backend.steer(steering(backend, [1])):
        whole = backend.generate(prompts, SAMPLING)
        size, backend.batch_size = backend.batch_size, 2
        try:
            assert backend.generate(prompts, SAMPLING) == whole
        finally:
            backend.batch_size = size
    assert [sample.prompt for sample in whole] == prompts


@pytest.mark.parametrize(
    "positions",
    [Positions(), Positions("prompt"), Positions("generated"), Positions("range", 6, 9)],
    ids=str,
)
def test_the_cache_equals_recomputing(backend: TransformersBackend, positions: Positions) -> None:
    """Each next token is what whole forward passes without a cache give."""
    text = prompt(4)
    prompt_ids = backend.tokenize(text)
    with backend.steer(steering(backend, range(N_LAYERS), positions=positions)):
        sampled = backend.generate([text], SamplingOptions(max_tokens=8, stop_at_eos=False))[0]
        sampler = Sampler(SamplingOptions(max_tokens=8), [0])
        ids = list(prompt_ids)
        for _ in range(8):
            logits = backend.logits([ids], n_prompt=[len(prompt_ids)])[0]
            ids.append(sampler.choose(logits[-1:], [0])[0])
    assert list(sampled.ids) == ids[len(prompt_ids) :]


def test_steering_the_prompt_alone_differs_from_steering_what_follows(
    backend: TransformersBackend,
) -> None:
    results = set()
    for positions in (Positions(), Positions("prompt"), Positions("generated")):
        with backend.steer(steering(backend, [1], positions=positions), verify=False):
            results.add(backend.generate([prompt(6)], SAMPLING)[0].ids)
    results.add(backend.generate([prompt(6)], SAMPLING)[0].ids)
    assert len(results) == 4


def test_sampling_follows_the_seed(backend: TransformersBackend) -> None:
    first, again, other = (
        backend.generate([prompt(3)] * 2, SamplingOptions(seed=seed)) for seed in (1, 1, 2)
    )
    assert first == again
    assert texts(first) != texts(other)
    assert first[0].ids != first[1].ids  # rows have noise of their own
    greedy = backend.generate([prompt(3)] * 2, SamplingOptions(temperature=0.0))
    assert greedy[0].ids == greedy[1].ids


class Rigged(torch.nn.Module):
    """An output layer that always prefers the tokens of a script, one each step."""

    def __init__(self, inner: torch.nn.Module, script: list[int], start: int) -> None:
        super().__init__()
        self.inner, self.script, self.step = inner, script, start

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.inner(hidden)
        logits[..., self.script[self.step]] = 1e4
        self.step += 1
        return logits


@pytest.mark.parametrize("stop_at_eos", [True, False])
def test_samples_end_at_the_end_token(stop_at_eos: bool) -> None:
    backend = tiny_backend()
    backend.model.lm_head = Rigged(backend.model.lm_head, [7, 8, 2, 9, 10], 0)
    options = SamplingOptions(max_tokens=5, temperature=0.0, stop_at_eos=stop_at_eos)
    sample = backend.generate(["w5 w6"], options)[0]
    if stop_at_eos:
        assert sample == Sample("w5 w6", (1, 5, 6), (7, 8), "w7 w8", "stop")
    else:
        assert sample == Sample("w5 w6", (1, 5, 6), (7, 8, 2, 9, 10), "w7 w8 w9 w10", "length")


def test_the_models_own_generation_config_is_left_alone() -> None:
    backend = tiny_backend()
    model: Any = backend.model
    plain = texts(backend.generate([prompt(4)], SAMPLING))
    model.generation_config.repetition_penalty = 5.0
    model.generation_config.do_sample = True
    before = model.generation_config.to_dict()
    assert texts(backend.generate([prompt(4)], SAMPLING)) == plain
    assert model.generation_config.to_dict() == before


def test_text_is_cut_by_token_ids(backend: TransformersBackend) -> None:
    """A prompt that does not survive decoding does not shift the continuation."""
    text = "unheard  w5   words"
    sample = backend.generate([text], SamplingOptions(max_tokens=4, stop_at_eos=False))[0]
    assert sample.prompt == text
    assert sample.prompt_ids == (1, 0, 5, 0)
    assert len(sample.ids) == 4
    assert sample.text == backend.detokenize(sample.ids)
    assert sample.finish_reason == "length"


@pytest.mark.parametrize(("n_words", "max_tokens"), [(CONTEXT, 1), (100, 40)])
def test_prompts_that_do_not_fit_are_refused(
    backend: TransformersBackend, n_words: int, max_tokens: int
) -> None:
    with pytest.raises(ValueError, match=r"^\[generate\] expected prompt and continuation within"):
        backend.generate(["w5", prompt(n_words)], SamplingOptions(max_tokens=max_tokens))


def test_a_prompt_may_fill_the_context(backend: TransformersBackend) -> None:
    options = SamplingOptions(max_tokens=8, stop_at_eos=False)
    sample = backend.generate([prompt(CONTEXT - 9)], options)[0]
    assert len(sample.prompt_ids) + len(sample.ids) == CONTEXT
