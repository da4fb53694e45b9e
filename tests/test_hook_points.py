"""Hook points: their names, their places in models of many architectures, and what they hold."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from torch import nn

from _models import (
    ARCHITECTURES,
    CONTEXT,
    D_MODEL,
    N_LAYERS,
    N_VOCAB,
    steering,
    tiny_backend,
    tiny_model,
    tokens,
    word_tokenizer,
)
from cogit.backends.taps import tap_blocks
from cogit.backends.transformers import TransformersBackend
from cogit.hook_points import HookPoint, parse_hook_point

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

PARALLEL = {"GPTNeoX", "Falcon", "Cohere"}
WITHOUT_NORMS = {"Olmo2"}
BEHIND = {"Gemma2", "Olmo2", "Glm4"}  # a norm between attention or MLP and the residual stream
LAYERS = range(N_LAYERS)
# Float32 sums of three numbers in another order, relative to the largest state.
SAME = 1e-6


def read(
    backend: TransformersBackend, point: HookPoint, sequences: list[list[int]] | None = None
) -> list[NDArray[np.float32]]:
    """(layer, token, d_model) of every token."""
    given = [tokens(9, seed=1)] if sequences is None else sequences
    spans = [(0, len(ids)) for ids in given]
    return backend.states(given, LAYERS, spans, mean=False, hook_point=point)


def close(one: NDArray[Any], other: NDArray[Any], tolerance: float = SAME) -> None:
    assert one.shape == other.shape
    assert np.abs(one - other).max() <= tolerance * np.abs(other).max()


# ---- names ----


@pytest.mark.parametrize(
    ("text", "point", "block"),
    [
        ("resid_post", "resid_post", None),
        ("hook_resid_mid", "resid_mid", None),
        ("blocks.7.hook_resid_pre", "resid_pre", 7),
        ("blocks.0.hook_attn_out", "attn_out", 0),
        ("blocks.12.mlp_out", "mlp_out", 12),
        ("ln1", "attn_norm", None),
        ("blocks.3.ln2.hook_normalized", "mlp_norm", 3),
    ],
)
def test_names(text: str, point: str, block: int | None) -> None:
    assert parse_hook_point(text) == (HookPoint(point), block)


@pytest.mark.parametrize(
    "text", ["", "resid", "blocks.x.hook_resid_post", "blocks.1.", "hook_attn_norm", "RESID_POST"]
)
def test_other_names_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"^\[hook point\] expected one of resid_pre, [^\n]+$"):
        parse_hook_point(text)


# ---- places ----


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_residual_stream_adds_up(architecture: str) -> None:
    """Row Q20 on every architecture: what is read is where it is said to be."""
    backend = tiny_backend(architecture)
    before, after = (read(backend, p)[0] for p in (HookPoint.RESID_PRE, HookPoint.RESID_POST))
    attention, mlp = (read(backend, p)[0] for p in (HookPoint.ATTN_OUT, HookPoint.MLP_OUT))
    np.testing.assert_array_equal(before[1:], after[:-1])
    np.testing.assert_array_equal(after, backend.residuals([tokens(9, seed=1)], LAYERS)[0])
    if architecture in PARALLEL:
        close(before + attention + mlp, after)
        with pytest.raises(ValueError, match=r"^\[hook point\] expected a resid_mid in block 0 of"):
            read(backend, HookPoint.RESID_MID)
        return
    middle = read(backend, HookPoint.RESID_MID)[0]
    close(before + attention, middle)
    close(middle + mlp, after)
    assert np.abs(attention).max() > 0.01
    assert np.abs(mlp).max() > 0.01


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_norms_are_those_of_the_right_stream(architecture: str) -> None:
    backend = tiny_backend(architecture)
    if architecture in WITHOUT_NORMS:
        for point in (HookPoint.ATTN_NORM, HookPoint.MLP_NORM):
            with pytest.raises(ValueError, match=rf"expected a {point} in block 0 of olmo2"):
                read(backend, point)
        return
    before = read(backend, HookPoint.RESID_PRE)[0]
    parallel = architecture in PARALLEL
    middle = before if parallel else read(backend, HookPoint.RESID_MID)[0]
    names = {
        "GPT2": ("ln_1", "ln_2"),
        "Falcon": ("ln_attn", "ln_mlp"),
        "Cohere": ("input_layernorm", "input_layernorm"),
        "Gemma2": ("input_layernorm", "pre_feedforward_layernorm"),
        "OPT": ("self_attn_layer_norm", "final_layer_norm"),
    }.get(architecture, ("input_layernorm", "post_attention_layernorm"))
    for point, stream, name in zip(
        (HookPoint.ATTN_NORM, HookPoint.MLP_NORM), (before, middle), names, strict=True
    ):
        found = read(backend, point)[0]
        for layer in LAYERS:
            norm = getattr(backend._blocks[layer], name)
            with torch.inference_mode():
                expected = norm(torch.from_numpy(stream[layer])[None])[0].numpy()
            close(found[layer], expected)


def test_what_is_added_is_behind_its_norm() -> None:
    """Attention alone is something else where a norm follows it."""
    for architecture in BEHIND:
        backend = tiny_backend(architecture)
        seen: list[Any] = []
        block = backend._blocks[1]
        handle = block.self_attn.register_forward_hook(lambda m, a, out, s=seen: s.append(out[0]))
        added = read(backend, HookPoint.ATTN_OUT)[0][1]
        handle.remove()
        assert np.abs(seen[-1][0].numpy() - added).max() > 0.01


def test_a_residual_multiplier_counts() -> None:
    model = tiny_model("Granite")
    for block in model.model.layers:
        block.residual_multiplier = 0.22
    backend = TransformersBackend(model, word_tokenizer(), name="granite")
    before, middle, attention = (
        read(backend, p)[0] for p in (HookPoint.RESID_PRE, HookPoint.RESID_MID, HookPoint.ATTN_OUT)
    )
    close(before + attention, middle)


@pytest.mark.parametrize("parallel", [True, False])
def test_one_class_both_ways(parallel: bool) -> None:
    """Falcon-7B shares one norm; GPT-NeoX may be sequential."""
    import transformers

    config = transformers.GPTNeoXConfig(
        vocab_size=N_VOCAB,
        hidden_size=D_MODEL,
        intermediate_size=64,
        num_hidden_layers=N_LAYERS,
        num_attention_heads=4,
        use_parallel_residual=parallel,
    )
    backend = TransformersBackend(
        transformers.GPTNeoXForCausalLM(config), word_tokenizer(), name="neox"
    )
    if parallel:
        with pytest.raises(ValueError, match="a parallel residual"):
            read(backend, HookPoint.RESID_MID)
    else:
        before, middle = (read(backend, p)[0] for p in (HookPoint.RESID_PRE, HookPoint.RESID_MID))
        close(before + read(backend, HookPoint.ATTN_OUT)[0], middle)


def test_half_precision_does_not_blur_the_places() -> None:
    for architecture in ("Llama", "GPTNeoX", "Bloom", "Gemma2"):
        backend = tiny_backend(architecture, dtype=torch.bfloat16)
        before, after, attention, mlp = (
            read(backend, p)[0]
            for p in (
                HookPoint.RESID_PRE,
                HookPoint.RESID_POST,
                HookPoint.ATTN_OUT,
                HookPoint.MLP_OUT,
            )
        )
        # Three roundings to bfloat16.
        close(before + attention + mlp, after, 3 * 2.0**-8)


def test_a_block_that_adds_up_otherwise_is_refused() -> None:
    """OPT-350M puts its norms behind the sum: no part of it is read at a guess."""
    import transformers

    config = transformers.OPTConfig(
        vocab_size=N_VOCAB,
        hidden_size=D_MODEL,
        word_embed_proj_dim=D_MODEL,
        ffn_dim=64,
        num_hidden_layers=N_LAYERS,
        num_attention_heads=4,
        max_position_embeddings=CONTEXT,
        do_layer_norm_before=False,
    )
    model = transformers.OPTForCausalLM(config)
    backend = TransformersBackend(model, word_tokenizer(), name="opt")
    for point in (HookPoint.ATTN_OUT, HookPoint.RESID_MID, HookPoint.MLP_NORM):
        with pytest.raises(ValueError, match=r"of opt, got a block whose output is not its input"):
            read(backend, point)
    assert read(backend, HookPoint.RESID_POST)[0].shape == (N_LAYERS, 9, D_MODEL)


def test_a_block_without_attention_is_refused() -> None:
    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.mixer = nn.Linear(4, 4)

        def forward(self, hidden: torch.Tensor) -> torch.Tensor:
            return hidden + self.mixer(hidden)

    block = Block()
    with pytest.raises(ValueError, match=r"^\[hook point\] .* of mamba, got .* mixer \(Linear\)"):
        tap_blocks([block], [0], HookPoint.ATTN_OUT, "mamba", lambda: block(torch.ones(1, 3, 4)))
    with pytest.raises(ValueError, match="a block that did not run"):
        tap_blocks([block], [0], HookPoint.ATTN_OUT, "mamba", lambda: None)


# ---- hooks come and go ----


def hooks(model: nn.Module) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())


def test_hooks_are_removed_also_after_an_error() -> None:
    backend = tiny_backend()
    before = hooks(backend.model)
    for point in HookPoint:
        read(backend, point)
    assert hooks(backend.model) == before

    def fail(*_: object) -> None:
        message = "on purpose"
        raise RuntimeError(message)

    handle = backend._blocks[2].register_forward_hook(fail)
    fresh = tiny_backend()
    fresh_handle = fresh._blocks[2].register_forward_hook(fail)
    for model, point in ((backend, HookPoint.RESID_POST), (fresh, HookPoint.ATTN_OUT)):
        with pytest.raises(RuntimeError, match="on purpose"):
            read(model, point)
    handle.remove()
    fresh_handle.remove()
    assert hooks(backend.model) == hooks(fresh.model) == before


def test_states_are_those_of_the_steered_model() -> None:
    backend = tiny_backend()
    plain = {point: read(backend, point)[0] for point in HookPoint}
    other = tiny_backend()
    with other.steer(steering(other, [0])):
        after = read(other, HookPoint.RESID_POST)[0]
        np.testing.assert_array_equal(after, other.residuals([tokens(9, seed=1)], LAYERS)[0])
        np.testing.assert_array_equal(read(other, HookPoint.RESID_PRE)[0][1], after[0])
        # Found while it steers, and still the places of the plain model.
        attention = read(other, HookPoint.ATTN_OUT)[0]
        np.testing.assert_array_equal(attention[0], plain[HookPoint.ATTN_OUT][0])
        assert np.abs(attention[1] - plain[HookPoint.ATTN_OUT][1]).max() > 0.01
    np.testing.assert_array_equal(read(other, HookPoint.RESID_POST)[0], plain[HookPoint.RESID_POST])


# ---- llama.cpp ----


@pytest.mark.llamacpp
def test_llamacpp_reads_the_ends_of_blocks(tiny_hf: Path, tiny_gguf: Path) -> None:
    from cogit.backends.llamacpp import LlamaCppBackend

    here = TransformersBackend.load(tiny_hf, device="cpu")
    sequences, spans = [tokens(9, 1), tokens(5, 2)], [(2, 6), (4, 5)]
    layers = [1, 3]
    with LlamaCppBackend(tiny_gguf, threads=1, kv_type="f32", n_ctx=64) as there:
        for point in (HookPoint.RESID_POST, HookPoint.RESID_PRE):
            for mean in (False, True):
                a, b = (
                    backend.states(sequences, layers, spans, mean=mean, hook_point=point)
                    for backend in (here, there)
                )
                for one, other in zip(a, b, strict=True):
                    # Two implementations of the same float32 model.
                    close(other, one, 1e-4)
        with pytest.raises(ValueError, match=r"^\[hook point\] .* \(llama\), got resid_pre of bl"):
            there.states(sequences, [0, 1], spans, mean=True, hook_point=HookPoint.RESID_PRE)
        with pytest.raises(ValueError, match=r"^\[hook point\] .* got mlp_out; use --backend tran"):
            there.states(sequences, [1], spans, mean=True, hook_point=HookPoint.MLP_OUT)
        assert len(there.logits([sequences[0]])[0]) == 9
