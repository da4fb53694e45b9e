"""Tiny transformers with a known truth, one for every seed: other weights, words, blocks, strength.

A Llama whose weights are set by hand. One block looks for words of a class in the context and
writes their sign onto a readout direction; where the plant is connected the unembedding turns that
into words of the class, and where it is not, nothing reads it and no steering can have an effect.
Facts follow each other in a fixed order, whatever is steered: the neutral texts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from cogit.backends.transformers import TransformersBackend
from cogit.evaluation.judges import FunctionJudge
from cogit.evaluation.suite import Suite
from cogit.pairs import ContrastPair

D_MODEL, CONTEXT = 96, 64
_IDENTITY = 80
# What each of the other dimensions of the residual stream holds.
CLASS, FLAG, SINK, FACT, READOUT, CONSTANT = range(_IDENTITY, _IDENTITY + 6)
# The first half of a head's pairs turns ever slower: this one stays put over the whole context.
_SLOW = 7
_TYPICAL_RMS = 3.8
_SPECIAL = ("<unk>", "<s>", "</s>")
_SYLLABLES = ("ba", "do", "fi", "ku", "le", "mo", "na", "pi", "ru", "se", "to", "vu", "wi", "za")


@dataclass(frozen=True)
class World:
    """The words and the truth of one model. logit: what the plant adds to words of a class."""

    seed: int
    positive: tuple[str, ...]
    negative: tuple[str, ...]
    plain: tuple[str, ...]
    facts: tuple[str, ...]
    n_layers: int
    planted_layer: int
    logit: float

    @classmethod
    def draw(cls, seed: int) -> World:
        """Everything at random: 5 to 9 words a class, 2 to 4 blocks, a plant in any but the first.

        The plant adds 1.0 to 1.8 nats: unsteered continuations follow a class, never always.
        """
        rng = np.random.default_rng([seed, 77])
        n_class, n_plain, n_facts = (
            int(rng.integers(low, high)) for low, high in ((5, 10), (12, 21), (12, 17))
        )
        words = _words(rng, 2 * n_class + n_plain + n_facts)
        parts = np.split(np.array(words), np.cumsum([n_class, n_class, n_plain]))
        n_layers = int(rng.integers(2, 5))
        positive, negative, plain, facts = (tuple(map(str, part)) for part in parts)
        return cls(
            seed,
            positive,
            negative,
            plain,
            facts,
            n_layers=n_layers,
            planted_layer=int(rng.integers(1, n_layers)),
            logit=float(rng.uniform(1.0, 1.8)),
        )

    @cached_property
    def ids(self) -> dict[str, int]:
        groups = (_SPECIAL, self.positive, self.negative, self.plain, self.facts)
        return {word: i for i, word in enumerate(word for group in groups for word in group)}

    def backend(self, *, connected: bool) -> TransformersBackend:
        """The model; ``connected=False`` leaves out the column that reads the direction."""
        name = "planted" if connected else "unplanted"
        model = _model(self, connected=connected)
        return TransformersBackend(model, _tokenizer(self.ids), name=f"{name}-{self.seed}")

    def judge(self) -> FunctionJudge:
        """Positive minus negative words, over both."""
        return FunctionJudge("planted words", self.score)

    def score(self, text: str) -> float:
        """In [-1, 1]; 0 without a word of a class."""
        words = text.split()
        counts = [sum(word in some for word in words) for some in (self.positive, self.negative)]
        return (counts[0] - counts[1]) / sum(counts) if sum(counts) else 0.0

    def pairs(self, n: int, part: int, *, n_plain: int = 4, n_class: int = 4) -> list[ContrastPair]:
        """Plain words, then words of a class, matched by number. part: other pairs for each."""
        rng = np.random.default_rng([self.seed, part, 5])
        made: list[ContrastPair] = []
        for _ in range(n):
            plain = rng.choice(self.plain, n_plain)
            chosen = rng.integers(0, len(self.positive), n_class)
            texts = [
                " ".join([*plain, *(words[i] for i in chosen)])
                for words in (self.positive, self.negative)
            ]
            made.append(ContrastPair(*texts))
        return list(dict.fromkeys(made))

    def suite(self, n_prompts: int = 40) -> Suite:
        """Plain words to continue, runs of facts, and contexts of the other class."""
        n = len(self.facts)
        runs = {length: [self._run(start, length) for start in range(n)] for length in (4, 7, 9)}
        return Suite(
            prompts=self.texts(self.plain, n_prompts, 3),
            neutral_prompts=tuple(runs[4]),
            neutral_texts=tuple(runs[9][:8]),
            calibration_prompts=self.texts(self.plain, 12, 4),
            calibration_texts=tuple(runs[7][:8]),
            opposite={
                1: self.texts(self.negative, n_prompts // 4, 3),
                -1: self.texts(self.positive, n_prompts // 4, 3),
            },
        )

    def texts(self, words: Sequence[str], n: int, length: int) -> tuple[str, ...]:
        """``n`` different random texts of some words."""
        rng = np.random.default_rng([self.seed, length, len(words)])
        found: dict[str, None] = {}
        while len(found) < n:
            found[" ".join(rng.choice(words, length))] = None
        return tuple(found)

    def _run(self, start: int, length: int) -> str:
        return " ".join(self.facts[(start + i) % len(self.facts)] for i in range(length))


def _words(rng: np.random.Generator, n: int) -> list[str]:
    found: dict[str, None] = {}
    while len(found) < n:
        found["".join(rng.choice(_SYLLABLES, int(rng.integers(2, 4))))] = None
    return list(found)


def _tokenizer(ids: dict[str, int]) -> Any:
    """One token for each word, behind ``<s>``."""
    tokenizer = Tokenizer(models.WordLevel(ids, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", ids["<s>"])]
    )
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )


def _model(world: World, *, connected: bool) -> Any:
    config = transformers.LlamaConfig(
        vocab_size=len(world.ids),
        hidden_size=D_MODEL,
        intermediate_size=64,
        num_hidden_layers=world.n_layers,
        num_attention_heads=6,
        num_key_value_heads=6,
        max_position_embeddings=CONTEXT,
        bos_token_id=world.ids["<s>"],
        eos_token_id=world.ids["</s>"],
        tie_word_embeddings=False,
    )
    model = transformers.LlamaForCausalLM(config).float().eval()
    generator = torch.Generator().manual_seed(world.seed)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            weight.fill_(1.0 if "norm" in name else 0.0)
        embedding = model.model.embed_tokens.weight
        _embed(world, embedding, generator)
        for number, block in enumerate(model.model.layers):
            if number == world.planted_layer:
                _plant(block.self_attn)
            else:
                _mix(block, generator)
        _unembed(world, model.lm_head.weight, embedding, generator, connected=connected)
    return model


def _embed(world: World, weight: torch.Tensor, generator: torch.Generator) -> None:
    weight[:, :_IDENTITY] = torch.randn(weight[:, :_IDENTITY].shape, generator=generator)
    weight[:, CONSTANT] = 32.0
    weight[world.ids["<s>"], SINK] = 8.0
    for words, sign in ((world.positive, 1.0), (world.negative, -1.0)):
        for word in words:
            weight[world.ids[word], CLASS] = 4.0 * sign
            weight[world.ids[word], FLAG] = 8.0
    for word in world.facts:
        weight[world.ids[word], FACT] = 8.0


def _mix(block: Any, generator: torch.Generator) -> None:
    """Random weights that read and write the identity of words only."""
    attention, mlp = block.self_attn, block.mlp
    for reads in (attention.q_proj, attention.k_proj, attention.v_proj, mlp.gate_proj, mlp.up_proj):
        shape = reads.weight[:, :_IDENTITY].shape
        reads.weight[:, :_IDENTITY] = torch.randn(shape, generator=generator) * shape[1] ** -0.5
    for writes in (attention.o_proj, mlp.down_proj):
        shape = writes.weight[:_IDENTITY].shape
        writes.weight[:_IDENTITY] = torch.randn(shape, generator=generator) * shape[1] ** -0.5


def _plant(attention: Any) -> None:
    """Attend to words of a class, else to the first token; write the class to the readout."""
    attention.q_proj.weight[_SLOW, CONSTANT] = 1.0
    # Scores of about 16 for flagged words, 8 for the first token and 0 for all others.
    attention.k_proj.weight[_SLOW, FLAG] = 3.6
    attention.k_proj.weight[_SLOW, SINK] = 1.8
    attention.v_proj.weight[0, CLASS] = 1.0
    attention.o_proj.weight[READOUT, 0] = 12.0


def _unembed(
    world: World,
    weight: torch.Tensor,
    embedding: torch.Tensor,
    generator: torch.Generator,
    *,
    connected: bool,
) -> None:
    def column(dimension: int, words: Sequence[str], logit: float, size: float) -> None:
        """Give words a logit where the dimension holds ``size``."""
        for word in words:
            weight[world.ids[word], dimension] += logit * _TYPICAL_RMS / size

    classes = (*world.positive, *world.negative)
    weight[:, :_IDENTITY] = 0.05 * torch.randn(weight[:, :_IDENTITY].shape, generator=generator)
    column(CONSTANT, _SPECIAL, -20.0, 32.0)
    column(CONSTANT, world.facts, -4.0, 32.0)
    column(FACT, classes, -8.0, 8.0)
    column(FACT, world.facts, 8.0, 8.0)
    for word, following in zip(world.facts, (*world.facts[1:], world.facts[0]), strict=True):
        own = embedding[world.ids[word], :_IDENTITY]
        weight[world.ids[following], :_IDENTITY] += 6.0 * _TYPICAL_RMS * own / own.dot(own)
    if connected:
        for sign, words in ((1, world.positive), (-1, world.negative)):
            column(READOUT, words, world.logit * sign, 12.0)
