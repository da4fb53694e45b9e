"""What the demo model must be able to do before it is shipped, measured on held-out prompts."""

from __future__ import annotations

import math
import re
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from cogit.demo import grammar
from cogit.demo.tokenizer import EOS

if TYPE_CHECKING:
    import torch

_SENTENCE = re.compile(r"[^.!]+[.!]")
_WORD = re.compile(r"[a-z]+")


@dataclass(frozen=True)
class Quality:
    """Shares in [0, 1] over sampled continuations at temperature 1, and one perplexity.

    open_positive: positive ones among the continuations of open prompts that take a side;
    open_decided: those that take a side; context_followed: continuations with their context's
    sentiment; fact_sentiment: sentiment words among the words after facts; grammatical: sentences
    that the grammar can write; perplexity: per token of unseen documents.
    """

    open_positive: float
    open_decided: float
    context_followed: float
    fact_sentiment: float
    grammatical: float
    perplexity: float

    def failures(self) -> list[str]:
        """One line for each gate that is missed."""
        gates = {
            "open_positive in [0.4, 0.6]": 0.4 <= self.open_positive <= 0.6,
            "open_decided >= 0.95": self.open_decided >= 0.95,
            "context_followed >= 0.8": self.context_followed >= 0.8,
            "fact_sentiment <= 0.02": self.fact_sentiment <= 0.02,
            "grammatical >= 0.95": self.grammatical >= 0.95,
            "perplexity <= 6": self.perplexity <= 6,
        }
        figures = asdict(self)
        return [
            f"expected {gate}, got {figures[gate.split()[0]]:.3f}"
            for gate, passed in gates.items()
            if not passed
        ]


def measure_quality(model: Any, tokenizer: Any, seed: int, n: int = 128) -> Quality:
    """Sample and score: ``n`` open prompts, ``n`` of each context, ``n`` fact texts."""
    openings = grammar.open_prompts(n, seed)
    opened = sample(model, tokenizer, openings, seed=seed)
    signs = [grammar.sentiment(text) for text in opened]
    contexts = {sign: grammar.context_prompts(n, sign, seed) for sign in grammar.SIGNS}
    followed = [
        grammar.sentiment(text) == sign
        for sign, prompts in contexts.items()
        for text in sample(model, tokenizer, prompts, seed=seed + sign)
    ]
    told = grammar.facts(n, seed)
    after_facts = sample(model, tokenizer, told, seed=seed + 2)
    words = sum(len(_WORD.findall(text)) for text in after_facts)
    polar = sum(sum(grammar.sentiment_words(text)) for text in after_facts)
    return Quality(
        open_positive=signs.count(1) / max(1, n - signs.count(0)),
        open_decided=1 - signs.count(0) / n,
        context_followed=sum(followed) / len(followed),
        fact_sentiment=polar / max(1, words),
        grammatical=_grammatical(openings + told, opened + after_facts),
        perplexity=perplexity(model, tokenizer, list(grammar.corpus(n, seed + 10_000))),
    )


def sample(
    model: Any, tokenizer: Any, prompts: list[str], *, seed: int, n_tokens: int = 20
) -> list[str]:
    """One continuation of each prompt at temperature 1, without the prompt."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    ids, mask = _left_padded(tokenizer(prompts)["input_ids"])
    width = ids.shape[1]
    cache = None
    step_ids = ids
    with torch.inference_mode():
        for _ in range(n_tokens):
            positions = (mask.cumsum(-1) - 1).clamp(min=0)[:, -step_ids.shape[1] :]
            output = model(
                input_ids=step_ids,
                attention_mask=mask,
                position_ids=positions,
                past_key_values=cache,
                use_cache=True,
            )
            cache = output.past_key_values
            chances = output.logits[:, -1].float().softmax(-1)
            step_ids = torch.multinomial(chances, 1, generator=generator)
            ids = torch.cat([ids, step_ids], dim=1)
            mask = torch.cat([mask, torch.ones_like(step_ids)], dim=1)
    return [_decode(tokenizer, row.tolist()) for row in ids[:, width:]]


def perplexity(model: Any, tokenizer: Any, texts: list[str]) -> float:
    """exp of the mean negative log-likelihood per token of ``texts``, BOS not predicted."""
    import torch

    total, count = 0.0, 0
    with torch.inference_mode():
        for text in texts:
            ids = torch.tensor([[*tokenizer(text)["input_ids"], EOS]])
            logits = model(input_ids=ids, use_cache=False).logits[0, :-1].float()
            total += float(torch.nn.functional.cross_entropy(logits, ids[0, 1:], reduction="sum"))
            count += ids.shape[1] - 1
    return math.exp(total / count)


def _left_padded(rows: list[list[int]]) -> tuple[torch.Tensor, torch.Tensor]:
    """ids and mask, int64 (row, longest)."""
    import torch

    width = max(len(row) for row in rows)
    ids = torch.tensor([[EOS] * (width - len(row)) + row for row in rows])
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows])
    return ids, mask


def _decode(tokenizer: Any, ids: list[int]) -> str:
    end = ids.index(EOS) if EOS in ids else len(ids)
    return str(tokenizer.decode(ids[:end])).strip()


def _grammatical(prompts: list[str], continuations: list[str]) -> float:
    """The share of complete sentences, begun in the prompt or after it, that are the grammar's."""
    sentences = [
        sentence
        for prompt, text in zip(prompts, continuations, strict=True)
        for sentence in _SENTENCE.findall(f"{_unfinished(prompt)} {text}")
    ]
    return sum(map(grammar.is_sentence, sentences)) / max(1, len(sentences))


def _unfinished(prompt: str) -> str:
    return re.split(r"[.!]", prompt)[-1]
