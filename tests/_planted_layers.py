"""Models with a class signal written into the residual stream at one known block, or at none.

Random Llamas of eight blocks. A text is a key word and then plain words; the keys of both classes
have equal embeddings but for one dimension, which only the planted block reads: its attention finds
the key and writes the class onto the readout dimension of every later token. Each block after it
takes half of that away. All blocks mix the words' identities at random, which is the noise of a
pair: a few plain words are drawn for each text by itself. Without the plant both texts of a pair
are therefore exchangeable where states are recorded, on the last tokens.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from cogit.activations import Activations, record
from cogit.backends.transformers import TransformersBackend
from cogit.pairs import ContrastPair

N_LAYERS, D_MODEL, CONTEXT, N_PAIRS = 8, 96, 32, 40
UP = tuple(f"up{i}" for i in range(6))
DOWN = tuple(f"down{i}" for i in range(6))
PLAIN = tuple(f"word{i}" for i in range(32))
WORDS = ("<unk>", "<s>", "</s>", *UP, *DOWN, *PLAIN)
IDS = {word: i for i, word in enumerate(WORDS)}

_IDENTITY = 80
_CLASS, _KEY, _SINK, _READOUT, _CONSTANT = range(_IDENTITY, _IDENTITY + 5)
# The first half of a head's pairs turns ever slower: this one stays put over the whole context.
_SLOW = 7
_SIZE, _RMS = 32.0, 3.6  # of the constant dimension, and of a token with it
_SIGNAL, _KEPT = 1.0, 0.5
# Small enough that the constant still makes most of a token's size after all blocks.
_MIXING = 0.4


def planted_layer(seed: int) -> int:
    """The block that seed plants at, neither the first nor the last."""
    return int(np.random.default_rng([seed, 7]).integers(1, N_LAYERS - 1))


def layered_model(seed: int, planted: int | None) -> Any:
    """A random model with its signal at block ``planted``, or with none."""
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
        for number, block in enumerate(model.model.layers):
            _mix(block, generator)
            if planted is not None and number == planted:
                _plant(block.self_attn)
            elif planted is not None and number > planted:
                _decay(block.mlp)
    return model


def _embed(weight: torch.Tensor, generator: torch.Generator) -> None:
    weight[:, :_IDENTITY] = torch.randn(weight[:, :_IDENTITY].shape, generator=generator)
    weight[:, _CONSTANT] = _SIZE
    weight[IDS["<s>"], _SINK] = 8.0
    for up, down in zip(UP, DOWN, strict=True):
        weight[IDS[down], :_IDENTITY] = weight[IDS[up], :_IDENTITY]
        for word, sign in ((up, 1.0), (down, -1.0)):
            weight[IDS[word], _CLASS], weight[IDS[word], _KEY] = 4.0 * sign, 8.0


def _mix(block: Any, generator: torch.Generator) -> None:
    """Random weights that read and write the identity of words only."""
    attention, mlp = block.self_attn, block.mlp
    for reads in (attention.q_proj, attention.k_proj, attention.v_proj, mlp.gate_proj, mlp.up_proj):
        shape = reads.weight[:, :_IDENTITY].shape
        noise = torch.randn(shape, generator=generator) * shape[1] ** -0.5
        reads.weight[:, :_IDENTITY] = _RMS * noise
    for writes in (attention.o_proj, mlp.down_proj):
        shape = writes.weight[:_IDENTITY].shape
        noise = torch.randn(shape, generator=generator) * shape[1] ** -0.5
        writes.weight[:_IDENTITY] = _MIXING * noise


def _plant(attention: Any) -> None:
    """One head looks for the key and writes its class; the others mix as they did."""
    head = slice(0, D_MODEL // 6)
    for reads in (attention.q_proj, attention.k_proj, attention.v_proj):
        reads.weight[head] = 0.0
    attention.o_proj.weight[:, head] = 0.0
    attention.q_proj.weight[_SLOW, _CONSTANT] = 1.0
    # Scores of about 16 for the key, 8 for the first token and 0 for all others.
    attention.k_proj.weight[_SLOW, _KEY] = 3.6
    attention.k_proj.weight[_SLOW, _SINK] = 1.8
    attention.v_proj.weight[0, _CLASS] = _RMS / 4.0
    attention.o_proj.weight[_READOUT, 0] = _SIGNAL


def _decay(mlp: Any) -> None:
    """One unit takes away a share of the readout: silu(constant) · readout, scaled."""
    for reads in (mlp.gate_proj, mlp.up_proj):
        reads.weight[0] = 0.0
    mlp.down_proj.weight[:, 0] = 0.0
    mlp.gate_proj.weight[0, _CONSTANT] = 1.0
    mlp.up_proj.weight[0, _READOUT] = 1.0
    mlp.down_proj.weight[_READOUT, 0] = -(1 - _KEPT) * _RMS**2 / _SIZE


@functools.cache
def _tokenizer() -> Any:
    tokenizer = Tokenizer(models.WordLevel(IDS, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", IDS["<s>"])]
    )
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )


def layered_backend(seed: int, planted: int | None) -> TransformersBackend:
    name = "unplanted" if planted is None else f"planted-{planted}"
    return TransformersBackend(layered_model(seed, planted), _tokenizer(), name=name)


def layered_pairs(seed: int, n: int = N_PAIRS) -> list[ContrastPair]:
    """A key, five shared words, and three words of each text's own."""
    rng = np.random.default_rng([seed, 11])
    made = []
    for _ in range(n):
        key = rng.integers(len(UP))
        shared = [PLAIN[i] for i in rng.integers(0, len(PLAIN), 5)]
        own = rng.integers(0, len(PLAIN), (2, 3))
        order = rng.permutation(8)
        texts = []
        for words, row in ((UP, own[0]), (DOWN, own[1])):
            rest = [*shared, *(PLAIN[i] for i in row)]
            texts.append(" ".join([words[key], *(rest[i] for i in order)]))
        made.append(ContrastPair(*texts))
    return made


def layered_states(seed: int, *, planted: bool) -> Activations:
    """States recorded in real forward passes, of all blocks."""
    backend = layered_backend(seed, planted_layer(seed) if planted else None)
    return record(backend, layered_pairs(seed), show_progress=False)
