"""Models with a planted truth: one direction at the last block's output decides two word classes.

A Llama of three blocks whose weights are set by hand. The last block looks for words of a class in
the context and writes their sign onto the readout direction; the unembedding turns that into words
of the same class. Without the plant the unembedding does not read the direction.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from cogit.activations import Activations, record
from cogit.backends.transformers import TransformersBackend
from cogit.demo import arms
from cogit.evaluation.calibrate import CalibrationSet
from cogit.evaluation.evaluate import Arm, ArmResult, EvaluationSet, Evaluator
from cogit.intervention import Intervention
from cogit.operators import fit_operator
from cogit.pairs import ContrastPair
from cogit.sampling import SamplingOptions
from cogit.subspace import fit_subspace

POSITIVE = tuple(f"good{i}" for i in range(8))
NEGATIVE = tuple(f"bad{i}" for i in range(8))
PLAIN = tuple(f"word{i}" for i in range(16))
FACTS = tuple(f"fact{i}" for i in range(12))
# What comes out where a state is pushed far beyond either class: the cost of too much steering.
JUNK = ("junkup", "junkdown")
WORDS = ("<unk>", "<s>", "</s>", *POSITIVE, *NEGATIVE, *PLAIN, *FACTS, *JUNK)
IDS = {word: i for i, word in enumerate(WORDS)}

N_LAYERS, D_MODEL, CONTEXT = 3, 96, 64
PLANTED_LAYER = N_LAYERS - 1
_IDENTITY = 80
# What each of the other dimensions of the residual stream holds.
CLASS, FLAG, SINK, FACT, READOUT, CONSTANT = range(_IDENTITY, _IDENTITY + 6)
# The first half of a head's pairs turns ever slower: this one stays put over the whole context.
_SLOW = 7
_TYPICAL_RMS = 3.8


def planted_model(*, connected: bool = True, seed: int = 0) -> Any:
    """The model; ``connected=False`` leaves out the column that reads the direction."""
    config = transformers.LlamaConfig(
        vocab_size=len(WORDS),
        hidden_size=D_MODEL,
        intermediate_size=64,
        num_hidden_layers=N_LAYERS,
        num_attention_heads=6,
        num_key_value_heads=6,
        max_position_embeddings=CONTEXT,
        bos_token_id=IDS["<s>"],
        eos_token_id=IDS["</s>"],
        tie_word_embeddings=False,
    )
    model = transformers.LlamaForCausalLM(config).float().eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            weight.fill_(1.0 if "norm" in name else 0.0)
        _embed(model.model.embed_tokens.weight, generator)
        for block in model.model.layers[:PLANTED_LAYER]:
            _mix(block, generator)
        _plant(model.model.layers[PLANTED_LAYER].self_attn)
        _unembed(model.lm_head.weight, generator, connected=connected)
    return model


def _embed(weight: torch.Tensor, generator: torch.Generator) -> None:
    weight[:, :_IDENTITY] = torch.randn(weight[:, :_IDENTITY].shape, generator=generator)
    weight[:, CONSTANT] = 32.0
    weight[IDS["<s>"], SINK] = 8.0
    for words, sign in ((POSITIVE, 1.0), (NEGATIVE, -1.0)):
        for word in words:
            weight[IDS[word], CLASS], weight[IDS[word], FLAG] = 4.0 * sign, 8.0
    for word in FACTS:
        weight[IDS[word], FACT] = 8.0


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


def _unembed(weight: torch.Tensor, generator: torch.Generator, *, connected: bool) -> None:
    def column(dimension: int, words: Sequence[str], logit: float, size: float) -> None:
        """Give words a logit where the dimension holds ``size``."""
        for word in words:
            weight[IDS[word], dimension] += logit * _TYPICAL_RMS / size

    weight[:, :_IDENTITY] = 0.05 * torch.randn(weight[:, :_IDENTITY].shape, generator=generator)
    column(CONSTANT, ("<unk>", "<s>", "</s>"), -20.0, 32.0)
    column(CONSTANT, FACTS, -4.0, 32.0)
    column(CONSTANT, JUNK, -12.0, 32.0)
    column(FACT, (*POSITIVE, *NEGATIVE, *JUNK), -6.0, 8.0)
    column(FACT, FACTS, 6.0, 8.0)
    if connected:
        for sign, words, junk in ((1, POSITIVE, JUNK[:1]), (-1, NEGATIVE, JUNK[1:])):
            column(READOUT, words, 1.5 * sign, 12.0)
            column(READOUT, junk, 5.0 * sign, 12.0)


@functools.cache
def word_tokenizer() -> Any:
    """One token for each word, behind ``<s>``."""
    tokenizer = Tokenizer(models.WordLevel(IDS, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", IDS["<s>"])]
    )
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )


def planted_backend(*, connected: bool = True) -> TransformersBackend:
    name = "planted" if connected else "unplanted"
    return TransformersBackend(planted_model(connected=connected), word_tokenizer(), name=name)


def judge(text: str) -> int:
    """The sign of good words minus bad words."""
    words = text.split()
    balance = sum(word in POSITIVE for word in words) - sum(word in NEGATIVE for word in words)
    return int(np.sign(balance))


def pairs(n: int, seed: int, *, n_plain: int, n_class: int) -> list[ContrastPair]:
    """Plain words, then words of a class, matched by number."""
    rng = np.random.default_rng([seed, n_plain, n_class])
    made: list[ContrastPair] = []
    for _ in range(n):
        plain = [PLAIN[i] for i in rng.integers(0, len(PLAIN), n_plain)]
        chosen = rng.integers(0, len(POSITIVE), n_class)
        texts = [" ".join([*plain, *(words[i] for i in chosen)]) for words in (POSITIVE, NEGATIVE)]
        made.append(ContrastPair(*texts))
    return made


def texts(n: int, seed: int, words: Sequence[str], length: int) -> list[str]:
    """Random words of one kind."""
    rng = np.random.default_rng([seed, length])
    return [" ".join(words[i] for i in row) for row in rng.integers(0, len(words), (n, length))]


def recorded(backend: TransformersBackend) -> Activations:
    """States of 32 pairs that end with four words of a class, the tail that is averaged."""
    return record(backend, pairs(32, 0, n_plain=4, n_class=4), show_progress=False)


def learned(
    activations: Activations, kind: str, layer: int = PLANTED_LAYER, strength: float = 1.0
) -> Intervention:
    """An operator fitted to what was recorded at one block."""
    operator = fit_operator(fit_subspace(activations, layer), kind)
    return Intervention({layer: operator}, activations.identity, strength)


def sampling(max_tokens: int = 6) -> SamplingOptions:
    return SamplingOptions(max_tokens=max_tokens, temperature=1.0, top_k=0, seed=3)


def evaluation_set(n: int = 48) -> EvaluationSet:
    """Held-out material; the contexts of ``opposite`` hold words of the other class."""
    return EvaluationSet(
        open_prompts=texts(n, 11, PLAIN, 3),
        opposite={1: texts(n // 2, 12, NEGATIVE, 3), -1: texts(n // 2, 12, POSITIVE, 3)},
        neutral=texts(8, 13, FACTS, 8),
        judge=judge,
        sampling=sampling(),
    )


def calibration_set(n: int = 24) -> CalibrationSet:
    """Pairs of which only the last word has a class, so that plain words decide."""
    return CalibrationSet(
        pairs=pairs(n, 21, n_plain=4, n_class=1),
        prompts=texts(n, 22, PLAIN, 3),
        neutral=texts(8, 23, FACTS, 8),
        sampling=sampling(),
    )


class Run:
    """A planted or unplanted model with every arm of the demo, each evaluated when asked for."""

    def __init__(self, *, connected: bool) -> None:
        self.backend = planted_backend(connected=connected)
        self.activations = recorded(self.backend)
        self.unitary = learned(self.activations, "unitary")
        self.additive = learned(self.activations, "additive")
        self.source, self.fidelity = arms.source_arm(
            self.backend,
            self.activations,
            PLANTED_LAYER,
            texts(8, 31, PLAIN, 4),
            seed=0,
            epochs=4,
        )
        self.evaluator = Evaluator(self.backend, evaluation_set())
        fixed = [*arms.fixed_arms(self.unitary, self.additive), self.source]
        self.arms: dict[str, list[Arm]] = {arm.name: [arm] for arm in fixed}
        self.arms |= arms.random_arms(self.unitary, 0)
        self._results: dict[str, list[ArmResult]] = {}

    def results(self, name: str) -> list[ArmResult]:
        """The results of an arm, or of all draws of a random control."""
        if name not in self._results:
            self._results[name] = [self.evaluator.run(arm) for arm in self.arms[name]]
        return self._results[name]

    def result(self, name: str) -> ArmResult:
        (found,) = self.results(name)
        return found


@functools.cache
def run(*, connected: bool) -> Run:
    """One run for all test files: arms change nothing that outlives them."""
    return Run(connected=connected)
