"""The models that benches run: the shipped one, and a random one of a more realistic shape."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from cogit.backends import Backend, load_backend

D_MODEL, D_FF, N_HEAD, N_HEAD_KV, CONTEXT = 896, 4864, 14, 2, 512
LAYERS, QUICK_LAYERS = 24, 2


@dataclass(frozen=True)
class Model:
    """One model in the files of both backends. folder: transformers. ggufs: by their type."""

    name: str
    folder: Path
    ggufs: dict[str, Path]

    def load(self, backend: str, dtype: str) -> Backend:
        """dtype: f32 or bf16 for transformers, a GGUF type for llamacpp."""
        if backend == "transformers":
            return load_backend(backend, self.folder, device="cpu", dtype=dtype)
        return load_backend(backend, self.ggufs[dtype])


def demo_model() -> Model:
    """The shipped model: 6 blocks of width 128."""
    assets = Path(str(files("cogit.demo") / "assets"))
    ggufs = {kind: assets / f"demo-{kind}.gguf" for kind in ("f32", "q8_0")}
    return Model("demo", assets / "model", ggufs)


def random_model(
    folder: Path, layers: int, *, gguf: bool = True, vocabulary: int | None = None
) -> Model:
    """A Llama of width 896 with random weights and the demo's tokenizer, written to a folder.

    The shape is that of a model of half a billion parameters, but for a vocabulary of 1024 unless
    another is given. gguf: also write GGUF files, which takes llama.cpp's converter.
    """
    import torch
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    source, target = demo_model().folder, folder / "model"
    tokenizer = AutoTokenizer.from_pretrained(source)
    config = LlamaConfig(
        vocab_size=len(tokenizer) if vocabulary is None else vocabulary,
        hidden_size=D_MODEL,
        intermediate_size=D_FF,
        num_hidden_layers=layers,
        num_attention_heads=N_HEAD,
        num_key_value_heads=N_HEAD_KV,
        max_position_embeddings=CONTEXT,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        initializer_range=0.03,
        tie_word_embeddings=True,
    )
    torch.manual_seed(0)
    LlamaForCausalLM(config).float().save_pretrained(target)
    for file in source.glob("tokenizer*"):
        shutil.copy(file, target)
    ggufs = _convert(target, folder) if gguf else {}
    return Model(f"d{D_MODEL}.l{layers}", target, ggufs)


def _convert(model: Path, folder: Path) -> dict[str, Path]:
    from cogit.backends.llama_engine import LlamaEngine
    from cogit.demo.convert import convert_to_gguf

    ggufs = {kind: folder / f"random-{kind}.gguf" for kind in ("f32", "q8_0")}
    convert_to_gguf(model, ggufs["f32"], "f32")
    LlamaEngine.quantize(ggufs["f32"], ggufs["q8_0"], "q8_0")
    return ggufs
