"""Tiny random models shared by the tests: a transformers folder and the same weights as GGUF."""

from __future__ import annotations

import contextlib
import json
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

VOCABULARY = 384
CONTEXT = 96
_CONSONANTS, _VOWELS = "bcdfghklmnprstvz", "aeiou"


def syllables(n_lines: int, seed: int = 0) -> list[str]:
    """Lines of made-up words: text for tokenizers and prompts."""
    rng = random.Random(seed)
    parts = [a + b for a in _CONSONANTS for b in _VOWELS]

    def word() -> str:
        return "".join(rng.choice(parts) for _ in range(rng.randint(1, 4)))

    return [" ".join(word() for _ in range(12)) for _ in range(n_lines)]


def write_tokenizer(folder: Path) -> None:
    """A SentencePiece vocabulary: both transformers and llama.cpp read it as it is."""
    import sentencepiece

    with (folder / "tokenizer.model").open("wb") as stream:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(syllables(500)),
            model_writer=stream,
            vocab_size=VOCABULARY,
            model_type="bpe",
            byte_fallback=True,
            character_coverage=1.0,
            # Neither side normalises, so that any text has the same ids in both.
            normalization_rule_name="identity",
            remove_extra_whitespaces=False,
            unk_id=0,
            bos_id=1,
            eos_id=2,
            pad_id=-1,
            num_threads=1,
            minloglevel=2,
        )
    settings = {
        "tokenizer_class": "LlamaTokenizer",
        "add_bos_token": True,
        "add_eos_token": False,
        "bos_token": "<s>",
        "eos_token": "</s>",
        "unk_token": "<unk>",
        "clean_up_tokenization_spaces": False,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")


def make_llama(folder: Path, n_layers: int, d_model: int = 64, seed: int = 0) -> Path:
    """A random Llama with weights large enough that every block and token matters."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=d_model,
        intermediate_size=2 * d_model,
        num_hidden_layers=n_layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=CONTEXT,
        rms_norm_eps=1e-6,
        bos_token_id=1,
        eos_token_id=2,
        tie_word_embeddings=False,
    )
    model = LlamaForCausalLM(config)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            noise = torch.randn(weight.shape, generator=generator)
            if "norm" in name:
                weight.copy_(1 + 0.1 * noise)
            elif "embed" in name:
                weight.copy_(0.5 * noise)
            else:
                weight.copy_(noise / weight.shape[-1] ** 0.5)
    folder.mkdir(parents=True)
    model.float().save_pretrained(folder)
    write_tokenizer(folder)
    return folder


def converter() -> Path:
    """The converter of the pinned llama.cpp: the packaged one, or one in COGIT_LLAMA_SOURCE."""
    import cogit

    packaged = Path(cogit.__file__).parent / "_llama" / "converter"
    folders = [packaged, *map(Path, filter(None, [os.environ.get("COGIT_LLAMA_SOURCE")]))]
    for folder in folders:
        if (folder / "convert_hf_to_gguf.py").is_file():
            return folder / "convert_hf_to_gguf.py"
    pytest.fail("no convert_hf_to_gguf.py in the package; build cogit or set COGIT_LLAMA_SOURCE")


def make_gguf(folder: Path, outtype: str = "f32") -> Path:
    """The GGUF of a model folder."""
    out = folder.with_name(f"{folder.name}-{outtype}.gguf")
    done = subprocess.run(
        [sys.executable, converter(), folder, "--outfile", out, "--outtype", outtype],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return out


@pytest.fixture(scope="session", autouse=True)
def _one_thread(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Tests share few cores and nobody's settings; transformers is imported by those that need it
    only.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CONFIG_HOME", str(tmp_path_factory.mktemp("no-settings")))
        patch.delenv("COGIT_CONFIG", raising=False)
        patch.setenv("TRANSFORMERS_VERBOSITY", "error")
        patch.setenv("HF_HUB_OFFLINE", "1")
        with contextlib.suppress(ImportError):
            import torch

            torch.set_num_threads(1)
        yield


@pytest.fixture(scope="session")
def tiny_hf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a random Llama of 4 blocks and its SentencePiece tokenizer."""
    return make_llama(tmp_path_factory.mktemp("models") / "tiny", n_layers=4)


@pytest.fixture(scope="session")
def tiny_gguf(tiny_hf: Path) -> Path:
    """The same model as an f32 GGUF."""
    return make_gguf(tiny_hf)


@pytest.fixture(scope="session")
def deep_hf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Llama of 32 narrow blocks."""
    folder = tmp_path_factory.mktemp("models") / "deep"
    return make_llama(folder, n_layers=32, d_model=32, seed=1)


@pytest.fixture(scope="session")
def deep_gguf(deep_hf: Path) -> Path:
    """The 32-block model as an f32 GGUF."""
    return make_gguf(deep_hf)


@pytest.fixture(scope="session")
def tiny_identity(tiny_hf: Path) -> Any:
    """The ModelIdentity of the tiny model, without loading it."""
    from cogit.identity import ModelIdentity

    config = json.loads((tiny_hf / "config.json").read_text(encoding="utf-8"))
    return ModelIdentity(
        name="tiny",
        architecture=config["model_type"],
        n_layers=config["num_hidden_layers"],
        d_model=config["hidden_size"],
        vocab_size=config["vocab_size"],
    )


@pytest.fixture
def restore_variant() -> Iterator[None]:
    """Whatever CPU variant a test chooses, the next one starts with this machine's own."""
    from cogit import _core

    before = _core.info()["cpu_variant"]
    yield
    _core.set_cpu_variant(before)


def pytest_unconfigure() -> None:
    """Close the files that the bindings open on import: each would be a warning at the very end."""
    bindings = sys.modules.get("llama_cpp._utils")
    for name in ("outnull_file", "errnull_file"):
        if hasattr(bindings, name):
            getattr(bindings, name).close()
