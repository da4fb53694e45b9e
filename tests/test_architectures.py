"""transformers and llama.cpp give the same logits, steered alike, on many tiny architectures."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

import _convert_models
from _models import CONTEXT, N_LAYERS, push, tiny_model, tokens, turn, word_tokenizer
from cogit.backends.llama_library import converter_path
from cogit.backends.llamacpp import LlamaCppBackend
from cogit.backends.transformers import TransformersBackend
from cogit.intervention import Intervention
from cogit.operators import Operator
from cogit.positions import Positions
from cogit.sampling import Sampler, SamplingOptions

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.llamacpp

ARCHITECTURES = [
    "Llama",
    "Mistral",
    "Qwen2",
    "Qwen3",
    "Gemma",
    "Gemma2",
    "Phi3",
    "Olmo2",
    "Granite",
    "Starcoder2",
    "StableLm",
    "Cohere",
    "Mixtral",
    "Olmoe",
    "Qwen2Moe",
    "Qwen3Moe",
    "Glm4",
    "SmolLM3",
    "Nemotron",
    "GPTNeoX",
    "GPT2",
    "Falcon",
    "Bloom",
]
# Entries that the converter reads and that transformers no longer writes.
OLD_ENTRIES = {
    "GPTNeoX": {"rotary_pct": 0.25, "rotary_emb_base": 10000},
    "GPT2": {"n_ctx": CONTEXT},
}
OPERATORS: dict[str, Operator] = {"unitary, restored": turn(restore=True), "additive": push()}
LAYERS = {"all": range(N_LAYERS), "first": range(1), "last": range(N_LAYERS - 1, N_LAYERS)}
IDS = tokens(21, seed=7)
# llama.cpp reads GELU from a table of float16 numbers, which are off by up to 2^-11 of themselves.
GELU = {"Gemma", "Gemma2", "Starcoder2", "GPTNeoX", "GPT2", "Falcon", "Bloom"}
# In units of the logits' standard deviation: float32 through three blocks in another order of
# summation (measured below 1e-5), and six roundings of the table (measured below 1.5e-3).
TOLERANCE, GELU_TOLERANCE = 1e-4, 6 * 2.0**-11

Pair = tuple[TransformersBackend, LlamaCppBackend]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint and a GGUF file of every architecture."""
    root = tmp_path_factory.mktemp("architectures")
    for name in ARCHITECTURES:
        tiny_model(name).save_pretrained(root / name)
        path = root / name / "config.json"
        config = json.loads(path.read_text(encoding="utf-8")) | OLD_ENTRIES.get(name, {})
        path.write_text(json.dumps(config), encoding="utf-8")
    command = [sys.executable, _convert_models.__file__, str(converter_path())]
    folders = [str(root / name) for name in ARCHITECTURES]
    result = subprocess.run(
        [*command, *folders], capture_output=True, text=True, check=False, timeout=240
    )
    assert result.returncode == 0, result.stderr[-2000:]
    return root


@pytest.fixture(scope="module", params=ARCHITECTURES)
def pair(request: pytest.FixtureRequest, folder: Path) -> Iterator[Pair]:
    """The same weights in both backends."""
    name = request.param
    with (
        TransformersBackend(tiny_model(name), word_tokenizer(), name=name) as here,
        LlamaCppBackend(folder / f"{name}.gguf", n_ctx=CONTEXT, threads=1, kv_type="f32") as there,
    ):
        yield here, there


def check(pair: Pair, intervention: Intervention, n_prompt: int) -> None:
    """Both prove block by block that the change landed; then their logits are compared."""
    here, there = pair
    plain = here.logits([IDS])[0]
    with here.steer(intervention), there.steer(intervention):
        a, b = (backend.logits([IDS], n_prompt=[n_prompt])[0] for backend in pair)
    assert np.abs(a - b).max() <= tolerance(pair) * plain.std()
    assert np.abs(a - plain).max() > 0.1 * plain.std()


def tolerance(pair: Pair) -> float:
    return GELU_TOLERANCE if pair[0].identity.name in GELU else TOLERANCE


def test_unsteered(pair: Pair) -> None:
    assert (pair[0].identity.n_layers, pair[0].identity.d_model) == (
        pair[1].identity.n_layers,
        pair[1].identity.d_model,
    )
    a, b = (backend.logits([IDS])[0] for backend in pair)
    assert np.abs(a - b).max() <= tolerance(pair) * a.std()


@pytest.mark.parametrize("layers", LAYERS)
@pytest.mark.parametrize("kind", OPERATORS)
def test_steered(pair: Pair, kind: str, layers: str) -> None:
    check(
        pair,
        Intervention.everywhere(OPERATORS[kind], LAYERS[layers], pair[0].identity),
        n_prompt=len(IDS),
    )


@pytest.mark.parametrize("positions", ["prompt", "generated", "3-6"])
def test_steered_at_some_positions(pair: Pair, positions: str) -> None:
    intervention = Intervention.everywhere(
        turn(), range(N_LAYERS), pair[0].identity, positions=Positions.parse(positions)
    )
    check(pair, intervention, n_prompt=9)


def test_strength_zero_is_the_plain_model(pair: Pair) -> None:
    there = pair[1]
    plain = there.logits([IDS])[0]
    off = Intervention.everywhere(turn(), range(N_LAYERS), pair[0].identity, strength=0.0)
    with there.steer(off):
        np.testing.assert_array_equal(there.logits([IDS])[0], plain)
    np.testing.assert_array_equal(there.logits([IDS])[0], plain)


@pytest.mark.parametrize("positions", ["all", "prompt", "generated", "3-6"])
@pytest.mark.parametrize("name", ["Llama", "Qwen3"])
def test_batches_generate_the_same_tokens(name: str, positions: str, folder: Path) -> None:
    """Prompts of different lengths in one batch, at temperature 0.8, with common random numbers."""
    prompts, rows = [tokens(n, n) for n in (9, 3, 6)], [4, 0, 7]
    options = SamplingOptions(max_tokens=10, temperature=0.8, stop_at_eos=False)
    with (
        TransformersBackend(tiny_model(name), word_tokenizer(), name=name) as here,
        LlamaCppBackend(
            folder / f"{name}.gguf", n_ctx=64, n_parallel=3, threads=1, kv_type="f32"
        ) as there,
    ):
        intervention = Intervention.everywhere(
            turn(), [0, 2], here.identity, positions=Positions.parse(positions)
        )
        with here.steer(intervention), there.steer(intervention):
            generated = [
                backend._generate(prompts, rows, Sampler(options, rows))
                for backend in (here, there)
            ]
        plain = here._generate(prompts, rows, Sampler(options, rows))
    assert generated[0] == generated[1]
    assert generated[0] != plain


def test_there_are_enough() -> None:
    assert len(set(ARCHITECTURES) - GELU) >= 12
