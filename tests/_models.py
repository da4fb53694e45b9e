"""Tiny random transformers models, made from configs: many architectures, no downloads."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from cogit.activations import Activations
from cogit.backends.transformers import TransformersBackend
from cogit.identity import ModelIdentity
from cogit.intervention import Intervention
from cogit.operators import Additive, Operator, Unitary

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

N_LAYERS, D_MODEL, N_VOCAB, CONTEXT = 3, 64, 96, 128
IDENTITY = ModelIdentity("tiny", "llama", N_LAYERS, D_MODEL, N_VOCAB)

_COMMON: dict[str, Any] = {
    "vocab_size": N_VOCAB,
    "hidden_size": D_MODEL,
    "intermediate_size": 2 * D_MODEL,
    "num_hidden_layers": N_LAYERS,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": CONTEXT,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
_MOE = {"num_experts": 4, "num_experts_per_tok": 2}
# What each architecture's config needs beyond, or instead of, the common entries.
ARCHITECTURES: dict[str, dict[str, Any]] = {
    "Llama": {},
    "Mistral": {"sliding_window": None},
    "Qwen2": {},
    "Qwen3": {"head_dim": 16},
    "Gemma": {"head_dim": 16},
    "Gemma2": {"head_dim": 16, "sliding_window": 64, "query_pre_attn_scalar": 16},
    "Phi3": {},
    "Olmo2": {},
    "Granite": {},
    "Starcoder2": {"sliding_window": None},
    "StableLm": {},
    "Cohere": {},
    "Mixtral": {"num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": None},
    "Olmoe": {**_MOE, "num_key_value_heads": 4},
    "Qwen2Moe": {
        **_MOE,
        "moe_intermediate_size": 64,
        "shared_expert_intermediate_size": 64,
        "decoder_sparse_step": 1,
    },
    "Qwen3Moe": {
        **_MOE,
        "moe_intermediate_size": 64,
        "head_dim": 16,
        "decoder_sparse_step": 1,
        "norm_topk_prob": True,
    },
    "Glm4": {"head_dim": 16},
    "SmolLM3": {},
    "Nemotron": {},
    "GPTNeoX": {},
    "GPT2": {"n_embd": D_MODEL, "n_layer": N_LAYERS, "n_head": 4, "n_positions": CONTEXT},
    "Falcon": {"new_decoder_architecture": True, "num_kv_heads": 2, "ffn_hidden_size": 256},
    "Bloom": {"n_layer": N_LAYERS, "n_head": 4},
    "OPT": {"ffn_dim": 2 * D_MODEL, "word_embed_proj_dim": D_MODEL},
}


def tiny_model(architecture: str = "Llama", seed: int = 0) -> Any:
    """A model with weights large enough that layers and positions matter."""
    config = getattr(transformers, f"{architecture}Config")(
        **{**_COMMON, **ARCHITECTURES[architecture]}
    )
    names = (f"{architecture}ForCausalLM", f"{architecture}LMHeadModel")
    kind = next(getattr(transformers, name) for name in names if hasattr(transformers, name))
    model = kind(config).float().eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            noise = torch.randn(weight.shape, generator=generator)
            if weight.ndim >= 2:
                wide = any(part in name for part in ("embed", "wte", "wpe"))
                weight.copy_(noise * (0.5 if wide else weight.shape[-1] ** -0.5))
            elif name.endswith("bias"):
                weight.copy_(0.1 * noise)
    return model


@functools.cache
def word_tokenizer() -> Any:
    """One token for each word ``w3`` .. ``w95``, behind ``<s>``; decodes to words and spaces."""
    vocabulary = {"<unk>": 0, "<s>": 1, "</s>": 2} | {f"w{i}": i for i in range(3, N_VOCAB)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", 1)]
    )
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )


def tiny_backend(
    architecture: str = "Llama", seed: int = 0, dtype: torch.dtype = torch.float32
) -> TransformersBackend:
    model = tiny_model(architecture, seed).to(dtype)
    return TransformersBackend(model, word_tokenizer(), name=f"tiny-{architecture}")


def tokens(n: int, seed: int = 0) -> list[int]:
    """n ordinary token ids."""
    return [int(i) for i in np.random.default_rng(seed).integers(3, N_VOCAB, n)]


def prompt(n: int, seed: int = 0) -> str:
    """A text of n words, so of n + 1 tokens."""
    return " ".join(f"w{i}" for i in tokens(n, seed))


def turn(d_model: int = D_MODEL, seed: int = 0, *, restore: bool = True) -> Unitary:
    """A rank-6 unitary whose change is about as large as a tiny model's states."""
    drawn = Unitary.example(d_model, seed)
    mean = np.zeros(d_model)
    return Unitary(mean, drawn.basis, drawn.matrix, 2.0, restore)


def push(d_model: int = D_MODEL, seed: int = 0, length: float = 3.0) -> Additive:
    """An additive vector of the given length."""
    vector = np.random.default_rng(seed).standard_normal(d_model)
    return Additive(length * vector / np.linalg.norm(vector))


def steering(
    backend: TransformersBackend,
    layers: Iterable[int],
    operator: Operator | None = None,
    **options: Any,
) -> Intervention:
    """The same operator (by default a unitary one) on some blocks of a tiny model."""
    return Intervention.everywhere(operator or turn(), layers, backend.identity, **options)


def rows(n: int, d_model: int, seed: int = 0) -> NDArray[np.float32]:
    """Residual-stream rows of unit variance, each with a mean of its own."""
    rng = np.random.default_rng(seed)
    values = rng.standard_normal((n, d_model)) + rng.standard_normal((n, 1))
    return values.astype(np.float32)


def planted(
    n_pairs: int = 40, d_model: int = 32, separation: float = 3.0, seed: int = 0
) -> Activations:
    """States of two Gaussian classes whose means differ along a known direction, the first axis.

    Pairs share most of their variation; the second and third axes vary within a pair.
    """
    rng = np.random.default_rng(seed)
    shared = rng.standard_normal((n_pairs, d_model)) + 2.0
    own = 0.2 * rng.standard_normal((2, n_pairs, d_model))
    own[..., 1:3] *= 8.0
    own[0, :, 0] += separation / 2
    own[1, :, 0] -= separation / 2
    states = (shared + own).astype(np.float32)
    identity = ModelIdentity("planted", "none", 1, d_model, N_VOCAB)
    return Activations(states[0][None], states[1][None], (0,), 4, identity)
