"""A tiny random Llama: written as GGUF, and computed here in plain float64 as the reference."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import gguf
import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

N_LAYER, D_MODEL, N_VOCAB, N_CTX = 4, 64, 256, 512
N_HEAD, N_HEAD_KV, D_HEAD, D_FF = 4, 2, 16, 128
EPS, ROPE_BASE = 1e-5, 10000.0

Map = Callable[["NDArray[np.float64]"], "NDArray[np.float64]"]


@dataclass(frozen=True)
class Trace:
    """logits: (token, vocab). before, after: per layer (token, d_model), on both sides of a map."""

    logits: NDArray[np.float64]
    before: list[NDArray[np.float64]]
    after: list[NDArray[np.float64]]


class TinyLlama:
    """Weights are drawn from a seed; they are float32 numbers, the arithmetic here is float64."""

    def __init__(self, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)

        def matrix(n_out: int, n_in: int, scale: float = 1.0) -> NDArray[np.float32]:
            return (rng.standard_normal((n_out, n_in)) * scale / n_in**0.5).astype(np.float32)

        def gain() -> NDArray[np.float32]:
            return (1 + 0.1 * rng.standard_normal(D_MODEL)).astype(np.float32)

        self.weights: dict[str, NDArray[np.float32]] = {
            "token_embd": matrix(N_VOCAB, D_MODEL, 4.0),
            "output_norm": gain(),
            "output": matrix(N_VOCAB, D_MODEL, 2.0),
        }
        for i in range(N_LAYER):
            self.weights |= {
                f"blk.{i}.attn_norm": gain(),
                f"blk.{i}.attn_q": matrix(N_HEAD * D_HEAD, D_MODEL, 2.0),
                f"blk.{i}.attn_k": matrix(N_HEAD_KV * D_HEAD, D_MODEL, 2.0),
                f"blk.{i}.attn_v": matrix(N_HEAD_KV * D_HEAD, D_MODEL),
                f"blk.{i}.attn_output": matrix(D_MODEL, N_HEAD * D_HEAD),
                f"blk.{i}.ffn_norm": gain(),
                f"blk.{i}.ffn_gate": matrix(D_FF, D_MODEL),
                f"blk.{i}.ffn_up": matrix(D_FF, D_MODEL),
                f"blk.{i}.ffn_down": matrix(D_MODEL, D_FF),
            }

    def write(self, path: Path) -> Path:
        writer = gguf.GGUFWriter(path, "llama")
        writer.add_context_length(N_CTX)
        writer.add_embedding_length(D_MODEL)
        writer.add_block_count(N_LAYER)
        writer.add_feed_forward_length(D_FF)
        writer.add_head_count(N_HEAD)
        writer.add_head_count_kv(N_HEAD_KV)
        writer.add_layer_norm_rms_eps(EPS)
        writer.add_rope_freq_base(ROPE_BASE)
        writer.add_rope_dimension_count(D_HEAD)
        writer.add_vocab_size(N_VOCAB)
        writer.add_file_type(gguf.LlamaFileType.ALL_F32)
        writer.add_tokenizer_model("no_vocab")
        for name, values in self.weights.items():
            writer.add_tensor(f"{name}.weight", values)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        return path

    def forward(self, tokens: list[int], maps: Mapping[int, Map] | None = None) -> Trace:
        """One sequence from position 0, with a map on the residual stream after given blocks."""
        w = {name: values.astype(np.float64) for name, values in self.weights.items()}
        h = w["token_embd"][tokens]
        before, after = [], []
        for i in range(N_LAYER):
            b = f"blk.{i}."
            h = h + _attention(w, b, _rms_norm(h, w[b + "attn_norm"]))
            x = _rms_norm(h, w[b + "ffn_norm"])
            gate = x @ w[b + "ffn_gate"].T
            up = x @ w[b + "ffn_up"].T
            h = h + (gate / (1 + np.exp(-gate)) * up) @ w[b + "ffn_down"].T
            before.append(h)
            if maps and i in maps:
                h = maps[i](h)
            after.append(h)
        return Trace(_rms_norm(h, w["output_norm"]) @ w["output"].T, before, after)


def _rms_norm(x: NDArray[np.float64], gain: NDArray[np.float64]) -> NDArray[np.float64]:
    return x / np.sqrt((x**2).mean(-1, keepdims=True) + EPS) * gain


def _rope(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Rotate neighbouring pairs; x is (token, head, d_head)."""
    frequency = ROPE_BASE ** (-np.arange(0, D_HEAD, 2) / D_HEAD)
    angle = np.arange(len(x))[:, None, None] * frequency  # (token, 1, pair)
    z = (x[..., 0::2] + 1j * x[..., 1::2]) * np.exp(1j * angle)
    return np.stack([z.real, z.imag], -1).reshape(x.shape)


def _attention(
    w: Mapping[str, NDArray[np.float64]], b: str, x: NDArray[np.float64]
) -> NDArray[np.float64]:
    n = len(x)
    q = _rope((x @ w[b + "attn_q"].T).reshape(n, N_HEAD, D_HEAD))
    k = _rope((x @ w[b + "attn_k"].T).reshape(n, N_HEAD_KV, D_HEAD))
    v = (x @ w[b + "attn_v"].T).reshape(n, N_HEAD_KV, D_HEAD)
    k, v = (np.repeat(y, N_HEAD // N_HEAD_KV, axis=1) for y in (k, v))
    scores = np.einsum("qhd,khd->hqk", q, k) / D_HEAD**0.5
    scores[:, np.triu(np.ones((n, n), bool), 1)] = -np.inf
    p = np.exp(scores - scores.max(-1, keepdims=True))
    p /= p.sum(-1, keepdims=True)
    mixed: NDArray[np.float64] = np.einsum("hqk,khd->qhd", p, v).reshape(n, N_HEAD * D_HEAD)
    return mixed @ w[b + "attn_output"].T
